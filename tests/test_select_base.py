"""Rows come in index order, column by column, from whichever table has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from pixsieve import schema
from pixsieve.select.base import PROBLEMS, read_parts, sample_schema
from pixsieve.testing.rows import make_parts, make_rows

if TYPE_CHECKING:
    from pathlib import Path

ADDED = pa.schema([("score", pa.float32()), ("label", pa.string())])
SAMPLES = [
    {
        "original_path": f"{number // 9}.tar",
        "original_key": f"k{number}",
        "width": number,
        "score": number / 2,
        "label": None,
    }
    for number in range(31)
]


@pytest.mark.parametrize("per_part", [1, 4, 1000])
@pytest.mark.parametrize("batch_rows", [1, 10, 65_536])
def test_batches_hold_all_rows_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_part: int, batch_rows: int
):
    monkeypatch.setattr("pixsieve.select.base.BATCH_ROWS", batch_rows)
    rows = make_rows(tmp_path, SAMPLES, added=ADDED, per_part=per_part)
    seen: list[dict[str, object]] = []
    for batch in rows.batches(("score", "original_key", "width", "label", "original_path")):
        assert batch.first == len(seen)
        assert batch.kept.tolist() == rows.kept[batch.first :][: len(batch.columns)].tolist()
        assert batch.columns.column_names[:2] == ["score", "original_key"]
        seen += batch.columns.to_pylist()
    assert seen == SAMPLES


def test_batches_are_no_larger_than_they_must_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pixsieve.select.base.BATCH_ROWS", 10)
    rows = make_rows(tmp_path, SAMPLES, per_part=4)
    sizes = [len(batch.columns) for batch in rows.batches(("width",))]
    assert max(sizes) < 10 + 4
    assert min(sizes[:-1]) >= 10


def test_take_returns_the_rows_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pixsieve.select.base.BATCH_ROWS", 5)
    rows = make_rows(tmp_path, SAMPLES, added=ADDED, per_part=3)
    numbers = np.array([0, 4, 5, 18, 30])
    found = rows.take(numbers, ("width", "score"))
    assert found.to_pydict() == {"width": numbers.tolist(), "score": (numbers / 2).tolist()}
    nothing = rows.take(np.empty(0, np.int64), ("width", "score"))
    assert nothing.schema == pa.schema([("width", pa.int32()), ("score", pa.float32())])


def test_every_sample_column_can_be_read_with_its_type(tmp_path: Path):
    parts = make_parts(tmp_path, SAMPLES, added=ADDED, per_part=20)
    columns = sample_schema([ADDED])
    assert columns.names == [*schema.SAMPLE.names, "score", "label"]
    for table in read_parts(parts, columns.names):
        assert table.schema.types == columns.types


def test_a_problem_is_that_of_locating_or_else_that_of_reading(tmp_path: Path):
    samples = [{}, {"problem": "decode_failed", "problem_detail": "cut"}, {}]
    (table,) = read_parts(make_parts(tmp_path, samples), PROBLEMS.names)
    assert table.to_pydict() == {
        "problem": [None, "decode_failed", None],
        "problem_detail": [None, "cut", None],
    }
