"""Parquet tables through the storage seam, always with the same settings, so that equal rows are equal bytes."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixsieve.storage.base import Storage

_SETTINGS = {
    "compression": "zstd",
    "compression_level": 1,
    "version": "2.6",
    "use_dictionary": True,
    "write_statistics": True,
    "store_schema": True,
}
ROW_GROUP = 65_536
"""Rows per row group of long tables."""


def table_bytes(table: pa.Table) -> memoryview:
    """Return ``table`` as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=ROW_GROUP, **_SETTINGS)
    return sink.getbuffer()


def write_table(storage: Storage, path: str, table: pa.Table, *, durable: bool = True) -> None:
    """Write a table that fits in memory; it appears whole or not at all."""
    data = table_bytes(table)
    with storage.create(path, durable=durable) as sink:
        sink.write(data)


@contextlib.contextmanager
def table_writer(
    storage: Storage, path: str, schema: pa.Schema, *, durable: bool = True
) -> Iterator[pq.ParquetWriter]:
    """Write a long table batch by batch; it appears whole or not at all."""
    with (
        storage.create(path, durable=durable) as sink,
        pq.ParquetWriter(pa.PythonFile(sink, "w"), schema, **_SETTINGS) as writer,
    ):
        yield writer


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table of the working state, or the named columns of it.

    Raises:
        StorageError: the file is missing or damaged. The working state can always be made anew.
    """
    try:
        return pq.read_table(path, columns=columns, partitioning=None, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        msg = f"cannot read the table {path}: {error}"
        raise StorageError(msg) from error
