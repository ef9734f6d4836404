"""Tables: equal rows are equal bytes, and a damaged one is named, not met as a surprise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixsieve.errors import StorageError
from pixsieve.storage import LocalStorage, tables

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("n", pa.int32()),
        ("tags", pa.list_(pa.string())),
    ]
)


def rows(count: int) -> pa.Table:
    columns = {
        "id": [f"id-{number}" for number in range(count)],
        "n": [number if number % 3 else None for number in range(count)],
        "tags": [["a"] * (number % 3) if number % 2 else None for number in range(count)],
    }
    return pa.table(columns, schema=SCHEMA)


@pytest.mark.parametrize("settings", [tables.WORKING, tables.DATASET])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_table_is_read_back_with_its_schema(tmp_path: Path, settings, count: int):
    (tmp_path / "t").write_bytes(tables.table_bytes(rows(count), settings))
    found = tables.read_table(str(tmp_path / "t"))
    assert found == rows(count)
    assert found.schema == SCHEMA
    assert tables.read_table(str(tmp_path / "t"), ["n"]).column_names == ["n"]


def test_equal_rows_are_equal_bytes_however_they_lie_in_memory():
    whole = rows(100)
    pieces = pa.concat_tables([rows(200).slice(0, 30), rows(200).slice(30, 70)])
    assert bytes(tables.table_bytes(whole)) == bytes(tables.table_bytes(pieces))
    assert bytes(tables.table_bytes(whole)) != bytes(tables.table_bytes(rows(101)))


def test_a_long_table_appears_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "t"
    with tables.table_writer(LocalStorage(), str(path), SCHEMA) as writer:
        writer.write_table(rows(3))
        writer.write_table(rows(2))
        assert not path.exists()
    assert tables.read_table(str(path)) == pa.concat_tables([rows(3), rows(2)])
    before = path.read_bytes()
    with pytest.raises(KeyError):  # noqa: PT012, SIM117 - the failure comes after a batch
        with tables.table_writer(LocalStorage(), str(path), SCHEMA) as writer:
            writer.write_table(rows(1))
            raise KeyError
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["t"]


def test_any_rows_of_a_long_table_can_be_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tables, "ROW_GROUP", 4)
    path, all_rows = str(tmp_path / "t"), rows(9)
    with tables.table_writer(LocalStorage(), path, SCHEMA) as writer:
        for start in range(0, 9, 4):
            writer.write_table(all_rows.slice(start, 4))
    for start in range(10):
        for stop in range(start, 10):
            found = tables.read_rows(path, start, stop, ["id"])
            assert found == all_rows.slice(start, stop - start).select(["id"])
    assert tables.schema_of(path) == SCHEMA


@pytest.mark.parametrize("lengths", [[9], [1] * 9, [0, 5, 0, 4, 0], [4, 4, 1], [3]])
def test_a_long_table_comes_in_runs_of_any_length(tmp_path: Path, lengths: list[int]):
    path = str(tmp_path / "t")
    with tables.table_writer(LocalStorage(), path, SCHEMA) as writer:
        for start in range(0, 9, 4):
            writer.write_table(rows(9).slice(start, 4))
    found = list(tables.runs_of_rows(path, lengths, ["id"]))
    assert [len(run) for run in found] == lengths
    assert pa.concat_tables(found) == rows(9).slice(0, sum(lengths)).select(["id"])


def test_a_long_table_that_ends_too_early_is_an_error_that_names_it(tmp_path: Path):
    path = str(tmp_path / "t")
    with tables.table_writer(LocalStorage(), path, SCHEMA) as writer:
        writer.write_table(rows(3))
    with pytest.raises(StorageError, match=r"the table .*t ends too early"):
        list(tables.runs_of_rows(path, [2, 2]))


def test_a_long_table_of_no_rows_still_has_its_schema(tmp_path: Path):
    with tables.table_writer(LocalStorage(), str(tmp_path / "t"), SCHEMA):
        pass
    assert pq.read_table(tmp_path / "t").schema == SCHEMA


def test_damage_is_an_error_that_names_the_table(tmp_path: Path):
    data = bytes(tables.table_bytes(rows(1000)))
    path = tmp_path / "t.parquet"
    for damaged in (b"", b"PAR1", data[:-1], data[: len(data) // 2], b"\0" * len(data)):
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"cannot read the table .*t\.parquet: "):
            tables.read_table(str(path))
    path.unlink()
    with pytest.raises(StorageError, match=r"cannot read the table .*t\.parquet: "):
        tables.read_table(str(path))
