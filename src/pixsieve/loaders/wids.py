"""wids: random access to the tars through ``wids.json``."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path
from typing import Any

from pixsieve.loaders.base import Folder, How, Loader, Passes, Sample, sample_of

_CACHE = Path("/tmp/_wids_cache")  # noqa: S108  # the library's own choice


class WidsLoader(Loader):
    """``wids.ShardListDataset``; reads one sample after the other, or all in a mixed order.

    It would copy each shard into a cache, and makes a lock file there. So the cache is a folder of
    links to the shards.
    """

    name = "wids"
    module = "wids"
    distribution = "wids"
    install = "pip install wids torch"
    reads = "tars"
    through = "wids.json"

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        fresh = not _CACHE.exists()
        import wids

        if fresh:  # it has made the folder, and does not use it
            with contextlib.suppress(OSError):
                _CACHE.rmdir()
        cache = Path(folder.scratch) / "wids"
        cache.mkdir()
        for name in folder.tars:
            (cache / name).symlink_to(f"{folder.path}/{name}")
        found = wids.ShardListDataset(
            f"{folder.path}/{self.through}", cache_dir=str(cache), transformations=[]
        )
        order = list(range(len(found)))
        if how.shuffle:
            random.Random(0).shuffle(order)  # noqa: S311  # an order, no secret
        if not how.workers:
            return lambda: (_sample(found[index], decode=how.decode) for index in order)

        from torch.utils.data import DataLoader

        loader = DataLoader(
            Decoded(found, decode=how.decode),
            sampler=order,
            batch_size=None,
            num_workers=how.workers,
            persistent_workers=True,
            prefetch_factor=64,
        )
        return lambda: iter(loader)


class Decoded:
    """A dataset whose items are samples, for a DataLoader."""

    def __init__(self, found: Any, *, decode: bool) -> None:
        self._found = found
        self._decode = decode

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, index: int) -> Sample:
        return _sample(self._found[index], decode=self._decode)


def _sample(found: dict[str, Any], *, decode: bool) -> Sample:
    members = {
        name[1:].lower(): data.getvalue()
        for name, data in found.items()
        if isinstance(data, io.BytesIO)
    }
    return sample_of(found["__key__"], members, _size if decode else None)


def _size(extension: str, data: bytes) -> tuple[int, int] | None:
    from wids.wids_decode import decode_images_to_pil

    image = decode_images_to_pil({f".{extension}": data})[f".{extension}"]
    if isinstance(image, bytes):
        return None  # an extension that it does not know stays as it is
    image.load()
    width, height = image.size
    return width, height
