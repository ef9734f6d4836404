"""Images that look alike: the best one stays, and each that goes is near to the one it goes for."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from pixsieve.errors import PlanError
from pixsieve.scorers.hashes import dhash, phash, reduced
from pixsieve.scorers.pdq import pdq
from pixsieve.select.base import sample_schema
from pixsieve.select.perceptual import GROUP, PerceptualDeduplicationStage
from pixsieve.testing.rows import make_rows

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.select.base import Rows

PHASH = pa.schema([pa.field("phash", pa.binary(8))])
BOTH = pa.schema([*PHASH, pa.field("dhash", pa.binary(8))])
ALL = pa.schema([*BOTH, pa.field("pdq", pa.binary(32))])
FOUR_BITS = PerceptualDeduplicationStage(max_distance=4)


def bits(count: int, size: int = 8) -> bytes:
    """Return bytes whose last so many bits are set."""
    return (2**count - 1).to_bytes(size, "big")


def ids(rows: Rows) -> list[str]:
    return rows.take(np.arange(len(rows)), ("image_id",))["image_id"].to_pylist()


def decided(stage: PerceptualDeduplicationStage, rows: Rows) -> dict[str, str]:
    """Return each dropped image's id with that of the one that stays."""
    verdicts = stage.decide(rows)
    names = ids(rows)
    assert len(verdicts.evidence) == len(verdicts.drop)
    dropped = [names[row] for row in verdicts.drop]
    return dict(zip(dropped, verdicts.duplicate_of.to_pylist(), strict=True))


def test_a_chain_is_no_group_and_the_evidence_says_how_far(tmp_path: Path):
    samples = [{"width": 100 - n, "phash": bits(4 * n), "dhash": bits(3 * n)} for n in range(3)]
    rows = make_rows(tmp_path, samples, added=BOTH)
    verdicts = FOUR_BITS.decide(rows)
    assert verdicts.drop.tolist() == [1]  # the third one is 8 bits from the first
    assert verdicts.duplicate_of.to_pylist() == ids(rows)[:1]
    assert verdicts.reason == "perceptual_duplicate"
    assert json.loads(verdicts.evidence[0].as_py()) == {
        "method": "hamming",
        "distance": {"phash": 4, "dhash": 3},
        "max_distance": {"phash": 4, "dhash": 4},
    }


def test_every_hash_must_be_near_and_images_without_one_stay(tmp_path: Path):
    samples = [
        {"phash": bits(0), "dhash": bits(0)},
        {"phash": bits(0), "dhash": bits(5)},
        {"phash": bits(0), "dhash": None},
        {"phash": None, "dhash": None},
    ]
    rows = make_rows(tmp_path, samples, added=BOTH)
    assert FOUR_BITS.decide(rows).drop.tolist() == []
    alone = PerceptualDeduplicationStage(columns=("phash",), max_distance=4)
    assert alone.decide(rows).drop.tolist() == [1, 2]


def test_each_hash_may_have_a_limit_of_its_own(tmp_path: Path):
    samples = [{"phash": bits(n), "dhash": bits(m)} for n, m in ((0, 0), (2, 9), (3, 9))]
    samples.append({"phash": bits(0), "dhash": bits(20)})
    rows = make_rows(tmp_path, samples, added=BOTH)
    stage = PerceptualDeduplicationStage(max_distance={"phash": 2, "dhash": 9})
    assert stage.decide(rows).drop.tolist() == [1]
    usual = PerceptualDeduplicationStage()
    assert usual.decide(rows).drop.tolist() == [2]  # of 6 and 5 bits, for the second one
    assert usual.warnings(rows.columns) == ()
    assert "phash alone" in usual.warnings(sample_schema([PHASH]))[0]


def test_pdq_alone_is_compared_over_256_bits(tmp_path: Path):
    samples = [{"pdq": bits(n, 32)} for n in (0, 16, 17, 50)]
    rows = make_rows(tmp_path, samples, added=pa.schema([pa.field("pdq", pa.binary(32))]))
    assert FOUR_BITS.decide(rows).drop.tolist() == [1]
    assert PerceptualDeduplicationStage().decide(rows).drop.tolist() == [1, 2]


