"""Scorers of one's own: what they are given, what they may give, and what becomes of it."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve import image
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.errors import PlanError, RunError
from pixsieve.pipeline import Pipeline
from pixsieve.schema import Problem
from pixsieve.scorers.guard import CHECK, NoGuard
from pixsieve.scorers.inspection import InspectOptions
from pixsieve.scorers.measure import CHUNK_ROWS, PROBLEM, Measured, Scorer, measure_part
from pixsieve.scorers.reading import SampleBuffer
from pixsieve.sources import SourceFiles, find_shards, index_shard
from pixsieve.sources.base import IndexOptions
from pixsieve.stages import FilterStage, ImageReaderStage, ImageWriterStage, Needs, ScoreStage
from pixsieve.storage import LocalStorage
from pixsieve.testing import images
from pixsieve.testing.corpus import write_files, write_tars

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pixsieve.engine.result import RunResult
    from pixsieve.scorers.reading import Place
    from pixsieve.stage import ImageBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Brightness(ScoreStage):
    """The mean of all pixels, 0 to 255: a scorer in ten lines."""

    needs = Needs(pixels=64, gray=True)

    def adds(self) -> pa.Schema:
        return pa.schema([("brightness", pa.float32())])

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        def score(batch: ImageBatch) -> pa.RecordBatch:
            means = [float(pixels.mean()) for pixels in batch.pixels]
            return pa.record_batch({"brightness": means})

        return score


SEEN: list[ImageBatch] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Spy(ScoreStage):
    """Keeps what it is given, and gives what it is told."""

    wants: Needs | None = None
    column: str = "spied"
    looks: tuple[str, ...] = ()
    gives: Any = None

    @property
    def needs(self) -> Needs:
        return self.wants or Needs()

    def reads(self) -> tuple[str, ...]:
        return self.looks

    def adds(self) -> pa.Schema:
        return pa.schema([(self.column, pa.int32())])

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        def score(batch: ImageBatch) -> pa.RecordBatch:
            SEEN.append(batch)
            if self.gives is not None:
                return pa.record_batch(self.gives)
            return pa.record_batch({self.column: list(range(batch.rows.num_rows))})

        return score


@pytest.fixture(autouse=True)
def _forget() -> None:
    SEEN.clear()


def measure(
    folder: Path,
    files: Mapping[str, bytes],
    *steps: ScoreStage | FilterStage,
    decode: frozenset[str] = frozenset(image.FORMATS),
    guard: NoGuard | None = None,
    limits: image.ImageLimits = image.DEFAULT_LIMITS,
    inspection: pa.Table | None = None,
    tars: bool = False,
) -> Measured:
    """Index what files hold and measure it in one part."""
    source = folder / "source"
    write_tars(source, files, 1) if tars else write_files(source, files)
    root, shards = find_shards(str(source), LocalStorage())
    (shard,) = shards
    index = index_shard(shard, IndexOptions(), LocalStorage(), str(folder / "spool")).table
    options = InspectOptions(
        decode=decode, first_frame=False, caption_field=None, json_fields=(), limits=limits
    )
    scorers = [
        Scorer(stage=step, score=step.load(), known=None) if isinstance(step, ScoreStage) else step
        for step in steps
    ]
    with SourceFiles(root, LocalStorage(), str(folder / "spool")) as opened:
        return measure_part(index, inspection, scorers, options, opened, guard or NoGuard())


def run(
    folder: Path, source: Path, *stages: Any, decode_check: Any = "full", workspace: str = "work"
) -> RunResult:
    pipeline = Pipeline().add_stage(ImageReaderStage(str(source), decode_check=decode_check))
    for stage in stages:
        pipeline.add_stage(stage)
    pipeline.add_stage(ImageWriterStage(output_dir=str(folder), image_format="keep"))
    options = RunOptions(workspace=str(folder.parent / workspace), max_failed=1)
    return pipeline.run(InlineExecutor(), options)


def sidecar(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("images-*.parquet")))


def test_a_scorer_of_ten_lines_fills_a_column_of_the_sidecar(tmp_path: Path):
    photos = {f"{number:02d}.jpg": images.photo(number, 80, 70) for number in range(6)}
    write_files(tmp_path / "photos", photos)
    result = run(tmp_path / "out", tmp_path / "photos", Brightness(), FilterStage("brightness > 0"))
    assert result.decoded == 6
    rows = sidecar(tmp_path / "out").to_pylist()
    assert len(rows) == 6
    for row in rows:
        with Image.open(io.BytesIO(photos[row["original_path"]])) as opened:
            expected = np.asarray(opened.convert("L")).mean()
        assert row["brightness"] == pytest.approx(expected, abs=1.5)
    assert (
        pq.read_schema(next((tmp_path / "out").glob("images-*.parquet"))).field("brightness").type
        == pa.float32()
    )


def test_another_pipeline_on_the_same_workspace_decodes_nothing(tmp_path: Path):
    write_files(tmp_path / "photos", {f"{n}.jpg": images.photo(n, 80, 70) for n in range(6)})
    first = run(tmp_path / "one", tmp_path / "photos", Brightness())
    values = sorted(sidecar(tmp_path / "one")["brightness"].to_pylist())
    middle = (values[2] + values[3]) / 2
    again = run(
        tmp_path / "two", tmp_path / "photos", Brightness(), FilterStage(f"brightness > {middle}")
    )
    assert (first.decoded, again.decoded) == (6, 0)
    assert sorted(sidecar(tmp_path / "two")["brightness"].to_pylist()) == values[3:]


def test_each_scorer_gets_what_it_asked_for(tmp_path: Path):
    files = {"a.jpg": images.photo(1, 700, 600), "b.png": images.photo(2, 40, 30, "PNG")}
    measure(
        tmp_path,
        files,
        Spy(column="nothing"),
        Spy(column="gray", wants=Needs(pixels=32, gray=True), looks=("format", "width")),
        Spy(column="rgb", wants=Needs(pixels=32)),
        Spy(column="large", wants=Needs(pixels=600)),
        Spy(column="bytes", wants=Needs(encoded=True)),
    )
    nothing, gray, rgb, large, encoded = SEEN
    assert nothing.pixels == nothing.encoded == gray.encoded == encoded.pixels == ()
    assert gray.rows.to_pydict() == {"format": ["jpeg", "png"], "width": [700, 40]}
    assert encoded.encoded == tuple(files.values())
    for one, three in zip(gray.pixels, rgb.pixels, strict=True):
        assert one.dtype == three.dtype == np.uint8
        assert (*one.shape, 3) == three.shape
        luma = np.asarray(Image.fromarray(three).convert("L")).astype(int)
        assert abs(luma - one).max() <= 1
    assert rgb.pixels[1].shape == (30, 40, 3)  # its own size, as it is smaller
    assert large.pixels[0].shape == (600, 700, 3)


def test_what_a_scorer_sees_does_not_depend_on_the_others(tmp_path: Path):
    files = {"a.jpg": images.photo(1, 1500, 1200), "b.png": images.photo(2, 600, 500, "PNG")}
    spy = Spy(wants=Needs(pixels=100, gray=True))
    measure(tmp_path / "1", files, spy)
    measure(tmp_path / "2", files, Spy(column="a", wants=Needs(pixels=1200)), spy)
    alone, company = SEEN[0], SEEN[2]
    for one, two in zip(alone.pixels, company.pixels, strict=True):
        assert (one == two).all()


def test_pixels_are_upright(tmp_path: Path):
    measure(
        tmp_path,
        {"a.jpg": images.oriented_jpeg(6, width=96, height=64)},
        Spy(wants=Needs(pixels=64)),
    )
    assert SEEN[0].pixels[0].shape == (96, 64, 3)


def test_bad_samples_cost_themselves_alone(tmp_path: Path):
    files = {
        "a.jpg": images.photo(1), "b.jpg": images.truncated(images.photo(2)),
        "c.jpg": images.not_images()["HTML"], "d.jpg": images.photo(3), "e.txt": b"alone",
        "f.gif": images.animated_gif(), "g.png": images.photo(4, format="PNG"),
    }  # fmt: skip
    found = measure(tmp_path, files, Spy(wants=Needs(pixels=32)), Brightness())
    problems = found.inspection["problem"].to_pylist()
    assert problems[:2] + problems[3:4] == [None, Problem.TRUNCATED_IMAGE, None]
    assert problems[5:] == [Problem.ANIMATED, None]
    assert found.scores[0]["spied"].to_pylist() == [0, None, None, 1, None, None, 2]
    brightness = found.scores[1]["brightness"].to_pylist()
    assert [value is None for value in brightness] == [False, True, True, False, True, True, False]
    assert {name: len(table) for name, table in enumerate(found.scores)} == {0: 7, 1: 7}


@pytest.mark.parametrize("scored", [False, True])
def test_damage_is_found_with_scorers_and_without(tmp_path: Path, scored: bool):
    files = {
        "a.jpg": images.truncated(images.photo(1)),
        "b.png": images.flipped(images.photo(2, format="PNG"), 300),
        "c.png": images.truncated(images.photo(3, format="PNG"), 0.98),
        "d.webp": images.truncated(images.photo(4, format="WEBP")),
        "e.jpg": images.photo(5),
    }
    found = measure(tmp_path, files, *([Spy(wants=Needs(pixels=32))] if scored else []))
    assert found.inspection["problem"].to_pylist() == [
        Problem.TRUNCATED_IMAGE, Problem.DECODE_FAILED, Problem.TRUNCATED_IMAGE,
        Problem.TRUNCATED_IMAGE, None,
    ]  # fmt: skip
    assert all(found.inspection["problem_detail"].to_pylist()[:4])


def test_only_headers_are_read_where_no_more_is_asked(tmp_path: Path):
    files = {"a.jpg": images.truncated(images.photo(1)), "b.png": images.photo(2, format="PNG")}
    found = measure(tmp_path, files, decode=frozenset({"png"}))
    assert found.inspection["problem"].to_pylist() == [None, None]
    assert found.decoded == 1


def test_a_scorer_of_pixels_has_all_images_checked_even_if_headers_were_enough(tmp_path: Path):
    files = {f"{n}.jpg": images.photo(n, 80, 70) for n in range(3)}
    files["cut.jpg"] = images.truncated(images.photo(9, 80, 70))
    write_files(tmp_path / "photos", files)
    result = run(tmp_path / "out", tmp_path / "photos", Brightness(), decode_check="header")
    assert (result.counts.kept, result.counts.failed) == (3, 1)
    (reason,) = result.reasons
    assert (reason.stage, reason.reason) == ("inspect", Problem.TRUNCATED_IMAGE)


def test_what_ended_a_worker_is_not_touched_again(tmp_path: Path):
    files = {f"{n}.jpg": images.photo(n) for n in range(3)}
    guard = NoGuard({1: Problem.DECODER_CRASH})
    found = measure(tmp_path, files, Spy(wants=Needs(pixels=32)), guard=guard)
    assert found.inspection["problem"].to_pylist() == [None, Problem.DECODER_CRASH, None]
    assert "ended a worker" in found.inspection["problem_detail"][1].as_py()
    assert found.inspection["sha256"][1].as_py() is None
    assert found.scores[0]["spied"].to_pylist() == [0, None, 1]


def test_what_ended_a_worker_when_it_was_decoded_is_still_inspected(tmp_path: Path):
    files = {f"{n}.jpg": images.photo(n) for n in range(3)}
    guard = NoGuard({1: Problem.DECODE_TIMEOUT}, {1: {CHECK}})
    found = measure(tmp_path, files, guard=guard)
    assert found.inspection["problem"].to_pylist() == [None, Problem.DECODE_TIMEOUT, None]
    assert found.inspection["problem_detail"][1].as_py().startswith("decoding this image")
    assert found.inspection["sha256"].null_count == 0


def test_a_unit_that_lost_a_worker_scores_images_one_by_one(tmp_path: Path):
    files = {f"{n}.jpg": images.photo(n) for n in range(3)}
    guard = NoGuard({1: Problem.DECODER_CRASH}, {1: {1}})  # the second scorer did it
    found = measure(tmp_path, files, Spy(column="a"), Spy(column="b"), Spy(column="c"), guard=guard)
    assert [batch.rows.num_rows for batch in SEEN] == [1] * (3 + 2 + 2)
    assert found.inspection["problem"].null_count == 3
    assert [table[PROBLEM][1].as_py() for table in found.scores] == [
        None, Problem.DECODER_CRASH, None,
    ]  # fmt: skip


def test_memory_that_is_short_while_an_image_is_read_is_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = {f"{n}.jpg": images.photo(n) for n in range(3)}
    read = SampleBuffer.read

    def short(self: SampleBuffer, members: Sequence[Place]) -> list[memoryview]:
        if members[0][0] == "1.jpg":
            raise MemoryError
        return read(self, members)

    monkeypatch.setattr(SampleBuffer, "read", short)
    found = measure(tmp_path, files, Spy(wants=Needs(pixels=32)))
    assert found.inspection["problem"].to_pylist() == [None, Problem.OUT_OF_MEMORY, None]
    assert found.scores[0]["spied"].to_pylist() == [0, None, 1]


def test_images_with_too_many_bytes_are_not_read(tmp_path: Path):
    files = {"a.jpg": images.photo(1, 300, 300), "b.jpg": images.photo(2, 20, 20)}
    limits = image.ImageLimits(max_bytes=len(files["b.jpg"]))
    found = measure(tmp_path, files, limits=limits)
    assert found.inspection["problem"].to_pylist() == [Problem.TOO_MANY_BYTES, None]
    assert found.inspection["sha256"][0].as_py() is None


def test_batches_are_bounded_and_every_row_gets_its_own_score(tmp_path: Path):
    small = images.photo(1, 16, 16)
    files = {}
    for number in range(CHUNK_ROWS + 40):
        files[f"{number:04d}.jpg"] = small + b"\0" * number
        files[f"{number:04d}.txt"] = f"caption {number}".encode()

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Size(ScoreStage):
        needs = Needs(encoded=True)

        def reads(self) -> tuple[str, ...]:
            return ("caption", "byte_size")

        def adds(self) -> pa.Schema:
            return pa.schema([("size", pa.int64())])

        def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
            def score(batch: ImageBatch) -> pa.RecordBatch:
                SEEN.append(batch)
                sizes = [len(data) for data in batch.encoded]
                assert sizes == batch.rows["byte_size"].to_pylist()
                return pa.record_batch({"size": sizes})

            return score

    found = measure(tmp_path, files, Size(), tars=True)
    assert found.scores[0]["size"].to_pylist() == [
        len(small) + number for number in range(CHUNK_ROWS + 40)
    ]
    assert [batch.rows.num_rows for batch in SEEN] == [CHUNK_ROWS, 40]
    captions = [text for batch in SEEN for text in batch.rows["caption"].to_pylist()]
    assert captions == [f"caption {number}" for number in range(CHUNK_ROWS + 40)]


def test_no_image_at_all_gives_columns_of_nulls_with_their_types(tmp_path: Path):
    found = measure(tmp_path, {"a.jpg": images.not_images()["HTML"]}, Spy(), Brightness())
    assert not SEEN
    assert found.scores[0].schema.field("spied").type == pa.int32()
    assert found.scores[1]["brightness"].to_pylist() == [None]


def test_an_inspection_is_not_repeated(tmp_path: Path):
    files = {"a.jpg": images.photo(1), "b.jpg": images.truncated(images.photo(2))}
    first = measure(tmp_path, files)
    again = measure(tmp_path, files, Spy(), inspection=first.inspection)
    assert again.inspection == first.inspection
    assert (first.decoded, again.decoded) == (2, 0)
    assert again.scores[0]["spied"].to_pylist() == [0, None]


def test_a_filter_between_spares_later_scorers(tmp_path: Path):
    files = {f"{n}.jpg": images.photo(n, 20 + 10 * n, 64) for n in range(5)}
    found = measure(
        tmp_path,
        files,
        Spy(column="a"),
        FilterStage("width >= 40"),
        Spy(column="b", wants=Needs(pixels=8)),
    )
    assert found.scores[0]["a"].to_pylist() == [0, 1, 2, 3, 4]
    assert found.scores[1]["b"].to_pylist() == [None, None, 0, 1, 2]


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        ({"spied": [1]}, "gave 1 rows of ['spied'] for 2 images; expected one row each"),
        ({"spied": [1, 2, 3]}, "gave 3 rows"),
        ({"other": [1, 2]}, "gave 2 rows of ['other']"),
        ({"spied": [1, 2], "more": [1, 2]}, "gave 2 rows of ['spied', 'more']"),
        ({"spied": ["a", "b"]}, "gave 'spied' as string, expected int32"),
        ({"spied": [0.5, 1.5]}, "gave 'spied' as double, expected int32"),
        ({"spied": [2**40, 1]}, "gave 'spied' as int64, expected int32"),
    ],
)
def test_a_scorer_that_answers_wrongly_is_named_with_its_fault(
    tmp_path: Path, gives: dict[str, list[Any]], says: str
):
    files = {"a.jpg": images.photo(1), "b.jpg": images.photo(2)}
    with pytest.raises(PlanError) as refused:
        measure(tmp_path, files, Spy(gives=gives))
    assert f"Spy {says}" in str(refused.value)
    assert "mend what its load() returns" in str(refused.value)


def test_a_bug_of_a_users_scorer_is_told_with_its_place(tmp_path: Path):
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Broken(Brightness):
        def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
            return lambda batch: pa.record_batch({"brightness": [1 / 0 for _ in batch.pixels]})

    told = r"^Broken failed: ZeroDivisionError: division by zero \(.*test_measure.py:\d+, in <listc"
    with pytest.raises(RunError, match=told) as stopped:
        measure(tmp_path, {"a.jpg": images.photo(1)}, Broken())
    assert isinstance(stopped.value.__cause__, ZeroDivisionError)


def test_an_exit_of_a_users_scorer_is_told_likewise(tmp_path: Path):
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Leaving(Brightness):
        def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
            return lambda _: sys.exit(3)

    with pytest.raises(RunError, match=r"^Leaving failed: SystemExit: 3"):
        measure(tmp_path, {"a.jpg": images.photo(1)}, Leaving())


def test_a_scorer_that_gives_no_record_batch_is_told(tmp_path: Path):
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Careless(Brightness):
        def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
            return lambda batch: {"brightness": [0.5 for _ in batch.pixels]}  # type: ignore[return-value]

    with pytest.raises(PlanError, match=r"Careless gave a dict, expected a pyarrow\.RecordBatch"):
        measure(tmp_path, {"a.jpg": images.photo(1)}, Careless())


def test_a_scorer_may_read_what_earlier_ones_of_any_pass_added(tmp_path: Path):
    write_files(tmp_path / "photos", {f"{n}.jpg": images.photo(n, 80, 70) for n in range(4)})
    first = Spy(column="a")
    second = Spy(column="b", looks=("a", "sha256"))
    third = Spy(column="c", looks=("a", "b", "width"))
    run(tmp_path / "out", tmp_path / "photos", first, second, FilterStage("b < 3"), third)
    assert SEEN[1].rows.to_pydict()["a"] == [0, 1, 2, 3]
    assert SEEN[2].rows.to_pydict() == {"a": [0, 1, 2], "b": [0, 1, 2], "width": [80] * 3}
    SEEN.clear()
    again = run(
        tmp_path / "two", tmp_path / "photos", first, Spy(column="d", looks=("a",))
    )  # a is not computed again, and still read
    assert again.decoded == 0
    assert [batch.rows.to_pydict() for batch in SEEN] == [{"a": [0, 1, 2, 3]}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(ScoreStage):
    """Gives a number, or twice the column that it reads, or the length of its text."""

    column: str
    value: int = 0
    looks: str | None = None

    def reads(self) -> tuple[str, ...]:
        return (self.looks,) if self.looks else ()

    def adds(self) -> pa.Schema:
        return pa.schema([(self.column, pa.int32())])

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        def score(batch: ImageBatch) -> pa.RecordBatch:
            seen = (
                batch.rows[self.looks].to_pylist() if self.looks else [None] * batch.rows.num_rows
            )
            values = [
                len(value) if isinstance(value, str) else 2 * (value or 0) + self.value
                for value in seen
            ]
            return pa.record_batch({self.column: values})

        return score


def test_a_score_made_of_another_is_made_anew_with_it(tmp_path: Path):
    write_files(tmp_path / "photos", {"a.jpg": images.photo()})
    twice = Given(column="twice", looks="base")
    for value in (1, 2):
        run(tmp_path / str(value), tmp_path / "photos", Given(column="base", value=value), twice)
        assert sidecar(tmp_path / str(value))["twice"].to_pylist() == [2 * value]


def test_a_score_of_the_caption_follows_the_field_that_is_read_as_such(tmp_path: Path):
    files = {"a.jpg": images.photo(), "a.json": b'{"x": "abc", "y": "abcdef"}'}
    write_files(tmp_path / "photos", files)
    for name, length in (("x", 3), ("y", 6)):
        pipeline = Pipeline().add_stage(
            ImageReaderStage(str(tmp_path / "photos"), caption_field=name)
        )
        pipeline.add_stage(Given(column="length", looks="caption"))
        pipeline.add_stage(ImageWriterStage(output_dir=str(tmp_path / name)))
        pipeline.run(InlineExecutor(), RunOptions(workspace=str(tmp_path / "work")))
        assert sidecar(tmp_path / name)["length"].to_pylist() == [length]


def test_rows_that_other_scores_let_pass_now_are_scored_though_all_else_is_cached(tmp_path: Path):
    write_files(tmp_path / "photos", {f"{n}.jpg": images.photo(n) for n in range(2)})
    keep, last = FilterStage("base > 1"), Given(column="last", value=7)
    run(tmp_path / "0", tmp_path / "photos", Given(column="base", value=2))
    with pytest.raises(RunError, match="nothing is left"):
        run(tmp_path / "1", tmp_path / "photos", Given(column="base", value=1), keep, last)
    run(tmp_path / "2", tmp_path / "photos", Given(column="base", value=2), keep, last)
    assert sidecar(tmp_path / "2")["last"].to_pylist() == [7, 7]
