"""Faults, and what must hold of an output folder at any moment of them.

For whoever writes an executor, a storage or a stage: change or stop something at a chosen point of
a run (:class:`Hooks`), look at the folder as a reader would (:class:`Watch`), and compare what
runs came to (:func:`tree`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from pixsieve.engine.progress import Quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONTROL = ".pixsieve"
"""The working state in an output folder, which no reader looks at."""
_ZERO_BLOCKS = bytes(1024)


def tree(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder by relative path, less the working state."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and CONTROL not in path.parts
    }


def times(folder: Path) -> dict[str, tuple[int, int]]:
    """Return (inode, time of change in ns) of every file below a folder, less the working state."""
    return {
        path.relative_to(folder).as_posix(): (found.st_ino, found.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and CONTROL not in path.parts and (found := path.stat())
    }


def leftovers(folder: Path) -> list[str]:
    """Return the files below a folder that no run may leave behind: temporary ones, and claims."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and (path.suffix in (".tmp", ".stale") or path.name.startswith("claim."))
    )


def processes(mark: str) -> list[int]:
    """Return the ids of the processes whose environment holds ``mark``: ``NAME=value``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait until something holds; return whether it came to hold in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Hooks(Quiet):
    """Progress that calls something at chosen points of a run.

    Args:
        at_start: By the name of a step: what to call before its first unit.
        at_unit: What to call when the n-th unit is done, counted from 1 over all steps. Units that
            an earlier run did count, too.
    """

    def __init__(
        self,
        at_start: Mapping[str, Callable[[], object]] | None = None,
        at_unit: Mapping[int, Callable[[], object]] | None = None,
    ) -> None:
        self.steps: list[str] = []
        self.units = 0
        self.messages: list[str] = []
        self._at_start = at_start or {}
        self._at_unit = at_unit or {}

    def start(self, step: str, total: int | None, unit: str) -> None:
        del total, unit
        self.steps.append(step)
        self._at_start.get(step, _nothing)()

    def advance(self, count: int) -> None:
        del count
        self.units += 1
        self._at_unit.get(self.units, _nothing)()

    def log(self, message: str) -> None:
        self.messages.append(message)


def _nothing() -> None: ...


class Watch:
    """A reader who looks at an output folder again and again while runs work on it.

    Attributes:
        looks: How often it looked.
    """

    def __init__(self, folder: Path) -> None:
        self.looks = 0
        self._folder = folder
        self._seen: dict[str, _Seen] = {}

    def look(self) -> None:
        """Check every file that stands under a final name.

        Raises:
            AssertionError: a tar or sidecar is torn, or was written to after it had got its name,
                or the manifest lists a file that is not there with its size.
        """
        self.looks += 1
        for entry in _manifest_files(self._folder):
            path = self._folder / entry["name"]
            size = path.stat().st_size if path.exists() else None
            if size != entry["size"]:
                msg = f"the manifest says {entry['size']} bytes of {path.name}, there are {size}"
                raise AssertionError(msg)
        for path in [*self._folder.glob("[!.]*.tar"), *self._folder.glob("[!.]*.parquet")]:
            with contextlib.suppress(FileNotFoundError):  # taken away by a run of another recipe
                self._check(path)

    def _check(self, path: Path) -> None:
        seen = self._seen.get(path.name)
        if seen is None or path.stat().st_ino != seen.number:
            self._seen[path.name] = _Seen(path)
            check_whole(path)
        elif seen.now() != seen.before:
            msg = f"{path.name} was written to under its final name"
            raise AssertionError(msg)


class _Seen:
    """A file that was seen, held open so that no other one gets its number."""

    _fd: int | None = None

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self.number = os.fstat(self._fd).st_ino
        self.before = self.now()

    def now(self) -> tuple[int, int]:
        """Return the file's size, and its time of change in ns."""
        assert self._fd is not None  # noqa: S101  # it is open until the end
        found = os.fstat(self._fd)
        return found.st_size, found.st_mtime_ns

    def __del__(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)


def _manifest_files(folder: Path) -> list[dict[str, Any]]:
    try:
        text = (folder / "manifest.json").read_bytes()
    except FileNotFoundError:
        return []
    found: list[dict[str, Any]] = json.loads(text)["files"]
    return found


def check_whole(path: Path) -> None:
    """Raise ``AssertionError`` unless a tar or a Parquet file is whole."""
    if path.suffix == ".parquet":
        pq.read_table(path)
        return
    data = path.read_bytes()
    if len(data) % 10_240 or not data.endswith(_ZERO_BLOCKS):
        msg = f"{path.name} does not end as a tar does"
        raise AssertionError(msg)
    with tarfile.open(path) as tar:
        keys = {name.partition(".")[0] for name in tar.getnames()}
    sidecar = path.with_suffix(".parquet")
    with contextlib.suppress(FileNotFoundError):
        rows = pq.read_metadata(sidecar).num_rows
        if rows != len(keys):
            msg = f"{path.name} has {len(keys)} samples, {sidecar.name} {rows} rows"
            raise AssertionError(msg)
