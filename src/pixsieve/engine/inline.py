"""Runs units in the caller's own process, one after the other.

For debugging, and for tiny inputs.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import deque
from typing import TYPE_CHECKING

from pixsieve.engine.units import Context, Failed, Outcome, Unit, perform
from pixsieve.scorers.guard import NoGuard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pixsieve.schema import Problem


class InlineExecutor:
    """No worker processes. A decoder that crashes takes the whole process with it."""

    @contextlib.contextmanager
    def open(self) -> Iterator[InlineSession]:
        yield InlineSession()


class InlineSession:
    capacity = 1
    in_process = True

    def __init__(self) -> None:
        self._waiting: deque[tuple[Unit, Mapping[int, Problem]]] = deque()
        self._context = Context()

    def submit(self, unit: Unit, avoid: Mapping[int, Problem]) -> None:
        self._waiting.append((unit, avoid))

    def wait(self, seconds: float) -> list[Outcome]:  # noqa: ARG002  # there is nothing to wait for
        if not self._waiting:
            return []
        unit, avoid = self._waiting.popleft()
        self._context.guard = NoGuard(avoid)
        try:
            return [perform(unit, self._context)]
        except Exception as error:  # noqa: BLE001  # every error is an outcome; the engine judges it
            return [Failed(unit, error, traceback.format_exc())]
