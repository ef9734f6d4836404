"""Lance: the folder ``lance``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.loaders.formats import COLUMNS, FormatLoader, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.loaders.base import Folder, How, Passes, Sample

_ROWS = 64


class LanceLoader(FormatLoader):
    """``lance.dataset("lance")``, in batches; in a mixed order by ``take``."""

    name = "lance"
    module = "lance"
    distribution = "pylance"
    install = "pip install pylance"
    through = "lance"
    can = frozenset({"shuffle"})

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import lance
        import numpy as np

        found = lance.dataset(self.place(folder))
        order = np.random.default_rng(0).permutation(found.count_rows())

        def start() -> Iterator[Sample]:
            if how.shuffle:
                pieces = (order[at : at + _ROWS] for at in range(0, len(order), _ROWS))
                tables = (found.take(piece.tolist(), columns=list(COLUMNS)) for piece in pieces)
            else:
                tables = found.to_batches(columns=list(COLUMNS), batch_size=_ROWS)
            for table in tables:
                yield from map(sample_of, table.to_pylist())

        return start
