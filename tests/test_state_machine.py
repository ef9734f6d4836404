"""Whatever is done to an output in whatever order, it ends where a fresh run ends, or is refused.

The model knows three things: which recipe and content the finished dataset in the output has, if
any; which recipe and content the source has now; and which of its files were damaged since. What
this catches and single tests do not: state that an interrupted run leaves and that only a certain
sequence of later runs takes for something else.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pixsieve.errors import InterruptedRunError, OutputConflictError
from pixsieve.testing import images
from pixsieve.testing.corpus import make_pipeline, run_pipeline, write_files
from pixsieve.testing.faults import Hooks, Watch, leftovers, times, tree

RECIPES = {
    "all": {"where": "width >= 1"},
    "wide": {"where": "width >= 40"},
    "small shards": {"where": "width >= 1", "images_per_tar": 3},
    "another prefix": {"where": "width >= 1", "prefix": "train"},
}
STEPS = ("index", "inspect", "select", "plan", "export", "commit")
CONTENTS = 3


class Made(NamedTuple):
    """What a dataset was made of."""

    recipe: str
    content: int


def files_of(content: int) -> dict[str, bytes]:
    """The source: 12 files for images; one differs by content, one is a copy, one is no image."""
    files = {f"{n:02d}.jpg": images.photo(n, 32 + 2 * n, 24) for n in range(10)}
    files["copy.jpg"] = files["03.jpg"]
    files["odd.jpg"] = b"<html>"
    files["04.txt"] = b"a caption"
    files["07.jpg"] = images.photo(100 + content, 46, 24)
    return files


FILES = [files_of(content) for content in range(CONTENTS)]


class Outputs(RuleBasedStateMachine):
    """Runs, interrupted runs, other recipes, other sources and damage, in any order."""

    fresh: dict[Made, dict[str, str]] = {}  # noqa: RUF012 - kept over all examples: it is costly

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.source = self.folder / "source"
        self.output = self.folder / "out"
        self.watch = Watch(self.output)
        self.content = 0
        self.finished: Made | None = None
        self.damaged = False
        write_files(self.source, FILES[0])

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what is done --------------------------------------------------------------------------

    @rule(recipe=st.sampled_from(sorted(RECIPES)))
    def run(self, recipe: str) -> None:
        made = Made(recipe, self.content)
        before = times(self.output)
        if self.may_run(made):
            result = self.go(recipe)
            assert result.did_nothing == (self.finished is not None and not self.damaged)
            assert tree(self.output) == self.expected(made)
            assert leftovers(self.output) == []
            if result.did_nothing:
                assert times(self.output) == before
            self.finished, self.damaged = made, False
        else:
            with pytest.raises(OutputConflictError):
                self.go(recipe)
            assert times(self.output) == before

    @rule(
        recipe=st.sampled_from(sorted(RECIPES)),
        step=st.sampled_from(STEPS),
        unit=st.integers(1, 12),
        at_start=st.booleans(),
    )
    def run_and_interrupt(self, recipe: str, step: str, unit: int, *, at_start: bool) -> None:
        made = Made(recipe, self.content)

        def stop() -> None:
            signal.raise_signal(signal.SIGINT)

        hooks = Hooks(at_start={step: stop}) if at_start else Hooks(at_unit={unit: stop})
        before = times(self.output)
        try:
            result = self.go(recipe, hooks)
        except InterruptedRunError:
            if not self.may_run(made):
                assert times(self.output) == before
        except OutputConflictError:
            assert not self.may_run(made)
            assert times(self.output) == before
        else:  # the stop came after the last unit, or all was done
            assert tree(self.output) == self.expected(made)
            self.damaged = self.damaged and result.did_nothing
            self.finished = made
        self.damaged = self.damaged and tree(self.output) != self.fresh.get(self.finished)
        assert leftovers(self.output) == []

    @rule(content=st.integers(0, CONTENTS - 1))
    def change_source(self, content: int) -> None:
        self.content = content
        write_files(self.source, FILES[content])

    @precondition(lambda self: self.finished is not None)
    @rule(data=st.data(), how=st.sampled_from(["delete", "cut", "flip"]))
    def damage_output(self, data: st.DataObject, how: str) -> None:
        names = sorted(tree(self.output))
        if not (self.output / ".pixsieve" / "intent.json").exists():
            names.remove("manifest.json")  # nothing else tells then what it was
        if not names:
            return
        name = data.draw(st.sampled_from(names), label="file")
        hurt(self.output / name, how)
        self.watch = Watch(self.output)  # the old one would take this for a run's deed
        here, whole = tree(self.output), self.expected(self.finished)
        self.damaged = here != whole  # a bit that is flipped twice is as it was
        told = here.get("manifest.json") == whole["manifest.json"]
        if not told and not any(name.endswith(".tar") for name in here):
            self.finished = None  # nothing of it is left to be protected

    @rule(data=st.data(), how=st.sampled_from(["delete", "cut", "flip"]))
    def damage_working_state(self, data: st.DataObject, how: str) -> None:
        folders = [self.output / ".pixsieve" / name for name in ("ledger", "tables", "plans")]
        paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
        if paths:
            # Their names and number follow the times of the source, which no replay repeats.
            number = data.draw(st.integers(0, 2**16), label="file")
            hurt(paths[number % len(paths)], how)

    @precondition(lambda self: not self.damaged)
    @rule()
    def delete_working_state(self) -> None:
        """Only of a finished dataset: without it, tars of an unfinished run are of nobody."""
        if self.finished is not None:
            shutil.rmtree(self.output / ".pixsieve", ignore_errors=True)

    @rule()
    def delete_output(self) -> None:
        shutil.rmtree(self.output, ignore_errors=True)
        self.finished, self.damaged = None, False
        self.watch = Watch(self.output)

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def nothing_is_torn(self) -> None:
        if hasattr(self, "output") and not self.damaged:
            self.watch.look()

    @invariant()
    def finished_dataset_is_whole_and_accounts_for_every_sample(self) -> None:
        if not getattr(self, "finished", None) or self.damaged:
            return
        assert tree(self.output) == self.expected(self.finished)
        kept = sum(pq.read_metadata(path).num_rows for path in self.output.glob("*-*-0*.parquet"))
        gone = pq.read_metadata(self.output / "dropped" / "dropped.parquet").num_rows
        assert kept + gone == 12

    # -- the model -----------------------------------------------------------------------------

    def may_run(self, made: Made) -> bool:
        return self.finished in (None, made)

    def expected(self, made: Made) -> dict[str, str]:
        if made not in self.fresh:
            with tempfile.TemporaryDirectory() as name:
                write_files(Path(name, "source"), FILES[made.content])
                output = Path(name, "out")
                run_pipeline(make_pipeline(Path(name, "source"), output, **RECIPES[made.recipe]))
                self.fresh[made] = tree(output)
        return self.fresh[made]

    def go(self, recipe: str, hooks: Hooks | None = None):
        pipeline = make_pipeline(self.source, self.output, **RECIPES[recipe])
        return run_pipeline(pipeline, progress=hooks)


def hurt(path: Path, how: str) -> None:
    if how == "delete":
        path.unlink()
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("examples", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_any_order_of_runs_interruptions_changes_and_damage(examples: int):
    run_state_machine_as_test(
        Outputs,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
