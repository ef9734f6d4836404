"""How a run tells what it is doing."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

LINE_SECONDS = 5.0
"""A step that takes long prints a line so often, where there is no terminal."""


class Progress(Protocol):
    """Hears of a run's steps, one after the other. Never decides anything."""

    def start(self, step: str, total: int | None, unit: str) -> None:
        """A step begins; ``total`` of its units are expected, if known."""
        ...

    def advance(self, count: int) -> None:
        """So many more of the step's units are done."""
        ...

    def finish(self, facts: Mapping[str, object]) -> None:
        """The step is over; ``facts`` are its figures."""
        ...

    def log(self, message: str) -> None:
        """Something worth a line."""
        ...


class Quiet:
    """Says nothing."""

    def start(self, step: str, total: int | None, unit: str) -> None: ...

    def advance(self, count: int) -> None: ...

    def finish(self, facts: Mapping[str, object]) -> None: ...

    def log(self, message: str) -> None: ...


class _Counting:
    def __init__(self) -> None:
        self.step, self.unit = "", ""
        self.total: int | None = None
        self.count = 0
        self.began = time.monotonic()

    def start(self, step: str, total: int | None, unit: str) -> None:
        self.step, self.total, self.unit, self.count = step, total, unit, 0
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class Lines(_Counting):
    """Plain lines, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream or sys.stderr
        self._said = 0.0

    def start(self, step: str, total: int | None, unit: str) -> None:
        super().start(step, total, unit)
        self._said = time.monotonic()

    def advance(self, count: int) -> None:
        self.count += count
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS:
            self._said = now
            rate = self.count / max(self.seconds, 1e-9)
            share = f" of {self.total:,}" if self.total else ""
            left = f", {(self.total - self.count) / rate:.0f} s left" if self.total and rate else ""
            self.log(f"{self.step}: {self.count:,}{share} {self.unit}, {rate:,.0f}/s{left}")

    def finish(self, facts: Mapping[str, object]) -> None:
        said = ", ".join(f"{value} {name}" for name, value in facts.items())
        self.log(f"{self.step}: {said} in {self.seconds:.1f} s")

    def log(self, message: str) -> None:
        print(message, file=self._stream, flush=True)  # this is what it is for


class JsonLines(_Counting):
    """One JSON object per line, for machines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream or sys.stderr

    def start(self, step: str, total: int | None, unit: str) -> None:
        super().start(step, total, unit)
        self._say({"event": "start", "step": step, "total": total, "unit": unit})

    def advance(self, count: int) -> None:
        self.count += count
        self._say({"event": "advance", "step": self.step, "done": self.count, "total": self.total})

    def finish(self, facts: Mapping[str, object]) -> None:
        seconds = round(self.seconds, 3)
        self._say({"event": "finish", "step": self.step, "seconds": seconds, **facts})

    def log(self, message: str) -> None:
        self._say({"event": "log", "message": message})

    def _say(self, event: Mapping[str, object]) -> None:
        print(json.dumps(event), file=self._stream, flush=True)  # this is what it is for
