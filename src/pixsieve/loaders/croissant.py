"""mlcroissant: the sidecars' rows through ``croissant.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pixsieve.loaders.sidecars import COLUMNS, SidecarLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.loaders.base import Folder, How, Passes, Sample

_RECORDS = "rows"


class CroissantLoader(SidecarLoader):
    """``mlcroissant.Dataset(jsonld=...).records("rows")``; text comes as bytes."""

    name = "croissant"
    module = "mlcroissant"
    distribution = "mlcroissant"
    install = "pip install mlcroissant pyarrow"
    through = "croissant.json"
    ordered = False
    can = frozenset()

    def open(self, folder: Folder, how: How) -> Passes:  # noqa: ARG002  # it has no choice
        """Load the library, open the dataset, and return what starts a pass over it."""
        import mlcroissant

        found = mlcroissant.Dataset(jsonld=f"{folder.path}/{self.through}")
        make = self.reader(folder)

        def start() -> Iterator[Sample]:
            for record in found.records(_RECORDS):
                yield make({name: _plain(record[f"{_RECORDS}/{name}"]) for name in COLUMNS})

        return start


def _plain(value: Any) -> Any:
    """Return text for bytes, and nothing for what stands for it."""
    if isinstance(value, bytes):
        return value.decode()
    if value is None or value != value:  # noqa: PLR0124  # not a number
        return None
    return value
