"""Near pairs of hashes: none is missed, and dense places cost neither memory nor the square."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.select import hamming
from pixsieve.select.hamming import Hashes


def near_pairs(hashes: Hashes) -> np.ndarray:
    """Return for all pairs of rows whether they are near, (n, n)."""
    near = np.ones((len(hashes), len(hashes)), np.bool_)
    for words, limit in zip(hashes.columns, hashes.limits, strict=True):
        apart = np.bitwise_count(words[:, None] ^ words[None]).sum(axis=2)
        near &= apart <= limit
    return near


def plain_keepers(hashes: Hashes, fixed: int = 0) -> list[int]:
    near = near_pairs(hashes)
    found = [-1] * len(hashes)
    for row in range(fixed, len(hashes)):
        stay = [other for other in np.flatnonzero(near[row, :row]) if found[other] < 0]
        found[row] = int(stay[0]) if stay else -1
    return found


def plain_components(hashes: Hashes) -> list[int]:
    near = near_pairs(hashes)
    labels = np.arange(len(hashes))
    while True:
        new = np.array([labels[row].min() for row in near])
        if np.array_equal(new, labels):
            return labels.tolist()
        labels = new


def noisy(rng: np.random.Generator, count: int, words: int, flips: int, centres: int) -> np.ndarray:
    """Return hashes that lie at most ``flips`` bits from one of a few, uint64 (count, words)."""
    middle = rng.integers(0, 2**64, (centres, words), dtype=np.uint64)
    found = middle[rng.integers(0, centres, count)]
    for _ in range(flips):
        bits = np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)
        found[np.arange(count), rng.integers(0, words, count)] ^= bits
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every part of the search happen with few rows."""
    monkeypatch.setattr(hamming, "_LONG_RUN", 4)
    monkeypatch.setattr(hamming, "_CHUNK", 64)
    monkeypatch.setattr(hamming, "_HELD", 40)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("listed", [1, 2, 8])
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 100),
    shape=st.sampled_from(
        [((1, 4),), ((1, 0),), ((1, 12),), ((4, 30),), ((1, 6), (1, 5), (4, 40))]
    ),
    flips=st.integers(0, 9),
    centres=st.integers(1, 40),
    rounds=st.sampled_from([1, 2, 64]),
    dear=st.booleans(),
)
def test_it_is_what_comparing_all_pairs_gives(
    listed: int,
    seed: int,
    count: int,
    shape: tuple[tuple[int, int], ...],
    flips: int,
    centres: int,
    rounds: int,
    *,
    dear: bool,
):
    rng = np.random.default_rng(seed)
    columns = tuple(noisy(rng, count, words, flips, centres) for words, _ in shape)
    hashes = Hashes(columns=columns, limits=tuple(limit for _, limit in shape))
    fixed = int(rng.integers(0, count + 1)) if seed % 2 else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "LISTED", listed)
        patch.setattr(hamming, "_ROUNDS", rounds)
        if dear:  # then everything is sorted, whatever its number
            patch.setattr(hamming, "_SORT_COST", 1e-9)
        assert hamming.keepers(hashes, fixed).tolist() == plain_keepers(hashes, fixed)
        assert hamming.components(hashes).tolist() == plain_components(hashes)


def test_planted_pairs_among_many_are_all_found():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, (100_000, 1), dtype=np.uint64)
    words[95_000:] = words[:5_000]
    for _ in range(4):
        words[95_000:, 0] ^= np.uint64(1) << rng.integers(0, 64, 5_000, dtype=np.uint64)
    found = hamming.keepers(Hashes(columns=(words,), limits=(4,)))
    assert found[95_000:].tolist() == list(range(5_000))
    assert (found[:95_000] == -1).all()


def flat(count: int) -> np.ndarray:
    return np.zeros((count, 1), np.uint64)


def blob(count: int) -> np.ndarray:
    """Return different hashes that are all near to each other but a few."""
    return noisy(np.random.default_rng(1), count, 1, 4, 1)


def shared(count: int) -> np.ndarray:
    """Return hashes of which one half of the bits is all the same, and few are near."""
    return np.random.default_rng(2).integers(0, 2**32, (count, 1), dtype=np.uint64)


@pytest.mark.parametrize(("make", "count"), [(flat, 300_000), (blob, 100_000), (shared, 100_000)])
@pytest.mark.parametrize("answer", [hamming.keepers, hamming.components])
def test_dense_places_take_neither_the_square_of_time_nor_memory(make, count, answer):
    hashes = Hashes(columns=(make(count),), limits=(8 if make is blob else 4,))
    tracemalloc.start()
    began = time.process_time()
    found = answer(hashes)
    seconds = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == count
    assert peak < 160e6  # all pairs would be 40 GB
    assert seconds < 30  # all pairs of them would take minutes


def test_where_one_hash_is_all_the_same_the_other_one_decides():
    count = 10_000
    other = np.random.default_rng(3).integers(0, 2**64, (count, 1), dtype=np.uint64)
    other[-100:] = other[:100] ^ np.uint64(7)
    hashes = Hashes(columns=(flat(count), other), limits=(8, 10))
    began = time.process_time()
    found = hamming.keepers(hashes)
    assert time.process_time() - began < 10
    assert found[-100:].tolist() == list(range(100))
    assert (found[:-100] == -1).all()


def test_many_rows_of_one_hash_are_compared_once(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(4)
    crowds = rng.integers(0, 2**64, 10, np.uint64)[np.arange(5000) % 10]
    crowds[:20] ^= np.uint64(1) << rng.integers(0, 64, 20).astype(np.uint64)
    others = rng.integers(0, 2**64, 5000, np.uint64)
    hashes = Hashes(columns=(crowds[:, None], others[:, None]), limits=(8, 12))
    looked: list[int] = []
    whole = hamming._Search._near

    def near(self: hamming._Search, one: np.ndarray, other: np.ndarray):
        looked.append(len(one) * len(other))
        return whole(self, one, other)

    monkeypatch.setattr(hamming._Search, "_near", near)
    assert hamming.keepers(hashes).tolist() == plain_keepers(hashes)
    pairs = 10 * 500**2
    assert sum(looked) < 10 * pairs  # there are more than a hundred keys


def test_no_row_and_one_row():
    for count in (0, 1):
        hashes = Hashes(columns=(flat(count),), limits=(4,))
        assert hamming.keepers(hashes).tolist() == [-1] * count
        assert hamming.components(hashes).tolist() == [0] * count


def test_distances_are_counted_for_each_hash():
    words = np.array([[0, 0], [7, 1]], np.uint64)
    hashes = Hashes(columns=(words, words[:, :1]), limits=(4, 4))
    found = hashes.distances(np.array([0]), np.array([1]))
    assert [each.tolist() for each in found] == [[4], [3]]
