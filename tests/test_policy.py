"""The best of several images: keys in their order, nulls last, a total order in the end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import PlanError
from pixsieve.select import policy
from pixsieve.select.base import sample_schema
from pixsieve.testing.rows import make_rows

if TYPE_CHECKING:
    from pathlib import Path

ADDED = pa.schema(
    [
        pa.field("sharpness", pa.float32(), metadata={"better": "higher"}),
        pa.field("noise", pa.float64(), metadata={"better": "lower"}),
        pa.field("word", pa.string()),
        pa.field("flag", pa.bool_()),
        pa.field("count", pa.uint64()),
        pa.field("day", pa.date32()),
        pa.field("bits", pa.binary(8)),
        pa.field("two words", pa.int64()),
    ]
)


def ranked(folder: Path, samples: list[dict[str, Any]], keep: tuple[str, ...] | None) -> list[str]:
    """Return the keys of the samples, the best one first."""
    rows = make_rows(folder, samples, added=ADDED, per_part=2)
    ranks = policy.ranks(rows, keep)
    assert sorted(ranks.tolist()) == list(range(len(samples)))
    keys = rows.take(np.arange(len(rows)), ("original_key",))["original_key"].to_pylist()
    return [keys[row] for row in np.argsort(ranks)]


@pytest.mark.parametrize(
    ("entry", "values", "order"),
    [
        ("sharpness", {"sharpness": [1.0, None, 3.0, float("nan"), 2.0]}, "cea"),
        ("sharpness asc", {"sharpness": [1.0, None, 3.0, float("nan"), 2.0]}, "aec"),
        ("noise", {"noise": [2.0, 1.0, None, 3.0, 0.0]}, "ebadc"),
        ("noise desc", {"noise": [2.0, 1.0, None, 3.0, 0.0]}, "dabec"),
        ("word", {"word": ["b", "", None, "ä", "ab"]}, "daebc"),
        ("word asc", {"word": ["b", "", None, "ä", "ab"]}, "beadc"),
        ("flag", {"flag": [None, True, False, True, True], "count": [0] * 5}, "b"),
        ("count asc", {"count": [2**64 - 1, 0, 2**63, None, 1]}, "becad"),
        ("count", {"count": [2**64 - 1, 0, 2**63, None, 1]}, "acebd"),
        ("two words", {"two words": [1, 2, 3, 4, 5]}, "edcba"),
        ("two words asc", {"two words": [5, 4, 3, 2, 1]}, "edcba"),
        ("has_caption", {"caption": [None, " \n", "", "x", None]}, "d"),
        ("file_size", {"byte_size": [5, 4, 9, 2, 1]}, "cabde"),
        ("resolution", {"width": [70_000, 9, 8, 7, 6], "height": [70_000, 9, 8, 7, 6]}, "abcde"),
        ("resolution asc", {"width": [70_000, 9, 8, 7, 6], "height": [70_000] * 5}, "edcba"),
    ],
)
def test_each_kind_of_key(entry: str, values: dict[str, list[object]], order: str, tmp_path: Path):
    samples = [
        {
            "original_key": name,
            **{column: column_values[at] for column, column_values in values.items()},
        }
        for at, name in enumerate("abcde")
    ]
    assert "".join(ranked(tmp_path, samples, (entry,))).startswith(order)


def test_source_order_is_path_then_offset_then_key(tmp_path: Path):
    samples = [
        {"original_key": "d", "original_path": "b.tar", "original_offset": 1},
        {"original_key": "c", "original_path": "a.tar", "original_offset": 100},
        {"original_key": "b", "original_path": "a.tar", "original_offset": 20},
        {"original_key": "a", "original_path": "a.tar", "original_offset": 100},
    ]
    assert ranked(tmp_path / "1", samples, ("source_order",)) == ["b", "a", "c", "d"]
    assert ranked(tmp_path / "2", samples, ("source_order desc",)) == ["d", "c", "a", "b"]


def test_the_usual_keys_fall_away_where_their_columns_are_not_there():
    schema = sample_schema([])
    everything = policy.columns(None, schema)
    assert "width" in everything
    assert "sharpness" not in everything
    assert policy.columns(None, sample_schema([ADDED]))[2] == "sharpness"
    assert policy.columns(("word asc", "word"), sample_schema([ADDED])) == ("word", "image_id")
    assert policy.named(None) == ()
    assert policy.named(("word asc", "resolution", "word")) == ("word", "width", "height")
    assert policy.named(("two words desc", "two words")) == ("two words",)


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        (("aesthetic",), "no column 'aesthetic'"),
        (("width up",), "width up"),
        (("bits",), "no order"),
        ((), "keep is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(keep: tuple[str, ...], told: str):
    with pytest.raises(PlanError, match=told):
        policy.columns(keep, sample_schema([ADDED]))


def test_only_kept_rows_have_a_rank_and_no_row_at_all_is_fine(tmp_path: Path):
    rows = make_rows(tmp_path / "1", [{"width": 1}, {"width": 3}, {"width": 2}])
    rows.kept[1] = False
    assert policy.ranks(rows, ("resolution",)).tolist() == [1, -1, 0]
    rows.kept[:] = False
    assert policy.ranks(rows, None).tolist() == [-1] * 3
    assert policy.ranks(make_rows(tmp_path / "2", []), None).tolist() == []
    alone = make_rows(tmp_path / "3", [{}])
    assert policy.ranks(alone, None).tolist() == [0]


SAMPLES = st.lists(
    st.fixed_dictionaries(
        {
            "original_path": st.sampled_from(["a.tar", "b.tar"]),
            "original_offset": st.just(7),
            "width": st.sampled_from([1, 2, 4]),
            "height": st.sampled_from([2, 4]),
            "sharpness": st.sampled_from([None, 0.5, 1.5, float("nan")]),
            "caption": st.sampled_from([None, "x", "y"]),
        }
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(samples=SAMPLES, seed=st.integers(0, 99), per_part=st.integers(1, 5))
def test_the_order_is_that_of_the_sorted_keys_whatever_the_order_of_rows(
    samples: list[dict[str, Any]],
    seed: int,
    per_part: int,
    tmp_path_factory: pytest.TempPathFactory,
):
    named = [{**sample, "original_key": f"k{at}"} for at, sample in enumerate(samples)]
    random.Random(seed).shuffle(named)
    rows = make_rows(tmp_path_factory.mktemp("rows"), named, added=ADDED, per_part=per_part)
    table = rows.take(np.arange(len(rows)), ("image_id",))["image_id"].to_pylist()

    def key(row: int) -> tuple[object, ...]:
        sample = named[row]
        sharp = sample["sharpness"]
        worst = sharp is None or sharp != sharp  # noqa: PLR0124  # NaN is not equal to itself
        return (
            -sample["width"] * sample["height"],
            (worst, 0 if worst else -sharp),
            sample["caption"] is None,
            sample["original_path"],
            sample["original_key"],
            table[row],
        )

    expected = sorted(range(len(named)), key=key)
    assert np.argsort(policy.ranks(rows, None)).tolist() == expected
