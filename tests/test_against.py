"""Earlier datasets: by their manifest, or plain Parquet files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixsieve.errors import PlanError, SourceError, SourceNotFoundError
from pixsieve.select import against

if TYPE_CHECKING:
    from pathlib import Path

TABLE = pa.table({"phash": pa.array([b"01234567"], pa.binary(8)), "image_id": ["a"]})
WANTED = pa.schema([pa.field("phash", pa.binary(8))])


def ids(path: Path) -> list[str]:
    return [
        each
        for table in against.read(str(path), ("phash",))
        for each in table["image_id"].to_pylist()
    ]


def test_a_dataset_is_what_its_manifest_lists(tmp_path: Path):
    for name in ("images-0.parquet", "dropped.parquet"):
        pq.write_table(TABLE, tmp_path / name)
    assert ids(tmp_path) == ["a", "a"]
    shards = [{"tar": "images-0.tar", "sidecar": "images-0.parquet"}]
    before = against.digests(str(tmp_path))
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": shards}))
    assert ids(tmp_path) == ["a"]
    assert against.digests(str(tmp_path)) != before
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(SourceError, match="manifest"):
        ids(tmp_path)


def test_a_file_and_a_folder_of_files(tmp_path: Path):
    pq.write_table(TABLE, tmp_path / "b.parquet")
    pq.write_table(TABLE.set_column(1, "image_id", [["b"]]), tmp_path / "a.parquet")
    (tmp_path / "readme.txt").write_text("no table")
    assert ids(tmp_path) == ["b", "a"]
    assert ids(tmp_path / "b.parquet") == ["a"]
    assert next(against.read(str(tmp_path), ("phash",))).column_names == ["image_id", "phash"]
    assert against.name(f"{tmp_path}/") == tmp_path.name
    found = against.digests(str(tmp_path))
    (tmp_path / "a.parquet").rename(tmp_path / "c.parquet")
    assert against.digests(str(tmp_path)) == found


def test_what_is_not_there_or_does_not_fit_is_said(tmp_path: Path):
    with pytest.raises(SourceNotFoundError, match="is not there"):
        against.digests(str(tmp_path / "nowhere"))
    with pytest.raises(SourceNotFoundError, match="no Parquet file"):
        against.schema(str(tmp_path))
    pq.write_table(TABLE, tmp_path / "a.parquet")
    against.check("Stage", str(tmp_path), WANTED)
    with pytest.raises(PlanError, match="no column 'dhash'"):
        against.check("Stage", str(tmp_path), pa.schema([pa.field("dhash", pa.binary(8))]))
    with pytest.raises(PlanError, match="expected fixed_size_binary\\[32\\]"):
        against.check("Stage", str(tmp_path), pa.schema([pa.field("phash", pa.binary(32))]))
    with pytest.raises(SourceError, match="no column 'dhash'"):
        list(against.read(str(tmp_path), ("dhash",)))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    for ask in (against.schema, lambda path: list(against.read(path, ()))):
        with pytest.raises(SourceError, match="cannot be read as Parquet"):
            ask(str(tmp_path))
