"""Cells of directions: of length 1, never empty, the same whatever comes along."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.select.kmeans import BLOCK, kmeans, nearest


def unit(vectors) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def blobs(count: int, groups: int, seed: int = 0, dim: int = 16):
    """Return vectors round as many directions as asked for, and which each belongs to."""
    rng = np.random.default_rng(seed)
    middles = unit(rng.standard_normal((groups, dim)))
    of = np.arange(count) % groups
    return unit(middles[of] + 0.05 * rng.standard_normal((count, dim))), of


def test_groups_that_lie_apart_are_found():
    vectors, of = blobs(600, 4)
    centroids = kmeans(vectors, 24, seed=1)
    assert centroids.dtype == np.float32
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)
    cells = nearest(vectors, centroids)
    assert cells.dtype == np.int32
    assert all(len(set(of[cells == cell])) == 1 for cell in set(cells))


def test_a_seed_chooses_and_an_equal_one_chooses_equally():
    vectors, _ = blobs(300, 30)
    first = kmeans(vectors, 8, seed=3)
    assert np.array_equal(first, kmeans(vectors, 8, seed=3))
    assert np.array_equal(first, kmeans(vectors, 8, seed=3 + 2**64))
    assert not np.array_equal(first, kmeans(vectors, 8, seed=-3))


@pytest.mark.parametrize(("different", "k"), [(1, 5), (2, 5), (3, 3), (4, 1)])
def test_there_are_never_more_cells_than_different_vectors(different: int, k: int):
    vectors = unit(np.eye(6)[np.arange(20) % different])
    centroids = kmeans(vectors, k, seed=0)
    assert 1 <= len(centroids) <= min(different, k)
    assert set(nearest(vectors, centroids)) == set(range(len(centroids)))


def test_opposite_vectors_leave_their_centroid_where_it_was():
    centroids = kmeans(unit([[1, 0], [-1, 0]]), 1, seed=0)
    assert np.isfinite(centroids).all()
    assert abs(float(centroids[0, 0])) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 40))
def test_a_cell_does_not_depend_on_which_vectors_come_along(seed: int, count: int):
    vectors, _ = blobs(BLOCK + 100, 30, seed, dim=48)
    centroids = kmeans(vectors[:500], 20, seed)
    whole = nearest(vectors, centroids)
    some = np.random.default_rng(seed).permutation(len(vectors))[:count]
    assert np.array_equal(nearest(vectors[some], centroids), whole[some])
