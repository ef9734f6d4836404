"""Perceptual hashes: near the reference libraries', and the same for ever."""

from __future__ import annotations

import json
import runpy
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pixsieve.scorers.hashes import PerceptualHashStage, dhash, phash, reduced
from pixsieve.scorers.pdq import pdq
from pixsieve.stage import ImageBatch

GOLDEN = Path(__file__).parent / "golden"
IMAGES = runpy.run_path(str(GOLDEN / "hash_images.py"))["images"]()
REFERENCE = json.loads((GOLDEN / "hashes.json").read_text())


def small(pixels: np.ndarray) -> Image.Image:
    return reduced(rgb(pixels))


def rgb(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("RGB"))


def gray(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("L"))


def apart(mine: bytes, theirs: str) -> int:
    """Return in how many bits two hashes differ."""
    return (int(mine.hex(), 16) ^ int(theirs, 16)).bit_count()


@pytest.mark.parametrize("name", IMAGES)
def test_the_dct_hash_is_that_of_imagehash_but_for_rounding(name):
    """Pillow shrinks in two steps here: a few bits next to the median change."""
    mine = phash(small(IMAGES[name]))
    assert apart(mine, REFERENCE[name]["phash"]) <= 4


@pytest.mark.parametrize("name", IMAGES)
def test_the_difference_hash_is_that_of_imagehash_but_for_rounding(name):
    """Neighbours that differ by a grey level or less may change sides."""
    mine = dhash(small(IMAGES[name]))
    assert apart(mine, REFERENCE[name]["dhash"]) <= 6


@pytest.mark.parametrize("name", IMAGES)
def test_pdq_is_that_of_its_authors_but_for_the_rounding_of_luma(name):
    bits, quality = pdq(gray(IMAGES[name]))
    assert apart(bits, REFERENCE[name]["pdq"]) <= 4
    assert abs(quality - REFERENCE[name]["pdq_quality"]) <= 1


def test_hashes_never_change():
    image = IMAGES["500x375"]
    found = [phash(small(image)), dhash(small(image)), pdq(gray(image))[0]]
    assert [each.hex() for each in found] == NEVER_CHANGE


NEVER_CHANGE = [
    "85da8752fd0da8a5",
    "ca28e6322aa9ceca",
    "2fe4c7f20ee5a50ffd219808a28f18d593991f524a8aead8c25f6425dfe0f4a9",
]


def test_half_of_the_bits_are_set_as_the_median_says():
    for pixels in IMAGES.values():
        assert int.from_bytes(phash(Image.fromarray(gray(pixels)))).bit_count() == 32
        assert int.from_bytes(pdq(gray(pixels))[0]).bit_count() == 128


def test_a_resave_and_half_the_size_change_few_bits_and_another_picture_many():
    one, other = (Image.fromarray(gray(IMAGES[name])) for name in ("900x600", "500x375"))
    half = one.resize((450, 300), Image.Resampling.BICUBIC)
    for hashed, near, far in ((phash, 4, 16), (dhash, 6, 16), (_pdq, 30, 90)):
        mine = hashed(one)
        assert apart(hashed(half), mine.hex()) <= near
        assert apart(hashed(other), mine.hex()) >= far


def _pdq(image: Image.Image) -> bytes:
    return pdq(np.asarray(image))[0]


@pytest.mark.parametrize("shape", [(1, 1), (2, 30000), (30000, 2), (4, 4), (1, 5), (5, 5)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_odd_shapes_and_flat_pictures_have_a_hash(shape, value):
    found = score(np.full((*shape, 3), value, np.uint8))
    assert [len(found[name]) for name in ("phash", "dhash", "pdq")] == [8, 8, 32]
    assert found["pdq_quality"] == 0


@pytest.mark.parametrize("shape", [(64, 30000), (30000, 64)])
def test_pdq_of_a_long_picture_takes_memory_for_its_pixels_only(shape):
    """A filter written as a whole square matrix would take 7 GB here, and end the worker."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    tracemalloc.start()
    try:
        assert any(pdq(pixels)[0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * 8 * pixels.size


def score(
    *pixels: np.ndarray,
    stage: PerceptualHashStage = PerceptualHashStage(pdq=True),  # noqa: B008
) -> dict:
    rows = pa.RecordBatch.from_pydict({"image_id": [str(n) for n in range(len(pixels))]})
    found = {}
    for each in (stage, stage.companion()):
        if each is not None:
            scores = each.load()(ImageBatch(rows, (), tuple(pixels)))
            assert scores.schema == each.adds()
            found |= scores.to_pylist()[0]
    return found


def test_the_64_bit_hashes_do_not_depend_on_what_else_is_asked_for():
    pixels = rgb(IMAGES["500x375"])
    with_pdq = score(pixels)
    assert score(pixels, stage=PerceptualHashStage()) == {
        name: with_pdq[name] for name in ("phash", "dhash")
    }


def test_pdq_is_left_out_unless_it_is_asked_for():
    assert PerceptualHashStage().adds().names == ["phash", "dhash"]
    assert PerceptualHashStage().companion() is None
    assert PerceptualHashStage(pdq=True).companion().adds().names == ["pdq", "pdq_quality"]


def test_columns_are_bytes_of_fixed_length_and_say_what_they_are():
    stage = PerceptualHashStage(pdq=True)
    fields = [*stage.adds(), *stage.companion().adds()]
    for field in fields:
        assert {b"scale", b"unit", b"better", b"source"} <= set(field.metadata)
    assert [field.type for field in fields[:3]] == [pa.binary(8), pa.binary(8), pa.binary(32)]
