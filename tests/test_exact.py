"""Of images with the same bytes one stays, the same one whatever the order of anything."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import PlanError
from pixsieve.stages import ExactDeduplicationStage
from pixsieve.testing.rows import make_rows

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.select.base import Rows

STAGE = ExactDeduplicationStage()
DIGESTS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(4)]


def decided(rows: Rows) -> dict[str, str]:
    """Return each dropped image's id with that of the one that stays."""
    verdicts = STAGE.decide(rows)
    ids = rows.take(verdicts.drop, ("image_id",))["image_id"].to_pylist()
    return dict(zip(ids, verdicts.duplicate_of.to_pylist(), strict=True))


def test_the_longest_caption_stays_then_the_smallest_path_and_key(tmp_path: Path):
    def sample(name: str, path: str, key: str, caption: str | None) -> dict[str, object]:
        return {"image_id": name, "original_path": path, "original_key": key, "caption": caption}

    def stays(*samples: dict[str, object]) -> str:
        folder = tmp_path / "-".join(str(each["image_id"]) for each in samples)
        found = decided(make_rows(folder, [{**each, "sha256": DIGESTS[0]} for each in samples]))
        (kept,) = {str(each["image_id"]) for each in samples} - set(found)
        assert set(found.values()) == {kept}
        return kept

    none, empty = sample("none", "0", "0", None), sample("empty", "9", "9", "")
    short, long = sample("short", "0", "0", "ab"), sample("long", "9", "9", "abc")
    umlauts = sample("umlauts", "5", "5", "äöü")  # three characters, six bytes
    assert stays(none, empty) == "empty"
    assert stays(none, empty, short, long) == "long"
    assert stays(long, umlauts) == "umlauts"
    assert stays(sample("b", "2", "1", "x"), sample("a", "10", "2", "x")) == "a"
    assert stays(sample("c", "1", "b", "x"), sample("d", "1", "a", "x")) == "d"
    assert stays(sample("f", "1", "a", "x"), sample("e", "1", "a", "x")) == "e"


SAMPLES = st.lists(
    st.fixed_dictionaries(
        {
            "original_path": st.sampled_from(["a.tar", "b.tar", "c/a.tar"]),
            "sha256": st.sampled_from(DIGESTS),
            "caption": st.sampled_from([None, "", "a", "b", "äb"]),
            "problem": st.sampled_from([None, None, None, "decode_failed"]),
        }
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(samples=SAMPLES, seed=st.integers(0, 2**16), per_part=st.integers(1, 5))
def test_the_choice_does_not_depend_on_the_order_of_sources_and_rows(
    samples: list[dict[str, object]],
    seed: int,
    per_part: int,
    tmp_path_factory: pytest.TempPathFactory,
):
    named = [{**sample, "original_key": f"k{number}"} for number, sample in enumerate(samples)]
    ordered = sorted(named, key=lambda sample: str(sample["original_path"]))
    shuffled = list(named)
    random.Random(seed).shuffle(shuffled)
    folder = tmp_path_factory.mktemp("rows")
    first = make_rows(folder / "1", ordered)
    found = decided(first)
    assert decided(make_rows(folder / "2", shuffled, per_part=per_part)) == found

    ids = first.take(np.arange(len(first)), ("image_id",))["image_id"].to_pylist()
    kept = {name for name, stands in zip(ids, first.kept, strict=True) if stands}
    assert set(found) <= kept
    assert set(found.values()) <= kept - set(found)
    failed = sum(sample["problem"] is not None for sample in samples)
    distinct = {sample["sha256"] for sample in samples if sample["problem"] is None}
    assert len(kept) - len(found) == len(distinct)
    assert len(kept) == len(samples) - failed

    first.kept[STAGE.decide(first).drop] = False
    assert not decided(first)  # what is left has no copies


def test_digests_that_begin_alike_are_not_the_same(tmp_path: Path):
    begin = "0123456789abcdef"  # the 64 bits that are compared first
    digests = [begin + f"{number:048x}" for number in (1, 2, 1, 3)]
    verdicts = STAGE.decide(make_rows(tmp_path, [{"sha256": digest} for digest in digests]))
    assert verdicts.drop.tolist() == [2]
    assert json.loads(verdicts.evidence[0].as_py()) == {"sha256": digests[0]}
    assert verdicts.reason == "exact_duplicate"


def test_the_copy_that_stays_takes_over_the_captions_of_the_others(tmp_path: Path):
    captions = ["ab", "longest", None, "middle", "other", "ab"]
    digests = [DIGESTS[0]] * 4 + [DIGESTS[1]] + [DIGESTS[0]]
    samples = [
        {"caption": caption, "sha256": digest}
        for caption, digest in zip(captions, digests, strict=True)
    ]
    rows = make_rows(tmp_path, samples)
    stage = ExactDeduplicationStage(merge=("caption",))
    verdicts, usual = stage.decide(rows), STAGE.decide(rows)
    assert verdicts.drop.tolist() == usual.drop.tolist() == [0, 2, 3, 5]
    assert verdicts.evidence.equals(usual.evidence)
    assert verdicts.duplicate_of.equals(usual.duplicate_of)
    merged = verdicts.columns["merged_caption"]
    assert merged.to_pylist() == [None, ["middle", "ab"], *[None] * 4]
    assert stage.adds().field("merged_caption").type == merged.type
    assert not STAGE.adds().names
    with pytest.raises(PlanError, match="'width', which is int32"):
        ExactDeduplicationStage(merge=("width",)).check(rows.columns)


def test_failed_images_are_no_copies_and_no_row_at_all_is_fine(tmp_path: Path):
    assert len(STAGE.decide(make_rows(tmp_path / "0", [])).drop) == 0
    failed = [{"problem": "decode_failed", "sha256": DIGESTS[0]}] * 3
    assert len(STAGE.decide(make_rows(tmp_path / "1", failed)).drop) == 0
    dropped = make_rows(tmp_path / "2", [{"sha256": DIGESTS[0]}] * 3)
    dropped.kept[:] = False
    assert len(STAGE.decide(dropped).drop) == 0
    assert pa.types.is_string(STAGE.decide(dropped).evidence.type)
