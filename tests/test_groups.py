"""Groups are built round what stays: no chains, the best one keeps, captions are merged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsieve.errors import PlanError
from pixsieve.select import groups
from pixsieve.select.base import sample_schema
from pixsieve.testing.rows import make_rows

if TYPE_CHECKING:
    from pathlib import Path


def led(rank: list[int], pairs: list[tuple[int, int, int]]) -> groups.Leaders:
    """Return who goes, for pairs of (better row, worse row, distance)."""
    columns = np.array(pairs, np.int64).reshape(-1, 3).T
    return groups.leaders(np.array(rank), columns[0], columns[1], columns[2])


def test_a_chain_is_no_group():
    found = led([0, 1, 2], [(0, 1, 3), (1, 2, 4)])
    assert (found.dropped.tolist(), found.keeper.tolist()) == ([1], [0])
    assert found.distance.tolist() == [3]


def test_a_row_goes_for_the_best_one_that_stays_not_for_the_nearest():
    found = led([1, 0, 2], [(0, 2, 1), (1, 2, 5)])
    assert (found.dropped.tolist(), found.keeper.tolist()) == ([2], [1])


def test_no_pairs_no_groups():
    assert led([0, 1], []).dropped.tolist() == []


PAIRS = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14), st.integers(0, 9)), max_size=40)


@given(rank=st.permutations(range(15)), pairs=PAIRS, rounds=st.sampled_from([0, 1, 64]))
def test_it_is_what_going_through_the_ranks_gives(
    rank: list[int], pairs: list[tuple[int, int, int]], rounds: int
):
    ordered = [
        (*sorted((one, other), key=rank.__getitem__), d) for one, other, d in pairs if one != other
    ]
    near: dict[int, set[int]] = {row: set() for row in range(15)}
    for better, worse, _ in ordered:
        near[worse].add(better)
    stays: list[int] = []
    expected = {}
    for row in sorted(range(15), key=rank.__getitem__):
        for_whom = [better for better in stays if better in near[row]]
        if for_whom:
            expected[row] = for_whom[0]
        else:
            stays.append(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "_ROUNDS", rounds)
        found = led(list(rank), ordered)
    assert dict(zip(found.dropped.tolist(), found.keeper.tolist(), strict=True)) == expected
    assert found.dropped.tolist() == sorted(expected)
    assert found.rank.tolist() == [rank[row] for row in found.dropped]


def test_a_chain_of_a_hundred_thousand_takes_no_hundred_thousand_rounds():
    count = 100_000
    rows = np.arange(count)
    found = groups.leaders(rows, rows[:-1], rows[1:], np.ones(count - 1))
    assert found.dropped.tolist() == list(range(1, count, 2))


def test_captions_of_what_goes_come_by_rank_once_each(tmp_path: Path):
    texts = ["own", "late", "early", "own", None, "", "late", "alone"]
    rows = make_rows(tmp_path, [{"caption": text} for text in texts])
    rank = [0, 6, 1, 2, 3, 4, 5, 7]
    found = led(rank, [(0, row, 1) for row in range(1, 7)])
    evidence = [{"distance": int(distance)} for distance in found.distance]
    verdicts = groups.verdicts(rows, found, "near", evidence, merge=("caption",))
    merged = verdicts.columns["merged_caption"]
    assert merged.to_pylist() == [["early", "late"], *[None] * 7]
    assert merged.type == groups.merged_fields(("caption",))[0].type
    assert verdicts.drop.tolist() == list(range(1, 7))
    ids = rows.take(np.array([0]), ("image_id",))["image_id"].to_pylist()
    assert verdicts.duplicate_of.to_pylist() == ids * 6
    assert json.loads(verdicts.evidence[0].as_py()) == {"distance": 1}
    nothing = groups.verdicts(rows, led(rank, []), "near", [], merge=("caption",))
    assert nothing.columns["merged_caption"].to_pylist() == [None] * 8


def test_what_goes_for_an_earlier_image_names_it_and_its_dataset(tmp_path: Path):
    rows = make_rows(tmp_path, [{"caption": "a"}, {"caption": "b"}])
    rank = [0, 1, -2, -1]
    found = led(rank, [(3, 1, 2)])
    earlier = groups.Earlier(name="benchmark", ids=pa.array(["x", "y"]))
    verdicts = groups.verdicts(
        rows, found, "near", [{"distance": 2}], merge=("caption",), earlier=earlier
    )
    assert verdicts.duplicate_of.to_pylist() == ["y"]
    assert json.loads(verdicts.evidence[0].as_py()) == {"distance": 2, "against": "benchmark"}
    assert verdicts.columns["merged_caption"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("merge", "told"),
    [
        (("title",), "'title', which is not there"),
        (("width",), "which is int32"),
        (("caption", "caption"), "twice"),
    ],
)
def test_only_text_is_merged(merge: tuple[str, ...], told: str):
    groups.check_merge("Stage", ("caption",), sample_schema([]))
    with pytest.raises(PlanError, match=told):
        groups.check_merge("Stage", merge, sample_schema([]))
