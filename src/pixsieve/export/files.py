"""Files of a dataset, and whether they are what they were."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file of the dataset: its name relative to the folder, its size in bytes, its SHA-256."""

    name: str
    size: int
    sha256: str


def record(folder: Path, name: str) -> FileRecord:
    """Return the record of a file as it can be read back."""
    path = folder / name
    return FileRecord(name=name, size=path.stat().st_size, sha256=seal(path))


def record_of(name: str, data: bytes | memoryview) -> FileRecord:
    """Return the record of a file that has these bytes."""
    return FileRecord(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def stands(folder: Path, expected: FileRecord) -> bool:
    """Tell whether a file is there, whole and as it was."""
    path = folder / expected.name
    try:
        return path.stat().st_size == expected.size and seal(path) == expected.sha256
    except OSError:
        return False


def seal(path: Path) -> str:
    """Return the SHA-256 of a file as it can be read back."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
