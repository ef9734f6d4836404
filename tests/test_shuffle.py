"""Seeded orders: the same on every machine, uniform, and stable where samples come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.select import keys
from pixsieve.sources.base import image_id
from pixsieve.stages import ShuffleStage
from pixsieve.testing.rows import make_rows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IDS = [image_id("a.tar", f"{number:06d}", 0) for number in range(20_000)]

GOLDEN = {
    0: [12035550249420947055, 627405149472732430, 3303439293501059696],
    7: [13309476754707697221, 4414019431610648415, 12225420764836534112],
}


def uniform(ids: list[str], seed: int) -> NDArray[np.uint64]:
    return keys.uniform(pa.chunked_array([ids]), seed)


def splitmix64(value: int) -> int:
    """The reference implementation, one step from ``value``, by integers of any size."""
    z = (value + 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def test_keys_stay_what_they_were():
    """Golden values: another number here would be another order of every dataset made before."""
    ids = ["cat-0000000000000000", "cat-0000000000000001", "dog-ffffffffffffffff"]
    assert uniform(ids, 0).tolist() == GOLDEN[0]
    assert uniform(ids, 7).tolist() == GOLDEN[7]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 2**63, 2**200 + 5])
def test_keys_are_splitmix64_of_the_ids_digest_and_any_seed(seed: int):
    name = "a-b-0123456789abcdef"
    expected = splitmix64(0x0123456789ABCDEF ^ splitmix64(seed % 2**64))
    assert uniform([name], seed).tolist() == [expected]


def test_keys_are_uniform_in_every_bit_and_independent_between_seeds():
    one, two = uniform(IDS, 1), uniform(IDS, 2)
    for drawn in (one, one ^ two):
        bits = np.unpackbits(drawn.view(np.uint8).reshape(len(IDS), 8), axis=1)
        share = bits.mean(axis=0)
        assert (abs(share - 0.5) < 5 * 0.5 / len(IDS) ** 0.5).all()
    assert len(np.unique(one)) == len(IDS)
    # neighbours in the source are as often turned around as not
    turned = (np.diff(np.argsort(np.argsort(one))) < 0).mean()
    assert abs(turned - 0.5) < 0.02


def test_samples_that_come_leave_the_others_in_their_order():
    some = IDS[::3]
    order = [IDS[at] for at in np.argsort(uniform(IDS, 5))]
    order_of_some = [some[at] for at in np.argsort(uniform(some, 5))]
    left = set(some)
    assert [name for name in order if name in left] == order_of_some
    assert order_of_some != some


def test_the_stage_gives_every_row_a_key_and_takes_the_pipelines_seed_or_its_own(tmp_path: Path):
    samples = [{"original_path": f"{number // 40}.tar"} for number in range(100)]
    rows = make_rows(tmp_path, samples, per_part=7, seed=3)
    ids = rows.take(np.arange(100), ("image_id",))["image_id"].to_pylist()
    verdicts = ShuffleStage().decide(rows)
    assert not len(verdicts.drop)
    assert verdicts.order.tolist() == uniform(ids, 3).tolist()
    assert ShuffleStage(seed=4).decide(rows).order.tolist() == uniform(ids, 4).tolist()
    assert ShuffleStage(seed=0).decide(rows).order.tolist() == uniform(ids, 0).tolist()


def test_no_rows_have_no_order(tmp_path: Path):
    assert ShuffleStage().decide(make_rows(tmp_path, [])).order.shape == (0,)
