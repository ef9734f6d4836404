"""One writer for each output folder.

The claim is a file that is made by ``link(2)``, which only one process can win, also on network
mounts where ``flock`` succeeds for everyone. It names its owner: host, boot, process namespace,
process and the process's start time. An owner of the same host is looked up, so a crashed run never
blocks; an owner elsewhere counts as gone when it has not touched its claim for a minute, by the
clock of the file system. Claims of the dead are taken away under ``flock``; where that lies, a
claim that is new in that very moment is put back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pixsieve.errors import BusyError
from pixsieve.storage.local import storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
_TRIES = 20
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK})


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
        StorageError: the folder cannot be written to.
    """
    path = folder / "claim.json"
    me = _me()
    mine = folder / f"claim.{me.token}"
    try:
        try:
            mine.write_bytes(msgspec.json.encode(asdict(me)))
            _take(path, mine)
            _sweep(path, mine)
        except OSError as error:
            raise storage_error("cannot write", path, error) from error
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            beat.join()
            with contextlib.suppress(OSError):  # nobody waits for a claim whose owner is gone
                if _read(path) == me:
                    path.unlink()
    finally:
        with contextlib.suppress(OSError):  # what is left of it, the next claim sweeps away
            mine.unlink(missing_ok=True)


def _take(path: Path, mine: Path) -> None:
    for _ in range(_TRIES):
        try:
            _place(mine, path)
        except FileExistsError:
            with _alone(path.parent), contextlib.suppress(FileNotFoundError):
                _take_away(path, mine)
        else:
            return
    msg = f"{path}: the claim changes hands all the time; try again"
    raise BusyError(msg)


def _place(made: Path, path: Path) -> None:
    """Give a file a second name that must be free."""
    try:
        os.link(made, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with path.open("xb") as file:  # exFAT and some network mounts know no links
            file.write(made.read_bytes())


def _take_away(path: Path, mine: Path) -> None:
    """Remove the claim of an owner that is gone, or raise ``BusyError``."""
    owner = _read(path)
    if _lives(owner, path, mine):
        folder = path.parent.parent if path.parent.name.startswith(".") else path.parent
        who = f"process {owner.pid} on {owner.host}" if owner else "a run that starts just now"
        msg = (
            f"{folder} is being worked on by {who}; wait for it, or end it, "
            "or choose another output"
        )
        raise BusyError(msg)
    aside = path.with_name(f"claim.{secrets.token_hex(4)}.stale")
    path.rename(aside)
    if _read(aside) != owner:  # a new claim was moved
        with contextlib.suppress(FileExistsError):
            _place(aside, path)
    aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process in at a time, as far as the file system can."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _sweep(path: Path, mine: Path) -> None:
    """Remove what killed runs left of their tries to take the claim."""
    for other in path.parent.glob("claim.*"):
        with contextlib.suppress(FileNotFoundError):
            if other not in (path, mine) and not _lives(_read(other), other, mine):
                other.unlink()


def _me() -> Owner:
    pid = os.getpid()
    return Owner(
        host=socket.gethostname(),
        boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        namespace=str(Path("/proc/self/ns/pid").readlink()),
        pid=pid,
        started=_start_time(pid) or "",
        token=secrets.token_hex(8),
    )


def _start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; ``None`` if it is gone.

    Source of the format: proc(5), stat, field 22.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _lives(owner: Owner | None, path: Path, mine: Path) -> bool:
    me = _me()
    here = (me.host, me.boot, me.namespace)
    if owner is not None and (owner.host, owner.boot, owner.namespace) == here:
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
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
