"""Rows that pairs link, also by way of others, share the smallest number."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixsieve.select.components import linked

COUNT = 12
PAIRS = st.lists(st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)), max_size=20)


def brute_force(pairs: list[tuple[int, int]]) -> list[int]:
    labels = list(range(COUNT))
    for _ in range(COUNT):
        for one, other in pairs:
            labels[one] = labels[other] = min(labels[one], labels[other])
    return labels


@given(first=PAIRS, second=PAIRS)
def test_labels_are_the_smallest_number_of_each_component(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
):
    labels = np.arange(COUNT)
    for pairs in (first, second):
        ends = np.array(pairs, np.int64).reshape(-1, 2)
        labels = linked(labels, ends[:, 0], ends[:, 1])
    assert labels.tolist() == brute_force([*first, *second])


def test_a_long_chain_in_any_order_is_one_component():
    count = 100_000
    steps = np.random.default_rng(1).permutation(count - 1)
    assert not linked(np.arange(count), steps + 1, steps).any()
