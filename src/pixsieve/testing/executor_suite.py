"""What every executor must do: subclass :class:`ExecutorTests` and give it an executor.

::

    class TestMyExecutor(WorkerTests):
        @pytest.fixture
        def executor(self): return MyExecutor()

:class:`ExecutorTests` is for all executors, :class:`WorkerTests` for those that run units in other
processes: there a unit may end its process, and only that unit is lost.
"""
# ruff: noqa: S101, PLR2004 - these are tests

from __future__ import annotations

import functools
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pixsieve.engine.units import Context, Done, Failed, Lost, Unit
from pixsieve.errors import PixsieveError, RunError, SourceChangedError, StorageError
from pixsieve.schema import Problem
from pixsieve.scorers.guard import CHECK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pixsieve.engine.units import Executor, Outcome, Session

WAIT_SECONDS = 60.0


def square(number: int, context: Context) -> int:
    """Return the square of a number."""
    del context
    return number * number


def add_line(path: str, text: str, context: Context) -> None:
    """Append a line to a file, in one write."""
    del context
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


def raise_error(error: Exception, context: Context) -> None:
    """Fail."""
    del context
    raise error


def raise_awkward(context: Context) -> None:
    """Fail with an exception that cannot be pickled, in a class that nobody else knows."""
    del context

    class AwkwardError(Exception):
        def __init__(self, one: object, two: object) -> None:
            super().__init__(f"{one} and {two}")
            self.held = open(os.devnull)  # noqa: PTH123, SIM115  # cannot be pickled
            self.held.close()

    raise AwkwardError(1, 2)


def count_calls(context: Context) -> int:
    """Return how often this was called in this process."""
    context.cache["calls"] = context.cache.get("calls", 0) + 1
    calls: int = context.cache["calls"]
    return calls


def process_id(context: Context) -> int:
    """Return the id of this process, after a while."""
    del context
    time.sleep(0.02)
    return os.getpid()


def avoided(context: Context) -> dict[int, str]:
    """Return which rows must not be read."""
    return dict(context.guard.avoid)


def spend(seconds: float, context: Context) -> None:
    """Use CPU time in a part of the unit."""
    with context.timed("part"):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass


def watched(row: int, deed: Callable[[], object], context: Context) -> str:
    """Do something while reading a row."""
    with context.guard.watch(row):
        deed()
    return "still there"


def touched(row: int | None, how: int, deed: Callable[[], object], context: Context) -> str:
    """Do something while a row, or many at once, are touched in some way."""
    with context.guard.watch(row, how):
        deed()
    return "still there"


def lost(context: Context) -> dict[int, list[int]] | None:
    """Return what the unit is told of the workers that it lost."""
    told = context.guard.lost
    return None if told is None else {row: sorted(deeds) for row, deeds in told.items()}


def not_watched(row: int, deed: Callable[[], object], context: Context) -> str:
    """Do something after reading a row."""
    with context.guard.watch(row):
        pass
    deed()
    return "still there"


def end_process(how: str) -> None:
    """End this process."""
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.Signals[how])
    time.sleep(WAIT_SECONDS)


