"""Every row is in its nearest cell, and visits those that may hold its pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.select import cells, kmeans, spill
from pixsieve.select.cells import Source, automatic, digests, slices, vectors_of
from pixsieve.testing.rows import make_parts, make_scope

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.select.base import Scope

DIM = 5


def table(folder: Path, vectors: list[list[float] | None], kind: pa.DataType, **more: int) -> Scope:
    added = pa.schema([pa.field("embedding", pa.list_(kind, DIM))])
    samples = [{"embedding": each} for each in vectors]
    return make_scope(folder, make_parts(folder, samples, added=added, **more), added=added)


def test_slices_cover_all_rows_and_have_about_as_many_bytes():
    assert slices(0, 512) == []
    assert slices(70_000, 512) == [(0, 65_536), (65_536, 70_000)]
    (first, *_, last) = slices(100_000, 4096)
    assert first == (0, 8192)
    assert last[1] == 100_000


def test_all_pairs_are_compared_until_that_takes_too_long():
    assert automatic(0, 1) == automatic(16_384, 1) == 1
    found = [automatic(count, 1) for count in (20_000, 10**6, 10**7)]
    assert found == sorted(found)
    assert found[1] in range(500, 1500)
    assert automatic(10**6, 3) > found[1]  # visitors are dearer than cells


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_vectors_come_as_they_are_stored_with_what_has_a_direction(kind):
    told = [[1.0, 2.0], None, [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0], [3.0, 4.0]]
    whole = pa.array([[9.0, 9.0], *told], pa.list_(kind, 2))
    column = pa.chunked_array([whole.slice(1, 3), whole.slice(4)])
    vectors, valid = vectors_of(column)
    assert valid.tolist() == [True, False, False, False, False, True]
    assert vectors.dtype == kind.to_pandas_dtype()
    assert vectors[valid].tolist() == [[1, 2], [3, 4]]


def test_a_sample_follows_from_ids_alone(tmp_path):
    rng = np.random.default_rng(0)
    scope = table(tmp_path, rng.standard_normal((400, DIM)).tolist(), pa.float32())
    once, twice = str(tmp_path / "once"), [str(tmp_path / f"{n}") for n in range(2)]
    cells.sample(scope, "embedding", (0, 400), 0.5, 7, once)
    for path, bounds in zip(twice, ((0, 150), (150, 400)), strict=True):
        cells.sample(scope, "embedding", bounds, 0.5, 7, path)
    whole, pieces = spill.read(once), [spill.read(path) for path in twice]
    for name in ("key", "vector"):
        assert np.array_equal(whole[name], np.concatenate([each[name] for each in pieces]))
    assert 120 < len(whole["key"]) < 280
    for name in ("1", "2"):
        given = [once] if name == "1" else twice[::-1]
        cells.centroids(given, 6, 3, False, None, str(tmp_path / f"c{name}"))
    one, other = (spill.read(str(tmp_path / f"c{n}"))["centroids"] for n in "12")
    assert np.array_equal(one, other)


def test_of_centroids_that_are_near_one_another_one_stays(tmp_path):
    angles = np.deg2rad([0, 1, 2, 50, 51, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    spill.write(
        str(tmp_path / "sample"), {"key": np.arange(6).astype(np.uint64), "vector": vectors}
    )
    counts = []
    for near in (None, np.cos(np.deg2rad(5))):
        cells.centroids([str(tmp_path / "sample")], 6, 0, False, near, str(tmp_path / "c"))
        counts.append(len(spill.read(str(tmp_path / "c"))["centroids"]))
    assert counts == [6, 3]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    count=st.integers(1, 60),
    probes=st.integers(0, 4),
    reach=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
    cut=st.integers(0, 60),
)
def test_rows_are_in_order_of_cells_and_visit_those_whose_border_is_near(
    seed: int,
    count: int,
    probes: int,
    reach: float,
    cut: int,
    tmp_path_factory: pytest.TempPathFactory,
):
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    gone = rng.random(count) < 0.2
    scope = table(
        folder,
        [None if no else v for v, no in zip(vectors.tolist(), gone, strict=True)],
        pa.float32(),
    )
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    middles = kmeans.kmeans(units, 6, seed)
    spill.write(str(folder / "middles"), {"centroids": middles, "mean": np.zeros((1, DIM), "f4")})
    found: dict[int, tuple[int, set[int]]] = {}
    lost = 0
    cut = min(cut, count)
    for start, stop in ((0, cut), (cut, count)):
        path = str(folder / f"{start}-{stop}")
        source = Source(start=start, stop=stop)
        cells.assign(scope, "embedding", source, str(folder / "middles"), reach, probes, path)
        each = spill.read(path)
        assert (np.diff(each["cell"]) >= 0).all()
        assert (np.diff(each["visited"]) >= 0).all()
        assert np.array_equal(each["vector"], vectors[each["row"]])
        lost += int(each["lost"][0])
        for at, row in enumerate(each["row"].tolist()):
            visits = each["visited"][each["visitor"] == at].tolist()
            found[row] = (int(each["cell"][at]), set(visits))
            assert len(set(visits)) == len(visits)
    assert lost == gone.sum()
    assert sorted(found) == np.flatnonzero(~gone).tolist()
    for row, (home, visits) in found.items():
        dots = units[row] @ middles.T
        assert dots[home] >= dots.max() - 1e-6
        order = [cell for cell in np.argsort(-dots, kind="stable").tolist() if cell != home]
        for place, cell in enumerate(order):
            border = (dots[home] - dots[cell]) / np.linalg.norm(middles[home] - middles[cell])
            if abs(border - reach) > 1e-5:
                assert (cell in visits) == (place < probes and border <= reach)


def test_a_slice_may_be_of_another_table(tmp_path):
    vectors = np.eye(DIM, dtype=np.float16)
    spill.write(str(tmp_path / "other"), {"vector": vectors})
    source = Source(start=102, stop=104, path=str(tmp_path / "other"), first=100)
    scope = table(tmp_path, [], pa.float16())
    ((numbers, found, lost),) = cells.read(scope.rows(), "embedding", source)
    assert numbers.tolist() == [102, 103]
    assert np.array_equal(found, vectors[2:4])
    assert lost == 0


def test_digests_tell_vectors_apart_whatever_differs():
    rng = np.random.default_rng(0)
    for kind, width in ((np.float16, 5), (np.float32, 512), (np.uint8, 3)):
        rows = (rng.standard_normal((5000, width)) * 50).astype(kind)
        rows[:2500] = rows[2500:]
        rows[:2500, rng.integers(0, width)] += kind(1)
        found = digests(rows)
        assert len(np.unique(found)) == len(np.unique(rows, axis=0))
        assert np.array_equal(digests(rows[::-1])[::-1], found)
