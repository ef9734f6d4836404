"""Daft: the tars, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixsieve.loaders.base import IMAGES, Folder, How, Loader, Passes, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

_DECODED = "decoded "


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
        from daft.functions import decode_image_file

        def start() -> Iterator[Sample]:
            for path in folder.paths(folder.tars):
                frame = daft.read_webdataset(path)
                images = [name for name in IMAGES if name in frame.column_names]
                if how.decode:
                    decoded = {
                        f"{_DECODED}{name}": decode_image_file(daft.col(name)) for name in images
                    }
                    frame = frame.with_columns(decoded)
                yield from (_sample(row, images) for row in frame.iter_rows())

        return start


def _sample(row: dict[str, Any], images: list[str]) -> Sample:
    name = next((name for name in images if row[name] is not None), None)
    data = size = None
    if name is not None:
        with row[name].open() as file:
            data = file.read()
        pixels = row.get(f"{_DECODED}{name}")
        if pixels is not None:
            height, width = pixels.shape[:2]
            size = width, height
    return Sample(row["__key__"], data, size, row.get("txt"))