def spin(seconds: float) -> None:
    """Use CPU time, as a decoder does that finds no end."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def unpicklable(context: Context) -> object:
    """Return what cannot be sent."""
    del context
    return lambda: None


class NotHere:
    """Cannot be had in another process, as a class of a notebook cannot."""

    def __call__(self, context: Context) -> None:
        """Do nothing."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        """Fail where it is unpickled."""
        return _missing, ("a module that is not here",)


def _missing(name: str) -> object:
    raise ModuleNotFoundError(name)


def outcomes(
    session: Session, units: Sequence[Unit], avoid: Mapping[int, Problem] | None = None
) -> list[Outcome]:
    """Run units as the engine does, and return their outcomes in the order in which they came."""
    waiting = list(units)[::-1]
    found: list[Outcome] = []
    in_flight = 0
    end = time.monotonic() + WAIT_SECONDS
    while waiting or in_flight:
        assert time.monotonic() < end, f"{in_flight} units have no outcome"
        while waiting and in_flight < session.capacity:
            session.submit(waiting.pop(), avoid or {})
            in_flight += 1
        more = session.wait(0.2)
        in_flight -= len(more)
        found += more
    return found


class ExecutorTests:
    """Properties that the engine relies on."""

    @pytest.fixture
    def executor(self) -> Executor:
        """Return the executor to be tested."""
        raise NotImplementedError

    def test_every_unit_has_one_outcome_with_its_value(self, executor: Executor) -> None:
        units = [Unit(name=f"{n}", work=functools.partial(square, n)) for n in range(100)]
        with executor.open() as session:
            found = outcomes(session, units)
        done = {o.unit.name: o.value for o in found if isinstance(o, Done)}
        assert len(found) == 100
        assert done == {f"{n}": n * n for n in range(100)}

    def test_every_unit_runs_once(self, executor: Executor, tmp_path: Path) -> None:
        path = str(tmp_path / "lines")
        units = [
            Unit(name=f"{n}", work=functools.partial(add_line, path, f"{n}")) for n in range(50)
        ]
        with executor.open() as session:
            outcomes(session, units)
        lines = Path(path).read_text().split()
        assert Counter(lines) == Counter(str(n) for n in range(50))

    def test_nothing_is_to_be_waited_for_where_nothing_was_submitted(
        self, executor: Executor
    ) -> None:
        with executor.open() as session:
            assert session.capacity >= 1
            began = time.monotonic()
            assert session.wait(0.1) == []
            assert time.monotonic() - began < 5

    def test_outcomes_name_the_unit_and_its_times(self, executor: Executor) -> None:
        unit = Unit(name="busy", work=functools.partial(spend, 0.1))
        with executor.open() as session:
            (found,) = outcomes(session, [unit])
        assert isinstance(found, Done)
        assert found.unit.name == "busy"
        assert 0.1 <= found.cpu < 5
        assert found.wall >= found.seconds["part"][0] > 0
        assert found.cpu >= found.seconds["part"][1] >= 0.09

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("plain"),
            SourceChangedError("a.tar changed"),
            StorageError("cannot write x: No space left on device", 28),
        ],
    )
    def test_failure_is_an_outcome_with_the_error_as_it_was(
        self, executor: Executor, error: Exception
    ) -> None:
        units = [
            Unit(name="bad", work=functools.partial(raise_error, error)),
            Unit(name="good", work=functools.partial(square, 3)),
        ]
        with executor.open() as session:
            found = {o.unit.name: o for o in outcomes(session, units)}
        good, bad = found["good"], found["bad"]
        assert isinstance(good, Done)
        assert good.value == 9
        assert isinstance(bad, Failed)
        assert type(bad.error) is type(error)
        assert str(bad.error) == str(error)
        assert getattr(bad.error, "errno", None) == getattr(error, "errno", None)
        assert "raise_error" in bad.trace

    def test_error_of_a_foreign_class_comes_home(self, executor: Executor) -> None:
        with executor.open() as session:
            (found,) = outcomes(session, [Unit(name="awkward", work=raise_awkward)])
            (after,) = outcomes(session, [Unit(name="next", work=functools.partial(square, 2))])
        assert isinstance(found, Failed)
        assert "1 and 2" in str(found.error)
        assert "raise_awkward" in found.trace
        assert isinstance(after, Done)

    def test_memory_that_is_short_for_no_sample_is_told_with_the_unit(
        self, executor: Executor
    ) -> None:
        unit = Unit(name="plan", work=functools.partial(raise_error, MemoryError()))
        with executor.open() as session:
            (found,) = outcomes(session, [unit])
        assert isinstance(found, Failed)
        assert isinstance(found.error, RunError)
        assert "plan: it needs more memory" in str(found.error)

    def test_what_a_process_keeps_for_later_units_is_there(self, executor: Executor) -> None:
        units = [Unit(name=f"{n}", work=count_calls) for n in range(60)]
        with executor.open() as session:
            values = [o.value for o in outcomes(session, units) if isinstance(o, Done)]
        assert len(values) == 60
        assert max(values) > 1

    def test_rows_to_be_avoided_are_told_to_the_unit(self, executor: Executor) -> None:
        avoid = {3: Problem.DECODER_CRASH, 70: Problem.DECODE_TIMEOUT}
        with executor.open() as session:
            (found,) = outcomes(session, [Unit(name="a", work=avoided)], avoid)
            (after,) = outcomes(session, [Unit(name="b", work=avoided)])
        assert isinstance(found, Done)
        assert found.value == avoid
        assert isinstance(after, Done)
        assert after.value == {}

    def test_session_can_be_opened_again(self, executor: Executor) -> None:
        for _ in range(2):
            with executor.open() as session:
                (found,) = outcomes(session, [Unit(name="a", work=functools.partial(square, 5))])
                assert isinstance(found, Done)

    def test_error_of_the_caller_is_not_hidden(self, executor: Executor) -> None:
        def run() -> None:
            with executor.open() as session:
                session.submit(Unit(name="a", work=functools.partial(square, 5)), {})
                raise KeyError

        with pytest.raises(KeyError):
            run()


class WorkerTests(ExecutorTests):
    """Properties of executors whose units run in processes of their own."""

    @pytest.fixture
    def impatient(self) -> Executor:
        """Return the executor with a limit of half a second of CPU time for a sample."""
        raise NotImplementedError

    @pytest.mark.parametrize("how", ["exit", "SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS"])
    def test_end_of_a_process_is_a_loss_with_the_row_that_was_read(
        self, executor: Executor, how: str
    ) -> None:
        deed = functools.partial(end_process, how)
        units = [
            *(Unit(name=f"{n}", work=functools.partial(square, n)) for n in range(10)),
            Unit(name="crash", work=functools.partial(watched, 41, deed)),
            *(Unit(name=f"{n}", work=functools.partial(square, n)) for n in range(10, 20)),
        ]
        with executor.open() as session:
            found = {o.unit.name: o for o in outcomes(session, units)}
        lost = found.pop("crash")
        assert isinstance(lost, Lost)
        assert lost.row == 41
        assert not lost.timed_out
        assert ("exit code 3" if how == "exit" else how) in lost.cause
        assert all(isinstance(outcome, Done) for outcome in found.values())
        assert len(found) == 20

    def test_end_of_a_process_between_rows_blames_no_row(self, executor: Executor) -> None:
        deed = functools.partial(end_process, "SIGKILL")
        with executor.open() as session:
            (found,) = outcomes(
                session, [Unit(name="a", work=functools.partial(not_watched, 41, deed))]
            )
        assert isinstance(found, Lost)
        assert found.row is None

    def test_a_unit_is_told_of_its_own_losses_until_it_is_done(self, executor: Executor) -> None:
        """So it hands samples to scorers one by one, and knows what not to do with a sample."""
        kill = functools.partial(end_process, "SIGKILL")

        def attempt(session: Session, work: Callable[[Context], object]) -> Outcome:
            (outcome,) = outcomes(session, [Unit(name="a", work=work)])
            return outcome

        with executor.open() as session:
            many = attempt(session, functools.partial(touched, None, 0, kill))
            assert isinstance(many, Lost)
            assert many.row is None
            (other,) = outcomes(session, [Unit(name="b", work=lost)])
            assert isinstance(other, Done)
            assert other.value is None
            for how in (0, CHECK):
                attempt(session, functools.partial(touched, 41, how, kill))
            told = [attempt(session, lost) for _ in range(2)]
        assert [each.value for each in told if isinstance(each, Done)] == [{41: [CHECK, 0]}, None]

    def test_row_of_an_earlier_unit_is_not_blamed(self, executor: Executor) -> None:
        """A unit that failed while reading a row left the row behind."""
        fail = functools.partial(raise_error, ValueError("x"), Context())
        crash = functools.partial(end_process, "SIGKILL")
        with executor.open() as session:
            for _ in range(2 * session.capacity):
                outcomes(session, [Unit(name="a", work=functools.partial(watched, 41, fail))])
            (found,) = outcomes(
                session, [Unit(name="b", work=functools.partial(not_watched, 7, crash))]
            )
        assert isinstance(found, Lost)
        assert found.row is None

    def test_many_losses_are_all_told_and_the_rest_is_done(self, executor: Executor) -> None:
        deed = functools.partial(end_process, "SIGKILL")
        units = [
            Unit(
                name=f"{n}",
                work=functools.partial(watched, n, deed) if n % 3 else functools.partial(square, n),
            )
            for n in range(24)
        ]
        with executor.open() as session:
            found = outcomes(session, units)
        lost = {int(o.unit.name): o.row for o in found if isinstance(o, Lost)}
        assert lost == {n: n for n in range(24) if n % 3}
        assert len(found) == 24

    def test_sample_that_takes_too_long_is_a_loss_by_time(self, impatient: Executor) -> None:
        slow = Unit(
            name="slow", work=functools.partial(watched, 5, functools.partial(spin, WAIT_SECONDS))
        )
        began = time.monotonic()
        with impatient.open() as session:
            (found,) = outcomes(session, [slow])
        assert isinstance(found, Lost)
        assert found.timed_out
        assert found.row == 5
        assert time.monotonic() - began < WAIT_SECONDS / 2

    def test_limit_is_for_one_sample_not_for_a_unit(self, impatient: Executor) -> None:
        units = [
            Unit(name=f"{n}", work=functools.partial(watched, n, functools.partial(spin, 0.2)))
            for n in range(6)
        ]
        long = Unit(
            name="long", work=functools.partial(not_watched, 9, functools.partial(spin, 0.8))
        )
        with impatient.open() as session:
            found = outcomes(session, [*units, long])
        assert all(isinstance(outcome, Done) for outcome in found)

    def test_leaving_the_session_ends_its_processes_at_once(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        with executor.open() as session:
            for number in range(session.capacity):
                work = functools.partial(_tell_and_sleep, str(tmp_path / f"{number}"))
                session.submit(Unit(name=f"{number}", work=work), {})
            end = time.monotonic() + WAIT_SECONDS
            while not [*tmp_path.iterdir()]:
                assert time.monotonic() < end
                session.wait(0.05)
            time.sleep(0.2)
            pids = [int(path.read_text()) for path in tmp_path.iterdir()]
            assert pids
            began = time.monotonic()
        assert time.monotonic() - began < 3
        assert os.getpid() not in pids
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)

    def test_value_that_cannot_be_sent_is_a_failure(self, executor: Executor) -> None:
        with executor.open() as session:
            (found,) = outcomes(session, [Unit(name="a", work=unpicklable)])
        assert isinstance(found, Failed)

    def test_unit_that_cannot_be_loaded_is_a_failure(self, executor: Executor) -> None:
        with executor.open() as session:
            (found,) = outcomes(session, [Unit(name="a", work=NotHere())])
        assert isinstance(found, Failed)
        assert isinstance(found.error, (ModuleNotFoundError, PixsieveError))
        assert "a module that is not here" in str(found.error)


def _tell_and_sleep(path: str, context: Context) -> None:
    del context
    Path(f"{path}.tmp").write_text(str(os.getpid()))
    Path(f"{path}.tmp").rename(path)
    time.sleep(WAIT_SECONDS)
