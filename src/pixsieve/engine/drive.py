"""Runs units through a session: retry, lost workers, and the wish to stop.

The same for every executor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pixsieve.engine.units import Done, Failed, Lost
from pixsieve.errors import InterruptedRunError, StorageError, WorkerLostError
from pixsieve.schema import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from pixsieve.engine.progress import Progress
    from pixsieve.engine.units import Session, Unit

ATTEMPTS = 3
"""How often a unit is tried when its environment fails: a worker that is lost, an I/O error that
may pass."""
KILLS = 2
"""A sample that ends its worker so often is failed by name."""
WAIT_SECONDS = 0.2
_MAY_PASS = frozenset(
    {errno.EIO, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH}
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Notes signals that ask the run to stop. The second one ends the process at once."""

    def __init__(self) -> None:
        self._signal: int | None = None

    def check(self) -> None:
        """Raise ``InterruptedRunError`` if a signal came."""
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            msg = (
                f"stopped by {name}; what was finished is kept, the same command goes on from there"
            )
            raise InterruptedRunError(msg, 128 + self._signal)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for signals, where this thread may; one that is ignored (nohup) stays so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number


@dataclass(slots=True)
class _History:
    """What went wrong with a unit so far."""

    failures: int = 0
    kills: Counter[int] = field(default_factory=Counter)
    avoid: dict[int, Problem] = field(default_factory=dict)


def drive(
    units: Iterator[Unit], session: Session, stop: Stop, progress: Progress
) -> Iterator[Done]:
    """Yield each unit's result, in any order.

    A unit whose worker was lost runs again, alone. A sample that ended its worker twice, or took
    too long, is not read again: its row says so.

    Raises:
        PixsieveError: what a unit raised, if trying again does not help.
        WorkerLostError: a unit's worker was lost too often.
        InterruptedRunError: a signal came.
    """
    histories: dict[str, _History] = {}
    again: deque[Unit] = deque()
    alone: deque[Unit] = deque()
    in_flight: set[str] = set()
    lonely = False
    while True:
        stop.check()
        while len(in_flight) < session.capacity and not lonely:
            if again:
                unit = again.popleft()
            elif alone and not in_flight:
                unit, lonely = alone.popleft(), True
            elif not alone and (found := next(units, None)) is not None:
                unit = found
            else:
                break
            history = histories.get(unit.name)
            session.submit(unit, history.avoid if history else {})
            in_flight.add(unit.name)
        if not in_flight:
            return
        for outcome in session.wait(WAIT_SECONDS):
            in_flight.remove(outcome.unit.name)
            lonely = False
            match outcome:
                case Done():
                    histories.pop(outcome.unit.name, None)
                    yield outcome
                case Failed():
                    _judge(outcome, histories.setdefault(outcome.unit.name, _History()))
                    again.append(outcome.unit)
                    progress.log(f"{outcome.unit.name}: {outcome.error}; trying again")
                case Lost():
                    history = histories.setdefault(outcome.unit.name, _History())
                    progress.log(_note_loss(outcome, history))
                    alone.append(outcome.unit)


def _judge(outcome: Failed, history: _History) -> None:
    """Count a failure that may pass; raise any other."""
    error = outcome.error
    history.failures += 1
    may_pass = isinstance(error, StorageError) and error.errno in _MAY_PASS
    if may_pass and history.failures < ATTEMPTS:
        return
    if error.__traceback__ is None:  # it comes from another process
        error.add_note(f"in unit {outcome.unit.name}, where it happened:\n{outcome.trace}")
    raise error


def _note_loss(outcome: Lost, history: _History) -> str:
    """Note a lost worker and return what to say of it; raise when there is no sample to blame."""
    if outcome.row is None:
        history.failures += 1
        if history.failures >= ATTEMPTS:
            msg = (
                f"{outcome.unit.name}: its worker ended {history.failures} times ({outcome.cause}) "
                "while it was at no single sample; if memory is short, use fewer workers"
            )
            raise WorkerLostError(msg)
        return f"{outcome.unit.name}: its worker ended ({outcome.cause}); trying again, alone"
    history.kills[outcome.row] += 1
    if outcome.timed_out:
        history.avoid[outcome.row] = Problem.DECODE_TIMEOUT
        return f"{outcome.unit.name}: row {outcome.row} took too long; that sample is failed"
    if history.kills[outcome.row] >= KILLS:
        history.avoid[outcome.row] = Problem.DECODER_CRASH
        return (
            f"{outcome.unit.name}: row {outcome.row} ended its worker again ({outcome.cause}); "
            "that sample is failed"
        )
    return (
        f"{outcome.unit.name}: its worker ended at row {outcome.row} ({outcome.cause}); "
        "trying again, alone"
    )
