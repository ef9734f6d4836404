"""Runs one command in a process of its own and says what it took.

Linux only: memory is read from /proc.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PR_SET_CHILD_SUBREAPER = 36
_SAMPLING = 0.05  # seconds between two looks at the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one command took.

    Attributes:
        wall: Seconds from start to end.
        cpu: User and system CPU seconds of the command and all processes that it started.
        peaks: Peak resident bytes of each process: the command's own, then the others', falling.
        report: The JSON object that the command printed as its last line, or an empty one.
    """

    wall: float
    cpu: float
    peaks: tuple[int, ...]
    report: dict[str, float]


def run(command: Sequence[str]) -> Usage:
    """Run the command to its end.

    Raises:
        SystemExit: It failed; what it wrote to stderr was passed through.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output)
        watch = _MemoryWatch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        peaks = watch.stop()
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime + _reap_orphans(peaks)
        if process.returncode:
            raise SystemExit(f"exit code {process.returncode} from: {' '.join(command)}")
        output.seek(0)
        lines = output.read().decode().splitlines()
    return Usage(
        wall=wall,
        cpu=cpu,
        peaks=(peaks.pop(process.pid), *sorted(peaks.values(), reverse=True)),
        report=json.loads(lines[-1]) if lines else {},
    )


def _reap_orphans(pids: Iterable[int]) -> float:
    """Wait for processes whose parent ended before them; return their CPU seconds.

    Such are a fork server and, through it, its workers: their parent never waits for them.
    """
    seconds = 0.0
    for pid in pids:
        with contextlib.suppress(ChildProcessError):  # its parent has waited for it
            usage = os.wait4(pid, 0)[2]
            seconds += usage.ru_utime + usage.ru_stime
    return seconds


class _MemoryWatch:
    """Reads the high-water mark of each process of a tree, again and again.

    ``ru_maxrss`` will not do: a child starts with the mark of the process that it was forked from,
    so that ``cp``, started from a large program, seems to be as large.
    """

    def __init__(self, pid: int) -> None:
        self._marks: dict[int, int] = {pid: 0}
        self._others: set[int] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLING):
            for pid in sorted(int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()):
                if pid not in self._marks and pid not in self._others:
                    self._meet(pid)
            for pid, mark in self._marks.items():
                self._marks[pid] = max(mark, _high_water(pid))

    def _meet(self, pid: int) -> None:
        """Sort in a process seen for the first time; parents are met before their children."""
        if _parent(pid) in self._marks:
            self._marks[pid] = 0
        else:
            self._others.add(pid)

    def stop(self) -> dict[int, int]:
        """End the watch and return the peaks in bytes by process id."""
        self._stopped.set()
        self._thread.join()
        return self._marks


def _parent(pid: int) -> int:
    """The process that started a living process; 0 for one that has just ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])  # the name, in parentheses, may hold anything


def _high_water(pid: int) -> int:
    """Peak resident bytes of a living process; 0 for one that has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
