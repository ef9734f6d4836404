"""One writer for each output folder.

The claim is a file that is made by ``link(2)``, which only one process can win, also on network mounts
where ``flock`` succeeds for everyone. It names its owner: host, boot, process namespace, process and the
process's start time. An owner of the same host is looked up, so a crashed run never blocks; an owner
elsewhere counts as gone when it has not touched its claim for a minute, by the clock of the file system.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pixsieve.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process, told apart from every other one."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    token: str


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Hold the claim on a folder.

    Raises:
        BusyError: another run holds it.
    """
    path = folder / "claim.json"
    me = _me()
    mine = folder / f"claim.{me.token}"
    mine.write_bytes(msgspec.json.encode(asdict(me)))
    try:
        _take(path, mine)
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            beat.join()
            if _read(path) == me:
                path.unlink(missing_ok=True)
    finally:
        mine.unlink(missing_ok=True)


def _take(path: Path, mine: Path) -> None:
    for _ in range(_TRIES):
        try:
            os.link(mine, path)
        except FileExistsError:
            owner = _read(path)
            if owner is not None and _lives(owner, path, mine):
                msg = (
                    f"{path.parent.parent} is being worked on by process {owner.pid} on {owner.host}; "
                    "wait for it, or end it, or choose another output"
                )
                raise BusyError(msg) from None
            aside = path.with_name(f"claim.{secrets.token_hex(4)}.stale")
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside)  # only one of several takers can move it away
                if (moved := _read(aside)) != owner:  # somebody else's new claim was moved: put it back
                    _restore(aside, path, moved)
                aside.unlink(missing_ok=True)
        else:
            return
    msg = f"{path}: the claim changes hands all the time; try again"
    raise BusyError(msg)


def _restore(aside: Path, path: Path, moved: Owner | None) -> None:
    if moved is not None:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)


def _me() -> Owner:
    pid = os.getpid()
    return Owner(
        host=socket.gethostname(),
        boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        namespace=os.readlink("/proc/self/ns/pid"),
        pid=pid,
        started=_start_time(pid) or "",
        token=secrets.token_hex(8),
    )


def _start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot: field 22 of proc(5) stat; ``None``: gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _lives(owner: Owner, path: Path, mine: Path) -> bool:
    me = _me()
    if (owner.host, owner.boot, owner.namespace) == (me.host, me.boot, me.namespace):
        return _start_time(owner.pid) == owner.started
    os.utime(mine)  # the file system's own time
    try:
        age = mine.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return False
    return age < STALE_SECONDS


def _read(path: Path) -> Owner | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Owner)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
