"""Runs units in worker processes of this machine.

Python's own pools give up, or wait for ever, when a worker dies, and do not tell which sample it
was reading. Here each worker has a pipe and a shared place, the row that it is at and what it does
to it; a worker that ends is noticed at once, replaced, and reported with that row. Workers come
from a fork server that has the libraries loaded already; none of them outlives its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import pickle
import resource
import signal
import sys
import time
import traceback
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pixsieve.engine.units import Context, Done, Failed, Lost, Outcome, Unit, perform
from pixsieve.errors import RunError, UsageError, WorkerLostError
from pixsieve.processes import without_main
from pixsieve.scorers.guard import READ

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess
    from types import TracebackType

    from pixsieve.schema import Problem

SAMPLE_CPU_SECONDS = 60.0
"""A sample that takes a worker longer to read and decode, in CPU time, is failed."""
SCORING = 16
"""A call of a scorer may take so many times as long, be it for many samples or for one: so it
depends on a sample, not on its company, whether it is given up."""
WORKER_DATA_BYTES = 4 * 1024**3
"""Memory that a worker may allocate; a decoder that asks for more fails its sample."""
_PR_SET_PDEATHSIG = 1
_NO_ROW = -1
_STARTS = 20
_START_SECONDS = 0.05
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_GC_THRESHOLD = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalExecutor:
    """Worker processes on this machine.

    Args:
        workers: How many; ``None`` for one per processor that this process may use.
        sample_cpu_seconds: CPU time after which reading one sample is given up; a scorer has
            :data:`SCORING` times as much for each call.
    """

    workers: int | None = None
    sample_cpu_seconds: float = SAMPLE_CPU_SECONDS

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            msg = f"workers is {self.workers}; expected at least 1"
            raise UsageError(msg)

    @contextlib.contextmanager
    def open(self) -> Iterator[LocalSession]:
        count = self.workers or len(os.sched_getaffinity(0))
        session = LocalSession(count, self.sample_cpu_seconds)
        try:
            yield session
        finally:
            session.close()


@dataclass(slots=True)
class _Worker:
    process: ForkServerProcess
    pipe: Connection
    place: Any  # shared numbers: the row that it is at, and what it does to it
    unit: Unit | None = None


class LocalSession:
    in_process = False

    def __init__(self, workers: int, sample_cpu_seconds: float) -> None:
        self.capacity = 2 * workers  # the next unit is at hand when one ends
        self._seconds = sample_cpu_seconds
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["pixsieve.engine.work", "pixsieve.engine.extras"])
        self._waiting: deque[tuple[Unit, Mapping[int, Problem]]] = deque()
        self._wanted = workers
        self._workers: list[_Worker] = []
        self._lost: dict[str, dict[int, set[int]]] = {}  # of units that lost a worker: where

    def submit(self, unit: Unit, avoid: Mapping[int, Problem]) -> None:
        self._waiting.append((unit, avoid))
        self._assign()

    def wait(self, seconds: float) -> list[Outcome]:
        handles = {worker.pipe: worker for worker in self._workers if worker.unit}
        if not handles:
            return []
        outcomes = []
        for pipe in multiprocessing.connection.wait(list(handles), seconds):
            worker = handles[pipe]  # type: ignore[index]
            unit, worker.unit = worker.unit, None
            assert unit is not None  # noqa: S101
            try:
                outcomes.append(_outcome(unit, worker.pipe.recv()))
            except (EOFError, ConnectionError):
                outcomes.append(self._lose(worker, unit))
            if isinstance(outcomes[-1], Done):
                self._lost.pop(unit.name, None)
        self._assign()
        return outcomes

    def close(self) -> None:
        """End all workers at once.

        Whatever they were writing is unfinished and has no final name.
        """
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.process.close()
            worker.pipe.close()
        self._workers.clear()

    def _assign(self) -> None:
        while self._waiting:
            worker = next((worker for worker in self._workers if worker.unit is None), None)
            if worker is None:
                if len(self._workers) >= self._wanted:
                    return
                worker = self._start()
            unit, avoid = self._waiting.popleft()
            worker.place[0] = _NO_ROW
            worker.unit = unit
            try:
                worker.pipe.send((unit, dict(avoid), self._lost.get(unit.name)))
            except ConnectionError:  # it died while idle; the unit is as good as new
                self._bury(worker)
                self._waiting.appendleft((unit, avoid))

    def _start(self) -> _Worker:
        for _ in range(_STARTS):
            try:
                return self._start_once()
            except (EOFError, ConnectionError):  # the fork server was ended; it starts again
                time.sleep(_START_SECONDS)
        msg = "worker processes cannot be started: their server ends again and again"
        raise WorkerLostError(msg)

    def _start_once(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        place = self._context.RawArray(ctypes.c_int64, (_NO_ROW, READ))
        process = self._context.Process(
            target=_work,
            args=(theirs, place, self._seconds, {**os.environ, **_ONE_THREAD}),
            daemon=True,
        )
        with theirs, _one_thread_each(), without_main(), _without_interrupt():
            try:
                process.start()
            except BaseException:
                ours.close()
                raise
        worker = _Worker(process, ours, place)
        self._workers.append(worker)
        return worker

    def _lose(self, worker: _Worker, unit: Unit) -> Lost:
        code = self._bury(worker)
        row, deed = worker.place
        lost = self._lost.setdefault(unit.name, {})
        if row != _NO_ROW:
            lost.setdefault(row, set()).add(deed)
        timed_out = code == -signal.SIGPROF
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Lost(unit, None if row == _NO_ROW else row, cause, timed_out)

    def _bury(self, worker: _Worker) -> int:
        """Forget a worker that has ended; return its exit code."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        code = worker.process.exitcode or 0
        worker.process.close()
        return code


