"""Units of work, and the executor seam.

The engine compiles a plan into units; an executor runs each of them once, in any order, and tells
how it ended. Retry, resume, failure budget and progress live above this seam, so executors cannot
differ in meaning. A new executor is a new file beside ``local``;
``pixsieve.testing.executor_suite`` checks it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pixsieve.errors import RunError
from pixsieve.scorers.guard import Guard, NoGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from pixsieve.schema import Problem


@dataclass(slots=True)
class Context:
    """What a unit finds in the process that runs it.

    Attributes:
        guard: Protects the process from the sample being read.
        cache: Lives as long as the worker: loaded models and the like.
        seconds: Times of the unit's parts, (wall, CPU), by name.
    """

    guard: Guard = field(default_factory=NoGuard)
    cache: dict[Hashable, Any] = field(default_factory=dict)
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a part of the unit under a name of its own."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = (time.perf_counter() - wall, time.process_time() - cpu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One piece of work, picklable.

    Attributes:
        name: For people: step and subject. Unique in its step.
        work: Module-level function, with its arguments bound, that takes a :class:`Context`.
    """

    name: str
    work: Callable[[Context], Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The unit returned ``value``.

    ``cpu`` and ``wall`` are seconds of its process, ``peak`` the most bytes that this has held.
    """

    unit: Unit
    value: Any
    wall: float
    cpu: float
    seconds: Mapping[str, tuple[float, float]]
    peak: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The unit raised ``error``."""

    unit: Unit
    error: BaseException
    trace: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The unit's process ended.

    ``row`` is the sample that it was reading or scoring, if it was at one.
    """

    unit: Unit
    row: int | None
    cause: str
    timed_out: bool


Outcome = Done | Failed | Lost


class Session(Protocol):
    """A running executor. Leaving it ends all of its processes at once, finished or not."""

    capacity: int
    """How many units it makes sense to have submitted at a time."""

    in_process: bool
    """Whether units run in the caller's own process, so that their CPU time is part of its own."""

    def submit(self, unit: Unit, avoid: Mapping[int, Problem]) -> None:
        """Take a unit; ``avoid`` are rows that it must not touch.

        A unit that was lost before is told so: its guard's ``lost`` is not ``None``.
        """
        ...

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what has ended since the last call, waiting for it at most so long."""
        ...


class Executor(Protocol):
    """Opens sessions."""

    def open(self) -> AbstractContextManager[Session]:
        """Start a session."""
        ...


def perform(unit: Unit, context: Context) -> Done:
    """Run a unit in this process."""
    context.seconds = {}
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        value = unit.work(context)
    except MemoryError as error:  # outside of any one sample, whose reason it would be
        msg = (
            f"{unit.name}: it needs more memory than its process may have; worker processes have "
            "a limit of their own, InlineExecutor() (--executor inline) has none"
        )
        raise RunError(msg) from error
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Done(unit, value, wall, cpu, dict(context.seconds), peak_memory())


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held at a time."""
    # Not ru_maxrss, in which a child starts with the peak of its parent.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
