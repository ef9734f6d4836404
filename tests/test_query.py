"""Questions in SQL to datasets and workspaces."""

from __future__ import annotations

import shutil

import pytest

from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.errors import SourceError, SourceNotFoundError, UsageError
from pixsieve.pipeline import Pipeline
from pixsieve.query import query
from pixsieve.recipe import parse_stages
from pixsieve.stages import ExactDeduplicationStage, FilterStage, ImageReaderStage, ImageWriterStage
from pixsieve.testing import images


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("query")
    pipeline = Pipeline().add_stage(ImageReaderStage(str(corpus / "tars")))
    pipeline.add_stage(FilterStage("width >= 100")).add_stage(ExactDeduplicationStage())
    pipeline.add_stage(ImageWriterStage(output_dir=str(folder / "out"), images_per_tar=10))
    result = pipeline.run(InlineExecutor(), RunOptions(max_failed=1))
    return folder / "out", result


def test_a_dataset_has_its_samples_and_what_was_dropped(made):
    output, result = made
    rows = query(output, "select count(*) kept, count(distinct tar_file) shards from samples")
    assert rows.to_pylist() == [{"kept": result.counts.kept, "shards": len(result.shards)}]
    rows = query(output, "select status, count(*) n from dropped group by status order by status")
    assert rows.to_pylist() == [
        {"status": "dropped", "n": result.counts.dropped},
        {"status": "failed", "n": result.counts.failed},
    ]


def test_a_workspace_has_every_sample_with_columns_that_belong_together(made):
    output, result = made
    workspace = output / ".pixsieve"
    rows = query(workspace, "select status, count(*) n from samples group by status")
    counted = {row["status"]: row["n"] for row in rows.to_pylist()}
    counts = result.counts
    assert counted == {"kept": counts.kept, "dropped": counts.dropped, "failed": counts.failed}
    kept = "select image_id, sha256, width, caption from samples where status = 'kept' order by 1"
    exported = "select image_id, original_sha256 sha256, width, caption from samples order by 1"
    assert query(workspace, kept).to_pylist() == query(output, exported).to_pylist()


def test_scoring_without_a_writer_leaves_a_workspace_to_ask(corpus, tmp_path):
    pipeline = parse_stages([str(corpus / "files")], ['FilterStage: {where: "width >= 100"}'])
    options = RunOptions(workspace=str(tmp_path / "ws"), max_failed=1)
    result = pipeline.run(InlineExecutor(), options)
    assert result.output_dir is None
    rows = query(tmp_path / "ws", "select count(*) n from samples where status = 'kept'")
    assert rows.to_pylist() == [{"n": result.counts.kept}]


def test_a_workspace_knows_what_all_its_runs_have_measured(tmp_path):
    def score(source, *stages):
        pipeline = parse_stages([str(tmp_path / source)], stages)
        pipeline.run(InlineExecutor(), RunOptions(workspace=str(tmp_path / "ws")))

    def known(columns):
        sql = f"select {columns} from samples order by original_path"  # noqa: S608
        return [tuple(row.values()) for row in query(tmp_path / "ws", sql).to_pylist()]

    for source, numbers in (("one", range(3)), ("two", range(3, 5))):
        (tmp_path / source).mkdir()
        for number in numbers:
            (tmp_path / source / f"{number}.jpg").write_bytes(images.photo(number, 64, 48))
    score("one", "ImageQualityStage")
    score("one", "PerceptualHashStage")
    both = known("brightness, phash, is_dark")
    assert len(both) == 3
    assert None not in {value for row in both for value in row}
    score("two", "PerceptualHashStage", 'FilterStage: {where: "width > 1"}')
    assert [row[:2] for row in known("original_path, status, phash, brightness")] == [
        ("0.jpg", None), ("1.jpg", None), ("2.jpg", None), ("3.jpg", "kept"), ("4.jpg", "kept"),
    ]  # fmt: skip
    assert [row[0] is None for row in known("brightness")] == [False] * 3 + [True] * 2
    score("one", "ThumbnailStage: {size: 8}")
    score("two", "ThumbnailStage: {size: 16}")  # another meaning: of the first source it is gone
    assert [len(row[0] or b"") for row in known("thumbnail")] == [0, 0, 0, 256, 256]
    (tmp_path / "one" / "1.jpg").unlink()
    score("one", "ImageQualityStage")
    assert [path for (path,) in known("original_path")] == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]


def test_a_folder_whose_name_looks_like_a_column_is_none(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(images.photo(1, 64, 48))
    (tmp_path / "in" / "a.json").write_text('{"a\\"b": 5}')
    pipeline = Pipeline().add_stage(
        ImageReaderStage(str(tmp_path / "in"), json_fields={'a"b': "int64"})
    )
    workspace = tmp_path / "width=7"
    pipeline.run(InlineExecutor(), RunOptions(workspace=str(workspace)))
    found = query(workspace, 'select width, "a""b" n from samples').to_pylist()
    assert found == [{"width": 64, "n": 5}]


def test_json_fields_of_other_types_keep_their_values(tmp_path):
    for name, kind, value in (("a", "double", 1.7), ("b", "int64", 3), ("c", "double", 0.5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_bytes(images.photo(1, 64, 48))
        (tmp_path / name / f"{name}.json").write_text(f'{{"n": {value}}}')
        reader = ImageReaderStage(str(tmp_path / name), json_fields={"n": kind})
        options = RunOptions(workspace=str(tmp_path / "ws"))
        Pipeline().add_stage(reader).run(InlineExecutor(), options)
    found = query(tmp_path / "ws", "select n from samples order by original_path").to_pylist()
    assert [row["n"] for row in found] == [1.7, 3, 0.5]


@pytest.mark.parametrize("sql", ["selec 1", "select nothing from samples", "select 1 from other"])
def test_a_query_that_cannot_be_answered_is_a_usage_error(made, sql):
    with pytest.raises(UsageError, match="cannot be answered"):
        query(made[0], sql)


@pytest.mark.parametrize(
    "sql", ["copy (select 1) to '{}'", "select 1; select 2", "create table t as select 1", "", "--"]
)
def test_a_query_selects_and_changes_nothing(made, tmp_path, sql):
    written = tmp_path / "written.csv"
    with pytest.raises(UsageError, match="is no single query"):
        query(made[0], sql.format(written))
    assert not written.exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("*.parquet", b"PAR1 is cut"),
        ("*.parquet", None),
        ("manifest.json", b"{"),
        ("manifest.json", b"{}"),
        ("manifest.json", b"[]"),
    ],
)
def test_a_damaged_dataset_is_named(made, tmp_path, name, data):
    damaged = tmp_path / "out"
    shutil.copytree(made[0], damaged, ignore=shutil.ignore_patterns(".pixsieve"))
    for path in damaged.glob(name):
        path.write_bytes(data) if data is not None else path.unlink()
    with pytest.raises(SourceError, match=r"out cannot be read: .*; verify the dataset"):
        query(damaged, "select * from samples")


def test_a_folder_that_is_neither_is_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"neither a dataset nor a workspace"):
        query(tmp_path, "select 1")
