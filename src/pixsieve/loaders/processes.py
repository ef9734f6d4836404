"""Running a loader in a child process: its environment, its limits, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixsieve.errors import InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from pixsieve.loaders.child import Task

STALL = 180.0
"""Seconds in which a loader must give something, from its start on; else it is ended."""
SLOWEST = 20e6
"""Bytes of the tars for which it has a second more: some read all of them before they begin."""
_MARK = "PIXSIEVE_LOADER"
_GRACE = 10.0  # seconds in which a process may end by itself
_CHUNK = 1 << 16
_TAIL = 3  # lines of what it said


class LoaderFailedError(Exception):
    """A loader raised, crashed, or gave nothing for too long; the message says which.

    It becomes a finding or a line of a report, so it is none of the errors that callers see.
    """


@contextlib.contextmanager
def running(task: Task, python: str | None = None) -> Generator[Iterator[tuple[str, Any]]]:
    """Run a task in a child process; yield what yields what it sends, up to its ``done``.

    The child has a home, a folder for temporary files and caches of its own, which are removed
    afterwards with all processes that it left. It is told to stay off the network.

    Args:
        task: What to do; its folder's ``scratch`` is filled in here.
        python: The interpreter, one that has pixsieve installed; this process's own if ``None``.

    Raises:
        LoaderFailedError: while iterating.
    """
    scratch = tempfile.mkdtemp(prefix="pixsieve-")
    reading, writing = os.pipe()
    process = None
    try:
        given = replace(task, folder=replace(task.folder, scratch=scratch))
        written = Path(scratch) / "task.json"  # too long for an argument if there are many shards
        written.write_text(given.to_json(), encoding="utf-8")
        command = [python or sys.executable, "-m", "pixsieve.loaders.child"]
        with (Path(scratch) / "said.txt").open("wb") as said:
            try:
                process = subprocess.Popen(  # noqa: S603  # our own module
                    [*command, str(writing), str(written)],
                    stdin=subprocess.PIPE,  # its end tells the child of this process's end
                    stdout=said,
                    stderr=said,
                    cwd=scratch,
                    env=environment(scratch),
                    pass_fds=(writing,),
                    start_new_session=True,
                )
            except OSError as error:
                msg = f"cannot start {command[0]}: {error}"
                raise LoaderFailedError(msg) from error
            finally:
                os.close(writing)
        yield _messages(process, reading, _limit(task), Path(scratch) / "said.txt")
    finally:
        os.close(reading)
        if process is not None:
            _end(process, scratch)
            if process.stdin is not None:
                process.stdin.close()
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def stoppable() -> Generator[None]:
    """Turn signals that end this process into an exception, so that no child is left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        msg = f"stopped by {signal.Signals(number).name}; the dataset is as it was"
        raise InterruptedRunError(msg, 128 + number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environment(scratch: str) -> dict[str, str]:
    """Return variables that keep a library off the network, the home and the dataset's folder."""
    given = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "RAY_", "WIDS_", "WDS_", "LITDATA_", "DAFT_", "CROISSANT_"))
    }
    return given | {
        _MARK: scratch,
        "HOME": scratch,
        "TMPDIR": scratch,
        "XDG_CACHE_HOME": f"{scratch}/cache",
        "XDG_CONFIG_HOME": f"{scratch}/config",
        "XDG_DATA_HOME": f"{scratch}/data",
        "PYTHONUSERBASE": site.getuserbase(),  # packages there must be found without the home
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "DO_NOT_TRACK": "1",
        "HF_HOME": f"{scratch}/hf",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "CROISSANT_CACHE": f"{scratch}/croissant",
        "WIDS_CACHE": f"{scratch}/wids",
        "LITDATA_CACHE_DIR": f"{scratch}/litdata",
        "DAFT_ANALYTICS_ENABLED": "0",
        "DAFT_PROGRESS_BAR": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
    }


def _messages(
    process: subprocess.Popen[bytes], reading: int, limit: float, said: Path
) -> Iterator[tuple[str, Any]]:
    """Yield kind and value of each message, up to ``done``."""
    rest = b""
    while True:
        ready, _, _ = select.select([reading], [], [], limit)
        if not ready:
            msg = f"gave nothing for {limit:.0f} seconds, and was ended{_tail(said)}"
            raise LoaderFailedError(msg)
        data = os.read(reading, _CHUNK)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            kind, value = json.loads(line)
            if kind == "failed":
                raise LoaderFailedError(value)
            yield kind, value
            if kind == "done":
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE)  # its servers and workers end with it
                return
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    code = process.returncode
    if code is not None and code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
    else:
        how = f"ended with the exit code {code}"
    msg = f"the process {how} before it was done{_tail(said)}"
    raise LoaderFailedError(msg)


def _limit(task: Task) -> float:
    """Return the seconds in which a loader must give something."""
    paths = map(Path, task.folder.paths(task.folder.tars))
    return STALL + sum(path.stat().st_size for path in paths if path.is_file()) / SLOWEST


def _tail(said: Path) -> str:
    """Return the last lines that a child wrote to its standard streams."""
    lines = [line for line in said.read_text(errors="replace").splitlines() if line.strip()]
    return f"; it said: {' | '.join(lines[-_TAIL:])}" if lines else ""


def _end(process: subprocess.Popen[bytes], scratch: str) -> None:
    """End a child, and whatever it has started, also what left its session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
    mark = f"{_MARK}={scratch}".encode()
    deadline = time.monotonic() + _GRACE
    while (left := _marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _marked(mark: bytes) -> list[int]:
    """Return the processes whose environment has the mark; none where there is no ``/proc``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
