"""The export in the order of a column; what has no value comes last."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import PlanError
from pixsieve.select.sort import SortStage
from pixsieve.testing.rows import make_rows


def order(folder: Path, kind: pa.DataType, values: list[Any], **options: bool) -> list[int]:
    rows = make_rows(folder, [{"x": v} for v in values], added=pa.schema([("x", kind)]), per_part=3)
    verdicts = SortStage("x", **options).decide(rows)
    assert verdicts.order.dtype == np.uint64
    return np.argsort(verdicts.order, kind="stable").tolist()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float64(), [2.0, None, 1.0, float("nan"), 3.0, 1.0]),
        (pa.float16(), [2.0, None, 1.0, float("nan"), 3.0, 1.0]),
        (pa.int64(), [2, None, 2**62, None, 2**62 + 1, 2**62]),
        (pa.string(), ["b", None, "B", None, "ä", "B"]),
        (pa.bool_(), [True, None, False, None, True, False]),
        (pa.dictionary(pa.int8(), pa.string()), ["b", None, "a", None, "c", "a"]),
    ],
)
def test_both_ways_with_nulls_last_and_equal_ones_as_indexed(tmp_path, kind, values):
    there = [0, 2, 4, 5]
    up = sorted(there, key=lambda n: str(values[n]).encode() if "str" in str(kind) else values[n])
    assert order(tmp_path / "1", kind, values)[:4] == up
    assert order(tmp_path / "1", kind, values)[4:] == [1, 3]
    down = order(tmp_path / "2", kind, values, descending=True)
    assert [values[n] for n in down[:4]] == [values[n] for n in reversed(up)]
    assert down[4:] == [1, 3]


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=12))
def test_it_is_a_stable_sort(values, tmp_path_factory):
    found = order(tmp_path_factory.mktemp("rows"), pa.int32(), values)
    wanted = sorted(range(len(values)), key=lambda n: 9 if values[n] is None else values[n])
    assert found == wanted


def test_a_column_that_is_not_there_or_has_no_order_is_refused():
    columns = pa.schema([pa.field("v", pa.list_(pa.float32())), pa.field("score", pa.float32())])
    with pytest.raises(PlanError, match="no column 'scor'; did you mean 'score'"):
        SortStage("scor").check(columns)
    with pytest.raises(PlanError, match="one value a row"):
        SortStage("v").check(columns)
