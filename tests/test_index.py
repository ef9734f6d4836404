"""One shard becomes one table; what is odd is said, and a source that moves is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pixsieve.errors import SourceChangedError
from pixsieve.schema import INDEX
from pixsieve.sources import IndexOptions, find_shards, index_shard
from pixsieve.storage import LocalStorage
from pixsieve.testing.strategies import Entry, header, write_tar

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.sources import IndexResult, SourceShard

STORAGE = LocalStorage()
TAR = write_tar([Entry("a.jpg", b"\xff\xd8\xff"), Entry("a.txt", b"red")])


def shard_of(path: Path) -> SourceShard:
    (shard,) = find_shards(str(path), STORAGE)[1]
    return shard


def index(path: Path) -> IndexResult:
    return index_shard(shard_of(path), IndexOptions(), STORAGE, str(path.parent / "spool"))


def test_notes_ignored_members_and_the_place_read_to_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(header(b"folder/", 0, b"5") + TAR + TAR[:2048])
    result = index(path)
    assert result.ignored == 1
    assert result.read_to == path.stat().st_size
    assert len(result.notes) == 2
    path.write_bytes(TAR + b"junk")
    result = index(path)
    assert result.read_to == len(TAR)
    (lost,) = result.notes
    assert lost.startswith(f"not read on from byte {len(TAR)}, what follows is lost: unknown data")


def test_an_empty_tar_has_no_rows_and_the_same_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(10240))
    table = index(path).table
    assert (table.num_rows, table.schema) == (0, INDEX)


def test_a_table_is_the_same_whatever_folder_the_source_is_in(tmp_path: Path) -> None:
    tables = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tar").write_bytes(TAR)
        table = index(tmp_path / name / "a.tar").table
        tables.append(table.drop_columns(["image_version", "siblings"]))
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("change", ["grown", "removed"])
def test_a_tar_that_changes_after_it_was_listed_is_an_error(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(TAR)
    shard = shard_of(path)
    if change == "grown":
        path.write_bytes(TAR + TAR)
    else:
        path.unlink()
    with pytest.raises(SourceChangedError, match=r"a\.tar (changed|vanished)"):
        index_shard(shard, IndexOptions(), STORAGE, str(tmp_path))
