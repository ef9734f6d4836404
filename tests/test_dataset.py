"""The manifest: one form, read back as written, and never taken for what it is not."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from pixsieve.errors import OutputConflictError
from pixsieve.export.dataset import Manifest, ShardEntry, read_manifest, versions
from pixsieve.export.shard import FileRecord

if TYPE_CHECKING:
    from pathlib import Path


def manifest(**changes: Any) -> Manifest:
    given: dict[str, Any] = {
        "name": "kätzchen", "hash": "0123456789ab", "seed": 3, "recipe": {"stages": []},
        "recipe_sha256": "a" * 64, "plan_sha256": "b" * 64,
        "counts": {"indexed": 1, "kept": 1, "dropped": 0, "failed": 0}, "reasons": [],
        "inputs": [{"path": "a.tar", "samples": 1, "sha256": "c" * 64}],
        "shards": [ShardEntry(tar="a.tar", sidecar="a.parquet", split=None, samples=1)],
        "files": [FileRecord(name="a.tar", size=1, sha256="d" * 64)], "versions": versions(),
    }  # fmt: skip
    return Manifest(**{**given, **changes})


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path):
    data = manifest().to_bytes()
    (tmp_path / "manifest.json").write_bytes(data)
    found = read_manifest(tmp_path)
    assert found == json.loads(data)
    assert found["format"] == "pixsieve-dataset"
    assert found["shards"] == [
        {"tar": "a.tar", "sidecar": "a.parquet", "split": None, "bucket": None, "samples": 1}
    ]


def test_a_manifest_has_one_form():
    data = manifest().to_bytes()
    assert data == manifest().to_bytes()
    assert data.endswith(b"}\n")
    assert "kätzchen" in data.decode("utf-8")
    found = json.loads(data)
    assert list(found) == sorted(found)
    assert data.decode() == json.dumps(found, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def test_the_versions_that_wrote_it_are_no_difference():
    standing = json.loads(manifest(versions={"pixsieve": "0.0.1"}).to_bytes())
    assert manifest().says_the_same_as(standing)
    for name, value in (("name", "x"), ("seed", 4), ("counts", {}), ("files", []), ("inputs", [])):
        assert not manifest(**{name: value}).says_the_same_as(standing)
    assert not manifest().says_the_same_as({**standing, "versions": {"pixsieve": "0.0.2"}})


def test_a_manifest_has_the_digest_of_its_other_lines():
    data = manifest(recipe={"sha256": 1}).to_bytes()
    (line,) = [line for line in data.splitlines(keepends=True) if line.startswith(b' "sha256":')]
    digest = hashlib.sha256(data.replace(line, b"")).hexdigest()
    assert line == f' "sha256": "{digest}",\n'.encode()


def test_versions_are_of_all_that_decides_bytes():
    assert {"pixsieve", "pyarrow", "pillow", "simplejpeg", "numpy", "duckdb"} <= set(versions())


def test_a_folder_without_a_manifest_has_none(tmp_path: Path):
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b'{"format": "\xb1"}', "cannot be read"),
        (b"[]", "is not a pixsieve manifest"),
        (b"{}", "is not a pixsieve manifest"),
        (b'{"format": "another", "format_version": 1}', "is not a pixsieve manifest"),
        (b'{"format": "pixsieve-dataset"}', "has the format version None"),
        (b'{"format": "pixsieve-dataset", "format_version": 2}', "has the format version 2"),
    ],
)
def test_what_is_no_manifest_of_ours_is_refused_and_left(tmp_path: Path, data: bytes, says: str):
    path = tmp_path / "manifest.json"
    path.write_bytes(data)
    with pytest.raises(OutputConflictError, match=says) as refused:
        read_manifest(tmp_path)
    assert str(path) in str(refused.value)
    assert "choose another output folder" in str(refused.value)
    assert path.read_bytes() == data
