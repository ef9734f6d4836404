"""The webdataset library: the tars, by a list of their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.loaders.base import BUFFER, Folder, How, Loader, Passes, Sample, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class WebDatasetLoader(Loader):
    """``webdataset.WebDataset`` over the tars; its shuffle is one of shards and of a buffer."""

    name = "webdataset"
    module = "webdataset"
    distribution = "webdataset"
    install = "pip install webdataset"
    reads = "tars"
    can = frozenset({"shuffle", "decode"})

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""

        def start() -> Iterator[Sample]:
            yield from pipeline(folder, how)

        return start


def pipeline(folder: Folder, how: How) -> Iterable[Sample]:
    """Return the library's pipeline over the tars, ending in samples."""
    import webdataset

    shards = len(folder.tars) if how.shuffle else False
    found = webdataset.WebDataset(folder.paths(folder.tars), shardshuffle=shards, seed=0)
    if how.shuffle:
        found = found.shuffle(BUFFER)
    samples: Iterable[Sample] = found.map(Decoded(decode=how.decode))
    return samples


class Decoded:
    """Makes samples of the library's dictionaries; can be sent to other processes."""

    def __init__(self, *, decode: bool) -> None:
        self.decode = decode

    def __call__(self, found: dict[str, object]) -> Sample:
        members = {name: data for name, data in found.items() if isinstance(data, bytes)}
        return sample_of(str(found["__key__"]), members, _size if self.decode else None)


def _size(extension: str, data: bytes) -> tuple[int, int]:
    from webdataset.autodecode import imagehandler

    image = imagehandler("pil")(extension, data)
    return image.width, image.height
