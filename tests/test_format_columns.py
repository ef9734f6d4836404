"""Names, kinds and runs, in which all formats agree."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsieve.errors import RunError
from pixsieve.export.formats import columns
from pixsieve.export.formats.columns import Kind, check_sizes, check_splits, kind_of, runs
from pixsieve.testing.format_suite import make_dataset


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 20), st.none() | st.integers(1, 5))
def test_runs_are_as_long_as_they_may(sizes, most_bytes, most_rows):
    found = list(runs(sizes, most_bytes, most_rows))
    assert sum(found) == len(sizes)
    start = 0
    for count in found:
        stop = start + count
        assert count == 1 or sum(sizes[start:stop]) <= most_bytes
        assert most_rows is None or count <= most_rows
        if stop < len(sizes):
            assert sum(sizes[start : stop + 1]) > most_bytes or count == most_rows
        start = stop


def test_kinds():
    known = {
        pa.large_string(): Kind("text"),
        pa.dictionary(pa.int8(), pa.string()): Kind("text"),
        pa.binary(8): Kind("bytes"),
        pa.uint16(): Kind("int"),
        pa.float16(): Kind("float"),
        pa.bool_(): Kind("bool"),
        pa.list_(pa.string()): Kind("text", list=True),
        pa.list_(pa.float32(), 3): Kind("float", list=True, length=3),
        pa.timestamp("us"): None,
        pa.decimal128(9, 2): None,
        pa.struct([("a", pa.int8())]): None,
        pa.list_(pa.list_(pa.int8())): None,
    }
    assert {each: kind_of(each) for each in known} == known


def test_a_name_that_a_format_needs_gives_way():
    given = pa.schema([("image", pa.int8()), ("image_", pa.int8()), ("key", pa.int8())])
    assert columns.names_beside(given, "image") == ["image_", "image__", "key"]


def test_an_image_that_is_too_large_is_named(tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path, splits=False)
    rows = [row for shard in dataset.shards for row, _ in dataset.images(shard)]
    largest = max(rows, key=lambda row: row["member_size"])
    monkeypatch.setattr(columns, "MAX_IMAGE", largest["member_size"] - 1)
    for shard in dataset.shards:
        if shard.tar.name == largest["tar_file"]:
            with pytest.raises(RunError, match=rf"{shard.tar.name}: the image '{largest['key']}'"):
                check_sizes(dataset.about, shard)


def test_a_split_cannot_be_called_as_none_is(tmp_path):
    dataset = make_dataset(tmp_path, splits=True)
    check_splits(dataset)
    first, *rest = dataset.shards
    mixed = dataclasses.replace(dataset, shards=(dataclasses.replace(first, split=None), *rest))
    with pytest.raises(RunError, match="some samples have the split 'train'"):
        check_splits(mixed)
