"""What was done: a small record for each finished unit, under the unit's fingerprint.

A unit counts as done only where its record stands and the tables that it names are still there with
the size and SHA-256 that it gives. No record, or another content: the unit is done again. Records
are files of their own, written whole by rename, so a ledger needs no lock and can be shared; each
has the SHA-256 of its own value.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

import msgspec

from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRecord:
    """A table of the working state: path relative to the workspace, size in bytes, SHA-256."""

    path: str
    size: int
    sha256: str


class Result(Protocol):
    """What work comes to: a frozen dataclass of plain values that names the tables it made."""

    @property
    def tables(self) -> tuple[TableRecord, ...]: ...


T = TypeVar("T", bound=Result)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    sha256: str
    value: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder of the working state: tables named by fingerprint, and the ledger."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("ledger", "tables", "plans", "spool")

    root: Path

    def prepare(self) -> None:
        """Make the folders."""
        for name in self.FOLDERS:
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def table_path(self, fingerprint: str) -> str:
        """Return the path of a unit's table, relative to the workspace."""
        return f"tables/{fingerprint}.parquet"

    def resolve(self, path: str) -> str:
        return str(self.root / path)

    @property
    def spool(self) -> str:
        """Where archives without byte ranges are unpacked."""
        return str(self.root / "spool")

    def done(self, fingerprint: str, kind: type[T]) -> T | None:
        """Return the result of work that was done before and still holds, else ``None``."""
        try:
            record = msgspec.json.decode(self._record(fingerprint).read_bytes(), type=_Record)
            if hashlib.sha256(record.value).hexdigest() != record.sha256:
                return None
            value = msgspec.json.decode(record.value, type=kind)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return value if all(self._holds(table) for table in value.tables) else None

    def commit(self, fingerprint: str, value: Result) -> None:
        """Note that work is done."""
        data = msgspec.json.encode(value)
        record = _Record(sha256=hashlib.sha256(data).hexdigest(), value=msgspec.Raw(data))
        with LocalStorage().create(str(self._record(fingerprint)), durable=False) as sink:
            sink.write(msgspec.json.encode(record))

    def _record(self, fingerprint: str) -> Path:
        return self.root / "ledger" / f"{fingerprint}.json"

    def _holds(self, table: TableRecord) -> bool:
        try:
            with (self.root / table.path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest = hashlib.file_digest(file, "sha256") if size == table.size else None
        except OSError:
            return False
        return digest is not None and digest.hexdigest() == table.sha256
