"""Retry, lost workers and the wish to stop: the same for every executor.

The sessions here are executors in small: they do real units, and lose or fail those that they are
told to.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.engine.drive import ATTEMPTS, KILLS, Stop, drive
from pixsieve.engine.progress import Quiet
from pixsieve.engine.units import Context, Done, Failed, Lost, Outcome, Unit, perform
from pixsieve.errors import InterruptedRunError, PlanError, StorageError, WorkerLostError
from pixsieve.schema import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def echo(value: object, context: Context) -> object:
    del context
    return value


def units(count: int) -> Iterator[Unit]:
    for number in range(count):
        yield Unit(name=f"unit {number}", work=partial(echo, number))


Fate = (
    BaseException | tuple[int | None, bool] | None
)  # an error; or lost at a row, by time; or done


@dataclass
class Fated:
    """A session in which a unit's first attempts end as they are told to."""

    fates: Mapping[str, list[Fate]] = field(default_factory=dict)
    capacity: int = 3
    seed: int = 0
    in_process: bool = True
    waiting: deque[tuple[Unit, Mapping[int, Problem]]] = field(default_factory=deque)
    tries: Counter[str] = field(default_factory=Counter)
    avoided: dict[str, Mapping[int, Problem]] = field(default_factory=dict)
    most: int = 0
    alone: list[str] = field(default_factory=list)

    def submit(self, unit: Unit, avoid: Mapping[int, Problem]) -> None:
        self.waiting.append((unit, dict(avoid)))
        self.most = max(self.most, len(self.waiting))

    def wait(self, seconds: float) -> list[Outcome]:
        del seconds
        draw = random.Random(self.seed + sum(self.tries.values()))
        self.waiting.rotate(draw.randrange(len(self.waiting)))
        if len(self.waiting) == 1:
            self.alone.append(self.waiting[0][0].name)
        unit, avoid = self.waiting.popleft()
        self.avoided[unit.name] = avoid
        fates = self.fates.get(unit.name, [])
        fate = fates[self.tries[unit.name]] if self.tries[unit.name] < len(fates) else None
        self.tries[unit.name] += 1
        if fate is None:
            return [perform(unit, Context())]
        if isinstance(fate, BaseException):
            return [Failed(unit, fate, "the trace")]
        row, timed_out = fate
        return [Lost(unit, row, "signal SIGKILL", timed_out)]


class Heard(Quiet):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def log(self, message: str) -> None:
        self.messages.append(message)


def run(session: Fated, count: int = 6, heard: Heard | None = None) -> list[Any]:
    done: list[Done] = list(drive(units(count), session, Stop(), heard or Quiet()))
    return sorted(outcome.value for outcome in done)


def passing(number: int) -> StorageError:
    error = StorageError("cannot read a.tar: it will pass")
    error.errno = number
    return error


@settings(max_examples=60, deadline=None)
@given(
    fates=st.dictionaries(
        st.integers(0, 9).map("unit {}".format),
        st.lists(
            st.sampled_from([errno.EIO, errno.ESTALE]).map(passing)
            | st.tuples(st.integers(0, 3), st.booleans())
            | st.just((None, False)),
            max_size=ATTEMPTS - 1,
        ),
        max_size=6,
    ),
    capacity=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_every_unit_is_done_once_whatever_happens_on_the_way(
    fates: dict[str, list[Fate]], capacity: int, seed: int
):
    session = Fated(fates, capacity, seed)
    assert run(session, 10) == list(range(10))
    assert session.most <= capacity
    assert session.tries == {
        f"unit {number}": 1 + len(fates.get(f"unit {number}", [])) for number in range(10)
    }


def test_units_are_made_no_earlier_than_they_are_needed():
    made = []

    def noting() -> Iterator[Unit]:
        for unit in units(50):
            made.append(unit)
            yield unit

    done = drive(noting(), Fated(capacity=4), Stop(), Quiet())
    for count in range(1, 40):
        next(done)
        assert len(made) <= count + 4
    done.close()


def test_no_units_are_no_work():
    assert run(Fated(), 0) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EAGAIN, errno.ETIMEDOUT])
def test_what_may_pass_is_tried_again_and_told(number: int):
    heard = Heard()
    session = Fated({"unit 2": [passing(number)] * (ATTEMPTS - 1)})
    assert run(session, heard=heard) == list(range(6))
    assert heard.messages == ["unit 2: cannot read a.tar: it will pass; trying again"] * 2


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (passing(errno.EIO), ATTEMPTS),
        (passing(errno.ENOSPC), 1),
        (passing(errno.EACCES), 1),
        (StorageError("without a number"), 1),
        (PlanError("mend the stage"), 1),
        (KeyError("a bug"), 1),
    ],
)
def test_what_does_not_pass_is_raised_as_it_is(error: BaseException, tries: int):
    session = Fated({"unit 2": [error] * 9})
    with pytest.raises(type(error)) as raised:
        run(session)
    assert raised.value is error
    assert session.tries["unit 2"] == tries
    assert error.__notes__ == ["in unit unit 2, where it happened:\nthe trace"]


def test_a_sample_that_ends_its_worker_twice_is_not_read_again():
    heard = Heard()
    session = Fated({"unit 1": [(7, False)] * KILLS})
    assert run(session, heard=heard) == list(range(6))
    assert session.avoided["unit 1"] == {7: Problem.DECODER_CRASH}
    assert session.avoided["unit 2"] == {}
    assert heard.messages == [
        "unit 1: its worker ended at row 7 (signal SIGKILL); trying again, alone",
        "unit 1: row 7 ended its worker again (signal SIGKILL); that sample is failed",
    ]


def test_a_sample_that_took_too_long_is_not_read_again():
    session = Fated({"unit 1": [(7, True)]})
    assert run(session) == list(range(6))
    assert session.avoided["unit 1"] == {7: Problem.DECODE_TIMEOUT}


def test_many_bad_samples_of_one_unit_cost_only_themselves():
    fates: list[Fate] = [(row, True) for row in range(20)] + [(30, False)] * 2 + [(31, False)] * 2
    session = Fated({"unit 1": fates})
    assert run(session) == list(range(6))
    assert session.avoided["unit 1"] == {
        **dict.fromkeys(range(20), Problem.DECODE_TIMEOUT),
        **dict.fromkeys((30, 31), Problem.DECODER_CRASH),
    }


def test_a_unit_that_lost_its_worker_runs_again_alone():
    session = Fated({"unit 1": [(3, False)], "unit 2": [(None, False)]}, capacity=4)
    assert run(session, 12) == list(range(12))
    assert {"unit 1", "unit 2"} <= set(session.alone)


def test_a_worker_that_is_lost_for_no_sample_ends_the_run_in_the_end():
    session = Fated({"unit 1": [(None, False)] * 9})
    with pytest.raises(WorkerLostError, match=r"unit 1: its worker ended 3 times .*fewer workers"):
        run(session)
    assert session.tries["unit 1"] == ATTEMPTS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_between_units_and_says_how_to_go_on(number: int):
    stop = Stop()
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with stop.listening():
        done = drive(units(9), Fated(), stop, Quiet())
        next(done)
        os.kill(os.getpid(), number)
        with pytest.raises(InterruptedRunError, match="the same command goes on") as stopped:
            list(done)
    assert stopped.value.exit_code == 128 + number
    assert signal.Signals(number).name in str(stopped.value)
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    stop = Stop()
    try:
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            stop.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_are_left_alone_in_another_thread():
    seen: list[object] = []

    def work(listening: Callable[[], Any]) -> None:
        with listening():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work, args=(Stop().listening,))
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
