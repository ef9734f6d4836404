"""Daft: the tars, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixsieve.loaders.base import IMAGES, Folder, How, Loader, Passes, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator


class DaftLoader(Loader):
    """``daft.read_webdataset(TAR)``, a tar at a time: with several it can hang on two cores."""

    name = "daft"
    module = "daft"
    distribution = "daft"
    install = "pip install daft"
    reads = "tars"
    can = frozenset({"decode"})

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import daft

        def start() -> Iterator[Sample]:
            for path in folder.paths(folder.tars):
                frame = daft.read_webdataset(path)
                yield from (_sample(row, decode=how.decode) for row in frame.iter_rows())

        return start


def _sample(row: dict[str, Any], *, decode: bool) -> Sample:
    found = next((row[name] for name in IMAGES if row.get(name) is not None), None)
    data = size = None
    if found is not None:
        with found.open() as file:
            data = file.read()
        if decode:
            image = found.decode()
            image.load()
            size = image.size
    return Sample(row["__key__"], data, size, row.get("txt"))
