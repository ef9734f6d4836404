"""``datapackage.json``: frictionless finds every file and row valid."""

import json

import pytest

from pixsieve.testing import exports


def described(dataset, scratch):
    exports.index_files(dataset, ["frictionless"], scratch)
    return json.loads((dataset.folder / "datapackage.json").read_bytes())


def test_every_sidecar_is_a_table_and_every_tar_a_file(tmp_path):
    dataset = exports.mixed(tmp_path / "out")
    package = described(dataset, tmp_path)
    assert package["name"] == "a-n-me-x-b-c-1-d"
    tables = [each for each in package["resources"] if each["type"] == "table"]
    files = [each for each in package["resources"] if each["type"] == "file"]
    assert [each["path"] for each in tables] == [shard.sidecar.name for shard in dataset.shards]
    assert [(each["path"], each["bytes"], each["hash"]) for each in files] == [
        (shard.tar.name, shard.tar.size, f"sha256:{shard.tar.sha256}") for shard in dataset.shards
    ]


def test_columns_have_types(tmp_path):
    dataset = exports.mixed(tmp_path / "out")
    described(dataset, tmp_path)
    schema = json.loads((dataset.folder / "datapackage.schema.json").read_bytes())
    assert schema["primaryKey"] == ["image_id"]
    found = {each["name"]: each["type"] for each in schema["fields"]}
    assert list(found) == dataset.columns.names
    assert found["width"] == "integer"
    assert found["likes"] == "number"  # of which a row may have none
    assert found["score"] == "number"
    assert found["ok"] == "boolean"
    assert found["embedding"] == found["pdq"] == "any"


def test_a_name_without_any_letter_is_still_one(tmp_path):
    assert described(exports.plain(tmp_path / "out", name="…"), tmp_path)["name"] == "dataset"


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [exports.plain, exports.mixed])
def test_frictionless_finds_it_valid(tmp_path, make):
    from frictionless import Package, system  # noqa: PLC0415

    dataset = make(tmp_path / "out", card={"license": "mit", "description": "x"})
    described(dataset, tmp_path)
    package = Package(str(dataset.folder / "datapackage.json"))
    report = package.validate()
    assert report.valid, report.flatten(["name", "type", "message"])
    assert report.stats["tasks"] == 2 * len(dataset.shards)
    rows = [
        row["key"] for each in package.resources[: len(dataset.shards)] for row in each.read_rows()
    ]
    assert rows == [f"key-{number:04d}" for number in range(dataset.samples)]
    assert not system.trusted  # nothing outside of the folder was asked for


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
def test_frictionless_finds_a_fault(tmp_path):
    from frictionless import Package  # noqa: PLC0415

    dataset = exports.plain(tmp_path / "out")
    described(dataset, tmp_path)
    path = dataset.folder / dataset.shards[0].tar.name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not Package(str(dataset.folder / "datapackage.json")).validate().valid
