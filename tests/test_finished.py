"""A finished export says the same of itself in every process."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from pixsieve.export.contents import Contents
from pixsieve.export.files import FileRecord
from pixsieve.export.finished import MEMBER_COLUMNS, About, Dataset, Shard, members_of

COLUMNS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False, metadata={"unit": "none"}),
        pa.field("vector", pa.list_(pa.field("element", pa.float32()), 3)),
        pa.field("names", pa.list_(pa.field("element", pa.string()))),
    ]
)


def shard(number: int, split: str | None) -> Shard:
    record = FileRecord(name=f"{number}.tar", size=10, sha256="0" * 64)
    return Shard(
        tar=record, sidecar=record, split=split, bucket=None, samples=2, number=number,
        split_number=0, split_shards=1,
    )  # fmt: skip


def dataset(*splits: str | None) -> Dataset:
    return Dataset(
        folder=Path("out"), name="n", prefix="images", hash="abc", plan_sha256="d", samples=4,
        columns=COLUMNS, contents=Contents(samples=4, images={"jpg": 4}, members={}), counts={},
        reasons=[], inputs=[], recipe="", card={"license": "mit"},
        shards=tuple(shard(number, split) for number, split in enumerate(splits)),
    )  # fmt: skip


@pytest.mark.parametrize("told", [dataset("train", "val"), dataset(None).about])
def test_another_process_sees_the_same_columns(told: About):
    found = pickle.loads(pickle.dumps(told))  # noqa: S301  # as workers do
    assert type(found) is type(told)
    assert found == told
    assert [str(field.type) for field in found.columns] == [str(f.type) for f in COLUMNS]
    assert found.columns.field("key").metadata == {b"unit": b"none"}


def test_splits_are_in_the_order_of_the_export():
    found = dataset(None, "train", "train", "val")
    assert {split: len(shards) for split, shards in found.splits.items()} == {
        None: 1, "train": 2, "val": 1,
    }  # fmt: skip
    assert list(found.splits) == [None, "train", "val"]


def test_members_lie_one_behind_the_other():
    rows = pa.table(
        {
            "key": ["a", "b"],
            "members": [["a.jpg", "a.txt"], ["b.jpg"]],
            "member_sizes": [[1, 512], [513]],
        }
    )
    found = members_of(rows.select(MEMBER_COLUMNS))
    assert found.keys == ["a", "b"]
    assert found.borders == [0, 2, 3]
    assert found.names == ["a.jpg", "a.txt", "b.jpg"]
    assert found.offsets == [512, 1536, 2560]
    assert found.sizes == [1, 512, 513]
    assert found.end == 3584


def test_an_empty_table_has_no_members():
    empty = pa.schema(
        {"key": pa.string(), "members": pa.list_(pa.string()), "member_sizes": pa.list_(pa.int64())}
    ).empty_table()
    assert members_of(empty) == ([], [0], [], [], [], 0)
