"""Ids that another tool listed are dropped, and what they do not mean is told."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve import InlineExecutor, Pipeline
from pixsieve.errors import OutputConflictError, PlanError, SourceError, SourceNotFoundError
from pixsieve.select.removal import ImageDuplicatesRemovalStage
from pixsieve.stages import ImageReaderStage, ImageWriterStage
from pixsieve.testing.rows import make_rows


def listed(path: Path, **columns: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def photos(folder: Path, count: int = 6, **columns: object):
    samples = [{"image_id": f"i{n}", "original_key": f"{n:03d}", **columns} for n in range(count)]
    return make_rows(folder / "rows", samples, per_part=2)


def test_ids_of_a_folder_of_any_depth_are_dropped_and_unknown_ones_told(tmp_path):
    folder = tmp_path / "removal"
    listed(folder / "a.parquet", id=["i4", "i1", None])
    listed(folder / "deep" / "b.parquet", id=["i1", "003", "x", "y"])
    (folder / "notes.txt").write_text("no list")
    stage = ImageDuplicatesRemovalStage(str(folder))
    stage.check(pa.schema([]))
    verdicts = stage.decide(photos(tmp_path))
    assert verdicts.drop.tolist() == [1, 3, 4]
    assert verdicts.reason == "listed_duplicate"
    assert [json.loads(text) for text in verdicts.evidence.to_pylist()] == [
        {"id": "i1", "match": "image_id"},
        {"id": "003", "match": "original_key"},
        {"id": "i4", "match": "image_id"},
    ]
    assert verdicts.duplicate_of.to_pylist() == [None] * 3
    assert verdicts.notes == (
        "3 dropped by a list of 5 ids",
        "2 of 5 ids are the image_id or original_key of no image here: 'x', 'y'",
    )


def test_partners_are_evidence_and_those_that_are_here_are_named(tmp_path):
    path = listed(tmp_path / "l.parquet", id=["i4", "i1"], max_id=["i0", "gone"])
    verdicts = ImageDuplicatesRemovalStage(path).decide(photos(tmp_path))
    assert verdicts.duplicate_of.to_pylist() == [None, "i0"]
    assert json.loads(verdicts.evidence[0].as_py())["partner"] == "gone"


def test_a_partner_that_the_list_drops_itself_is_evidence_alone(tmp_path):
    path = listed(tmp_path / "l.parquet", id=["i1", "i2", "003"], max_id=["i2", "i1", "i3"])
    verdicts = ImageDuplicatesRemovalStage(path).decide(photos(tmp_path))
    assert verdicts.drop.tolist() == [1, 2, 3]
    assert verdicts.duplicate_of.to_pylist() == [None] * 3
    partners = [json.loads(text)["partner"] for text in verdicts.evidence.to_pylist()]
    assert partners == ["i2", "i1", "i3"]


def test_a_key_of_several_images_drops_none(tmp_path):
    path = listed(tmp_path / "l.parquet", id=["k"])
    verdicts = ImageDuplicatesRemovalStage(path).decide(photos(tmp_path, original_key="k"))
    assert len(verdicts.drop) == 0
    assert verdicts.notes == (
        "0 dropped by a list of 1 ids",
        "1 ids are the original_key of several images each, of which none is dropped: 'k'",
    )


def test_an_image_id_goes_before_a_key_and_either_can_be_asked_for(tmp_path):
    samples = [
        {"image_id": "7", "original_key": "a"},
        {"image_id": "b", "original_key": "7"},
        {"image_id": "c", "original_key": "c"},
    ]
    rows = make_rows(tmp_path / "rows", samples)
    path = listed(tmp_path / "l.parquet", name=["7", "c"])

    def dropped(match):
        stage = ImageDuplicatesRemovalStage(path, duplicate_id_field="name", match=match)
        return stage.decide(rows).drop.tolist()

    assert dropped(None) == [0, 2]
    assert dropped("image_id") == [0, 2]
    assert dropped("original_key") == [1, 2]


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint64(), pa.float64(), pa.large_string()])
def test_ids_of_other_types_are_compared_as_text(tmp_path, kind):
    values = ["3", None, "123456789"] if kind == pa.large_string() else [3, None, 123456789]
    path = listed(tmp_path / "l.parquet", id=pa.array(values, kind))
    samples = [{"original_key": key} for key in ("3", "3.0", "123456789", "03")]
    rows = make_rows(tmp_path / "rows", samples)
    assert ImageDuplicatesRemovalStage(path).decide(rows).drop.tolist() == [0, 2]


def test_what_is_gone_already_counts_as_found_and_a_list_of_nothing_warns(tmp_path):
    rows = photos(tmp_path)
    rows.kept[:3] = False
    path = listed(tmp_path / "l.parquet", id=["i1", "i4", "i4"])
    verdicts = ImageDuplicatesRemovalStage(path).decide(rows)
    assert verdicts.drop.tolist() == [4]
    assert verdicts.notes == ("1 dropped by a list of 2 ids",)
    path = listed(tmp_path / "m.parquet", id=[f"/data/{n}.jpg" for n in range(9)])
    assert ImageDuplicatesRemovalStage(path).decide(rows).notes[1] == (
        "warning: none of the 9 ids is the image_id or original_key of an image here: "
        "'/data/0.jpg', '/data/1.jpg', '/data/2.jpg', '/data/3.jpg', '/data/4.jpg', ..."
    )
    none = listed(tmp_path / "n.parquet", id=pa.array([], pa.string()))
    assert len(ImageDuplicatesRemovalStage(none).decide(rows).drop) == 0
    empty = make_rows(tmp_path / "empty", [])
    assert len(ImageDuplicatesRemovalStage(path).decide(empty).drop) == 0


def test_the_content_of_the_list_decides_not_its_place(tmp_path):
    one = ImageDuplicatesRemovalStage(listed(tmp_path / "1" / "a.parquet", id=["x"]))
    two = ImageDuplicatesRemovalStage(listed(tmp_path / "2" / "b.parquet", id=["x"]), verbose=True)
    other = ImageDuplicatesRemovalStage(listed(tmp_path / "3.parquet", id=["y"]))
    assert one.digests() == two.digests() != other.digests()
    assert one.without_places() == two.without_places()


def test_a_dataset_made_with_another_list_is_refused_and_the_list_is_suspected(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / f"{name}.png")

    def run(*ids: str) -> None:
        path = listed(tmp_path / "l.parquet", id=pa.array(ids, pa.string()))
        pipeline = Pipeline().add_stage(ImageReaderStage(str(tmp_path / "photos")))
        pipeline.add_stage(ImageDuplicatesRemovalStage(path))
        pipeline.add_stage(ImageWriterStage(output_dir=str(tmp_path / "out")))
        pipeline.run(InlineExecutor())

    run("a")
    with pytest.raises(OutputConflictError, match="another model, version, list or earlier data"):
        run("b")


def test_a_list_that_is_none_is_refused(tmp_path):
    columns = pa.schema([])
    with pytest.raises(SourceNotFoundError, match="is not there"):
        ImageDuplicatesRemovalStage(str(tmp_path / "none")).check(columns)
    with pytest.raises(SourceNotFoundError, match="has no Parquet file"):
        ImageDuplicatesRemovalStage(str(tmp_path)).check(columns)
    path = listed(tmp_path / "l.parquet", ids=["x"], cluster=[1])
    with pytest.raises(
        PlanError, match=r"no column 'id'; did you mean 'ids'.*one of: ids, cluster"
    ):
        ImageDuplicatesRemovalStage(path).check(columns)
    nested = listed(tmp_path / "n.parquet", id=[["x"]])
    with pytest.raises(PlanError, match="expected text or whole numbers"):
        ImageDuplicatesRemovalStage(nested).check(columns)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        ImageDuplicatesRemovalStage(str(tmp_path / "bad.parquet")).check(columns)
    with pytest.raises(PlanError, match="removal_parquets_dir is empty"):
        ImageDuplicatesRemovalStage("")
