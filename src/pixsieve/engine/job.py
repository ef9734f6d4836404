"""What all steps of a run share."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pixsieve.engine.drive import Stop, drive
from pixsieve.engine.ledger import Result
from pixsieve.engine.result import StepTiming
from pixsieve.engine.units import Unit
from pixsieve.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pixsieve.engine import output, work
    from pixsieve.engine.ledger import Workspace
    from pixsieve.engine.progress import Progress
    from pixsieve.engine.units import Context, Done, Session
    from pixsieve.pipeline import Plan


T = TypeVar("T", bound=Result)

MAX_FAILED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a plan is run. None of it changes a byte of the result.

    Attributes:
        workspace: Folder in whose ``.pixsieve`` the working state lies; ``None`` is the output.
            Pipelines that share one share their scores.
        max_failed: Share of images that may fail before the run stops with an error, 0 to 1.
        progress: Hears of the steps; ``None`` is silence.
    """

    workspace: str | None = None
    max_failed: float = MAX_FAILED
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed <= 1:
            msg = f"max_failed is {self.max_failed}; expected a share from 0 to 1"
            raise UsageError(msg)


@dataclass(slots=True, kw_only=True)
class Job:
    """What all steps of a run share, and the times that they took."""

    plan: Plan
    options: RunOptions
    progress: Progress
    session: Session
    stop: Stop
    site: work.Site
    control: Path
    recipe: output.Recipe
    identities: Mapping[tuple[str, str], str]
    timings: list[StepTiming] = field(default_factory=list)
    decoded: int = 0
    unread: int = 0
    found: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    peak: int = 0

    @property
    def ledger(self) -> Workspace:
        return self.site.workspace

    @contextlib.contextmanager
    def step(self, name: str, total: int | None, unit: str) -> Iterator[Underway]:
        """Time a step and tell of it."""
        self.progress.start(name, total, unit)
        wall, cpu = time.perf_counter(), time.process_time()
        step = Underway()
        yield step
        own = time.process_time() - cpu
        self.timings.append(
            StepTiming(
                step=name,
                wall=time.perf_counter() - wall - sum(w for w, _ in step.apart.values()),
                cpu=own
                + (0.0 if self.session.in_process else step.cpu)
                - sum(c for _, c in step.apart.values()),
            )
        )
        self.timings.extend(StepTiming(step=k, wall=w, cpu=c) for k, (w, c) in step.apart.items())
        self.progress.finish(step.facts)

    def drive(self, units: Iterator[Unit], step: Underway) -> Iterator[Done]:
        """Run units, and add their times to the step's."""
        for done in drive(units, self.session, self.stop, self.progress):
            step.cpu += done.cpu
            self.peak = max(self.peak, done.peak)
            for name, (wall, cpu) in done.seconds.items():
                before = step.apart.get(name, (0.0, 0.0))
                step.apart[name] = (before[0] + wall, before[1] + cpu)
            yield done

    def single(
        self, step: Underway, name: str, key: str, kind: type[T], bound: Callable[[Context], T]
    ) -> T:
        """Run one unit, unless the ledger has its result."""
        (found,) = self.all(step, kind, [(key, name, bound)])
        return found

    def all(
        self, step: Underway, kind: type[T], work: Sequence[tuple[str, str, Callable[[Context], T]]]
    ) -> list[T]:
        """Run units of (fingerprint, name, what to do), unless the ledger has their results.

        Results come in the order of the units.
        """
        found: dict[str, T] = {}
        running: dict[str, str] = {}

        def units() -> Iterator[Unit]:
            for key, name, bound in work:
                done = self.ledger.done(key, kind)
                if done is None:
                    running[name] = key
                    yield Unit(name=name, work=bound)
                else:
                    found[key] = done
                    self.progress.advance(1)

        for done in self.drive(units(), step):
            key = running.pop(done.unit.name)
            self.ledger.commit(key, done.value)
            found[key] = done.value
            self.progress.advance(1)
        return [found[key] for key, _, _ in work]


@dataclass(slots=True)
class Underway:
    """The figures of a step while it runs."""

    cpu: float = 0.0
    apart: dict[str, tuple[float, float]] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
