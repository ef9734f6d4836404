"""Nothing related is divided, nothing moves when data is appended, shares are as promised."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import PlanError
from pixsieve.select.split import SplitStage
from pixsieve.testing.rows import make_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pixsieve.select.base import Rows, Verdicts

SHARES = {"train": 0.9, "val": 0.05, "test": 0.05}
THIRDS = {"a": 0.5, "b": 0.3, "c": 0.2}
ADDED = pa.schema(
    [
        pa.field("person", pa.string()),
        pa.field("video", pa.int64()),
        pa.field("near", pa.string(), metadata={"role": "duplicate_group"}),
    ]
)


def photos(count: int, start: int = 0, **columns: Any) -> list[dict[str, Any]]:
    return [
        {
            "original_key": f"k{number:05d}",
            **{name: values[number - start] for name, values in columns.items()},
        }
        for number in range(start, start + count)
    ]


def sides(rows: Rows, stage: SplitStage) -> dict[str, str]:
    """Return the split of each kept image."""
    return named(rows, stage.decide(rows))


def named(rows: Rows, verdicts: Verdicts) -> dict[str, str]:
    keys = rows.take(np.arange(len(rows)), ("original_key",))["original_key"].to_pylist()
    split = verdicts.split.to_pylist()
    assert [name is not None for name in split] == rows.kept.tolist()
    return {key: name for key, name in zip(keys, split, strict=True) if name is not None}


def test_singles_are_dealt_by_largest_remainder(tmp_path):
    rows = make_rows(tmp_path / "1", photos(200))
    verdicts = SplitStage(SHARES, exact=True).decide(rows)
    assert Counter(verdicts.split.to_pylist()) == {"train": 180, "val": 10, "test": 10}
    assert verdicts.split.dictionary.to_pylist() == ["train", "test", "val"]
    assert verdicts.notes == (
        "train: asked 90.00%, got 90.00% (180 of 200)",
        "test: asked 5.00%, got 5.00% (10 of 200)",
        "val: asked 5.00%, got 5.00% (10 of 200)",
        "the shares are exact within one sample",
    )
    few = SplitStage(SHARES, exact=True).decide(make_rows(tmp_path / "2", photos(10)))
    assert Counter(few.split.to_pylist()) == {"train": 9, "test": 1}


def test_by_hash_shares_are_met_up_to_chance_and_the_seed_deals_anew(tmp_path):
    rows = make_rows(tmp_path, photos(4000))
    first = sides(rows, SplitStage(SHARES))
    counts = Counter(first.values())
    for name, share in SHARES.items():
        assert abs(counts[name] - 4000 * share) < 4 * np.sqrt(4000 * share * (1 - share))
    again = sides(rows, SplitStage(SHARES, seed=1))
    assert again != first
    moved = sum(first[key] != again[key] for key in first)
    expected = 1 - sum(share**2 for share in SHARES.values())
    assert abs(moved / 4000 - expected) < 0.03
    rows.seed = 1
    assert sides(rows, SplitStage(SHARES)) == again


def test_the_order_in_which_shares_are_written_means_nothing(tmp_path):
    rows = make_rows(tmp_path, photos(300))
    for options in ({}, {"exact": True}):
        found = [
            sides(rows, SplitStage(dict(order), **options))
            for order in itertools.permutations(SHARES.items())
        ]
        assert all(each == found[0] for each in found)


def test_copies_and_groups_of_every_kind_stay_together(tmp_path):
    digest = hashlib.sha256(b"same").hexdigest()
    samples = photos(400, person=[None] * 400, video=[None] * 400, near=[None] * 400)
    for sample in samples[:100]:
        sample["sha256"] = digest
    for at in range(100, 300):
        samples[at]["person"] = f"p{at % 7}"
        samples[at]["video"] = at // 50
    for at in range(300, 350):
        samples[at]["near"] = "n"
    rows = make_rows(tmp_path, samples, added=ADDED, per_part=37)
    for seed in range(5):
        for exact in (False, True):
            plain = SplitStage(THIRDS, seed=seed, exact=exact)
            found = list(sides(rows, plain).values())
            assert len(set(found[:100])) == 1
            assert len(set(found[300:350])) == 1
            assert len(set(found[100:300])) > 1
            assert exact or len(set(found[350:])) == 3  # null holds nothing together
            by = SplitStage(THIRDS, by=("person", "video"), seed=seed, exact=exact)
            assert len(set(list(sides(rows, by).values())[100:300])) == 1


GROUPED = st.lists(
    st.fixed_dictionaries(
        {
            "sha": st.integers(0, 12),
            "person": st.sampled_from([None, None, "", "a", "b", "c"]),
            "video": st.sampled_from([None, None, 0, 1, 2]),
            "near": st.sampled_from([None, None, None, "x"]),
            "class_name": st.sampled_from([None, "cat", "dog"]),
            "problem": st.sampled_from([None] * 5 + ["decode_failed"]),
        }
    ),
    max_size=24,
)


def components(samples: Sequence[dict[str, Any]]) -> list[set[int]]:
    """Return the groups of rows, one edge after the other."""
    found = [{number} for number in range(len(samples))]
    for one, other in itertools.combinations(range(len(samples)), 2):
        if any(
            samples[one][name] is not None and samples[one][name] == samples[other][name]
            for name in ("sha256", "person", "video", "near")
        ):
            first = next(group for group in found if one in group)
            second = next(group for group in found if other in group)
            if first is not second:
                first |= second
                found.remove(second)
    return found


def digests(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **{name: value for name, value in sample.items() if name != "sha"},
            "original_key": f"k{number}",
            "sha256": hashlib.sha256(bytes([sample["sha"]])).hexdigest(),
        }
        for number, sample in enumerate(samples)
    ]


@settings(max_examples=80, deadline=None)
@given(
    samples=GROUPED,
    seed=st.integers(0, 2**16),
    exact=st.booleans(),
    stratify=st.sampled_from([None, "class_name"]),
    per_part=st.integers(1, 5),
)
def test_no_group_straddles_a_border_and_the_order_of_rows_means_nothing(
    samples: list[dict[str, Any]],
    seed: int,
    exact: bool,
    stratify: str | None,
    per_part: int,
    tmp_path_factory: pytest.TempPathFactory,
):
    listed = digests(samples)
    stage = SplitStage(THIRDS, by=("person", "video"), exact=exact, stratify=stratify, seed=seed)
    folder = tmp_path_factory.mktemp("rows")
    found = sides(make_rows(folder / "1", listed, added=ADDED), stage)
    shuffled = random.Random(seed).sample(listed, len(listed))
    again = make_rows(folder / "2", shuffled, added=ADDED, per_part=per_part)
    assert sides(again, stage) == found
    kept = [sample for sample in listed if sample["problem"] is None]
    groups = components(kept)
    for group in groups:
        assert len({found[kept[at]["original_key"]] for at in group}) == 1
    if exact and not stratify:
        _no_move_brings_it_nearer(kept, groups, found)


def _no_move_brings_it_nearer(
    kept: Sequence[dict[str, Any]], groups: Sequence[set[int]], found: dict[str, str]
) -> None:
    counts = Counter(found.values())
    wanted = {name: len(kept) * share for name, share in THIRDS.items()}
    target = {name: int(number + 1e-9) for name, number in wanted.items()}
    names = sorted(THIRDS, key=lambda name: target[name] - wanted[name])
    for name in names[: len(kept) - sum(target.values())]:
        target[name] += 1

    def off(move: Counter[str]) -> int:
        return sum(abs(counts[name] + move[name] - target[name]) for name in THIRDS)

    for group in groups:
        side = found[kept[min(group)]["original_key"]]
        for other in set(THIRDS) - {side}:
            move = Counter({side: -len(group), other: len(group)})
            assert off(move) >= off(Counter())


def test_a_long_chain_is_one_group(tmp_path):
    count = 600
    order = random.Random(0).sample(range(count), count)
    people = [f"p{(n + 1) // 2}" for n in order]
    videos = [n // 2 for n in order]
    rows = make_rows(tmp_path, photos(count, person=people, video=videos), added=ADDED)
    assert len(set(sides(rows, SplitStage(THIRDS, by=("person", "video"))).values())) == 1
    assert len(set(sides(rows, SplitStage(THIRDS, by="person")).values())) == 3


def test_appended_data_moves_nothing(tmp_path):
    people = [f"p{number % 90}" if number % 3 else None for number in range(1000)]
    more = [f"p{number % 110}" if number % 3 else None for number in range(1000, 1100)]
    first = make_rows(tmp_path / "1", photos(1000, person=people), added=ADDED)
    # What is new comes first, so that every row number changes.
    grown = photos(100, 1000, person=more) + photos(1000, person=people)
    second = make_rows(tmp_path / "2", grown, added=ADDED)
    for options in ({}, {"by": "person"}):
        before = sides(first, SplitStage(THIRDS, **options))
        after = sides(second, SplitStage(THIRDS, **options))
        assert {key: after[key] for key in before} == before


def test_numbers_that_are_equal_are_one_person_whatever_their_type(tmp_path):
    values = [number % 40 for number in range(400)]
    found = []
    for kind in (pa.int8(), pa.uint64(), pa.float32(), pa.float64()):
        added = pa.schema([pa.field("person", kind)])
        rows = make_rows(tmp_path / str(kind), photos(400, person=values), added=added)
        found.append(sides(rows, SplitStage(THIRDS, by="person")))
    assert all(each == found[0] for each in found)
    dates = pa.schema([pa.field("person", pa.date32())])
    rows = make_rows(tmp_path / "dates", photos(400, person=values), added=dates)
    found = list(sides(rows, SplitStage(THIRDS, by="person")).values())
    assert all(found[number] == found[number % 40] for number in range(400))


def test_one_group_larger_than_its_share_is_told(tmp_path):
    rows = make_rows(tmp_path, photos(100, person=["x"] * 60 + [None] * 40), added=ADDED)
    verdicts = SplitStage({"a": 0.5, "b": 0.5}, by="person", exact=True).decide(rows)
    assert Counter(verdicts.split.to_pylist()).most_common() in (
        [("a", 60), ("b", 40)],
        [("b", 60), ("a", 40)],
    )
    assert verdicts.notes[-1] == (
        "as near as groups allow: 10 samples off the exact share at most; the largest group has 60"
    )


def test_every_class_is_divided_by_the_shares(tmp_path):
    classes = ["cat"] * 200 + ["dog"] * 40 + [None] * 20 + ["rare"] * 3
    rows = make_rows(tmp_path, photos(263, class_name=classes))
    verdicts = SplitStage(SHARES, stratify="class_name").decide(rows)
    found = Counter(zip(classes, verdicts.split.to_pylist(), strict=True))
    for name, count in (("cat", 200), ("dog", 40), (None, 20)):
        assert {side: found[name, side] for side in SHARES} == {
            side: count * share for side, share in SHARES.items()
        }
    assert sum(found["rare", side] for side in SHARES) == 3
    assert verdicts.notes[-1].startswith("over 4 values of class_name: furthest off is 'rare' in ")


def test_classes_of_a_few_make_up_for_each_other(tmp_path):
    classes = [f"c{number // 5}" for number in range(1000)]
    rows = make_rows(tmp_path, photos(1000, class_name=classes))
    split = SplitStage(SHARES, stratify="class_name").decide(rows).split.to_pylist()
    counts = Counter(split)  # 4.5, 0.25 and 0.25 of each class: alone, each would round to 5, 0, 0
    assert all(abs(counts[name] - 1000 * share) <= 1 for name, share in SHARES.items())
    each = Counter(zip(classes, split, strict=True))
    assert {each[name, "train"] for name in classes} == {4, 5}


def earlier(folder: Path, rows: Rows, verdicts: Verdicts) -> str:
    """Write what a dataset's sidecars say of splits."""
    table = rows.take(np.arange(len(rows)), ("image_id", "sha256"))
    table = table.rename_columns(["image_id", "original_sha256"])
    pq.write_table(table.append_column("split", verdicts.split), folder / "earlier.parquet")
    return str(folder / "earlier.parquet")


