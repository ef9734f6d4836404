"""Both executors keep what the engine relies on, and the local one from any script."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.local import LocalExecutor
from pixsieve.engine.units import Done, Lost, Unit
from pixsieve.errors import UsageError
from pixsieve.testing.executor_suite import (
    WAIT_SECONDS,
    ExecutorTests,
    WorkerTests,
    outcomes,
    process_id,
    spin,
    touched,
)
from pixsieve.testing.faults import processes, wait_until

MARK = {"PIXSIEVE_TEST_RUN": f"executors-{os.getpid()}"}


class TestInlineExecutor(ExecutorTests):
    @pytest.fixture
    def executor(self) -> InlineExecutor:
        return InlineExecutor()


class TestLocalExecutor(WorkerTests):
    @pytest.fixture(params=[1, 3])
    def executor(self, request: pytest.FixtureRequest) -> LocalExecutor:
        return LocalExecutor(workers=request.param)

    @pytest.fixture
    def impatient(self) -> LocalExecutor:
        return LocalExecutor(workers=2, sample_cpu_seconds=0.5)


@pytest.mark.parametrize("workers", [0, -1])
def test_number_of_workers_is_checked(workers: int):
    with pytest.raises(UsageError, match=f"workers is {workers}"):
        LocalExecutor(workers=workers)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_units_run_in_as_many_processes_as_asked_for(workers: int):
    units = [Unit(name=f"{n}", work=process_id) for n in range(20)]
    with LocalExecutor(workers=workers).open() as session:
        assert not session.in_process
        found = outcomes(session, units)
    pids = {outcome.value for outcome in found if isinstance(outcome, Done)}
    assert len(pids) == workers
    assert os.getpid() not in pids


def test_an_interrupt_from_the_terminal_is_heard_by_the_runs_own_process_alone():
    def status(process: int, field: str) -> str:
        text = Path(f"/proc/{process}/status").read_text()
        return text.split(f"{field}:")[1].split()[0]

    def deaf(process: int) -> bool:
        return bool(int(status(process, "SigBlk"), 16) & 1 << signal.SIGINT - 1)

    with LocalExecutor(workers=1).open() as session:
        (found,) = outcomes(session, [Unit(name="one", work=process_id)])
        worker = found.value
        server = int(status(worker, "PPid"))
        assert server != os.getpid()
        assert (deaf(worker), deaf(server), deaf(os.getpid())) == (True, True, False)


@pytest.mark.parametrize("row", [None, 3])
def test_a_scorer_has_more_time_and_as_much_for_one_sample_as_for_many(row: int | None):
    units = [
        Unit(
            name=f"{seconds}",
            work=functools.partial(touched, row, 0, functools.partial(spin, seconds)),
        )
        for seconds in (0.3, WAIT_SECONDS)
    ]
    with LocalExecutor(workers=1, sample_cpu_seconds=0.05).open() as session:
        done, late = outcomes(session, units)
    assert isinstance(done, Done)
    assert isinstance(late, Lost)
    assert (late.row, late.timed_out) == (row, True)


SCRIPT = """
import sys
from pixsieve.engine.local import LocalExecutor
from pixsieve.pipeline import Pipeline
from pixsieve.stages import ImageReaderStage, ImageWriterStage

print("once", flush=True)
pipeline = Pipeline().add_stage(ImageReaderStage(sys.argv[1]))
pipeline.add_stage(ImageWriterStage(output_dir=sys.argv[2]))
print(pipeline.run(LocalExecutor(workers=2), {options}).counts.kept)
"""


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, **MARK}


@pytest.mark.parametrize("way", ["file", "argument", "standard input"])
def test_script_without_a_guard_runs_once_and_ends(
    corpus: Path, tmp_path: Path, environment: dict[str, str], way: str
):
    """Workers that imported the script would run it again, each with workers of its own."""
    text = SCRIPT.format(options="None")
    (tmp_path / "script.py").write_text(text)
    arguments = [str(corpus / "files" / "dogs"), str(tmp_path / "out")]
    start = {"file": [str(tmp_path / "script.py")], "argument": ["-c", text]}.get(way, ["-"])
    done = subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        input=text if way == "standard input" else None,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["once", "30"]
    assert done.stderr == ""
    assert wait_until(lambda: not processes(*(f"{k}={v}" for k, v in MARK.items())), 5)


def test_session_that_is_left_open_ends_with_its_process(
    environment: dict[str, str],
):
    text = (
        "import os\n"
        "from functools import partial\n"
        "from pixsieve.engine.local import LocalExecutor\n"
        "from pixsieve.engine.units import Unit\n"
        "from pixsieve.testing.executor_suite import spin, watched\n"
        "session = LocalExecutor(workers=2).open().__enter__()\n"
        "for name in 'abc':\n"
        "    session.submit(Unit(name=name, work=partial(watched, 1, partial(spin, 60))), {})\n"
        "os._exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", text], check=False, env=environment, timeout=60)
    assert done.returncode == 7
    assert wait_until(lambda: not processes(*(f"{k}={v}" for k, v in MARK.items())), 5)
