"""Columns of tables beside the source's tars."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixsieve import recipe
from pixsieve.errors import PlanError, SourceError, SourceNotFoundError
from pixsieve.pipeline import Pipeline
from pixsieve.scorers.sidecar import name_of_type, type_named
from pixsieve.stages import FilterStage, ImageReaderStage, ImageWriterStage, SidecarStage
from pixsieve.storage import tables
from pixsieve.testing import images, planted
from pixsieve.testing.corpus import run_pipeline

if TYPE_CHECKING:
    from pathlib import Path


def source(folder: Path, **columns: list[Any]) -> Path:
    """Write two tars of three images; the table of each has two of them, and a row of no image."""
    folder.mkdir(parents=True)
    for shard in range(2):
        keys = [f"{shard}{number}" for number in range(3)]
        members = [(f"{key}.jpg", images.photo(int(key), 64, 48)) for key in keys]
        planted.write_tar(folder / f"{shard}.tar", members)
        table = {"key": [keys[2], "none", keys[0]], "similarity": [0.2, 9.0, 0.1 * shard]}
        pq.write_table(pa.table({**table, **columns}), folder / f"{shard}.parquet")
    return folder


def scored(folder: Path, stage: SidecarStage, *stages: Any, **writer: Any) -> dict[str, Any]:
    """Return the column that a stage adds, by the keys of what was exported."""
    out = folder.parent / "out"
    pipeline = Pipeline().add_stage(ImageReaderStage(str(folder))).add_stage(stage)
    for each in stages:
        pipeline.add_stage(each)
    run_pipeline(pipeline.add_stage(ImageWriterStage(output_dir=str(out), **writer)))
    found = [tables.read_table(str(path)) for path in sorted(out.glob("images-*.parquet"))]
    rows = pa.concat_tables(found)
    (name,) = stage.adds().names
    return dict(zip(rows["original_key"].to_pylist(), rows[name].to_pylist(), strict=True))


def stage_of(folder: Path, **fields: Any) -> SidecarStage:
    return SidecarStage(**{"folder": str(folder), "columns": {"similarity": "double"}, **fields})


def test_rows_are_found_by_tar_and_key(tmp_path: Path) -> None:
    folder = source(tmp_path / "in")
    found = scored(folder, stage_of(folder))
    assert found == {"00": 0.0, "01": None, "02": 0.2, "10": 0.1, "11": None, "12": 0.2}


def test_filters_can_go_by_them(tmp_path: Path) -> None:
    folder = source(tmp_path / "in")
    stage = stage_of(folder, prefix="laion_")
    assert scored(folder, stage, FilterStage("laion_similarity > 0.15")) == {"02": 0.2, "12": 0.2}


def test_of_two_rows_of_a_key_the_one_with_the_images_digest_counts(tmp_path: Path) -> None:
    folder = source(tmp_path / "in")
    digest = hashlib.sha256(planted.read_tar(folder / "0.tar")[0][1]).hexdigest()
    table = pa.table({"key": ["00", "00"], "similarity": [1.0, 2.0], "sha256": ["x", digest]})
    pq.write_table(table, folder / "0.parquet")
    assert scored(folder, stage_of(folder))["00"] == 2.0


def test_curators_tables_have_member_names(tmp_path: Path) -> None:
    folder = source(tmp_path / "in")
    table = pa.table({"member_name": ["00.jpg", "01.jpg"], "similarity": [1.0, 2.0]})
    pq.write_table(table, folder / "0.parquet")
    assert scored(folder, stage_of(folder))["01"] == 2.0


def test_a_table_that_changes_is_read_anew(tmp_path: Path) -> None:
    folder = source(tmp_path / "in")
    before = stage_of(folder).digests()
    assert stage_of(folder).digests() == before
    pq.write_table(pa.table({"key": ["00"], "similarity": [5.0]}), folder / "0.parquet")
    assert stage_of(folder).digests() != before
    assert scored(folder, stage_of(folder))["00"] == 5.0


@pytest.mark.parametrize("how", ["gone", "garbage", "no key"])
def test_a_table_that_cannot_be_read_is_an_error_or_null(how: str, tmp_path: Path) -> None:
    folder = source(tmp_path / "in")
    path = folder / "1.parquet"
    if how == "gone":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(b"PAR1")
    else:
        pq.write_table(pa.table({"similarity": [1.0]}), path)
    with pytest.raises(SourceError, match=r"1\.tar has no table .*1\.parquet that can be read"):
        scored(folder, stage_of(folder))
    found = scored(folder, stage_of(folder, missing="null"))
    assert [found[key] for key in ("10", "11", "12")] == [None] * 3


def test_a_folder_without_tables_is_told_before_any_work(tmp_path: Path) -> None:
    folder = source(tmp_path / "in")
    for path in folder.glob("*.parquet"):
        path.unlink()
    with pytest.raises(SourceNotFoundError, match=r"no tar in .* has a Parquet table beside it"):
        Pipeline().add_stage(ImageReaderStage(str(folder))).add_stage(stage_of(folder)).plan()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"columns": {}}, "columns is empty"),
        ({"columns": {"a": "flaot"}}, "did you mean 'float'"),
        ({"columns": {"a": "list<x>"}}, "'a' has the type 'list<x>'"),
        ({"missing": "skip"}, "missing is 'skip'"),
    ],
)
def test_wrong_fields_are_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        stage_of("x", **fields)  # type: ignore[arg-type]


def test_a_column_of_pixsieves_own_needs_a_prefix(tmp_path: Path) -> None:
    folder = source(tmp_path / "in")
    reader = ImageReaderStage(str(folder))
    taken = stage_of(folder, columns={"sha256": "string"})
    with pytest.raises(PlanError, match="adds the column 'sha256'"):
        Pipeline().add_stage(reader).add_stage(taken).plan()


def test_a_recipe_can_have_it(tmp_path: Path) -> None:
    folder = source(tmp_path / "in")
    pipeline = Pipeline().add_stage(ImageReaderStage(str(folder)))
    pipeline.add_stage(stage_of(folder, columns={"similarity": "double", "tags": "list<string>"}))
    assert recipe.loads(recipe.dumps(pipeline)) == pipeline


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.string(), "string"),
        (pa.large_string(), "string"),
        (pa.dictionary(pa.int8(), pa.string()), "string"),
        (pa.float16(), "half"),
        (pa.uint8(), "uint8"),
        (pa.list_(pa.float32()), "list<float>"),
        (pa.large_list(pa.string()), "list<string>"),
        (pa.list_(pa.float16(), 512), "half[512]"),
        (pa.binary(8), "binary[8]"),
        (pa.binary(), "binary"),
        (pa.timestamp("s"), None),
        (pa.list_(pa.list_(pa.int8())), None),
        (pa.struct([("a", pa.int8())]), None),
        (pa.null(), None),
    ],
)
def test_types_have_names(kind: pa.DataType, name: str | None) -> None:
    assert name_of_type(kind) == name
    if name is not None:
        assert name_of_type(type_named(name)) == name
