"""Sidecar tables, pixsieve's own and others', as rows to lay beside a tar's samples."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve.schema import SIDECAR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

FORMAT_VERSION = 1
LATER = ("bucket", "member_sizes")
"""Columns that an older sidecar does not have."""
_CHUNK = 1024
_NAMES = ("image_id", "key", "member_name", "split", "bucket")
_FAILURES = (pa.ArrowException, OSError, ValueError)  # what pyarrow raises on damaged files


class UnreadableTableError(Exception):
    """A Parquet file that pyarrow cannot read; the message is pyarrow's."""


class Sidecar:
    """The rows of one shard, by position and by key. Holds one shard's table in memory.

    Attributes:
        kind: ``"pixsieve"``, ``"curator"``, ``"img2dataset"`` or ``"unknown"``.
        schema: The file's schema without its metadata.
        rows: Number of rows that stand for a sample; img2dataset has some for failed downloads too.
        all_rows: Number of all rows in the file.
        comparable: Columns whose meaning is known, so that they can be compared with the tar.
    """

    def __init__(self, path: Path, *, own: bool, light: bool = False) -> None:
        """Read the file.

        Args:
            path: The Parquet file.
            own: Whether it is said to be pixsieve's, whatever its metadata say.
            light: Read only the columns that name samples, and say in which shards they belong.

        Raises:
            UnreadableTableError: If it cannot be read.
        """
        try:
            with path.open("rb") as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
                self.schema: pa.Schema = parquet.schema_arrow.remove_metadata()
                self.metadata: dict[bytes, bytes] = parquet.metadata.metadata or {}
                self.kind = "pixsieve" if own else _kind(self.metadata, set(self.schema.names))
                self.comparable = _comparable(self.kind, set(self.schema.names), light=light)
                wanted = [*self.comparable, *(["status"] if self.kind == "img2dataset" else [])]
                table = parquet.read(
                    columns=[name for name in wanted if name in self.schema.names],
                    use_threads=False,
                )
                table.validate(full=True)
            self.all_rows: int = parquet.metadata.num_rows
            if "status" in table.column_names:
                kept = [status == "success" for status in table["status"].to_pylist()]
                table = table.filter(pa.array(kept, pa.bool_()))
            self._table = table
            self.keys: list[str | None] = self._read_keys()
        except _FAILURES as error:
            raise UnreadableTableError(f"{type(error).__name__}: {error}") from error
        self.rows: int = table.num_rows
        self._chunk = -1
        self._cached: list[dict[str, Any]] = []

    def _read_keys(self) -> list[str | None]:
        for name in ("key", "member_name"):
            if name in self._table.column_names and _is_text(self._table.schema.field(name).type):
                values: list[str | None] = self._table[name].to_pylist()
                return (
                    values
                    if name == "key"
                    else [None if v is None else split_name(v)[0] for v in values]
                )
        return []

    def row(self, index: int) -> dict[str, Any]:
        """Return the comparable columns of one row; cheap when rows are asked for in order."""
        chunk, place = divmod(index, _CHUNK)
        if chunk != self._chunk:
            self._cached = self._table.slice(chunk * _CHUNK, _CHUNK).to_pylist()
            self._chunk = chunk
        return self._cached[place]

    def column(self, name: str) -> list[str | None]:
        """Return one comparable column of text; empty if the file does not have it."""
        if name in self._table.column_names and _is_text(self._table.schema.field(name).type):
            values: list[str | None] = self._table[name].to_pylist()
            return values
        return []

    def check_contract(
        self, complain: Callable[[str, str], None], without: Sequence[str] = ()
    ) -> bool:
        """Check the file against pixsieve's contract; tell whether its rows can be compared.

        Args:
            complain: Takes a rule and a message for each fault.
            without: Columns that may be absent.
        """
        try:
            version = json.loads(self.metadata.get(b"pixsieve", b"")).get("format_version")
        except (ValueError, AttributeError, RecursionError):
            version = None
        if version != FORMAT_VERSION:
            complain(
                "sidecar-version",
                f"the file's metadata 'pixsieve' has the format version {version!r}, "
                f"this program knows {FORMAT_VERSION}",
            )
        absent = {name for name in without if name not in self.schema.names}
        expected = pa.schema([field for field in SIDECAR if field.name not in absent])
        wrong = schema_faults(self.schema, expected)
        for message in wrong:
            complain("sidecar-schema", message)
        for field in SIDECAR:
            if not field.nullable and field.name in self._table.column_names:
                nulls = self._table[field.name].null_count
                if nulls:
                    complain(
                        "sidecar-null", f"column {field.name} has {nulls:,} nulls, expected none"
                    )
        return not wrong


def schema_faults(schema: pa.Schema, contract: pa.Schema) -> list[str]:
    """Say in which columns ``schema`` does not keep to ``contract``; more columns are allowed."""
    faults = []
    for field in contract:
        indices = schema.get_all_field_indices(field.name)
        if len(indices) != 1:
            faults.append(f"column {field.name} is there {len(indices)} times, expected once")
        elif not _same_type(schema.field(indices[0]).type, field.type):
            found = schema.field(indices[0]).type
            faults.append(f"column {field.name} has the type {found}, expected {field.type}")
    faults += [
        f"column {field.name} has the type null; the type must not depend on the values"
        for field in schema
        if pa.types.is_null(field.type) and field.name not in contract.names
    ]
    return faults


def _same_type(found: pa.DataType, expected: pa.DataType) -> bool:
    # the name of a list's element field differs between Parquet writers and means nothing
    if pa.types.is_list(found) and pa.types.is_list(expected):
        return _same_type(found.value_type, expected.value_type)
    return bool(found == expected)


def rows_of(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a Parquet file's rows, a batch in memory; raises ``UnreadableTableError``."""
    try:
        with path.open("rb") as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(
                batch_size=_CHUNK, columns=columns, use_threads=False
            ):
                yield from batch.to_pylist()
    except _FAILURES as error:
        raise UnreadableTableError(f"{type(error).__name__}: {error}") from error


def schema_of(path: Path) -> pa.Schema:
    """Return the schema of a Parquet file without metadata; raises ``UnreadableTableError``."""
    try:
        with path.open("rb") as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            return parquet.schema_arrow.remove_metadata()
    except _FAILURES as error:
        raise UnreadableTableError(f"{type(error).__name__}: {error}") from error


def split_name(name: str) -> tuple[str, str]:
    """Split a name as every WebDataset reader does, at the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _kind(metadata: dict[bytes, bytes], names: set[str]) -> str:
    if b"pixsieve" in metadata:
        return "pixsieve"
    if {"image_id", "tar_file", "member_name", "metadata"} <= names:
        return "curator"
    if {"key", "status"} <= names:
        return "img2dataset"
    return "unknown"


def _comparable(kind: str, names: set[str], *, light: bool) -> tuple[str, ...]:
    known = {
        "pixsieve": tuple(SIDECAR.names),
        "curator": ("image_id", "tar_file", "member_name"),
        "img2dataset": ("key", "caption", "width", "height"),
        "unknown": ("key", "member_name", "tar_file"),
    }[kind]
    if light:
        known = tuple(name for name in known if name in _NAMES)
    return tuple(name for name in known if name in names)
