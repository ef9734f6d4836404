"""``index.json``: what litdata's own tool writes, sorted and without the time."""

import json

import pytest

from pixsieve.testing import exports


def index_of(dataset, scratch):
    exports.index_files(dataset, ["litdata"], scratch)
    return json.loads((dataset.folder / "index.json").read_bytes())


def test_every_sidecar_is_in_it(tmp_path):
    dataset = exports.mixed(tmp_path / "out")
    index = index_of(dataset, tmp_path)
    names = [chunk["filename"] for chunk in index["chunks"]]
    assert names == sorted(path.name for path in dataset.folder.glob("*.parquet"))
    assert index["config"]["data_format"] == [str(field.type) for field in dataset.columns]
    for chunk in index["chunks"]:
        assert chunk["chunk_bytes"] == (dataset.folder / chunk["filename"]).stat().st_size
    assert sum(chunk["chunk_size"] for chunk in index["chunks"]) == dataset.samples


def test_the_time_is_a_number_of_the_content(tmp_path):
    one = index_of(exports.plain(tmp_path / "one"), tmp_path)
    again = index_of(exports.plain(tmp_path / "again"), tmp_path)
    other = index_of(exports.mixed(tmp_path / "other"), tmp_path)
    assert one == again
    assert one["updated_at"] != other["updated_at"]
    assert float(one["updated_at"]) >= 0


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [exports.plain, exports.mixed])
def test_equals_index_parquet_dataset(tmp_path, make):
    from litdata import index_parquet_dataset  # noqa: PLC0415

    dataset = make(tmp_path / "out")
    ours = index_of(dataset, tmp_path)
    text = (dataset.folder / "index.json").read_text()
    index_parquet_dataset(str(dataset.folder), num_workers=1)
    theirs = json.loads((dataset.folder / "index.json").read_bytes())
    theirs["chunks"].sort(key=lambda chunk: chunk["filename"])
    theirs["updated_at"] = ours["updated_at"]
    assert text == json.dumps(theirs, sort_keys=True)


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
def test_litdata_reads_every_row(tmp_path):
    from litdata import StreamingDataset  # noqa: PLC0415
    from litdata.streaming.item_loader import ParquetLoader  # noqa: PLC0415

    dataset = exports.mixed(tmp_path / "out")
    index_of(dataset, tmp_path)
    found = StreamingDataset(
        str(dataset.folder), item_loader=ParquetLoader(), cache_dir=str(tmp_path / "cache")
    )
    rows = [found[number] for number in range(len(found))]
    assert sorted(row["key"] for row in rows) == [f"key-{number:04d}" for number in range(12)]
    assert all(len(row["embedding"]) == 3 for row in rows)
