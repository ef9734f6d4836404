"""An image that ends the worker of a scorer, or takes all of its memory, costs that image."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from pixsieve import image
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.engine.local import LocalExecutor
from pixsieve.errors import FailureBudgetError
from pixsieve.pipeline import Pipeline
from pixsieve.stages import (
    ExactDeduplicationStage,
    FilterStage,
    ImageReaderStage,
    ImageWriterStage,
)
from pixsieve.testing import images
from pixsieve.testing.corpus import write_files
from pixsieve.testing.faults import tree
from pixsieve.verify import verify
from pixsieve.why import why

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType

    from pixsieve.engine.result import RunResult
    from pixsieve.engine.units import Executor

MODULE = """
import os
import signal
from dataclasses import dataclass

import pyarrow as pa

from pixsieve import image
from pixsieve.schema import Problem
from pixsieve.stages import Needs, ScoreStage

real = image.decode


def end(how):
    if how == "exit":
        os._exit(3)
    if how == "memory":
        raise MemoryError
    if how == "problem":
        raise image.ImageProblemError(Problem.DECODE_FAILED, "too odd")
    os.kill(os.getpid(), signal.SIGSEGV)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadly(ScoreStage):
    '''Gives the width; images of some widths are the end of it, at once or when decoded.'''

    column: str = "size"
    widths: tuple[int, ...] = (77,)
    how: str = "SIGSEGV"
    company: bool = False
    decoding: bool = False

    needs = Needs(pixels=16)

    def reads(self):
        return ("width",)

    def adds(self):
        return pa.schema([(self.column, pa.int32())])

    def load(self):
        def score(batch):
            widths = batch.rows["width"].to_pylist()
            deadly = len(widths) > 1 if self.company else {*widths} & {*self.widths}
            if deadly and not self.decoding:
                end(self.how)
            return pa.record_batch({self.column: widths})

        def decode(data, header, **options):
            if header.width in self.widths:
                end(self.how)
            return real(data, header, **options)

        image.decode = decode if self.decoding else real
        return score
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "deadly_scorer.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr(image, "decode", image.decode)
    monkeypatch.delitem(importlib.sys.modules, "deadly_scorer", raising=False)
    return importlib.import_module("deadly_scorer")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two folders with ten photographs each, of which one has a width of 77."""
    for number in range(20):
        width = 77 if number in (3, 14) else 80 + number
        name = f"{number // 10}/{number:02d}.jpg"
        write_files(tmp_path / "in", {name: images.photo(number, width, 50)})
    return tmp_path / "in"


def run(
    source: Path,
    output: Path,
    *stages: Any,
    executor: Executor | None = None,
    max_failed: float = 1,
) -> RunResult:
    pipeline = Pipeline().add_stage(ImageReaderStage(str(source)))
    for stage in stages:
        pipeline.add_stage(stage)
    pipeline.add_stage(ImageWriterStage(output_dir=str(output), images_per_tar=7))
    options = RunOptions(
        max_failed=max_failed,
        workspace=str(output.parent / f"work-{output.name.partition('-')[0]}"),
    )
    result = pipeline.run(executor or LocalExecutor(workers=1), options)
    assert verify(output).ok
    return result


def failed(output: Path) -> Mapping[str, tuple[str, str, str]]:
    """Return where, why and with which detail images failed; none ended otherwise."""
    rows = pq.read_table(output / "dropped" / "dropped.parquet").to_pylist()
    assert {row["status"] for row in rows} <= {"failed"}
    return {
        row["original_key"]: (row["stage"], row["reason"], json.loads(row["evidence"])["detail"])
        for row in rows
    }


def sizes(output: Path, column: str = "size") -> list[int]:
    tables = [pq.read_table(path) for path in sorted(output.glob("images-*.parquet"))]
    for table in tables:
        assert table[column].to_pylist() == table["width"].to_pylist()
    return [size for table in tables for size in table[column].to_pylist()]


VICTIMS = ("0/03", "1/14")
SCORED = [80 + number for number in range(20) if number not in (3, 14)]


@pytest.mark.parametrize("how", ["SIGSEGV", "exit"])
def test_a_scorer_that_ends_its_worker_costs_that_image_only(
    source: Path, tmp_path: Path, deadly: ModuleType, how: str
):
    for workers in (1, 3):
        result = run(
            source,
            tmp_path / f"{workers}",
            deadly.Deadly(how=how),
            executor=LocalExecutor(workers=workers),
        )
        assert (result.counts.kept, result.counts.failed, result.counts.dropped) == (18, 2, 0)
    detail = "scoring this image with Deadly ended a worker process"
    assert failed(tmp_path / "1") == dict.fromkeys(VICTIMS, ("inspect", "decoder_crash", detail))
    assert sizes(tmp_path / "1") == SCORED
    assert tree(tmp_path / "1") == tree(tmp_path / "3")
    (answer,) = why(tmp_path / "1", "0/03")
    assert "failed by inspect: decoder_crash" in answer.to_text()
    assert detail in answer.to_text()


def test_each_of_many_deadly_images_and_scorers_is_told(
    source: Path, tmp_path: Path, deadly: ModuleType
):
    first = deadly.Deadly(widths=(81, 82, 85))
    second = deadly.Deadly(column="more", widths=(82, 88), how="exit")
    run(source, tmp_path / "out", first, second)
    assert {
        key: reason for key, (_, reason, _) in failed(tmp_path / "out").items()
    } == dict.fromkeys(("0/01", "0/02", "0/05", "0/08"), "decoder_crash")
    assert sizes(tmp_path / "out") == sizes(tmp_path / "out", "more")


def test_what_one_scorer_cannot_score_is_sound_for_all_others(
    source: Path, tmp_path: Path, deadly: ModuleType
):
    """And for the same one when a filter before it spares it the image."""
    mended, spared = deadly.Deadly(widths=()), FilterStage("width <> 77")
    run(source, tmp_path / "one-1", deadly.Deadly())
    assert run(source, tmp_path / "one-2", mended).counts.kept == 20
    assert run(source, tmp_path / "one-3").counts.kept == 20
    result = run(source, tmp_path / "one-4", spared, deadly.Deadly())
    assert (result.counts.dropped, result.counts.failed) == (2, 0)
    run(source, tmp_path / "two", spared, deadly.Deadly())
    assert tree(tmp_path / "one-4") == tree(tmp_path / "two")


def test_a_scorer_of_a_later_pass_fails_what_the_earlier_ones_kept(
    source: Path, tmp_path: Path, deadly: ModuleType
):
    write_files(source, {"1/99.jpg": (source / "0" / "03.jpg").read_bytes()})
    late = (ExactDeduplicationStage(), deadly.Deadly(), FilterStage("size < 99"))
    result = run(source, tmp_path / "out", *late)
    assert {(each.stage, each.reason, each.count) for each in result.reasons} == {
        ("ExactDeduplicationStage", "exact_duplicate", 1),
        ("inspect", "decoder_crash", 2),
        ("FilterStage", "filter", 1),
    }
    assert max(sizes(tmp_path / "out")) < 99


@pytest.mark.parametrize(
    ("how", "reason", "detail"),
    [
        ("exit", "decoder_crash", "decoding this image ended a worker process"),
        ("memory", "out_of_memory", "not enough memory to decode it"),
        ("problem", "decode_failed", "too odd"),
    ],
)
def test_an_image_that_cannot_be_decoded_in_a_later_run_fails_as_in_a_fresh_one(
    source: Path, tmp_path: Path, deadly: ModuleType, how: str, reason: str, detail: str
):
    stage = deadly.Deadly(how=how, decoding=True)
    run(source, tmp_path / "one-1")
    later = run(source, tmp_path / "one-2", stage)
    assert later.counts.failed == 2
    assert failed(tmp_path / "one-2") == dict.fromkeys(VICTIMS, ("inspect", reason, detail))
    run(source, tmp_path / "two", stage)
    assert tree(tmp_path / "one-2") == tree(tmp_path / "two")


@pytest.mark.parametrize("executor", [InlineExecutor(), LocalExecutor(workers=1)])
def test_an_image_that_takes_all_memory_of_a_scorer_is_failed(
    source: Path, tmp_path: Path, deadly: ModuleType, executor: Executor
):
    run(source, tmp_path / "out", deadly.Deadly(how="memory"), executor=executor)
    detail = "not enough memory for Deadly to score it"
    assert failed(tmp_path / "out") == dict.fromkeys(VICTIMS, ("inspect", "out_of_memory", detail))
    assert sizes(tmp_path / "out") == SCORED


@pytest.mark.parametrize("how", ["memory", "SIGSEGV"])
def test_images_that_are_too_much_together_only_are_scored_one_by_one(
    source: Path, tmp_path: Path, deadly: ModuleType, how: str
):
    run(source, tmp_path / "out", deadly.Deadly(how=how, company=True))
    assert failed(tmp_path / "out") == {}
    assert len(sizes(tmp_path / "out")) == 20


def test_images_that_a_scorer_cannot_score_count_against_the_budget(
    source: Path, tmp_path: Path, deadly: ModuleType
):
    with pytest.raises(FailureBudgetError, match=r"2 of 20 images failed.*'0/03': scoring this"):
        run(source, tmp_path / "out", deadly.Deadly(), max_failed=0.05)
