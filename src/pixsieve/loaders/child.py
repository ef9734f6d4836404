"""The process in which one loader runs: it reads a dataset once, or for some seconds.

``python -m pixsieve.loaders.child NUMBER FILE``: the file has the task; what is found goes as lines
of JSON to the file descriptor of that number, since libraries write what they like to the others.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pixsieve.loaders import LOADERS
from pixsieve.loaders.base import Folder, How, Loader, Passes, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUIET = 0.5
"""Seconds after which a line is sent on, though it fills no buffer."""
_GRACE = 5.0  # seconds to end by oneself


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a child is to do.

    Attributes:
        loader: Name of the loader.
        folder: The dataset.
        how: How its samples are read.
        seconds: How long to go on reading it again and again, ``None`` to read it once and send
            every sample.
        again_decoded: Whether to read it once more then, and decode, after ``again``.
    """

    loader: str
    folder: Folder
    how: How
    seconds: float | None = None
    again_decoded: bool = False

    def to_json(self) -> str:
        """Return the task as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        """Return the task of such a text."""
        found: dict[str, Any] = json.loads(text)
        folder: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in found["folder"].items()
        }
        return cls(**{**found, "folder": Folder(**folder), "how": How(**found["how"])})


def main(arguments: Sequence[str]) -> int:
    """Do a task; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that servers are ended, too
    number, path = arguments
    task = Task.from_json(Path(path).read_text(encoding="utf-8"))
    scratch = task.folder.scratch
    threading.Thread(target=_end_with_parent, args=(scratch,), daemon=True).start()
    with os.fdopen(int(number), "w", encoding="utf-8", buffering=1 << 16) as out:
        try:
            _run(task, LOADERS[task.loader], out)
        except Exception as error:  # noqa: BLE001  # whatever a library raises is a result
            traceback.print_exc()
            told = str(error).strip() or "without a message"
            _send(out, "failed", f"{type(error).__name__}: {told}")
            return 1
    return 0


def _end_with_parent(scratch: str) -> None:
    """Wait for the end of the process that holds the other end of standard input."""
    while os.read(0, 1):  # not by way of sys.stdin, whose lock a worker would find taken
        pass
    shutil.rmtree(scratch, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _run(task: Task, loader: Loader, out: TextIO) -> None:
    try:
        version = importlib.metadata.version(loader.distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    _send(out, "version", version)
    began = time.monotonic()
    start = loader.open(task.folder, task.how)
    opened = time.monotonic() - began
    if task.seconds is None:
        count = _send_all(start, out)
        if task.again_decoded:
            _send(out, "again", None)
            _send_all(loader.open(task.folder, replace(task.how, decode=True)), out)
        _send(out, "done", count)
    else:
        _send(out, "done", {"opened": opened} | _measure(start, task.seconds, out))


def _send(out: TextIO, kind: str, value: object) -> None:
    out.write(json.dumps([kind, value]) + "\n")
    out.flush()


def _send_all(start: Passes, out: TextIO) -> int:
    """Send all samples of a pass; return their number."""
    count, sent = 0, time.monotonic()
    for key, image, size, caption in start():
        digest = None if image is None else hashlib.sha256(image).hexdigest()
        if isinstance(caption, bytes):
            caption = caption.decode("utf-8", "surrogateescape")  # noqa: PLW2901
        out.write(json.dumps(["sample", [key, digest, size, caption]]) + "\n")
        count += 1
        if time.monotonic() - sent > _QUIET:
            out.flush()
            sent = time.monotonic()
    return count


def _measure(start: Passes, seconds: float, out: TextIO) -> dict[str, float]:
    """Read for so many seconds, and tell what that took.

    The first pass warms up. If it does not end in that time, what counts is what came since its
    first sample; else whole passes after it, with the time that each takes to begin.
    """
    clock = _Clock(seconds, out)
    began = time.monotonic()
    first = None
    for sample in start():
        if first is None:
            first = time.monotonic() - began
            clock.begin()
        elif clock.count(sample):
            return clock.result(first)
    if first is None:
        msg = "a pass gave no sample"
        raise RuntimeError(msg)
    clock.begin()
    over = False
    while not over:
        for sample in start():
            over = clock.count(sample)
        clock.passes += 1
    return clock.result(first)


class _Clock:
    """Counts samples up to a time."""

    def __init__(self, seconds: float, out: TextIO) -> None:
        self._seconds = seconds
        self._out = out
        self.begin()

    def begin(self) -> None:
        """Count from here on."""
        self._began = self._told = time.monotonic()
        self._images = self._bytes = self.passes = 0

    def count(self, sample: Sample) -> bool:
        """Count a sample; return whether the time is over."""
        now = time.monotonic()
        self._images += 1
        self._bytes += len(sample.image or b"")
        if now - self._told > _QUIET:
            _send(self._out, "at", self._images)
            self._told = now
        return now - self._began > self._seconds

    def result(self, first: float) -> dict[str, float]:
        return {
            "images": self._images,
            "seconds": time.monotonic() - self._began,
            "bytes": self._bytes,
            "passes": self.passes,
            "first": first,
        }


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
