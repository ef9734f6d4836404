"""What selection decides reaches the dataset: splits, buckets, columns, tasks of its own."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixsieve import Pipeline, RunOptions
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.local import LocalExecutor
from pixsieve.errors import PlanError, RunError
from pixsieve.query import query
from pixsieve.select.base import Scope, Task, Verdicts
from pixsieve.select.keys import uniform
from pixsieve.stages import (
    ExactDeduplicationStage,
    FilterStage,
    ImageQualityStage,
    ImageReaderStage,
    ImageWriterStage,
    Needs,
    PerceptualDeduplicationStage,
    PerceptualHashStage,
    ScoreStage,
    SelectStage,
    SemanticDeduplicationStage,
    ShuffleStage,
    Stage,
)
from pixsieve.testing import images
from pixsieve.verify import verify
from pixsieve.why import why

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from pixsieve.select.base import Rows
    from pixsieve.stage import ImageBatch

COUNT = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for number in range(COUNT):
        (folder / f"i{number:03d}.jpg").write_bytes(images.photo(number))
        (folder / f"i{number:03d}.txt").write_text(f"c{number}")
    return folder


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch):
    """Let worker processes import this module, which has stages of its own."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent))


def digit(image_id: str) -> int:
    return int(image_id[-16:], 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted(SelectStage):
    """Puts samples into splits and buckets, and gives each a column, by its id."""

    def adds(self) -> pa.Schema:
        return pa.schema([pa.field("cluster", pa.int32(), metadata={"source": "the id"})])

    def decide(self, rows: Rows) -> Verdicts:
        numbers = [
            digit(image_id)
            for batch in rows.batches(("image_id",))
            for image_id in batch.columns["image_id"].to_pylist()
        ]
        return Verdicts(
            split=pa.array(["val" if n % 5 == 0 else "train" for n in numbers]),
            bucket=pa.array([("64x48", "48x64")[n // 7 % 2] for n in numbers]),
            columns={"cluster": pa.array([n % 9 for n in numbers], pa.int32())},
            notes=(f"{len(numbers)} samples are sorted",),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves(SelectStage):
    """Drops the samples with an odd key, which tasks of its own find in two rounds."""

    tasks: int = 3

    def reads(self) -> tuple[str, ...]:
        return ("image_id",)

    def rounds(self, scope: Scope) -> Generator[Sequence[Task], Sequence[str], None]:
        bounds = np.linspace(0, len(scope.rows()), self.tasks + 1).astype(int).tolist()
        found = yield [
            Task(name=f"keys {n}", work=functools.partial(write_keys, scope, start, stop))
            for n, (start, stop) in enumerate(itertools.pairwise(bounds))
        ]
        yield [Task(name="join 0", work=functools.partial(join, tuple(found)))]

    def decide(self, rows: Rows) -> Verdicts:
        (path,) = rows.found
        odd = np.fromfile(path, np.int64)
        return Verdicts(drop=odd[rows.kept[odd]], reason="odd_key")


def write_keys(scope: Scope, start: int, stop: int, path: str) -> None:
    keys = [
        uniform(batch.columns["image_id"], scope.seed)
        for batch in scope.rows().batches(("image_id",), start, stop)
    ]
    np.concatenate([np.empty(0, np.uint64), *keys]).tofile(path)


def join(paths: Sequence[str], path: str) -> None:
    keys = np.concatenate([np.fromfile(each, np.uint64) for each in paths])
    np.flatnonzero(keys % 2 == 1).tofile(path)


def pipeline(source: Path, out: Path | None, *stages: Stage, **options: object) -> Pipeline:
    made = Pipeline(name="x", seed=1).add_stage(ImageReaderStage(str(source)))
    for stage in stages:
        made.add_stage(stage)
    if out is not None:
        made.add_stage(ImageWriterStage(output_dir=str(out), **options))  # type: ignore[arg-type]
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "options",
    [
        {"images_per_tar": 5},
        {"images_per_tar": 5, "shards_multiple_of": 2},
        {"max_bytes_per_tar": 20480, "prefix": "a-b"},
        {"images_per_tar": 3, "member_names": "sequential", "image_format": "png"},
    ],
)
def test_splits_buckets_and_columns_reach_the_dataset(
    source: Path, tmp_path: Path, options: dict[str, object]
):
    stages = (FilterStage("caption <> 'c3'"), ShuffleStage(), Sorted(), FilterStage("cluster <> 8"))
    made = pipeline(source, tmp_path / "out", *stages, **options)
    result = made.run(InlineExecutor())
    assert "Sorted: 60 samples are sorted" in result.notes
    assert verify(tmp_path / "out", workers=0).findings == ()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    shards = manifest["shards"]
    assert {(shard["split"], shard["bucket"]) for shard in shards} == {
        (split, bucket) for split in ("train", "val") for bucket in ("64x48", "48x64")
    }
    assert all(f"-{shard['split']}-{shard['bucket']}-" in shard["tar"] for shard in shards)
    rows = pa.concat_tables([pq.read_table(tmp_path / "out" / s["sidecar"]) for s in shards])
    assert rows.schema.names[-1] == "cluster"
    for image_id, split, cluster in zip(
        *(rows[name].to_pylist() for name in ("image_id", "split", "cluster")), strict=True
    ):
        assert cluster == digit(image_id) % 9 != 8
        assert split == ("val" if digit(image_id) % 5 == 0 else "train")
    assert [s.image_id for b in result.batches() for s in b] == rows["image_id"].to_pylist()

    assert made.run(InlineExecutor()).did_nothing
    pipeline(source, tmp_path / "two", *stages, **options).run(LocalExecutor(workers=2))
    assert contents(tmp_path / "two") == contents(tmp_path / "out")
    (tmp_path / "out" / shards[1]["tar"]).unlink()
    (tmp_path / "out" / "manifest.json").unlink()
    made.run(InlineExecutor())
    assert contents(tmp_path / "two") == contents(tmp_path / "out")


def test_a_group_with_fewer_samples_than_shards_stops_the_run(source: Path, tmp_path: Path):
    with pytest.raises(RunError, match="shards_multiple_of"):
        pipeline(source, tmp_path / "out", Sorted(), shards_multiple_of=40).run(InlineExecutor())


def test_evidence_of_a_filter_over_a_selected_column_is_told_everywhere(
    source: Path, tmp_path: Path
):
    stages = (Sorted(), FilterStage("cluster < 8"), FilterStage("width > 1"))
    made = pipeline(source, tmp_path / "out", *stages)
    made.run(InlineExecutor(), RunOptions(workspace=str(tmp_path / "work")))
    dropped = pq.read_table(tmp_path / "out" / "dropped" / "dropped.parquet").to_pylist()
    assert dropped
    for row in dropped:
        assert json.loads(row["evidence"]) == {"where": "cluster < 8", "cluster": 8}
        (answer,) = why(tmp_path / "work", row["image_id"])
        assert answer.evidence == row["evidence"]
    sql = "SELECT image_id, evidence FROM samples WHERE evidence IS NOT NULL ORDER BY 1"
    found = query(tmp_path / "work", sql).to_pylist()
    assert found == [
        {"image_id": row["image_id"], "evidence": row["evidence"]}
        for row in sorted(dropped, key=lambda row: row["image_id"])
    ]
    sql = "SELECT count(*) AS n FROM samples WHERE cluster = 8 AND split = 'val'"
    assert query(tmp_path / "work", sql).to_pylist() == [{"n": 0}]  # what is dropped has no split


@pytest.mark.parametrize("before", [(), (FilterStage("caption <> 'c3'"),), (ImageQualityStage(),)])
def test_a_stages_own_tasks_are_run_and_kept(
    source: Path, tmp_path: Path, before: tuple[Stage, ...]
):
    stages = (*before, Halves(), ShuffleStage())
    kept = {}
    for name, executor in (("a", InlineExecutor()), ("b", LocalExecutor(workers=2))):
        result = pipeline(source, tmp_path / name, *stages).run(executor)
        steps = [timing.step for timing in result.timings]
        assert steps.index("keys") < steps.index("join")
        kept[name] = contents(tmp_path / name)
    assert kept["a"] == kept["b"]
    manifest = json.loads(kept["a"]["manifest.json"])
    reasons = {reason["reason"] for reason in manifest["reasons"]}
    assert "odd_key" in reasons
    for shard in manifest["shards"]:
        ids = pq.read_table(tmp_path / "a" / shard["sidecar"])["image_id"]
        assert (uniform(ids, 1) % 2 == 0).all()
    again = pipeline(source, tmp_path / "a", *stages).run(InlineExecutor())
    assert again.did_nothing
    assert "keys" not in [timing.step for timing in again.timings]  # nor are they looked up


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours(ScoreStage):
    """Adds the mean of each channel as a vector."""

    needs = Needs(pixels=64)

    def adds(self) -> pa.Schema:
        return pa.schema([pa.field("embedding", pa.list_(pa.float32(), 3))])

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        return mean_colours


def mean_colours(batch: ImageBatch) -> pa.RecordBatch:
    means = [pixels.mean((0, 1)).tolist() for pixels in batch.pixels]
    return pa.record_batch({"embedding": pa.array(means, pa.list_(pa.float32(), 3))})


def test_stages_that_merge_one_after_the_other_lose_no_caption(tmp_path: Path):
    folder = tmp_path / "source"
    folder.mkdir()
    scenes = [(scene, quality) for scene in range(6) for quality in (75, 95)]
    captions = set()
    for scene, quality in scenes:
        for copy in "abc":
            name = f"{scene}-{quality}-{copy}"
            (folder / f"{name}.jpg").write_bytes(images.photo(scene, quality=quality))
            caption = f"long {name}" if copy == "b" else name
            (folder / f"{name}.txt").write_text(caption)
            captions.add(caption)
    exact = ExactDeduplicationStage(merge=("caption",))
    perceptual = PerceptualDeduplicationStage(merge=("caption",))
    semantic = SemanticDeduplicationStage(confirm=None, eps=0.005, merge=("caption",))
    hashes, colours = PerceptualHashStage(pdq=True), Colours()
    found = []
    for name, *stages in (
        ("one pass", hashes, colours, exact, perceptual, semantic, ShuffleStage()),
        ("two passes", hashes, exact, perceptual, colours, semantic, ShuffleStage()),
        ("three passes", exact, hashes, perceptual, colours, FilterStage("width > 1"), semantic),
    ):
        pipeline(folder, tmp_path / name, *stages).run(InlineExecutor())
        assert verify(tmp_path / name, workers=0).findings == ()
        manifest = json.loads((tmp_path / name / "manifest.json").read_bytes())
        assert {reason["reason"] for reason in manifest["reasons"]} == {
            "exact_duplicate",
            "perceptual_duplicate",
            "semantic_duplicate",
        }
        sidecars = [tmp_path / name / shard["sidecar"] for shard in manifest["shards"]]
        rows = pa.concat_tables([pq.read_table(path) for path in sidecars])
        assert rows.schema.names.count("merged_caption") == 1
        merged = {row["caption"]: row["merged_caption"] for row in rows.to_pylist()}
        told = [*merged, *(text for texts in merged.values() for text in texts or ())]
        assert len(told) == len(captions)
        assert set(told) == captions
        assert 1 < len(merged) < 6
        found.append(merged)
    assert found[0] == found[1] == found[2]


def test_a_scorer_cannot_read_what_is_decided_over_all_rows(source: Path):
    class Reads(ImageQualityStage):
        def reads(self) -> tuple[str, ...]:
            return ("cluster",)

    with pytest.raises(PlanError, match="'cluster', which Sorted decides over all rows"):
        pipeline(source, None, Sorted(), Reads()).plan()
