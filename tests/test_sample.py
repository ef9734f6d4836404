"""Samples: the same ones whatever the order of rows, as many as was asked for, and told if not."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import PlanError, RunError
from pixsieve.select.sample import SampleStage, _leveled
from pixsieve.testing.rows import make_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pixsieve.select.base import Rows

DIM = 8
ADDED = pa.schema(
    [pa.field("weight", pa.float64()), pa.field("embedding", pa.list_(pa.float16(), DIM))]
)


def kept(rows: Rows, stage: SampleStage) -> list[str]:
    """Return the keys of what stays, sorted."""
    left = rows.kept.copy()
    left[stage.decide(rows).drop] = False
    found = rows.take(np.flatnonzero(left), ("original_key",))["original_key"].to_pylist()
    return sorted(found)


def photos(folder: Path, count: int, seed: int | None = None, **columns: Sequence[Any]) -> Rows:
    samples = [
        {"original_key": f"{n:04d}", **{name: values[n] for name, values in columns.items()}}
        for n in range(count)
    ]
    if seed is not None:
        random.Random(seed).shuffle(samples)
    return make_rows(folder, samples, added=ADDED, per_part=37 if seed else 1000)


def test_a_count_or_fraction_stays_and_the_seed_draws_anew(tmp_path):
    rows = photos(tmp_path, 200)
    stage = SampleStage(count=50)
    verdicts = stage.decide(rows)
    assert verdicts.reason == "not_sampled"
    assert verdicts.notes == ("keeps 50 of 200",)
    assert len(verdicts.drop) == 150
    told = verdicts.evidence.of(rows.take(verdicts.drop[:1], ("image_id",)))
    assert told.to_pylist() == ['{"count": 50}']
    first = kept(rows, stage)
    assert kept(rows, SampleStage(fraction=0.25)) == first
    assert kept(rows, SampleStage(count=50, seed=1)) != first
    assert set(kept(rows, SampleStage(count=20))) < set(first)
    assert SampleStage(count=900).decide(rows).notes[-1] == "asked 900, there were 200"
    rows.kept[:150] = False
    assert kept(rows, SampleStage(fraction=0.1)) == kept(rows, SampleStage(count=5))


def test_what_stays_does_not_follow_the_order_of_rows(tmp_path):
    rng = np.random.default_rng(0)
    columns = {
        "weight": rng.integers(0, 3, 300).astype(float).tolist(),
        "class_name": rng.choice(["a", "b", "c"], 300).tolist(),
        "embedding": rng.normal(size=(300, DIM)).astype(np.float16).tolist(),
    }
    one, two = photos(tmp_path / "1", 300, **columns), photos(tmp_path / "2", 300, 5, **columns)
    for options in (
        {"count": 40},
        {"count": 40, "weight": "weight"},
        {"count": 20, "per": "class_name", "weight": "weight"},
        {"count": 40, "per": "class_name", "balance": True},
        {"count": 40, "diversity": "farthest_first"},
        {"count": 40, "diversity": "one_per_cell"},
    ):
        stage = SampleStage(**options)
        assert kept(one, stage) == kept(two, stage), options


def test_weights_are_chances(tmp_path):
    weights = [3.0] * 400 + [1.0] * 400 + [0.0] * 100 + [None] * 100
    rows = photos(tmp_path, 1000, weight=weights)
    drawn = Counter(
        weights[int(key)]
        for seed in range(20)
        for key in kept(rows, SampleStage(count=40, weight="weight", seed=seed))
    )
    assert set(drawn) == {3.0, 1.0}
    # Nearly with replacement, as few are drawn: three quarters.
    assert abs(drawn[3.0] / 800 - 0.745) < 4 * math.sqrt(0.75 * 0.25 / 800)
    verdicts = SampleStage(count=900, weight="weight").decide(rows)
    assert verdicts.notes == (
        "keeps 800 of 1,000",
        "200 have no weight above 0 and are never taken",
        "asked 900, there were 800",
    )
    with pytest.raises(RunError, match=r"weight of 0001-[0-9a-f]{16} is -1, which is no weight"):
        SampleStage(count=1, weight="weight").decide(photos(tmp_path / "2", 2, weight=[1, -1]))


def test_the_first_of_two_is_drawn_as_often_as_its_weight_says(tmp_path):
    rows = photos(tmp_path, 2, weight=[4.0, 1.0])
    drawn = [kept(rows, SampleStage(count=1, weight="weight", seed=s))[0] for s in range(400)]
    assert abs(drawn.count("0000") / 400 - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 400)


CLASSES = ["cat"] * 37 + ["dog"] * 100 + ["eel"] * 3 + [None] * 10


def classes(rows: Rows, stage: SampleStage) -> Counter[str | None]:
    return Counter(CLASSES[int(key)] for key in kept(rows, stage))


def test_quotas_of_values_and_what_they_lack(tmp_path):
    rows = photos(tmp_path, 150, class_name=CLASSES)
    stage = SampleStage(quotas={"cat": 100, "dog": 50, "yak": 1}, per="class_name")
    assert classes(rows, stage) == {"cat": 37, "dog": 50}
    assert stage.decide(rows).notes == (
        "keeps 87 of 150",
        "asked 100 of 'cat', there were 37",
        "asked 1 of 'yak', there were 0",
        (
            "entropy over 4 values of class_name: 1.26 bits before, 0.98 after, at most 2.00 "
            "(63%, 49%)"
        ),
    )
    assert classes(rows, SampleStage(quotas={"": 4}, per="class_name")) == {None: 4}


def test_a_count_or_a_fraction_of_each_group(tmp_path):
    rows = photos(tmp_path, 150, class_name=CLASSES)
    stage = SampleStage(count=10, per="class_name")
    assert classes(rows, stage) == {"cat": 10, "dog": 10, "eel": 3, None: 10}
    assert stage.decide(rows).notes[1] == "1 groups of class_name have fewer than 10 ('eel': 3)"
    half = SampleStage(fraction=0.5, per="class_name")
    assert classes(rows, half) == {"cat": 19, "dog": 50, "eel": 2, None: 5}


def test_groups_share_the_whole_as_far_as_they_reach(tmp_path):
    rows = photos(tmp_path, 150, class_name=CLASSES)
    stage = SampleStage(count=63, per="class_name", balance=True)
    assert classes(rows, stage) == {"cat": 25, "dog": 25, "eel": 3, None: 10}
    notes = stage.decide(rows).notes
    assert notes[1] == "groups of class_name share 63: at most 25 each"
    more = SampleStage(count=999, per="class_name", balance=True)
    assert sum(classes(rows, more).values()) == 150
    assert more.decide(rows).notes[2] == "asked 999, there were 150"
    part = SampleStage(fraction=0.42, per="class_name", balance=True)
    assert classes(rows, part) == classes(rows, stage)


@given(there=st.lists(st.integers(0, 30), min_size=1, max_size=8), total=st.integers(0, 100))
def test_no_group_gives_up_more_than_one_that_is_larger(there, total):
    found = _leveled(np.array(there), total)
    assert found.sum() == min(total, sum(there))
    assert (found <= there).all()
    assert (found >= 0).all()
    cut = found[found < there]
    if len(cut):
        assert cut.min() >= found.max() - 1


def test_farthest_first_takes_the_rare_kinds_and_is_a_traversal(tmp_path):
    rng = np.random.default_rng(1)
    common = np.eye(DIM)[0] + rng.normal(size=(100, DIM)) * 0.02
    rare = np.eye(DIM)[1:6]
    vectors = np.concatenate([common, rare]).astype(np.float16)
    rows = photos(tmp_path, 105, embedding=vectors.tolist())
    stage = SampleStage(count=6, diversity="farthest_first")
    found = {int(key) for key in kept(rows, stage)}
    assert found > set(range(100, 105))
    fewer = {int(key) for key in kept(rows, SampleStage(count=4, diversity="farthest_first"))}
    assert fewer < found


def test_one_of_each_cell_and_rows_without_an_embedding(tmp_path):
    rng = np.random.default_rng(2)
    centers = np.eye(DIM)[np.arange(96) % 6]
    vectors: list[Any] = (centers + rng.normal(size=(96, DIM)) * 0.02).tolist()
    vectors += [None, [0.0] * DIM, [math.nan] * DIM, [math.inf] * DIM]
    rows = photos(tmp_path, 100, embedding=vectors)
    stage = SampleStage(count=6, diversity="one_per_cell")
    found = [int(key) for key in kept(rows, stage)]
    assert max(found) < 96
    assert 4 <= len({number % 6 for number in found}) <= len(found) <= 6
    for diversity in ("one_per_cell", "farthest_first"):
        notes = SampleStage(count=99, diversity=diversity).decide(rows).notes
        assert notes[1] == "4 have no usable embedding and are not kept"
        assert notes[2].startswith("asked 99, there were ")
    for diversity in ("one_per_cell", "farthest_first"):  # less than half a sample is none
        assert kept(rows, SampleStage(fraction=0.001, diversity=diversity)) == []
    rows.kept[:96] = False
    for diversity in ("one_per_cell", "farthest_first"):
        assert kept(rows, SampleStage(count=2, diversity=diversity)) == []


@settings(max_examples=30, deadline=None)
@given(
    samples=st.lists(st.sampled_from([None, "a", "b"]), max_size=12),
    problems=st.lists(st.booleans(), min_size=12, max_size=12),
    options=st.sampled_from(
        [
            {"count": 3},
            {"fraction": 0.4},
            {"count": 2, "per": "class_name"},
            {"count": 3, "per": "class_name", "balance": True},
            {"quotas": {"a": 2}, "per": "class_name"},
        ]
    ),
)
def test_a_sample_of_a_sample_is_itself(samples, problems, options, tmp_path_factory):
    listed = [
        {"class_name": name, "problem": "decode_failed" if bad else None}
        for name, bad in zip(samples, problems, strict=False)
    ]
    rows = make_rows(tmp_path_factory.mktemp("rows"), listed, added=ADDED, per_part=3)
    stage = SampleStage(**options)
    drop = stage.decide(rows).drop
    assert rows.kept[drop].all()
    rows.kept[drop] = False
    if "fraction" not in options:
        assert len(stage.decide(rows).drop) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "found none"),
        ({"count": 1, "fraction": 0.5}, "found count and fraction"),
        ({"count": 0}, "count is 0"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"quotas": {"a": 1}}, "quotas needs per"),
        ({"quotas": {"a": -1}, "per": "x"}, "expected a count of 0 or more"),
        ({"quotas": {}, "per": "x"}, "expected a count of 0 or more"),
        ({"quotas": {"a": 1}, "per": "x", "balance": True}, "leave one out"),
        ({"count": 1, "balance": True}, "balance needs per"),
        ({"count": 1, "diversity": "farthest_first", "per": "x"}, "leave per and weight out"),
        ({"count": 1, "diversity": "far"}, "diversity is 'far'"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(PlanError, match=message):
        SampleStage(**options)


def test_columns_must_be_there_and_of_use():
    columns = pa.schema([*ADDED, pa.field("caption", pa.string())])
    with pytest.raises(PlanError, match="weight: the column 'caption' holds string"):
        SampleStage(count=1, weight="caption").check(columns)
    with pytest.raises(PlanError, match="no column 'clas'"):
        SampleStage(count=1, per="clas").check(columns)
    with pytest.raises(PlanError, match="'weight' holds double; expected embeddings"):
        SampleStage(count=1, diversity="one_per_cell", column="weight").check(columns)
