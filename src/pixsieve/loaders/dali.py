"""NVIDIA DALI on the processor: the tars through ``X.idx``."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from pixsieve.loaders.base import BUFFER, Folder, How, Loader, Passes, Sample, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCH = 32


class DaliLoader(Loader):
    """``fn.readers.webdataset`` without a GPU; its decoder turns images as EXIF says.

    DALI gives no key; the member that a sample comes from is in its source info.
    """

    name = "dali"
    module = "nvidia.dali"
    distribution = "nvidia-dali-cuda120"
    install = "pip install nvidia-dali-cuda120"
    reads = "tars"
    beside = ".idx"
    turns = True

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        from nvidia.dali import fn, pipeline_def

        names = tuple(name.removesuffix(".tar") + ".idx" for name in folder.tars)
        extensions = [";".join(folder.images), *(["txt"] if folder.captions else [])]

        @pipeline_def(  # type: ignore[untyped-decorator]  # without types
            batch_size=_BATCH, num_threads=max(1, how.workers), device_id=None, seed=0
        )
        def pipeline() -> Any:
            found = fn.readers.webdataset(
                name="reader",
                paths=folder.paths(folder.tars),
                index_paths=folder.paths(names),
                ext=extensions,
                missing_component_behavior="empty",
                random_shuffle=how.shuffle,
                initial_fill=BUFFER,
            )
            parts = list(found) if isinstance(found, (list, tuple)) else [found]
            parts.append(fn.get_property(parts[0], key="source_info"))
            if how.decode:
                parts.append(fn.decoders.image(parts[0]))
            return tuple(parts)

        running = pipeline()
        running.build()
        samples = _samples(running, captions=folder.captions, decode=how.decode)
        length = int(running.reader_meta("reader")["epoch_size"])
        return lambda: itertools.islice(samples, length)


def _samples(running: Any, *, captions: bool, decode: bool) -> Iterator[Sample]:
    """Yield samples for ever, pass after pass."""
    while True:
        parts = list(running.run())
        images = parts.pop(0)
        texts = parts.pop(0) if captions else None
        names = parts.pop(0)
        for number in range(len(images)):
            name = bytes(names.at(number)).decode()
            size = None
            if decode:
                height, width, _ = parts[0].at(number).shape
                size = width, height
            yield Sample(
                key_of(name.rpartition(":")[2]),
                bytes(images.at(number)),
                size,
                bytes(texts.at(number)) if texts is not None else None,
            )
