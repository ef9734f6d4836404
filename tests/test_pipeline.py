"""A pipeline is checked in full before any work, and its plan says what will be done."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from pixsieve import image, schema
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.engine.progress import Quiet
from pixsieve.errors import PlanError, UsageError
from pixsieve.pipeline import Pipeline
from pixsieve.stages import (
    BucketStage,
    ExactDeduplicationStage,
    FilePartitioningStage,
    FilterStage,
    ImageReaderStage,
    ImageWriterStage,
    Needs,
    PerceptualDeduplicationStage,
    PerceptualHashStage,
    ScoreStage,
    SelectStage,
    ShuffleStage,
    SortStage,
    SplitStage,
    Stage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.engine.progress import Progress
    from pixsieve.engine.result import RunResult
    from pixsieve.select.base import Rows, Verdicts
    from pixsieve.stage import ImageBatch

READER, WRITER = ImageReaderStage("photos"), ImageWriterStage(output_dir="out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(ScoreStage):
    """Adds a column without looking at anything."""

    name: str = "score"
    wants: tuple[str, ...] = ()

    def reads(self) -> tuple[str, ...]:
        return self.wants

    def adds(self) -> pa.Schema:
        return pa.schema([(self.name, pa.float32())])

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Score):
    """Likewise, but says that it looks at pixels."""

    needs = Needs(pixels=64)


def plan(*stages: Stage, seed: int = 0):
    pipeline = Pipeline("test", seed=seed)
    for stage in stages:
        pipeline.add_stage(stage)
    return pipeline.plan()


def test_stages_are_grouped_into_passes_that_read_the_images_once():
    one, two, three = Score(name="a"), Score(name="b"), Score(name="c")
    keep, shuffle = FilterStage("a > 0"), ShuffleStage()
    found = plan(READER, one, two, keep, shuffle, three, FilterStage("c > 0"), WRITER)
    assert [(each.scorers, each.selectors) for each in found.passes] == [
        ((one, two), (("FilterStage 1", keep), ("ShuffleStage", shuffle))),
        ((three,), (("FilterStage 2", FilterStage("c > 0")),)),
    ]
    assert found.stages == (READER, one, two, keep, shuffle, three, FilterStage("c > 0"), WRITER)
    assert found.scorers == (one, two, three)
    assert found.added == pa.schema([(name, pa.float32()) for name in "abc"])


def test_nothing_but_a_reader_is_needed():
    found = plan(READER)
    assert found.writer is None
    assert [(each.scorers, each.selectors) for each in found.passes] == [((), ())]
    assert plan(READER, WRITER).passes == found.passes


def test_json_fields_come_before_scores():
    reader = ImageReaderStage("photos", json_fields={"z": "string", "a": "int64"})
    assert plan(reader, Score()).added == pa.schema(
        [("z", pa.string()), ("a", pa.int64()), ("score", pa.float32())]
    )


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "starts with an ImageReaderStage"),
        ([WRITER], "starts with an ImageReaderStage"),
        ([FilterStage("true"), READER], "starts with an ImageReaderStage"),
        ([FilePartitioningStage(file_paths="photos")], "starts with an ImageReaderStage"),
        ([ImageReaderStage()], "has no path_or_paths; expected a folder"),
        ([ImageReaderStage([])], "has no path_or_paths; expected a folder"),
        (
            [FilePartitioningStage(file_paths="photos"), READER],
            "FilePartitioningStage and ImageReaderStage both name an input",
        ),
        ([READER, READER], "ImageReaderStage stands in the middle of pipeline 'test'"),
        ([READER, WRITER, WRITER], "ImageWriterStage stands in the middle of pipeline 'test'"),
        ([READER, WRITER, FilterStage("true")], "ImageWriterStage stands in the middle"),
        (
            [READER, FilePartitioningStage(file_paths="photos")],
            "FilePartitioningStage stands in the middle",
        ),
        ([READER, Score(name="width")], "Score adds the column 'width', which there is already"),
        ([READER, Score(name="Width")], "Score adds the column 'Width', which there is already"),
        ([READER, Score(name="rank")], "Score adds the column 'rank', which there is already"),
        ([READER, Score(name="new_key")], "Score adds the column 'new_key'"),
        (
            [READER, SplitStage({"a": 1.0}), FilterStage("true"), SplitStage({"b": 1.0})],
            "SplitStage would undo SplitStage before it: a sample has one split",
        ),
        ([READER, BucketStage(), BucketStage(step=32)], "a sample has one bucket"),
        ([READER, ShuffleStage(), SortStage("width")], "SortStage would undo ShuffleStage"),
        ([READER, Score(), Score()], "Score adds the column 'score', which there is already"),
        ([READER, Score(), Score(name="SCORE")], "Score adds the column 'SCORE'"),
        (
            [ImageReaderStage("photos", json_fields={"score": "double"}), Score()],
            "Score adds the column 'score', which there is already",
        ),
        (
            [ImageReaderStage("photos", json_fields={"Caption": "string"})],
            "ImageReaderStage adds the column 'Caption', which there is already",
        ),
        (
            [ImageReaderStage("photos", json_fields={"a": "string", "A": "string"})],
            "ImageReaderStage adds the column 'A', which there is already",
        ),
        (
            [READER, Score(wants=("widht",))],
            "Score reads the column 'widht', which no stage before it adds; did you mean 'width'?",
        ),
        ([READER, Score(name="a", wants=("b",)), Score(name="b")], "Score reads the column 'b'"),
        ([READER, FilterStage("score > 1"), Score()], "names the column 'score'"),
        ([READER, FilterStage("captoin is null")], "did you mean 'caption'"),
        ([READER, FilterStage("width")], "a boolean was expected"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(stages: list[Stage], says: str):
    with pytest.raises(PlanError) as refused:
        plan(*stages)
    assert says in str(refused.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merges(SelectStage):
    """Adds a column, as stages that merge do, or nearly so."""

    name: str = "merged_caption"
    role: str = "merged"
    text: bool = True

    def adds(self) -> pa.Schema:
        kind = pa.list_(pa.string() if self.text else pa.int32())
        return pa.schema([pa.field(self.name, kind, metadata={"role": self.role})])

    def decide(self, rows: Rows) -> Verdicts:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class MergesToo(Score):
    """A scorer that says the same of its column."""

    def adds(self) -> pa.Schema:
        return Merges().adds()


def test_a_deduplication_that_drops_what_another_has_collected_is_told():
    first = ExactDeduplicationStage(merge=("caption",))
    hashes = PerceptualHashStage()

    def said(*stages: Stage) -> list[str]:
        made = plan(READER, hashes, *stages)
        return [warning for warning in made.warnings if "takes" in warning]

    (warning,) = said(first, PerceptualDeduplicationStage())
    assert warning.startswith(
        "PerceptualDeduplicationStage: what it drops takes merged_caption of "
        "ExactDeduplicationStage with it; name the same columns in its merge"
    )
    assert said(first, PerceptualDeduplicationStage(merge=("caption",))) == []
    assert said(first, PerceptualDeduplicationStage(action="group")) == []
    assert said(PerceptualDeduplicationStage(), first) == []


def test_what_one_stage_merged_a_later_one_takes_over():
    exact = ExactDeduplicationStage(merge=("caption",))
    stages = (READER, exact, FilterStage("width > 1"), Merges(), Score(), Merges())
    made = plan(*stages)
    assert made.selected.names == ["merged_caption"]
    assert made.added.names == ["score", "merged_caption"]
    assert made.warnings == ()


@pytest.mark.parametrize(
    "stages",
    [
        [Merges(), Merges(role="")],
        [Merges(role=""), Merges()],
        [Merges(role=""), Merges(role="")],
        [Merges(), Merges(text=False)],
        [Merges(), Merges(name="Merged_caption")],
        [Merges(name="width")],
        [MergesToo(), Merges()],
        [Merges(), MergesToo()],
    ],
)
def test_no_other_column_is_added_twice(stages: list[Stage]):
    with pytest.raises(PlanError, match="which there is already"):
        plan(READER, *stages)


def test_columns_of_earlier_stages_can_be_read():
    reader = ImageReaderStage("photos", json_fields={"likes": "int64"})
    both = Score(name="joint", wants=("likes", "score", "sha256"))
    plan(reader, Score(), both, FilterStage("joint > 0 and likes > 3 and score < 1"))


def test_a_stage_without_a_form_that_can_be_told_is_refused():
    @dataclass(frozen=True)
    class Lambda(SelectStage):
        function: object

        def decide(self, rows: Rows) -> Verdicts:
            raise NotImplementedError

    class NoDataclass(SelectStage):
        def decide(self, rows: Rows) -> Verdicts:
            raise NotImplementedError

    for stage, what in ((Lambda(print), "builtin_function"), (NoDataclass(), "NoDataclass")):
        with pytest.raises(
            PlanError, match=rf"cannot be written down: a {what}.* has no canonical"
        ):
            plan(READER, stage)


def test_only_stages_can_be_added():
    with pytest.raises(PlanError, match=r"'width > 3' is a str, expected a stage"):
        Pipeline().add_stage("width > 3")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="expected a stage"):
        Pipeline().add_stage(ImageReaderStage)  # type: ignore[arg-type]


def test_adding_returns_the_pipeline_and_keeps_the_stages_as_they_are():
    pipeline = Pipeline()
    assert pipeline.add_stage(READER).add_stage(WRITER) is pipeline
    assert pipeline.stages == (READER, WRITER)


@pytest.mark.parametrize(
    ("paths", "plain"),
    [
        ("a", "a"),
        (Path("a"), "a"),
        (["a", Path("b")], ("a", "b")),
        (("b", "a"), ("b", "a")),
    ],
)
def test_inputs_are_plain_text_in_a_plan_however_they_are_named(paths: object, plain: object):
    assert plan(ImageReaderStage(paths)).reader == ImageReaderStage(plain)  # type: ignore[arg-type]
    named = FilePartitioningStage(file_paths=paths, files_per_partition=3)  # type: ignore[arg-type]
    found = plan(named, ImageReaderStage(decode_check="header")).reader
    assert found == ImageReaderStage(plain, decode_check="header")  # type: ignore[arg-type]


def test_a_plan_without_places_reads_the_same_on_any_machine(tmp_path: Path):
    root = tmp_path / "here"
    paths = (f"{root}/b", str(root / "a" / "*.tar"))
    told = plan(
        ImageReaderStage(paths),
        ImageWriterStage(output_dir=str(tmp_path / "out"), verbose=True, remove_image_data=True),
    ).without_places(str(root))
    assert told.reader == ImageReaderStage(("a/*.tar", "b"))
    assert told.writer == ImageWriterStage(output_dir=".")
    assert str(tmp_path) not in repr(told)
    assert plan(ImageReaderStage(str(root))).without_places(str(root)).reader.path_or_paths == "."


def test_what_decides_bytes_stays_in_a_plan_without_places():
    writer = ImageWriterStage(output_dir="out", images_per_tar=7, prefix="p", quality=80)
    told = plan(READER, FilterStage("true"), writer, seed=4).without_places(".")
    assert told.writer == dataclasses.replace(writer, output_dir=".")
    assert told.seed == 4
    assert told.passes == plan(READER, FilterStage("true"), writer).passes


def test_pixels_are_checked_where_the_user_the_writer_or_a_scorer_needs_them():
    header = ImageReaderStage("photos", decode_check="header")

    def decoded(*stages: Stage) -> frozenset[str]:
        return plan(*stages).inspect_options.decode

    every = frozenset(image.FORMATS)
    keep = ImageWriterStage(output_dir="out", image_format="keep")
    assert decoded(READER) == decoded(READER, keep) == every
    assert decoded(header) == decoded(header, keep) == decoded(header, Score()) == frozenset()
    assert decoded(header, WRITER) == every - {"jpeg"}
    assert decoded(header, Look()) == every


def test_inspection_follows_the_reader():
    reader = ImageReaderStage(
        "photos", animated="first_frame", caption_field="text", max_pixels=5, max_image_bytes=6,
        json_fields={"b": "int64", "a": "bool"},
    )  # fmt: skip
    options = plan(reader).inspect_options
    assert options.first_frame
    assert options.caption_field == "text"
    assert options.json_fields == (("b", "int64"), ("a", "bool"))
    assert (options.limits.max_pixels, options.limits.max_bytes) == (5, 6)
    assert options.schema.names == [*schema.INSPECTION.names, "b", "a"]


def test_the_plan_is_described_as_a_tree_with_columns():
    reader = ImageReaderStage("photos", json_fields={"likes": "int64"})
    pipeline = Pipeline("cats", seed=3)
    for stage in (
        reader,
        Score(wants=("likes",)),
        FilterStage("likes > 1"),
        ShuffleStage(),
        WRITER,
    ):
        pipeline.add_stage(stage)
    adds = ", ".join(name for name in schema.INSPECTION.names if not name.startswith("problem"))
    assert pipeline.describe().splitlines() == [
        "cats (seed 3)",
        "├─ index: locates every sample; reads headers only",
        "│  · ImageReaderStage(path_or_paths='photos', json_fields={'likes': 'int64'}); adds likes",
        f"├─ inspect: reads each sample once, decodes every image; adds {adds}",
        "├─ score and select: one read and decode of each image",
        "│  · Score(wants=('likes',)); reads likes; adds score",
        "│  · FilterStage(where='likes > 1')",
        "│  · ShuffleStage(); reads image_id",
        "└─ export: one unit per shard, then the manifest",
        "   · ImageWriterStage(output_dir='out')",
    ]


@pytest.mark.parametrize(
    ("stages", "check"),
    [
        ([READER], "decodes every image;"),
        ([ImageReaderStage("photos", decode_check="header")], "reads image headers;"),
        (
            [ImageReaderStage("photos", decode_check="header"), WRITER],
            "reads image headers; decodes what will be encoded anew;",
        ),
    ],
)
def test_the_description_says_what_is_decoded(stages: list[Stage], check: str):
    pipeline = Pipeline()
    for stage in stages:
        pipeline.add_stage(stage)
    lines = pipeline.describe().splitlines()
    assert f"inspect: reads each sample once, {check}" in "\n".join(lines)
    assert [line for line in lines if line.startswith("└─")]


def test_a_verbose_writer_has_a_line_for_every_shard(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def run(verbose: bool, progress: Progress | None = None) -> tuple[RunResult, str]:
        output = tmp_path / f"{verbose} {progress is None}"
        writer = ImageWriterStage(output_dir=str(output), images_per_tar=10, verbose=verbose)
        pipeline = Pipeline().add_stage(ImageReaderStage(str(corpus / "files"))).add_stage(writer)
        result = pipeline.run(InlineExecutor(), RunOptions(max_failed=1, progress=progress))
        said = capsys.readouterr()
        assert said.out == ""
        return result, said.err

    result, said = run(verbose=True)
    for tar in result.shards:
        line = rf"^{tar}: \d+ samples, .* bytes, .* samples/s, written"
        assert re.search(line, said, re.MULTILINE)
    assert run(verbose=False)[1] == run(verbose=True, progress=Quiet())[1] == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"images_per_tar": 0}, "images_per_tar is 0; expected at least 1"),
        ({"max_bytes_per_tar": 10_239}, "max_bytes_per_tar is 10239; expected at least 10240"),
        (
            {"image_format": "jpg"},
            "image_format is 'jpg'; expected one of avif, jpeg, keep, png, webp",
        ),
        ({"image_format": "pgn"}, "did you mean 'png'?"),
        ({"member_names": "x"}, "member_names is 'x'; expected 'id', 'sequential' or 'key'"),
        ({"prefix": ""}, "prefix is ''; expected 1 to 64 letters"),
        ({"prefix": "a.b"}, "prefix is 'a.b'"),
        ({"prefix": "../a"}, "prefix is '../a'"),
        ({"prefix": "a{0..9}"}, "prefix is 'a{0..9}'"),
        ({"prefix": "ä"}, "prefix is 'ä'"),
        ({"prefix": "a\n"}, "prefix is 'a\\n'"),
        ({"prefix": "a" * 65}, "prefix is"),
        ({"quality": 0}, "quality is 0"),
        ({"quality": 101}, "quality is 101"),
        ({"subsampling": "4:1:1"}, "subsampling is '4:1:1'"),
        ({"background": "white"}, "background is 'white'"),
    ],
)
def test_a_writer_refuses_what_it_cannot_do(options: dict[str, object], says: str):
    with pytest.raises(UsageError) as refused:
        ImageWriterStage(output_dir="out", **options)  # type: ignore[arg-type]
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (lambda _: "x", r"Odd: companion\(\) is a str, expected a ScoreStage or None"),
        (lambda _: 1 / 0, r"Odd failed: ZeroDivisionError"),
    ],
)
def test_what_a_stage_brings_along_is_checked(method, told):
    @dataclass(frozen=True, kw_only=True)
    class Odd(ScoreStage):
        companion = method

        def load(self):
            raise NotImplementedError

    with pytest.raises(PlanError, match=told):
        Pipeline().add_stage(ImageReaderStage("in")).add_stage(Odd()).plan()


def test_pipelines_are_equal_by_name_seed_and_stages():
    def made(name: str = "a", seed: int = 0, paths: object = ("x", "y")) -> Pipeline:
        return Pipeline(name, seed=seed).add_stage(ImageReaderStage(paths))  # type: ignore[arg-type]

    assert made() == made() == made(paths=["x", Path("y")])
    assert made() != made(name="b")
    assert made() != made(seed=1)
    assert made() != made(paths="x")
    assert made() != made().stages
    assert ImageWriterStage(output_dir=Path("a")) == ImageWriterStage(output_dir="a")  # type: ignore[arg-type]
    assert FilePartitioningStage(file_paths=["a"]) == FilePartitioningStage(file_paths=("a",))
    with pytest.raises(PlanError, match="FilePartitioningStage: file_paths is 3"):
        FilePartitioningStage(file_paths=3)  # type: ignore[arg-type]


def test_stages_are_values():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Sample(Score):
        names: dict[str, int] = field(default_factory=dict)

    assert FilterStage("a") == FilterStage("a") != FilterStage("b")
    assert len({ExactDeduplicationStage(), ExactDeduplicationStage(), ShuffleStage()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        WRITER.prefix = "x"  # type: ignore[misc]
    plan(READER, Sample(names={"a": 1}))
