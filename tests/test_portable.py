"""Types that every reader maps hold the same values, and lead back to what they were."""

from __future__ import annotations

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.storage.portable import convert, original, originals, portable

KINDS = {
    "hash": pa.binary(8),
    "half": pa.float16(),
    "vector16": pa.list_(pa.float16(), 3),
    "vector32": pa.list_(pa.float32(), 3),
    "text": pa.string(),
    "tags": pa.list_(pa.string()),
    "count": pa.int64(),
}
half = st.floats(width=16, allow_nan=False)
VALUES = {
    "hash": st.binary(min_size=8, max_size=8),
    "half": half.map(np.float16),
    "vector16": st.lists(half.map(np.float16), min_size=3, max_size=3),
    "vector32": st.lists(half, min_size=3, max_size=3),
    "text": st.text(max_size=4),
    "tags": st.lists(st.text(max_size=3), max_size=3),
    "count": st.integers(0, 9),
}
SCHEMA = pa.schema([pa.field(name, kind, metadata={"unit": name}) for name, kind in KINDS.items()])
rows = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()}),
    max_size=6,
)


def stored(table: pa.Table) -> pa.Table:
    fields = [portable(field) for field in table.schema]
    columns = [convert(table[field.name], field.type) for field in fields]
    return pa.table(columns, schema=pa.schema(fields))


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(0, 3))
def test_what_is_stored_holds_the_same_values_and_leads_back(found, cut):
    table = pa.concat_tables(
        [pa.Table.from_pylist(each, SCHEMA) for each in (found[:cut], found[cut:])]
    ).slice(1)
    there = stored(table)
    assert there.to_pylist() == table.to_pylist()
    there.validate(full=True)
    back = originals(there)
    back.validate(full=True)
    assert back.schema.equals(table.schema, check_metadata=True)
    assert back.to_pylist() == table.to_pylist()


def test_others_can_read_them(tmp_path):
    row = {
        "hash": b"12345678", "half": np.float16(0.5), "vector16": [np.float16(1)] * 3,
        "vector32": [0.5, 1, 2], "text": "a", "tags": ["b"], "count": 3,
    }  # fmt: skip
    table = pa.Table.from_pylist([row, dict.fromkeys(row), row], SCHEMA)
    path = tmp_path / "a.parquet"
    pq.write_table(stored(table), path)
    assert originals(pq.read_table(path)).to_pylist() == table.to_pylist()
    assert pl.read_parquet(path)["vector16"].to_list() == [[1, 1, 1], None, [1, 1, 1]]
    said = duckdb.sql(f"select half, vector16, hash from '{path}'").fetchall()  # noqa: S608
    assert said == [(0.5, [1, 1, 1], b"12345678"), (None,) * 3, (0.5, [1, 1, 1], b"12345678")]


def test_what_is_portable_stays_as_it_is():
    for name in ("text", "tags", "count"):
        field = SCHEMA.field(name)
        assert portable(field).equals(field, check_metadata=True)
        assert original(field).equals(field, check_metadata=True)


@pytest.mark.parametrize("told", [b"", b"fixed_size_binary[x]", b"list<int>", b"\xff"])
def test_metadata_of_others_changes_no_type(told):
    field = pa.field("a", pa.binary(), metadata={"stored_from": told})
    assert original(field).type == pa.binary()


def test_a_list_of_another_length_is_refused():
    field = portable(SCHEMA.field("vector32"))
    table = pa.table(
        {"a": pa.array([[1.0, 2.0]], field.type)}, schema=pa.schema([field.with_name("a")])
    )
    with pytest.raises(pa.ArrowInvalid):
        originals(table)
