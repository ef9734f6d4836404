"""PyArrow: the sidecars as a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.loaders.sidecars import COLUMNS, SidecarLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.loaders.base import Folder, How, Passes, Sample


class PyarrowLoader(SidecarLoader):
    """``pyarrow.dataset.dataset([...])``."""

    name = "pyarrow"
    module = "pyarrow"
    distribution = "pyarrow"
    install = "pip install pyarrow"

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import numpy as np
        from pyarrow import dataset

        make = self.reader(folder)
        found = dataset.dataset(folder.paths(folder.sidecars), format="parquet")

        def start() -> Iterator[Sample]:
            if how.shuffle:
                order = np.random.default_rng(0).permutation(found.count_rows())
                batches = found.take(order, columns=list(COLUMNS)).to_batches()
            else:
                batches = found.to_batches(columns=list(COLUMNS))
            for batch in batches:
                yield from map(make, batch.to_pylist())

        return start
