"""Images of a kind share a cluster, whatever the order of anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.errors import PlanError
from pixsieve.select.cluster import ClusterStage
from pixsieve.testing.rows import make_parts, make_scope, run_rounds

if TYPE_CHECKING:
    from pathlib import Path

DIM = 8
ADDED = pa.schema([pa.field("embedding", pa.list_(pa.float32(), DIM))])


def kinds(counts: list[int], seed: int = 0) -> list[dict[str, object]]:
    """Return samples of so many of each kind, whose vectors have a large part in common."""
    rng = np.random.default_rng(seed)
    common = np.full(DIM, 3.0)
    middles = np.eye(DIM)
    samples = []
    for kind, count in enumerate(counts):
        for number in range(count):
            vector = common + middles[kind] + 0.05 * rng.standard_normal(DIM)
            key = f"{kind}-{number}"
            samples.append({"original_key": key, "embedding": vector.tolist()})
    return samples


def clusters(folder: Path, samples: list[dict[str, object]], **options) -> dict[str, int | None]:
    """Return the cluster of each key."""
    per_part = options.pop("per_part", 1000)
    stage = ClusterStage(**options)
    parts = make_parts(folder, samples, added=ADDED, per_part=per_part)
    rows = run_rounds(stage, make_scope(folder, parts, added=ADDED, seed=5), folder / "rounds")
    verdicts = stage.decide(rows)
    assert len(verdicts.drop) == 0
    column = verdicts.columns["cluster"]
    assert column.type == stage.adds().field("cluster").type
    found = column.to_pylist()
    names = rows.take(np.arange(len(rows)), ("original_key",))["original_key"].to_pylist()
    return dict(zip(names, found, strict=True))


def test_a_cluster_is_a_kind_and_the_largest_is_the_first(tmp_path):
    found = clusters(tmp_path, kinds([10, 30, 20]), n_clusters=3, seed=2)
    assert {name[0]: number for name, number in found.items()} == {"1": 0, "2": 1, "0": 2}
    assert all(number == found[f"{name[0]}-0"] for name, number in found.items())


def test_neither_the_order_of_rows_nor_their_parts_change_a_cluster(tmp_path):
    samples = kinds([15, 25, 12, 30])
    first = clusters(tmp_path / "1", samples, n_clusters=6)
    turned = [samples[number] for number in np.random.default_rng(0).permutation(len(samples))]
    assert clusters(tmp_path / "2", turned, n_clusters=6, per_part=7) == first


def test_what_has_no_direction_is_in_no_cluster(tmp_path):
    samples = kinds([5, 5])
    odd = [None, [0.0] * DIM, [float("nan")] * DIM, [float("inf")] + [0.0] * (DIM - 1)]
    samples += [{"original_key": f"odd-{n}", "embedding": each} for n, each in enumerate(odd)]
    samples.append({"original_key": "failed", "problem": "decode_failed", "embedding": [1.0] * DIM})
    found = clusters(tmp_path, samples, n_clusters=2)
    assert {name for name, number in found.items() if number is None} == {
        "odd-0", "odd-1", "odd-2", "odd-3", "failed",
    }  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_are_fine(tmp_path, count):
    found = clusters(tmp_path, kinds([count]), n_clusters=10)
    assert sorted(found.values()) == list(range(count))


def test_equal_vectors_are_one_cluster(tmp_path):
    equal = [{"original_key": f"{n}", "embedding": [1.0] * DIM} for n in range(9)]
    assert set(clusters(tmp_path, equal, n_clusters=4).values()) == {0}


def test_what_does_not_fit_is_refused():
    with pytest.raises(PlanError, match="n_clusters is 0"):
        ClusterStage(n_clusters=0)
    with pytest.raises(PlanError, match="name="):
        ClusterStage(name="width")
    with pytest.raises(PlanError, match="there are these: other"):
        ClusterStage().check(pa.schema([pa.field("other", pa.list_(pa.float16(), 4))]))
    with pytest.raises(PlanError, match="there are these: none"):
        ClusterStage().check(pa.schema([pa.field("embedding", pa.list_(pa.float32()))]))