def test_what_had_a_side_keeps_it_and_new_data_fills_up_the_shares(tmp_path):
    first = make_rows(tmp_path / "1", photos(200))
    old = SplitStage(SHARES, exact=True, seed=3).decide(first)
    path = earlier(tmp_path, first, old)
    second = make_rows(tmp_path / "2", photos(100, 200) + photos(200))
    stage = SplitStage(SHARES, exact=True, earlier=path)
    verdicts = stage.decide(second)
    found = named(second, verdicts)
    assert {key: found[key] for key in named(first, old)} == named(first, old)
    assert Counter(found.values()) == {"train": 270, "val": 15, "test": 15}
    assert verdicts.notes[-1] == "200 of 300 keep their earlier side"
    by_hash = named(second, SplitStage(SHARES, earlier=path).decide(second))
    assert {key: by_hash[key] for key in named(first, old)} == named(first, old)
    other = {"train": 0.4, "val": 0.3, "test": 0.3}
    changed = named(second, SplitStage(other, exact=True, earlier=path).decide(second))
    assert Counter(changed.values())["train"] == 180  # as before; what is new goes elsewhere
    assert stage.digests()
    assert stage.without_places().earlier == "earlier"


def test_files_that_moved_and_persons_that_are_known_keep_their_side(tmp_path):
    samples = photos(200, person=[f"p{number % 50}" for number in range(200)])
    for number, sample in enumerate(samples):
        sample["sha256"] = hashlib.sha256(f"image {number}".encode()).hexdigest()
    first = make_rows(tmp_path / "1", samples, added=ADDED)
    stage = SplitStage(THIRDS, by="person", seed=1)
    old = stage.decide(first)
    path = earlier(tmp_path, first, old)
    moved = [{**sample, "original_path": "b.tar"} for sample in samples]
    new = photos(50, 200, person=[f"p{number}" for number in range(50)])
    second = make_rows(tmp_path / "2", moved + new, added=ADDED)
    found = named(second, SplitStage(THIRDS, by="person", seed=2, earlier=path).decide(second))
    known = named(first, old)
    assert {key: found[key] for key in known} == known
    assert all(found[f"k{200 + number:05d}"] == found[f"k{number:05d}"] for number in range(50))