def test_which_one_stays_is_the_policy_and_captions_are_merged(tmp_path: Path):
    samples = [
        {"phash": bits(1), "width": 10, "caption": "small"},
        {"phash": bits(0), "width": 90, "caption": None},
        {"phash": bits(2), "width": 20, "caption": "middle"},
    ]
    rows = make_rows(tmp_path, samples, added=PHASH)
    assert FOUR_BITS.decide(rows).drop.tolist() == [0, 2]
    stage = PerceptualDeduplicationStage(keep=("resolution asc",), merge=("caption",))
    verdicts = stage.decide(rows)
    assert verdicts.drop.tolist() == [1, 2]
    assert verdicts.columns["merged_caption"].to_pylist() == [["middle"], None, None]
    assert stage.adds().field("merged_caption").type == verdicts.columns["merged_caption"].type


def test_against_an_earlier_dataset(tmp_path: Path):
    samples = [{"phash": bits(n), "width": 1000} for n in (2, 3, 40)]
    rows = make_rows(tmp_path / "rows", samples, added=PHASH)
    earlier = tmp_path / "benchmark.parquet"
    columns = {
        "image_id": ["z", "y", "x", "none"],
        "phash": pa.array([bits(1), bits(0), bits(64), None], pa.binary(8)),
    }
    pq.write_table(pa.table(columns), earlier)
    stage = PerceptualDeduplicationStage(max_distance=2, against=str(earlier), merge=("caption",))
    stage.check(rows.columns)
    verdicts = stage.decide(rows)
    assert verdicts.drop.tolist() == [0, 1]
    assert verdicts.duplicate_of.to_pylist() == ["y", "z"]
    told = json.loads(verdicts.evidence[1].as_py())
    assert told["against"] == "benchmark.parquet"
    assert told["distance"] == {"phash": 2}
    assert stage.without_places().against == "benchmark.parquet"
    assert len(stage.digests()) == 1
    wrong = PerceptualDeduplicationStage(against=str(earlier), columns=("dhash",))
    with pytest.raises(PlanError, match="has no column 'dhash'"):
        wrong.check(sample_schema([BOTH]))


def test_grouping_drops_nothing_and_follows_chains(tmp_path: Path):
    samples = [{"phash": bits(n)} for n in (8, 4, 0, 40, 64, 64)]
    samples.append({"phash": None})
    rows = make_rows(tmp_path, samples, added=PHASH, per_part=2)
    stage = PerceptualDeduplicationStage(max_distance=4, action="group")
    verdicts = stage.decide(rows)
    names = ids(rows)
    chain, twins = min(names[:3]), min(names[4:6])
    found = verdicts.columns[GROUP].to_pylist()
    assert found == [chain] * 3 + [None] + [twins] * 2 + [None]
    assert len(verdicts.drop) == 0
    (field,) = stage.adds()
    assert field.metadata[b"role"] == b"duplicate_group"


HASHES = st.lists(
    st.fixed_dictionaries(
        {
            "width": st.integers(1, 3),
            "original_path": st.sampled_from(["a.tar", "b.tar"]),
            "flips": st.lists(st.integers(0, 63), max_size=6),
            "problem": st.sampled_from([None, None, None, "decode_failed"]),
        }
    ),
    max_size=16,
)


@settings(max_examples=25, deadline=None)
@given(drawn=HASHES, seed=st.integers(0, 99), per_part=st.integers(1, 5))
def test_what_always_holds(
    drawn: list[dict[str, Any]],
    seed: int,
    per_part: int,
    tmp_path_factory: pytest.TempPathFactory,
):
    samples = []
    for number, each in enumerate(drawn):
        value = sum(1 << bit for bit in set(each["flips"]))
        sample = {name: each[name] for name in ("width", "original_path", "problem")}
        both = {name: value.to_bytes(8, "big") for name in ("phash", "dhash")}
        place = {"original_key": f"k{number}", "original_offset": 512 * number}
        samples.append({**sample, **both, **place})
    folder = tmp_path_factory.mktemp("rows")
    rows = make_rows(folder / "1", samples, added=BOTH)
    found = decided(FOUR_BITS, rows)
    hash_of = dict(
        zip(ids(rows), (int.from_bytes(s["phash"], "big") for s in samples), strict=True)
    )
    width_of = dict(zip(ids(rows), (s["width"] for s in samples), strict=True))
    kept = {name for name, stands in zip(ids(rows), rows.kept, strict=True) if stands}
    assert set(found) <= kept
    assert set(found.values()) <= kept - set(found)
    for gone, stays in found.items():
        assert (hash_of[gone] ^ hash_of[stays]).bit_count() <= 4
        assert width_of[stays] >= width_of[gone]
    left = sorted(kept - set(found))
    for at, one in enumerate(left):
        assert all((hash_of[one] ^ hash_of[other]).bit_count() > 4 for other in left[:at])
    rows.kept[FOUR_BITS.decide(rows).drop] = False
    assert decided(FOUR_BITS, rows) == {}
    random.Random(seed).shuffle(samples)
    again = make_rows(folder / "2", samples, added=BOTH, per_part=per_part)
    assert decided(FOUR_BITS, again) == found


