"""``index.sqlite``: the rows that ``energon prepare`` writes."""

import contextlib
import io
import sqlite3
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from pixsieve.errors import StorageError
from pixsieve.export.indexes.base import Desk
from pixsieve.export.indexes.energon_sqlite import EnergonSqliteIndex
from pixsieve.scorers.guard import NoGuard
from pixsieve.testing import exports

TABLES = ("samples", "sample_parts")


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        found = {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}  # noqa: S608
        known = database.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall()
        columns = {
            name: database.execute(f"PRAGMA table_info({name})").fetchall() for name in TABLES
        }
    return {name: sorted(each) for name, each in found.items()}, sorted(known), columns


@pytest.mark.parametrize("make", [exports.plain, exports.mixed])
def test_rows_say_where_everything_lies(tmp_path, make):
    dataset = make(tmp_path / "out")
    exports.index_files(dataset, ["energon_sqlite"], tmp_path)
    found, _, _ = rows(dataset.folder / ".nv-meta" / "index.sqlite")
    tars = [path.read_bytes() for path in sorted(dataset.folder.glob("*.tar"))]
    keys = {}
    for number, key, place, offset, size in found["samples"]:
        keys[number, place] = key
        header = tars[number][offset : offset + 512]
        assert header.startswith(f"{key}.".encode())
        assert size % 512 == 0
    assert sorted(keys.values()) == [f"key-{number:04d}" for number in range(dataset.samples)]
    for number, place, part, offset, size in found["sample_parts"]:
        header = tars[number][offset - 512 : offset]
        assert header[:100].rstrip(b"\0").decode() == f"{keys[number, place]}.{part}"
        assert int(header[124:135], 8) == size
    ends = {number: offset + size for number, _, _, offset, size in found["samples"]}
    for number, data in enumerate(tars):
        assert not any(data[ends[number] :])


def test_same_bytes_each_time(tmp_path):
    found = []
    for name in ("a", "b"):
        dataset = exports.mixed(tmp_path / name)
        (tmp_path / f"scratch-{name}").mkdir()
        exports.index_files(dataset, ["energon_sqlite"], tmp_path / f"scratch-{name}")
        found.append((dataset.folder / ".nv-meta" / "index.sqlite").read_bytes())
    assert found[0] == found[1]


class Many:
    """A dataset of shards that are made when they are asked for."""

    def __init__(self, shards, table):
        self.shards = tuple(
            SimpleNamespace(tar=SimpleNamespace(name=f"images-{number:06d}.tar"), number=number)
            for number in range(shards)
        )
        self.table = table

    def sidecar(self, shard, columns):
        keys = [f"{shard.number}-{number}" for number in range(len(self.table))]
        return self.table.select(columns).set_column(0, "key", pa.array(keys))


def test_memory_does_not_follow_the_number_of_shards(tmp_path):
    names = [[f"key-{number}.{kind}" for kind in ("jpg", "txt")] for number in range(1000)]
    table = pa.table({"key": [""] * 1000, "members": names, "member_sizes": [[9, 9]] * 1000})
    peaks = []
    for shards in (2, 2, 20):  # what is loaded once, is loaded by the first
        scratch = tmp_path / str(len(peaks))
        scratch.mkdir()
        tracemalloc.start()
        EnergonSqliteIndex().of_dataset(Many(shards, table), Desk(scratch, NoGuard()))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]


@pytest.mark.loaders
@pytest.mark.parametrize("make", [exports.plain, exports.mixed])
def test_equals_energon_prepare(tmp_path, make):
    dataset, theirs = make(tmp_path / "out"), make(tmp_path / "theirs")
    exports.index_files(dataset, ["energon_sqlite"], tmp_path)
    tool = Path(sys.executable).parent / "energon"
    subprocess.run(
        [tool, "prepare", theirs.folder, "--non-interactive", "--num-workers", "1",
         "--split-ratio", "1,0,0"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    path = Path(".nv-meta", "index.sqlite")
    assert rows(dataset.folder / path) == rows(theirs.folder / path)


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
def test_energon_finds_samples_by_key(tmp_path):
    from megatron.energon.epathlib import EPath  # noqa: PLC0415
    from megatron.energon.flavors.webdataset.indexing import SqliteIndexReader  # noqa: PLC0415

    dataset = exports.mixed(tmp_path / "out")
    exports.index_files(dataset, ["energon", "energon_sqlite"], tmp_path)
    reader = SqliteIndexReader(EPath(dataset.folder / ".nv-meta" / "index.sqlite"))
    tars = sorted(dataset.folder.glob("*.tar"))
    assert reader.get_sample_count() == 12
    for number in range(12):
        key = f"key-{number:04d}"
        place = reader.get_sample_pointer_by_key(key)
        data = tars[place.tar_file_id].read_bytes()
        with tarfile.open(fileobj=io.BytesIO(data[place.byte_offset :][: place.byte_size])) as tar:
            assert {name.partition(".")[0] for name in tar.getnames()} == {key}


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    desk = Desk(tmp_path / "gone", NoGuard())
    with pytest.raises(StorageError, match=r"cannot write .*index\.sqlite: unable to open"):
        EnergonSqliteIndex().of_dataset(exports.plain(tmp_path / "out"), desk)
