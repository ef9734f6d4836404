"""The best by a score stay, the same ones whatever the order of rows."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import PlanError
from pixsieve.select.top import TopStage
from pixsieve.testing.rows import make_rows

ADDED = pa.schema(
    [
        pa.field("score", pa.float32(), metadata={"better": "higher"}),
        pa.field("noise", pa.int32(), metadata={"better": "lower"}),
    ]
)


def stays(rows: Any, stage: TopStage) -> set[str]:
    left = rows.kept.copy()
    left[stage.decide(rows).drop] = False
    return set(rows.take(np.flatnonzero(left), ("image_id",))["image_id"].to_pylist())


def scored(folder: Path, *values: Any, name: str = "score", per_part: int = 2) -> Any:
    samples = [{"image_id": f"i{n}", name: value} for n, value in enumerate(values)]
    return make_rows(folder, samples, added=ADDED, per_part=per_part)


def test_a_count_or_a_share_of_the_best_stays(tmp_path):
    rows = scored(tmp_path, 0.1, 0.9, None, 0.5, float("nan"), 0.3)
    verdicts = TopStage("score", count=2).decide(rows)
    assert verdicts.drop.tolist() == [0, 2, 4, 5]
    assert verdicts.reason == "not_in_top"
    told = verdicts.evidence.of(rows.take(verdicts.drop, ("score",))).to_pylist()
    assert told[0] == '{"top": 2, "threshold": 0.5, "score": 0.1}'
    assert verdicts.notes == (
        "keeps 2 of 6: score from 0.5 up",
        "2 have no score, which is worst",
    )
    assert stays(rows, TopStage("score", share=0.5)) == {"i1", "i3", "i5"}
    assert stays(rows, TopStage("score", count=1, lowest=True)) == {"i0"}
    assert stays(rows, TopStage("score", count=5, lowest=True)) == {"i0", "i1", "i2", "i3", "i5"}
    assert "asked 9, there were 6" in TopStage("score", count=9).decide(rows).notes


def test_the_column_says_which_end_is_better(tmp_path):
    rows = scored(tmp_path, 3, 1, 2, name="noise")
    assert stays(rows, TopStage("noise", count=1)) == {"i1"}
    assert stays(rows, TopStage("noise", count=1, lowest=False)) == {"i0"}
    assert TopStage("noise", count=2).decide(rows).notes == ("keeps 2 of 3: noise from 2 down",)


def test_the_threshold_does_not_follow_the_order_of_rows(tmp_path):
    stage = TopStage("score", count=2)
    for number, values in enumerate([(0.0, -0.0, -1.0), (-0.0, 0.0, -1.0)]):
        verdicts = stage.decide(scored(tmp_path / str(number), *values))
        assert verdicts.notes == ("keeps 2 of 3: score from 0.0 up",)
        assert str(verdicts.evidence.fixed["threshold"]) == "0.0"


def test_only_what_is_kept_counts_and_no_row_at_all_is_fine(tmp_path):
    rows = scored(tmp_path / "1", 5, 4, 3, 2)
    rows.kept[:2] = False
    assert stays(rows, TopStage("score", share=0.5)) == {"i2"}
    rows.kept[:] = False
    assert len(TopStage("score", count=1).decide(rows).drop) == 0
    assert (
        len(TopStage("score", count=1).decide(make_rows(tmp_path / "2", [], added=ADDED)).drop) == 0
    )


@settings(max_examples=60, deadline=None)
@given(
    samples=st.lists(
        st.tuples(st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, "a", "b"])), max_size=12
    ),
    count=st.integers(1, 5),
    per=st.sampled_from([None, "class_name"]),
    seed=st.integers(0, 99),
)
def test_the_best_by_score_then_id(samples, count, per, seed, tmp_path_factory):
    listed = [
        {"image_id": f"i{n:02d}", "score": score, "class_name": name}
        for n, (score, name) in enumerate(samples)
    ]
    wanted = set()
    for group in {sample["class_name"] for sample in listed} if per else {"all"}:
        here = [s for s in listed if not per or s["class_name"] == group]
        here.sort(key=lambda s: (-(s["score"] or 0), s["image_id"]))
        wanted |= {s["image_id"] for s in here[:count]}
    stage = TopStage("score", count=count, per=per)
    folder = tmp_path_factory.mktemp("rows")
    shuffled = random.Random(seed).sample(listed, len(listed))
    assert stays(make_rows(folder / "1", shuffled, added=ADDED, per_part=3), stage) == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either count or share"),
        ({"count": 1, "share": 0.5}, "either count or share"),
        ({"count": 0}, "count is 0"),
        ({"share": 30.0}, "share is 30; expected above 0, up to 1"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(PlanError, match=message):
        TopStage("score", **options)


def test_text_is_no_score():
    with pytest.raises(PlanError, match="'caption' holds string; expected numbers, such as score"):
        TopStage("caption", count=1).check(pa.schema([pa.field("caption", pa.string()), *ADDED]))
