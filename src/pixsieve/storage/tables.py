"""Parquet tables through the storage seam, always with the same settings.

Equal rows are equal bytes.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pixsieve.storage.base import Storage

ROW_GROUP = 65_536
"""Rows per row group of long tables."""

DATASET: Mapping[str, object] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": True,
    "write_statistics": True,
}
"""For tables of a dataset: small, and quick to search."""
WORKING: Mapping[str, object] = {
    "compression": "lz4",
    "use_dictionary": False,
    "write_statistics": False,
}
"""For tables of the working state: many small ones, for which zstd and dictionaries cost four
times as much."""
SELECTION: Mapping[str, object] = {
    "compression": {"rank": "none", "evidence": "lz4", "duplicate_of": "lz4"},
    "use_dictionary": ["status", "stage", "reason", "split", "bucket"],
    "write_statistics": False,
    "write_batch_size": ROW_GROUP,
}
"""For selection tables: long ones, with a few columns of few words."""
_ALWAYS = {"version": "2.6", "store_schema": True}


def table_bytes(table: pa.Table, settings: Mapping[str, object] = WORKING) -> memoryview:
    """Return ``table`` as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=ROW_GROUP, **_ALWAYS, **settings)
    return sink.getbuffer()


@contextlib.contextmanager
def table_writer(
    storage: Storage, path: str, schema: pa.Schema, settings: Mapping[str, object] = WORKING
) -> Iterator[pq.ParquetWriter]:
    """Write a long table of the working state batch by batch; it appears whole or not at all."""
    with (
        storage.create(path, durable=False) as sink,
        pq.ParquetWriter(pa.PythonFile(sink, "w"), schema, **_ALWAYS, **settings) as writer,
    ):
        yield writer


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or those of the named columns that it has, in its order.

    Raises:
        StorageError: the file is missing or damaged. The working state can always be made anew.
    """
    with _opened(path) as file:
        return file.read(columns, use_threads=False)


def read_rows(path: str, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows from ``start`` to before ``stop`` of a long table; errors as above."""
    with _opened(path) as file:
        groups = list(range(start // ROW_GROUP, -(-stop // ROW_GROUP)))
        found = file.read_row_groups(groups, columns, use_threads=False)
        return found.slice(start - start // ROW_GROUP * ROW_GROUP, stop - start)


def runs_of_rows(
    path: str, lengths: Iterable[int], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the rows of a long table in runs of these lengths; errors as above."""
    with _opened(path) as file:
        groups = iter(range(file.num_row_groups))
        names = file.schema_arrow.names
        nothing = file.schema_arrow.empty_table()
        waiting = nothing.select([name for name in names if columns is None or name in columns])
        for length in lengths:
            while len(waiting) < length:
                group = next(groups, None)
                if group is None:
                    msg = f"the table {path} ends too early; run the recipe again"
                    raise StorageError(msg)
                read = file.read_row_group(group, columns, use_threads=False)
                waiting = pa.concat_tables([waiting, read]) if len(waiting) else read
            yield waiting.slice(0, length)
            waiting = waiting.slice(length)


def schema_of(path: str) -> pa.Schema:
    """Return the columns of a table; errors as above."""
    with _opened(path) as file:
        return file.schema_arrow


@contextlib.contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    try:
        with pa.OSFile(path) as data, pq.ParquetFile(data, pre_buffer=False) as file:
            yield file
    except StorageError:
        raise
    except (OSError, pa.ArrowException) as error:
        msg = f"cannot read the table {path}: {error}"
        raise StorageError(msg) from error
