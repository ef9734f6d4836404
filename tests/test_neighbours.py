"""Every pair is found and listed once; what goes has a better one that stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.select import neighbours
from pixsieve.select.neighbours import (
    DROPPED,
    KEPT,
    OPEN,
    Limits,
    Pairs,
    Side,
    components,
    cosines,
    joined,
    merged,
    scan,
    settle,
    unit,
)

ALL = 10**6


def side(vectors: np.ndarray, rows=None, label=None) -> Side:
    """Return rows whose numbers are their ranks, unless others are given."""
    rows = np.arange(len(vectors)) if rows is None else np.asarray(rows, np.int64)
    return Side(
        row=rows,
        rank=rows,
        vectors=vectors.__getitem__,
        units=unit(vectors).__getitem__,
        label=label,
    )


def set_of(pairs: Pairs) -> set[tuple[int, int]]:
    found = list(zip(pairs.worse.tolist(), pairs.better.tolist(), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


def brute(vectors: np.ndarray, least: float) -> set[tuple[int, int]]:
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    worse, better = np.nonzero(np.tril(wide @ wide.T >= least, -1))
    return set(zip(worse.tolist(), better.tolist(), strict=True))


def crowd(count: int, seed: int, dim: int = 4) -> np.ndarray:
    """Return vectors of which many are near one another."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((5, dim))
    near = middles[rng.integers(0, 5, count)] + 0.2 * rng.standard_normal((count, dim))
    return near.astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let a few rows make many blocks."""
    monkeypatch.setattr(neighbours, "ASKING", 3)
    monkeypatch.setattr(neighbours, "ANSWERING", 7)
    monkeypatch.setattr(neighbours, "_WAITING", 20)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(0, 60), st.sampled_from([0.0, 0.9, 0.99]))
def test_without_limits_each_pair_is_found_once(seed: int, count: int, least: float):
    vectors = crowd(count, seed)
    everything = Limits(least=least, first=ALL, nearest=0)
    found = scan(side(vectors), side(vectors), everything)
    assert set_of(found) == brute(vectors, least)
    assert not found.cut.any()
    exact = cosines(vectors[found.worse], vectors[found.better])
    assert np.array_equal(found.cosine, exact)
    assert (exact >= least).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 60), st.integers(1, 4), st.integers(0, 4))
def test_lists_hold_the_best_ranked_and_the_most_similar(
    seed: int, count: int, first: int, nearest: int
):
    vectors = crowd(count, seed)
    found = scan(side(vectors), side(vectors), Limits(least=0.9, first=first, nearest=nearest))
    pairs = brute(vectors, 0.9)
    got = set_of(found)
    for row in range(count):
        better = sorted(other for one, other in pairs if one == row)
        by_cosine = sorted(better, key=lambda other: -cosines(vectors[[row]], vectors[[other]])[0])
        wanted = {*better[:first], *by_cosine[:nearest]}
        assert {other for one, other in got if one == row} == wanted
        if len(better) > len(wanted):
            assert found.cut[found.worse == row].all()


def test_a_limit_is_met_to_the_last_bit():
    """Of two cosines that float32 cannot tell apart, the one that is exactly enough counts."""
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 1, 512)).astype(np.float32)
    exact = float(cosines(one, other)[0])
    vectors = np.concatenate([one, other])
    for least, count in ((exact, 1), (np.nextafter(exact, 2), 0)):
        limits = Limits(least=least, first=8, nearest=0)
        assert len(scan(side(vectors), side(vectors), limits)) == count


def test_rows_of_a_label_are_not_compared():
    vectors = np.ones((6, 2), np.float32)
    label = np.array([0, 0, 0, 1, 1, 2])
    both = side(vectors, label=label)
    found = set_of(scan(both, both, Limits(least=0.9, first=ALL, nearest=0)))
    assert found == {(a, b) for a in range(6) for b in range(a) if label[a] != label[b]}


def test_a_row_that_has_enough_asks_no_more(monkeypatch):
    """A great many equal vectors cost what one block costs."""
    asked = []
    vectors = np.ones((700, 2), np.float32)
    everyone = side(vectors)
    monkeypatch.setattr(neighbours, "_compare", _counting(asked, neighbours._compare))
    found = scan(everyone, everyone, Limits(least=0.9, first=2, nearest=0))
    assert found.cut[found.worse > 2].all()
    assert len(asked) < 2 * 700 / 3


def _counting(asked: list[int], compare):
    def counted(lists, who, start, columns):
        asked.append(len(who))
        compare(lists, who, start, columns)

    return counted


def pairs_of(*edges: tuple[int, int], cut: tuple[int, ...] = ()) -> Pairs:
    worse, better = np.array(sorted(edges), np.int64).reshape(-1, 2).T
    return Pairs(worse=worse, better=better, cosine=np.ones(len(worse)), cut=np.isin(worse, cut))


def states(pairs: Pairs, agreed=None) -> dict[int, int]:
    agreed = np.ones(len(pairs), np.bool_) if agreed is None else np.asarray(agreed)
    rows, found = settle(pairs, agreed, lambda rows: rows)
    return dict(zip(rows.tolist(), found.tolist(), strict=True))


def test_groups_are_built_round_what_stays_and_not_as_chains():
    chain = pairs_of((1, 0), (2, 1), (3, 2))
    assert states(chain) == {1: DROPPED, 2: KEPT, 3: DROPPED}


def test_a_pair_that_is_not_agreed_on_drops_nothing():
    assert states(pairs_of((1, 0), (2, 0)), [False, True]) == {1: KEPT, 2: DROPPED}


def test_a_cut_list_of_rows_that_go_leaves_open_what_is_not_listed():
    known = [(1, 0), (2, 1), (3, 2)]
    assert states(pairs_of(*known, cut=(2,))) == {1: DROPPED, 2: OPEN, 3: OPEN}
    assert states(pairs_of(*known, cut=(1, 3))) == {1: DROPPED, 2: KEPT, 3: DROPPED}
    assert states(pairs_of((1, 0), cut=(1,)), [False]) == {1: KEPT}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 60), st.integers(1, 3), st.integers(0, 2))
def test_asking_the_open_rows_again_ends_as_complete_lists_do(
    seed: int, count: int, first: int, nearest: int
):
    vectors = crowd(count, seed)
    whole = scan(side(vectors), side(vectors), Limits(least=0.9, first=ALL, nearest=0))
    wanted = {row for row, state in states(sorted_pairs(whole)).items() if state == DROPPED}
    limits = Limits(least=0.9, first=first, nearest=nearest)
    asking, there, pairs = np.arange(count), np.arange(count), joined([])
    for _ in range(count + 1):
        new = scan(side(vectors[asking], asking), side(vectors[there], there), limits)
        pairs = sorted_pairs(joined([pairs.at(~np.isin(pairs.worse, asking)), new]))
        found = states(pairs)
        gone = {row for row, state in found.items() if state == DROPPED}
        asking = np.array([row for row, state in found.items() if state == OPEN], np.int64)
        there = np.array([row for row in range(count) if row not in gone], np.int64)
        if not len(asking):
            break
    assert not len(asking)
    assert gone == wanted


def sorted_pairs(pairs: Pairs) -> Pairs:
    return pairs.at(np.lexsort((pairs.better, pairs.worse)))


def test_what_is_found_twice_is_listed_once():
    one = pairs_of((5, 1), (5, 2), (5, 3))
    two = pairs_of((5, 1), (5, 4), (7, 1), cut=(7,))
    limits = Limits(least=0, first=3, nearest=0)
    found = merged(joined([one, two]), lambda rows: rows, limits)
    assert set_of(found) == {(5, 1), (5, 2), (5, 3), (7, 1)}
    assert found.cut.all()  # there was a fourth; and one that had been cut before
    assert len(merged(joined([]), lambda rows: rows, limits)) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_rows_that_are_linked_share_the_smallest(edges: list[tuple[int, int]]):
    one, other = np.array(edges, np.int64).reshape(-1, 2).T
    rows, label = components(one, other)
    least = {row: row for edge in edges for row in edge}
    for _ in least:
        for a, b in edges:
            least[a] = least[b] = min(least[a], least[b])
    assert dict(zip(rows.tolist(), label.tolist(), strict=True)) == least
