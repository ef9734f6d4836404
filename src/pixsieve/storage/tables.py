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
    from collections.abc import Iterator, Mapping, Sequence

    from pixsieve.storage.base import Storage

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
_ALWAYS = {"version": "2.6", "store_schema": True}
ROW_GROUP = 65_536
"""Rows per row group of long tables."""


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


def read_row_group(path: str, number: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one row group, or the named columns of it; errors as :func:`read_table`."""
    try:
        with pa.OSFile(path) as data, pq.ParquetFile(data, pre_buffer=False) as file:
            return file.read_row_group(number, columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        msg = f"cannot read row group {number} of the table {path}: {error}"
        raise StorageError(msg) from error


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or the named columns of it.

    Raises:
        StorageError: the file is missing or damaged. The working state can always be made anew.
    """
    try:
        with pa.OSFile(path) as data, pq.ParquetFile(data, pre_buffer=False) as file:
            return file.read(columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        msg = f"cannot read the table {path}: {error}"
        raise StorageError(msg) from error
