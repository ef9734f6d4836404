"""Spherical k-means: cells of vectors that point the same way.

Source of the algorithm: Dhillon, Modha, "Concept decompositions for large sparse text data using
clustering", Machine Learning 42, 2001.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ITERATIONS = 10
"""Rounds of Lloyd's algorithm: what later ones change is of no use to a search."""
SAMPLE_PER_CENTROID = 64
"""Sampled vectors for each centroid; more move the centroids by less than the rounds do."""
BLOCK = 4096
"""Rows of one matrix product. All have this shape, padded with zeros: with another shape a library
may add up in another order, and a vector's cell would depend on how many others came with it."""


def kmeans(
    sample: NDArray[np.float32], k: int, seed: int, iterations: int = ITERATIONS
) -> NDArray[np.float32]:
    """Return directions that the vectors of a sample gather around.

    The result depends on the order of the sample: sort it by something that stays.

    Args:
        sample: (m, d), rows of length 1, at least one.
        k: How many to look for, 1 or more.
        seed: Chooses the vectors to start from.
        iterations: Rounds of assigning vectors and averaging.

    Returns:
        (k', d) of length 1, k' of them from 1 to ``min(k, m)``: cells that stay empty are left out,
        as where fewer than k vectors differ.
    """
    keys = np.random.PCG64(seed % 2**64).random_raw(len(sample))
    start = np.argsort(keys, kind="stable")[: min(k, len(sample))]
    centroids = sample[np.sort(start)].copy()
    counts = np.ones(len(centroids), np.int64)
    for _ in range(iterations):
        cells, likeness = _assigned(sample, centroids)
        counts = np.bincount(cells, minlength=len(centroids))
        order = np.argsort(cells, kind="stable")
        ends = np.cumsum(counts)
        for cell in np.flatnonzero(counts).tolist():
            members = order[ends[cell] - counts[cell] : ends[cell]]
            total = sample[members].sum(axis=0, dtype=np.float64)
            length = float(np.sqrt(total @ total))
            if length > 0:  # opposite vectors have no direction in common
                centroids[cell] = total / length
        _reseed(sample, centroids, counts, order, likeness)
    return np.ascontiguousarray(centroids[counts > 0])


def nearest(vectors: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return for each vector the number of the centroid with the largest dot product, (n,) int32.

    The first of equals. Args: (n, d) and (k, d).
    """
    return _assigned(vectors, centroids)[0]


def likenesses(
    vectors: NDArray[np.float32], centroids: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the number of a first vector and (at most BLOCK, k) dot products with the centroids.

    Each row is the same to the bit whatever other rows there are. What is yielded is overwritten
    by the next.
    """
    across = np.ascontiguousarray(centroids.T)
    found = np.empty((BLOCK, len(centroids)), np.float32)
    for first in range(0, len(vectors), BLOCK):
        block = vectors[first : first + BLOCK]
        count = len(block)
        if count < BLOCK:
            padding = np.zeros((BLOCK - count, vectors.shape[1]), np.float32)
            block = np.concatenate([block, padding])
        yield first, np.matmul(block, across, out=found)[:count]


def _assigned(
    vectors: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the nearest centroid of each vector, and the dot product with it."""
    cells = np.empty(len(vectors), np.int32)
    best = np.empty(len(vectors), np.float32)
    for first, dots in likenesses(vectors, centroids):
        found = dots.argmax(axis=1)
        cells[first : first + len(dots)] = found
        best[first : first + len(dots)] = dots[np.arange(len(dots)), found]
    return cells, best


def _reseed(
    sample: NDArray[np.float32],
    centroids: NDArray[np.float32],
    counts: NDArray[np.int64],
    order: NDArray[np.int64],
    likeness: NDArray[np.float32],
) -> None:
    """Move centroids without vectors into the largest cells, to the farthest vector of each."""
    empty = np.flatnonzero(counts == 0)
    ends = np.cumsum(counts)
    largest = np.argsort(-counts, kind="stable")[: len(empty)]
    for cell, giver in zip(empty.tolist(), largest.tolist(), strict=False):
        members = order[ends[giver] - counts[giver] : ends[giver]]
        if len(members):
            centroids[cell] = sample[members[int(likeness[members].argmin())]]