def test_a_group_that_is_on_two_sides_is_counted_and_the_new_join_the_larger_part(tmp_path):
    first = make_rows(tmp_path / "1", photos(3))
    old = SplitStage(THIRDS).decide(first)
    table = first.take(np.arange(3), ("image_id", "sha256"))
    table = table.rename_columns(["image_id", "original_sha256"])
    split = pa.array(["c", "c", "a"])
    path = str(tmp_path / "earlier.parquet")
    pq.write_table(table.append_column("split", split), path)
    assert old.split is not None
    rows = make_rows(tmp_path / "2", photos(5, person=["x"] * 5), added=ADDED)
    for exact in (False, True):
        stage = SplitStage(THIRDS, by="person", earlier=path, exact=exact)
        verdicts = stage.decide(rows)
        assert verdicts.split.to_pylist() == ["c", "c", "a", "c", "c"]
        assert verdicts.notes[-1] == (
            "1 groups have earlier sides that differ: what was there keeps its own, "
            "2 new samples join the larger part"
        )


def test_an_earlier_dataset_with_other_splits_or_none_is_refused(tmp_path):
    rows = make_rows(tmp_path / "1", photos(20))
    path = earlier(tmp_path, rows, SplitStage({"holdout": 1.0}).decide(rows))
    with pytest.raises(PlanError, match="has a split 'holdout'"):
        SplitStage(SHARES, earlier=path).check(ADDED)
    bare = str(tmp_path / "bare.parquet")
    pq.write_table(pq.read_table(path).drop_columns("split"), bare)
    with pytest.raises(PlanError, match=r"earlier='.*bare.parquet' has no column 'split'"):
        SplitStage(SHARES, earlier=bare).check(ADDED)
    rows.kept[:] = False
    path = earlier(tmp_path, rows, SplitStage(SHARES).decide(rows))
    with pytest.raises(PlanError, match="no splits"):
        SplitStage(SHARES, earlier=path).check(ADDED)


