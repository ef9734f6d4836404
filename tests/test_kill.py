"""A run that is killed at any moment leaves nothing torn, and the same command goes on from there.

The kills are real: SIGKILL to the run's own process, at moments spread over the time that a run
takes; its workers are left to themselves. What these catch and others do not: a name that is given
before the bytes are there, a temporary file that nobody removes, a record of work that is not
there, a claim that outlives its owner, a worker that goes on alone.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from pixsieve.testing.corpus import make_pipeline, run_pipeline
from pixsieve.testing.faults import Watch, leftovers, processes, tree, wait_until
from pixsieve.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.testing.corpus import Program

MARK = {"PIXSIEVE_TEST_RUN": f"kill-{os.getpid()}"}
GONE_SECONDS = 10.0


def running() -> list[int]:
    """The processes of the runs of this module."""
    return processes(*(f"{name}={value}" for name, value in MARK.items()))


@pytest.mark.parametrize("kind", ["files", "tars"])
@pytest.mark.parametrize("kills", [5, pytest.param(25, marks=pytest.mark.slow)])
def test_run_that_is_killed_at_any_moment_ends_as_if_undisturbed(
    corpus: Path, tmp_path: Path, program: Program, kind: str, kills: int
):
    undisturbed = make_pipeline(corpus / kind, tmp_path / "undisturbed", images_per_tar=2)
    process = program.start(undisturbed)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 0
    duration = time.monotonic() - began
    expected = tree(tmp_path / "undisturbed")

    rng = random.Random(kills)
    stages_hit = set()
    done = tries = 0
    while done < kills:
        tries += 1
        assert tries < 4 * kills, "the runs end before they can be killed"
        output = tmp_path / f"out{tries}"
        watch = Watch(output)
        pipeline = make_pipeline(corpus / kind, output, images_per_tar=2)
        for _ in range(rng.randint(1, 3)):  # resumed runs are killed, too
            process = program.start(pipeline, workers=rng.randint(1, 3), environment=MARK)
            end = time.monotonic() + rng.uniform(0, duration)
            while time.monotonic() < end and process.poll() is None:
                watch.look()
                time.sleep(0.002)
            process.kill()
            process.communicate()
            done += process.returncode == -signal.SIGKILL
            assert wait_until(lambda: not running(), GONE_SECONDS), "a worker outlived the run"
            watch.look()
            stages_hit.add((bool([*output.glob("*.tar")]), (output / "manifest.json").exists()))
        run_pipeline(pipeline)
        watch.look()
        assert tree(output) == expected
        assert leftovers(output) == []
    if kills >= 50:  # few kills may all fall into one stage
        assert {(False, False), (True, False)} <= stages_hit
    report = verify(output)
    assert report.ok, report.to_text()


def test_workers_of_a_killed_run_end_at_once(corpus: Path, tmp_path: Path, program: Program):
    pipeline = make_pipeline(corpus / "files", tmp_path / "out", images_per_tar=1)
    process = program.start(pipeline, workers=3, environment=MARK)
    assert wait_until(lambda: len(running()) >= 4, 30), "the workers have not started"
    process.kill()
    process.communicate()
    assert wait_until(lambda: not running(), 5)
