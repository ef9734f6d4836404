"""What goes names what stays, which takes over its captions, over all stages that merge."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import PlanError
from pixsieve.select import groups
from pixsieve.select.base import sample_schema
from pixsieve.select.decide import decide
from pixsieve.stage import SelectStage
from pixsieve.testing.rows import make_parts, make_rows, make_scope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pixsieve.select.base import Rows, Verdicts


def led(rank: list[int], pairs: dict[int, int]) -> groups.Leaders:
    """Return who goes, for whom."""
    dropped = np.array(sorted(pairs), np.int64)
    keeper = np.array([pairs[row] for row in dropped.tolist()], np.int64)
    return groups.Leaders(dropped=dropped, keeper=keeper, rank=np.array(rank, np.int64)[dropped])


def test_captions_of_what_goes_come_by_rank_once_each(tmp_path: Path):
    texts = ["own", "late", "early", "own", None, "", "late", "alone"]
    rows = make_rows(tmp_path, [{"caption": text} for text in texts])
    rank = [0, 6, 1, 2, 3, 4, 5, 7]
    found = led(rank, dict.fromkeys(range(1, 7), 0))
    verdicts = groups.verdicts(rows, found, "near", [{"distance": 1}] * 6, merge=("caption",))
    merged = verdicts.columns["merged_caption"]
    assert merged.to_pylist() == [["early", "late"], *[None] * 7]
    assert merged.type == groups.merged_fields(("caption",))[0].type
    assert verdicts.drop.tolist() == list(range(1, 7))
    ids = rows.take(np.array([0]), ("image_id",))["image_id"].to_pylist()
    assert verdicts.duplicate_of.to_pylist() == ids * 6
    assert json.loads(verdicts.evidence[0].as_py()) == {"distance": 1}
    nothing = groups.verdicts(rows, led(rank, {}), "near", [], merge=("caption",))
    assert nothing.columns["merged_caption"].to_pylist() == [None] * 8


def test_what_goes_for_an_earlier_image_names_it_and_its_dataset(tmp_path: Path):
    rows = make_rows(tmp_path, [{"caption": "a"}, {"caption": "b"}])
    found = led([0, 1], {1: 3})
    earlier = groups.Earlier(name="benchmark", ids=pa.array(["x", "y"]))
    verdicts = groups.verdicts(
        rows, found, "near", [{"distance": 2}], merge=("caption",), earlier=earlier
    )
    assert verdicts.duplicate_of.to_pylist() == ["y"]
    assert json.loads(verdicts.evidence[0].as_py()) == {"distance": 2, "against": "benchmark"}
    assert verdicts.columns["merged_caption"].to_pylist() == [None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike(SelectStage):
    """Drops all but the best row of each label."""

    labels: tuple[int, ...]
    rank: tuple[int, ...]

    def adds(self) -> pa.Schema:
        return pa.schema(groups.merged_fields(("caption",)))

    def decide(self, rows: Rows) -> Verdicts:
        best: dict[int, int] = {}
        pairs = {}
        for row in sorted(np.flatnonzero(rows.kept).tolist(), key=self.rank.__getitem__):
            keeper = best.setdefault(self.labels[row], row)
            if keeper != row:
                pairs[row] = keeper
        found = led(list(self.rank), pairs)
        return groups.verdicts(rows, found, "alike", [{}] * len(pairs), merge=("caption",))


def test_a_later_stage_takes_over_what_earlier_ones_merged(tmp_path: Path):
    texts = ["a", "b", "c", "d", "e", "a"]
    first = Alike(labels=(0, 0, 1, 1, 2, 1), rank=(5, 4, 3, 2, 1, 0))  # 1 and 5 stay, and 4
    second = Alike(labels=(0, 0, 0, 0, 1, 0), rank=(5, 0, 3, 2, 1, 4))  # 5 goes for 1
    for passes in ([[first, second]], [[first], [second]]):
        merged = chained(tmp_path / str(len(passes)), [{"caption": text} for text in texts], passes)
        assert merged == {1: ["a", "d", "c"], 4: None}


ROWS = 7
LABELS = st.tuples(*[st.integers(0, 3)] * ROWS)
STAGES = st.builds(Alike, labels=LABELS, rank=st.permutations(range(ROWS)).map(tuple))


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.sampled_from([None, "", *"abcdef"]), min_size=ROWS, max_size=ROWS),
    passes=st.lists(st.lists(STAGES, min_size=1, max_size=3), min_size=1, max_size=3),
    per_part=st.integers(1, ROWS),
)
def test_no_caption_of_what_was_dropped_is_lost(
    texts: list[str | None],
    passes: list[list[Alike]],
    per_part: int,
    tmp_path_factory: pytest.TempPathFactory,
):
    went: dict[int, int] = {}
    for stage in (stage for stages in passes for stage in stages):
        best: dict[int, int] = {}
        for row in sorted(set(range(ROWS)) - set(went), key=stage.rank.__getitem__):
            if (keeper := best.setdefault(stage.labels[row], row)) != row:
                went[row] = keeper
    expected: dict[int, set[str]] = {row: set() for row in set(range(ROWS)) - set(went)}
    for row, text in enumerate(texts):
        stays = row
        while stays in went:
            stays = went[stays]
        expected[stays] |= {text} if text and text != texts[stays] else set()
    samples = [{"caption": text} for text in texts]
    merged = chained(tmp_path_factory.mktemp("rows"), samples, passes, per_part)
    assert {row: set(found or ()) for row, found in merged.items()} == expected
    assert all(found is None or 0 < len(found) == len(set(found)) for found in merged.values())


def chained(
    folder: Path,
    samples: list[dict[str, str | None]],
    passes: Sequence[Sequence[SelectStage]],
    per_part: int = 1000,
) -> dict[int, list[str] | None]:
    """Decide in passes; return what is merged into each row that is kept in the end."""
    added = pa.schema(groups.merged_fields(("caption",)))
    parts = make_parts(folder, samples, per_part=per_part)
    path = None
    for number, stages in enumerate(passes):
        rows = make_scope(folder, parts, added=added, selection=path).rows()
        path = str(folder / f"selection-{number}.parquet")
        decide(rows, [(f"Alike {number}.{at}", stage) for at, stage in enumerate(stages)], path)
    table = pq.read_table(path)
    lists = table["merged_caption"].to_pylist()
    ranks = table["rank"].to_pylist()
    assert all(found is None for found, rank in zip(lists, ranks, strict=True) if rank is None)
    return {row: lists[row] for row, rank in enumerate(ranks) if rank is not None}


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