def test_a_group_larger_than_a_share_is_told(tmp_path):
    people = ["same"] * 30 + [f"p{number}" for number in range(70)]
    rows = make_rows(tmp_path, photos(100, person=people), added=ADDED)
    notes = SplitStage(SHARES, by="person").decide(rows).notes
    assert notes[-1].startswith("one group has 30 of 100 samples")
    assert len(notes) == 4
    assert len(SplitStage(SHARES).decide(rows).notes) == 3


def test_no_row_at_all_is_fine(tmp_path):
    for exact in (False, True):
        for stratify in (None, "class_name"):
            stage = SplitStage(SHARES, exact=exact, stratify=stratify)
            assert (
                stage.decide(make_rows(tmp_path / f"{exact}{stratify}", [])).split.to_pylist() == []
            )
            failed = make_rows(tmp_path / f"f{exact}{stratify}", [{"problem": "decode_failed"}])
            assert stage.decide(failed).split.to_pylist() == [None]


@pytest.mark.parametrize(
    ("shares", "options", "message"),
    [
        ({}, {}, "shares is empty"),
        ({"train": 0.9}, {}, "come to 0.9; expected 1"),
        ({"train": 1.0, "val": 0.0}, {}, "'val' is 0; expected above 0"),
        ({"train": float("nan")}, {}, "'train' is nan"),
        ({"Train": 1.0}, {}, "'Train' cannot be part"),
        ({"a" * 33: 1.0}, {}, "cannot be part"),
        (SHARES, {"by": ("person", "person")}, "'person' twice"),
        (SHARES, {"exact": "yes"}, "exact is 'yes'"),
    ],
)
def test_what_cannot_be_is_refused(shares, options, message):
    with pytest.raises(PlanError, match=message):
        SplitStage(shares, **options)


def test_columns_must_be_there_and_hold_one_value():
    vector = pa.schema([pa.field("embedding", pa.list_(pa.float32(), 4))])
    with pytest.raises(PlanError, match="no column 'persn'; did you mean 'person'"):
        SplitStage(SHARES, by="persn").check(ADDED)
    with pytest.raises(PlanError, match="stratify: the column 'embedding' holds"):
        SplitStage(SHARES, stratify="embedding").check(vector)