def test_many_black_images_are_one_group(tmp_path: Path):
    count = 3000
    rows = make_rows(tmp_path, [{"phash": bytes(8), "dhash": bytes(8)}] * count, added=BOTH)
    found = decided(FOUR_BITS, rows)
    assert len(found) == count - 1
    assert len(set(found.values())) == 1


def test_no_row_at_all_one_row_and_none_with_a_hash_are_fine(tmp_path: Path):
    for name, samples in {
        "none": [],
        "one": [{"phash": bits(3)}],
        "null": [{"phash": None}] * 3,
        "failed": [{"phash": None, "problem": "decode_failed"}],
    }.items():
        rows = make_rows(tmp_path / name, samples, added=PHASH)
        assert decided(FOUR_BITS, rows) == {}
        group = PerceptualDeduplicationStage(action="group").decide(rows)
        assert group.columns[GROUP].to_pylist() == [None] * len(samples)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_distance": -1}, "max_distance is -1"),
        ({"max_distance": 17}, "expected 0 to 16 bits of 64"),
        ({"max_distance": 0.1}, "max_distance is 0.1"),
        ({"columns": ()}, "name each hash once"),
        ({"columns": ("phash", "phash")}, "name each hash once"),
        ({"action": "group", "merge": ("caption",)}, "leave merge and against out"),
        ({"action": "keep"}, "action"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(options: dict[str, Any], told: str):
    with pytest.raises(PlanError, match=told):
        PerceptualDeduplicationStage(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": ("caption",)}, "'caption', which is no hash; there are: phash"),
        ({"keep": ("beauty",)}, "beauty"),
        ({"max_distance": {"dhash": 4}}, "for dhash; expected one for each of phash"),
        ({"max_distance": {"phash": 17}}, "max_distance of phash is 17; expected 0 to 16"),
        ({"merge": ("width",)}, "merge names 'width'"),
    ],
)
def test_columns_that_do_not_fit_are_refused(options: dict[str, Any], told: str):
    with pytest.raises(PlanError, match=told):
        PerceptualDeduplicationStage(**options).check(sample_schema([PHASH]))


def test_without_hashes_it_says_what_to_add():
    with pytest.raises(PlanError, match="Add PerceptualHashStage"):
        PerceptualDeduplicationStage().check(sample_schema([]))


def drawn_picture(number: int) -> Image.Image:
    """Return a picture of soft blots, unlike others."""
    chance = random.Random(number)
    picture = Image.new("RGB", (320, 240), (chance.randrange(256),) * 3)
    draw = ImageDraw.Draw(picture)
    for _ in range(14):
        x, y, size = chance.randrange(320), chance.randrange(240), chance.randrange(20, 120)
        ink = tuple(chance.randrange(256) for _ in range(3))
        draw.ellipse((x - size, y - size, x + size, y + size), fill=ink)
    return picture.filter(ImageFilter.GaussianBlur(3))


def hashed(picture: Image.Image) -> dict[str, bytes]:
    pixels = np.asarray(picture)
    small = reduced(pixels)
    found = pdq(np.asarray(picture.convert("L")))[0]
    return {"phash": phash(small), "dhash": dhash(small), "pdq": found}


def test_the_default_finds_what_is_resized_or_lit_and_nothing_else(tmp_path: Path):
    pictures = [drawn_picture(number) for number in range(30)]
    samples = [{"width": 320, "height": 240, **hashed(each)} for each in pictures]
    samples += [
        {"width": 160, "height": 120, **hashed(each.resize((160, 120)))} for each in pictures
    ]
    lit = [each.point(lambda level: level * 0.8) for each in pictures]
    samples += [{"width": 80, "height": 60, **hashed(each)} for each in lit]
    rows = make_rows(tmp_path, samples, added=ALL)
    verdicts = PerceptualDeduplicationStage().decide(rows)
    assert verdicts.drop.tolist() == list(range(30, 90))
    assert verdicts.duplicate_of.to_pylist() == ids(rows)[:30] * 2
