"""DuckDB: the sidecars in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.loaders.sidecars import COLUMNS, SidecarLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.loaders.base import Folder, How, Passes, Sample

_ROWS = 1000


class DuckdbLoader(SidecarLoader):
    """``SELECT ... FROM read_parquet([...])``, ordered as the files are."""

    name = "duckdb"
    module = "duckdb"
    distribution = "duckdb"
    install = "pip install duckdb"
    can = frozenset({"shuffle", "workers"})

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import duckdb

        make = self.reader(folder)
        files = folder.paths(folder.sidecars)
        connection = duckdb.connect(config={"threads": max(1, how.workers)})
        order = "hash(key)" if how.shuffle else "file_index, file_row_number"
        sql = (
            f"SELECT {', '.join(COLUMNS)} FROM read_parquet($files, file_row_number=true) "  # noqa: S608  # names are constants
            f"ORDER BY {order}"
        )

        def start() -> Iterator[Sample]:
            found = connection.cursor().execute(sql, {"files": files})
            while rows := found.fetchmany(_ROWS):
                yield from (make(dict(zip(COLUMNS, row, strict=True))) for row in rows)

        return start