class _ProcessGuard:
    """Tells the parent the row, and has the kernel end a process that takes too long."""

    def __init__(self, place: Any, seconds: float) -> None:
        self.avoid: Mapping[int, Problem] = {}
        self.lost: Mapping[int, AbstractSet[int]] | None = None
        self._place = place
        self._seconds = seconds
        self._limit = seconds

    def watch(self, row: int | None, deed: int = READ) -> Self:
        self._limit = self._seconds if deed < 0 else self._seconds * SCORING
        self._place[1] = deed
        self._place[0] = _NO_ROW if row is None else row
        return self

    def __enter__(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, self._limit)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self._place[0] = _NO_ROW


def _work(pipe: Connection, place: Any, seconds: float, environment: Mapping[str, str]) -> None:
    """Run units until the pipe closes."""
    _end_with_parent()
    os.environ.clear()  # the fork server has the environment of the time when it was started
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_DATA, (WORKER_DATA_BYTES, WORKER_DATA_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.freeze()  # units make many small objects and no cycles; looking for cycles cost a tenth
    gc.set_threshold(_GC_THRESHOLD)
    guard = _ProcessGuard(place, seconds)
    context = Context(guard=guard)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            answer = _answer(pipe.recv_bytes(), context, guard)
            pipe.send_bytes(answer)


def _answer(message: bytes, context: Context, guard: _ProcessGuard) -> bytes:
    """Run a unit; return what became of it, pickled."""
    try:
        unit, guard.avoid, guard.lost = pickle.loads(message)  # noqa: S301
        done = perform(unit, context)
        found = (done.value, done.wall, done.cpu, dict(done.seconds), done.peak)
        return pickle.dumps(("done", found))
    except Exception as error:  # noqa: BLE001  # every error goes home as an outcome; the engine judges it
        signal.setitimer(signal.ITIMER_PROF, 0)
        return pickle.dumps(("failed", (_sendable(error), traceback.format_exc())))


def _sendable(error: Exception) -> Exception:
    """Return the error, or one that says the same, so that pickling cannot fail or change it."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:  # noqa: BLE001  # whatever is wrong with a foreign exception class
        return RunError(f"{type(error).__name__}: {error}")
    return error


def _outcome(unit: Unit, answer: tuple[str, Any]) -> Outcome:
    kind, found = answer
    return Done(unit, *found) if kind == "done" else Failed(unit, *found)


def _end_with_parent() -> None:
    """Have the kernel kill this process with the fork server, which ends with the run's process.

    The fork server stays as long as anyone holds the pipe that tells it of its clients: this
    process has inherited that.
    """
    server: Any = multiprocessing.forkserver._forkserver  # noqa: SLF001
    os.close(server._forkserver_alive_fd)  # noqa: SLF001
    server._forkserver_alive_fd = None  # noqa: SLF001
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # it ended before the kernel was told
        sys.exit(0)


@contextlib.contextmanager
def _without_interrupt() -> Iterator[None]:
    """Keep Ctrl-C, which a terminal sends to all processes, from those that are started here.

    Blocked signals stay so in what a process starts. The fork server would print a traceback for
    each of the modules that it is loading.
    """
    multiprocessing.resource_tracker.ensure_running()  # it unblocks the signal when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Workers are the parallelism: native libraries in them get one thread."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
