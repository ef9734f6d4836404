"""Sizes far outside the quartiles of what is kept are dropped, by CleanVision's rule."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.errors import PlanError
from pixsieve.stages import OddSizeStage
from pixsieve.testing.rows import make_rows


def samples(*sides: int) -> list[dict[str, int]]:
    return [{"width": 2 * side, "height": side // 2} for side in sides]  # sqrt(w * h) = side


def dropped(folder: Path, sides: list[int], **options: float) -> list[int]:
    stage = OddSizeStage(**options)
    return [sides[row] for row in stage.decide(make_rows(folder, samples(*sides))).drop]


SIDES = [100, 120, 140, 160, 180, 20, 460]  # quartiles 110 and 170: low -70, high 350


def test_a_size_outside_the_fences_is_dropped_with_the_fences_as_evidence(tmp_path):
    verdicts = OddSizeStage().decide(make_rows(tmp_path, samples(*SIDES), per_part=2))
    assert verdicts.drop.tolist() == [6]
    assert verdicts.reason == "odd_size"
    assert json.loads(verdicts.evidence[0].as_py()) == {"size": 460.0, "low": -70.0, "high": 350.0}


def test_a_smaller_factor_drops_more_and_the_fence_itself_stays(tmp_path):
    assert dropped(tmp_path / "1", SIDES, iqr_factor=1) == [20, 460]
    assert dropped(tmp_path / "2", [*SIDES[:6], 350]) == []
    assert dropped(tmp_path / "3", SIDES, iqr_factor=0) == [100, 180, 20, 460]


def test_where_most_sizes_are_equal_every_other_is_odd(tmp_path):
    assert dropped(tmp_path, [200] * 8 + [198, 202]) == [198, 202]


def test_only_what_is_kept_so_far_counts(tmp_path):
    giants = [{"width": 9000, "height": 9000}] * 20
    rows = make_rows(tmp_path, [*samples(*SIDES), *giants, {"problem": "decode_failed"}])
    rows.kept[7:27] = False
    assert OddSizeStage().decide(rows).drop.tolist() == [6]


def test_it_finds_what_cleanvision_finds(tmp_path):
    """Its rule, literally: a score that falls with the distance from the middle of the fences."""
    rng = np.random.default_rng(0)
    sides = (rng.lognormal(5, 1.2, 200).astype(int) * 2 + 2).tolist()
    q1, q3 = np.percentile(sides, [25, 75])
    low, high = q1 - 3 * (q3 - q1), q3 + 3 * (q3 - q1)
    scores = 1 - np.clip(np.abs(np.array(sides) - (low + high) / 2) / (high - low), 0, 1)
    wanted = [side for side, score in zip(sides, scores, strict=True) if score < 0.5]
    assert wanted
    assert dropped(tmp_path, sides) == wanted


def test_no_row_at_all_is_fine(tmp_path):
    assert len(OddSizeStage().decide(make_rows(tmp_path / "0", [])).drop) == 0
    failed = make_rows(tmp_path / "1", [{"problem": "decode_failed"}])
    assert len(OddSizeStage().decide(failed).drop) == 0


@pytest.mark.parametrize("factor", [-1, float("nan"), float("inf")])
def test_a_factor_that_makes_no_fences_is_refused(factor):
    with pytest.raises(PlanError, match="iqr_factor"):
        OddSizeStage(iqr_factor=factor).check(pa.schema([]))
