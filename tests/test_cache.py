"""Score once, decide many: what is computed again, and that the result is that of a fresh run."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.engine.progress import Quiet
from pixsieve.pipeline import Pipeline
from pixsieve.query import query
from pixsieve.select.base import Verdicts
from pixsieve.stages import (
    ExactDeduplicationStage,
    FilterStage,
    ImageQualityStage,
    ImageReaderStage,
    ImageWriterStage,
    Needs,
    PerceptualHashStage,
    ScoreStage,
    SelectStage,
)
from pixsieve.testing import images
from pixsieve.testing.faults import tree

COUNT = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Brightness(ScoreStage):
    needs = Needs(pixels=32, gray=True)

    def adds(self):
        return pa.schema([pa.field("brightness", pa.float32(), metadata={"scale": "0 to 1"})])

    def load(self):
        def score(batch):
            assert all(pixels.ndim == 2 for pixels in batch.pixels)
            values = [pixels.mean() / 255 for pixels in batch.pixels]
            return pa.RecordBatch.from_pydict({"brightness": np.array(values, np.float32)})

        return score


@dataclass(frozen=True, slots=True, kw_only=True)
class Redness(ScoreStage):
    """Stands for an expensive scorer; it keeps what it saw in the file that it is told."""

    seen: str
    weights: str = ""
    score_threshold: float | None = None

    needs = Needs(pixels=32)

    def adds(self):
        return pa.schema([("redness", pa.float32())])

    def reads(self):
        return ("image_id",)

    def without_places(self):
        return Redness(seen="", score_threshold=self.score_threshold)

    def digests(self):
        return (Path(self.weights).read_text(),) if self.weights else ()

    def selection(self):
        if self.score_threshold is None:
            return None
        return FilterStage(f"redness >= {self.score_threshold}")

    def load(self):
        def score(batch):
            with Path(self.seen).open("a") as log:
                log.writelines(f"{image_id}\n" for image_id in batch.rows["image_id"].to_pylist())
            values = [pixels[..., 0].mean() / 255 for pixels in batch.pixels]
            return pa.RecordBatch.from_pydict({"redness": np.array(values, np.float32)})

        return score


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        flat = Image.new("RGB", (60, 40), (number * 10, number * 7, 255 - number * 3))
        (folder / f"{number:02d}.png").write_bytes(images.save(flat, "PNG"))
    return folder


@pytest.fixture
def seen(tmp_path):
    path = tmp_path / "seen.txt"
    path.touch()
    return path


def scored(seen: Path) -> list[str]:
    """Return what the expensive scorer saw since the last call."""
    lines = seen.read_text().splitlines()
    seen.write_text("")
    return lines


def run(photos, output, seen, *, where="brightness > 0.4", threshold=None, workspace, weights=""):
    shutil.rmtree(output, ignore_errors=True)
    pipeline = Pipeline(name="cache")
    pipeline.add_stage(ImageReaderStage(str(photos)))
    pipeline.add_stage(Brightness())
    pipeline.add_stage(FilterStage(where))
    pipeline.add_stage(Redness(seen=str(seen), weights=str(weights), score_threshold=threshold))
    pipeline.add_stage(ExactDeduplicationStage())
    pipeline.add_stage(
        ImageWriterStage(output_dir=str(output), images_per_tar=5, image_format="keep")
    )
    return pipeline.run(InlineExecutor(), RunOptions(workspace=str(workspace)))


def test_a_filter_before_an_expensive_scorer_saves_it_the_work(photos, tmp_path, seen):
    result = run(photos, tmp_path / "out", seen, workspace=tmp_path / "ws")
    assert 0 < result.counts.kept < COUNT
    assert len(scored(seen)) == result.counts.kept


def test_another_threshold_decodes_nothing_and_gives_the_bytes_of_a_fresh_run(
    photos, tmp_path, seen
):
    run(photos, tmp_path / "first", seen, threshold=0.2, workspace=tmp_path / "ws")
    scored(seen)
    again = run(photos, tmp_path / "again", seen, threshold=0.4, workspace=tmp_path / "ws")
    assert scored(seen) == []
    assert again.decoded == 0
    run(photos, tmp_path / "fresh", seen, threshold=0.4, workspace=tmp_path / "other")
    assert tree(tmp_path / "again") == tree(tmp_path / "fresh")
    assert tree(tmp_path / "again") != tree(tmp_path / "first")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ImageQualityStage(), ImageQualityStage(dark_threshold=0.9, blurry_threshold=0.9)),
        (PerceptualHashStage(pdq=True), PerceptualHashStage()),
    ],
    ids=["thresholds of flags", "fewer hashes"],
)
def test_what_pixels_do_not_decide_decodes_nothing(photos, tmp_path, first, second):
    def score(stage, output, workspace):
        pipeline = Pipeline().add_stage(ImageReaderStage(str(photos))).add_stage(stage)
        pipeline.add_stage(ImageWriterStage(output_dir=str(tmp_path / output)))
        return pipeline.run(InlineExecutor(), RunOptions(workspace=str(tmp_path / workspace)))

    score(first, "first", "ws")
    assert score(second, "again", "ws").decoded == 0
    assert score(second, "fresh", "other").decoded > 0
    assert tree(tmp_path / "again") == tree(tmp_path / "fresh")
    assert tree(tmp_path / "again") != tree(tmp_path / "first")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag(ScoreStage):
    above: float

    def reads(self):
        return ("grey",)

    def adds(self):
        return pa.schema([("flag", pa.bool_())])

    def load(self):
        return lambda batch: pa.record_batch({"flag": pc.greater(batch.rows["grey"], self.above)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grey(ScoreStage):
    """Brings a companion as well as a selection."""

    above: float
    score_threshold: float | None = None

    needs = Needs(pixels=32, gray=True)

    def adds(self):
        return pa.schema([("grey", pa.float32())])

    def companion(self):
        return Flag(above=self.above)

    def alone(self):
        return Grey(above=0)

    def selection(self):
        return FilterStage(f"grey >= {self.score_threshold}")

    def load(self):
        return lambda batch: pa.record_batch({"grey": [float(p.mean()) for p in batch.pixels]})


def test_a_companion_beside_a_selection_has_its_own_scores(photos, tmp_path):
    flagged = []
    for above in (50, 200):
        pipeline = Pipeline().add_stage(ImageReaderStage(str(photos)))
        pipeline.add_stage(Grey(above=above, score_threshold=0))
        pipeline.run(InlineExecutor(), RunOptions(workspace=str(tmp_path / "ws")))
        (found,) = query(tmp_path / "ws", "select sum(flag::int) n from samples").to_pylist()
        flagged.append(found["n"])
    assert flagged[0] > flagged[1]


@dataclass(frozen=True, kw_only=True)
class Meeting(ScoreStage):
    """Scores when both of two runs are at it."""

    barrier: ClassVar[threading.Barrier]

    def adds(self):
        return pa.schema([("met", pa.bool_())])

    def load(self):
        def score(batch):
            self.barrier.wait(30)
            return pa.record_batch({"met": pa.array([True] * batch.rows.num_rows)})

        return score


class Later(Quiet):
    """Goes on to select when the other run has written its scores, too."""

    def start(self, step, total, unit):  # noqa: ARG002
        if step == "select":
            Meeting.barrier.wait(30)


def test_two_runs_on_one_workspace_do_not_take_each_others_scores(photos, tmp_path, monkeypatch):
    """Each scores the half that its filter leaves, and both write at the same time."""
    monkeypatch.setattr(Meeting, "barrier", threading.Barrier(2), raising=False)
    kept = {}

    def run_half(where):
        pipeline = Pipeline().add_stage(ImageReaderStage(str(photos))).add_stage(FilterStage(where))
        pipeline.add_stage(Meeting()).add_stage(FilterStage("met"))
        pipeline.add_stage(ImageWriterStage(output_dir=str(tmp_path / str(len(where)))))
        options = RunOptions(workspace=str(tmp_path / "ws"), progress=Later())
        kept[where] = pipeline.run(InlineExecutor(), options).counts.kept

    threads = [
        threading.Thread(target=run_half, args=(f"original_path {side} '12.png'",))
        for side in ("<", ">=")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kept.values()) == [12, COUNT - 12]


def test_an_edited_selection_of_ones_own_decides_anew(photos, tmp_path, monkeypatch):
    kept = []
    for code, limit in (("one", 0.1), ("two", 0.9)):
        monkeypatch.setattr("pixsieve.engine.run.source_digest", lambda _, code=code: code)
        monkeypatch.setattr(Few, "limit", limit)
        pipeline = Pipeline().add_stage(ImageReaderStage(str(photos))).add_stage(Few())
        options = RunOptions(workspace=str(tmp_path / "ws"))
        kept.append(pipeline.run(InlineExecutor(), options).counts.kept)
    assert kept[0] != kept[1]


@dataclass(frozen=True, kw_only=True)
class Few(SelectStage):
    limit: ClassVar[float] = 0.5

    def decide(self, rows):
        number = int(len(rows) * self.limit)
        return Verdicts(drop=np.arange(number), reason="few", evidence=pa.array(["{}"] * number))


def test_a_looser_filter_computes_only_what_is_missing(photos, tmp_path, seen):
    run(photos, tmp_path / "strict", seen, where="brightness > 0.4", workspace=tmp_path / "ws")
    strict = set(scored(seen))
    loose = run(
        photos, tmp_path / "loose", seen, where="brightness > 0.25", workspace=tmp_path / "ws"
    )
    added = scored(seen)
    assert added
    assert not strict & set(added)
    assert loose.decoded == len(added)
    run(photos, tmp_path / "fresh", seen, where="brightness > 0.25", workspace=tmp_path / "other")
    assert strict | set(added) == set(scored(seen))
    assert tree(tmp_path / "loose") == tree(tmp_path / "fresh")


def test_a_stricter_filter_computes_nothing(photos, tmp_path, seen):
    run(photos, tmp_path / "loose", seen, where="brightness > 0.25", workspace=tmp_path / "ws")
    scored(seen)
    strict = run(
        photos, tmp_path / "strict", seen, where="brightness > 0.4", workspace=tmp_path / "ws"
    )
    assert (scored(seen), strict.decoded) == ([], 0)
    back = run(
        photos, tmp_path / "back", seen, where="brightness > 0.25", workspace=tmp_path / "ws"
    )
    assert (scored(seen), back.decoded) == ([], 0)
    assert tree(tmp_path / "back") == tree(tmp_path / "loose")


def test_another_model_file_is_scored_anew_and_is_another_recipe(photos, tmp_path, seen):
    weights = tmp_path / "weights"
    weights.write_text("one")
    first = run(photos, tmp_path / "one", seen, workspace=tmp_path / "ws", weights=weights)
    scored(seen)
    weights.write_text("two")
    run(photos, tmp_path / "two", seen, workspace=tmp_path / "ws", weights=weights)
    assert len(scored(seen)) == first.counts.kept
    manifests = [(tmp_path / name / "manifest.json").read_text() for name in ("one", "two")]
    assert manifests[0] != manifests[1]


def test_a_touched_source_is_measured_anew_alone(tmp_path, seen):
    for name in ("a", "b"):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(images.photo(ord(name), 50, 50, "PNG"))
    for name in ("a", "b"):
        shutil.make_archive(str(tmp_path / "in" / name), "tar", tmp_path / "in" / name)
        shutil.rmtree(tmp_path / "in" / name)
    where = "brightness >= 0"
    run(tmp_path / "in", tmp_path / "one", seen, where=where, workspace=tmp_path / "ws")
    assert len(scored(seen)) == 2
    os.utime(tmp_path / "in" / "b.tar", ns=(1, 1))
    again = run(tmp_path / "in", tmp_path / "two", seen, where=where, workspace=tmp_path / "ws")
    assert len(scored(seen)) == 1
    assert again.decoded == 1
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_scores_do_not_depend_on_the_company_that_a_scorer_keeps(tmp_path):
    """A scorer that needs few pixels gets the same ones beside a scorer that needs many."""
    folder = tmp_path / "big"
    folder.mkdir()
    (folder / "x.jpg").write_bytes(images.photo(1, 3000, 2000))

    def brightness(output, *more):
        pipeline = Pipeline().add_stage(ImageReaderStage(str(folder))).add_stage(Brightness())
        for stage in more:
            pipeline.add_stage(stage)
        pipeline.add_stage(ImageWriterStage(output_dir=str(tmp_path / output)))
        result = pipeline.run(InlineExecutor())
        sidecar = Path(tmp_path / output / result.shards[0]).with_suffix(".parquet")
        return pq.read_table(sidecar)["brightness"].to_pylist()

    seen = tmp_path / "seen"
    assert brightness("alone") == brightness("beside", Redness(seen=str(seen)))


def test_a_damaged_score_table_is_computed_anew(photos, tmp_path, seen):
    run(photos, tmp_path / "out", seen, workspace=tmp_path / "ws")
    first = tree(tmp_path / "out")
    scored(seen)
    for path in (tmp_path / "ws" / ".pixsieve" / "tables").iterdir():
        if "redness" in pq.read_schema(path).names:
            path.write_bytes(path.read_bytes()[:-1])
    run(photos, tmp_path / "out", seen, workspace=tmp_path / "ws")
    assert scored(seen)
    assert tree(tmp_path / "out") == first
