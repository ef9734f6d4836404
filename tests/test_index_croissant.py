"""``croissant.json``: mlcroissant finds nothing wrong with it, and reads every row by it."""

import dataclasses
import hashlib
import json

import pytest

from pixsieve.export.indexes.croissant import MOST_IMAGES
from pixsieve.testing import exports, images


def described(dataset, scratch):
    exports.index_files(dataset, ["croissant"], scratch)
    return json.loads((dataset.folder / "croissant.json").read_bytes())


def test_files_are_there_with_their_digests(tmp_path):
    dataset = exports.mixed(tmp_path / "out")
    tars = [
        each
        for each in described(dataset, tmp_path)["distribution"]
        if each["@type"] == "cr:FileObject"
    ]
    assert [each["contentUrl"] for each in tars] == [shard.tar.name for shard in dataset.shards]
    for each in tars:
        data = (dataset.folder / each["contentUrl"]).read_bytes()
        assert each["sha256"] == hashlib.sha256(data).hexdigest()
        assert each["contentSize"] == f"{len(data)} B"


def test_columns_have_types(tmp_path):
    rows = described(exports.mixed(tmp_path / "out"), tmp_path)["recordSet"][0]
    found = {each["name"]: (each["dataType"], each.get("repeated")) for each in rows["field"]}
    assert found["width"] == ("sc:Integer", None)
    assert found["score"] == ("sc:Float", None)
    assert found["ok"] == ("sc:Boolean", None)
    assert found["caption"] == ("sc:Text", None)
    assert found["embedding"] == ("sc:Float", True)
    assert found["tags"] == ("sc:Text", True)
    assert "pdq" not in found
    assert len({each["@id"] for each in rows["field"]}) == len(found)


def sets(dataset, scratch):
    return [each["@id"] for each in described(dataset, scratch)["recordSet"]]


def test_images_of_one_format_are_a_record_set(tmp_path):
    assert sets(exports.plain(tmp_path / "out"), tmp_path) == ["rows", "images"]


def test_of_several_formats_each_that_can_be_read_is_one(tmp_path):
    # mask.png cannot be told from an image
    assert sets(exports.mixed(tmp_path / "out"), tmp_path) == ["rows", "images_jpg", "images_tif"]


def test_webp_is_none(tmp_path):
    samples = [{"webp": images.photo(format="WEBP")}]
    assert sets(exports.finished_dataset(tmp_path / "out", samples), tmp_path) == ["rows"]


def test_a_large_dataset_has_rows_alone(tmp_path):
    dataset = exports.plain(tmp_path / "out")
    for samples, expected in ((MOST_IMAGES, ["rows", "images"]), (MOST_IMAGES + 1, ["rows"])):
        assert sets(dataclasses.replace(dataset, samples=samples), tmp_path) == expected


def test_what_the_card_says_is_there(tmp_path):
    said = {
        "license": "mit",
        "creator": "A, B",
        "homepage": "https://example.org/",
        "version": "1.2.3",
        "citation": "x",
        "date_published": "2026-01-01",
        "description": "y",
    }
    found = described(exports.plain(tmp_path / "out", card=said), tmp_path)
    assert found["creator"] == [
        {"@type": "sc:Person", "name": "A"},
        {"@type": "sc:Person", "name": "B"},
    ]
    assert (found["url"], found["citeAs"], found["version"]) == (
        "https://example.org/",
        "x",
        "1.2.3",
    )


def test_same_bytes_each_time(tmp_path):
    found = []
    for name in "ab":
        dataset = exports.mixed(tmp_path / name)
        described(dataset, tmp_path)
        found.append((dataset.folder / "croissant.json").read_bytes())
    assert found[0] == found[1]


FULL = {
    "license": "mit",
    "creator": "A, B",
    "homepage": "https://example.org/",
    "version": "1.2.3",
    "citation": "x",
    "date_published": "2026-01-01",
}


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [exports.plain, exports.mixed])
@pytest.mark.parametrize("card", [{}, FULL])
def test_mlcroissant_finds_no_fault_and_reads_every_row(tmp_path, make, card):
    import mlcroissant  # noqa: PLC0415

    dataset = make(tmp_path / "out", card=card)
    (dataset.folder / "dropped").mkdir()
    (dataset.folder / "dropped" / "dropped.parquet").write_bytes(b"not to be read")
    described(dataset, tmp_path)
    found = mlcroissant.Dataset(str(dataset.folder / "croissant.json"))
    issues = found.metadata.ctx.issues
    assert not issues.errors
    assert bool(issues.warnings) == (not card)
    rows = {row["rows/key"]: row for row in found.records("rows")}
    expected = {
        row["key"]: row for shard in dataset.shards for row in dataset.sidecar(shard).to_pylist()
    }
    assert set(rows) == {key.encode() for key in expected}
    for key, row in expected.items():
        read = rows[key.encode()]
        assert read["rows/width"] == row["width"]
        assert read["rows/members"] == [name.encode() for name in row["members"]]
        if "likes" in row:
            assert read["rows/likes"] == row["likes"]
            assert read["rows/embedding"] == row["embedding"]
            assert read["rows/tags"] == [name.encode() for name in row["tags"]]


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
def test_mlcroissant_reads_every_image(tmp_path, monkeypatch):
    import mlcroissant  # noqa: PLC0415
    from etils import epath  # noqa: PLC0415
    from mlcroissant._src.operation_graph.operations import extract  # noqa: PLC0415

    monkeypatch.setattr(extract, "EXTRACT_PATH", epath.Path(tmp_path / "cache"))
    dataset = exports.plain(tmp_path / "out")
    described(dataset, tmp_path)
    found = mlcroissant.Dataset(str(dataset.folder / "croissant.json"))
    sizes = {
        row["images/member_name"].decode(): row["images/image"].size
        for row in found.records("images")
    }
    assert sizes == {f"key-{number:04d}.jpg": (64 + number, 48) for number in range(10)}
    assert (tmp_path / "cache").exists()
