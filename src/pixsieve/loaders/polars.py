"""Polars: the sidecars as a lazy frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.loaders.sidecars import COLUMNS, SidecarLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.loaders.base import Folder, How, Passes, Sample


class PolarsLoader(SidecarLoader):
    """``polars.scan_parquet([...])``."""

    name = "polars"
    module = "polars"
    distribution = "polars"
    install = "pip install polars"

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import polars as pl

        make = self.reader(folder)
        files = folder.paths(folder.sidecars)

        def start() -> Iterator[Sample]:
            frame = pl.scan_parquet(files, glob=False).select(COLUMNS).collect()
            if how.shuffle:
                frame = frame.sample(fraction=1, shuffle=True, seed=0)
            yield from map(make, frame.iter_rows(named=True))

        return start
