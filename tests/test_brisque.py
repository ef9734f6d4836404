"""BRISQUE equals a straight rendering of its definition, and rises with visible damage."""

import json
import runpy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pixsieve.scorers import brisque
from pixsieve.scorers.brisque import BrisqueStage, Model
from pixsieve.stage import ImageBatch

GOLDEN = Path(__file__).parent / "golden"
MAKERS = runpy.run_path(str(GOLDEN / "brisque_images.py"))
IMAGES = MAKERS["images"]()
SCORES = json.loads((GOLDEN / "brisque.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.mark.parametrize("name", SCORES)
def test_the_score_equals_the_straight_rendering(name, model):
    # The Gaussian is rounded to 1024ths, and the arithmetic to 24 bits.
    assert model.score(IMAGES[name]) == pytest.approx(SCORES[name], abs=0.15)


def test_every_golden_image_has_a_score():
    assert list(SCORES) == list(IMAGES)


def test_blur_blocks_and_noise_make_it_worse(model):
    picture = model.score(IMAGES["picture"])
    assert picture < model.score(IMAGES["soft"]) < model.score(IMAGES["softer"])
    assert picture + 30 < model.score(IMAGES["noisy"])
    assert picture + 30 < model.score(IMAGES["blocks"])


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 500), (2, 30_000), (3, 3), (64, 64), (700, 20)]
)
@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_image_of_any_shape_has_no_score(height, width, level, model):
    assert model.score(np.full((height, width), level, np.uint8)) is None


@pytest.mark.parametrize(
    ("height", "width", "scored"),
    [(1, 1, 0), (1, 9, 0), (3, 3, 0), (2, 30_000, 0), (17, 31, 1), (600, 40, 1), (40, 5000, 1)],
)
def test_an_odd_shape_has_a_finite_score_or_none(height, width, scored, model):
    noise = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    score = model.score(noise)
    assert (score is not None) == scored
    assert score is None or np.isfinite(score)


def test_a_large_image_is_looked_at_in_512_pixels(model):
    large = MAKERS["picture"](height=600, width=900)
    small = Image.fromarray(large).resize((512, 341), Image.Resampling.BICUBIC)
    assert model.score(large) == model.score(np.asarray(small))


def test_what_is_flat_is_exactly_flat_at_any_grey_and_scale():
    """Else rounding errors, divided by a deviation of nothing, would count as texture."""
    for level in range(256):
        levels = np.full((32, 64), level - 128, np.float32)
        levels[:, 32:] = (level * 7) % 256 - 128
        for scale, edge in ((levels, 32), (brisque._half(levels), 16)):
            flat = brisque._normalised(scale)
            assert not flat[:, : edge - 4].any()
            assert not flat[:, edge + 4 :].any()


def test_a_batch_is_scored_image_by_image(model):
    stage = BrisqueStage()
    pixels = (IMAGES["picture"], np.zeros((8, 8), np.uint8), IMAGES["tall"])
    rows = pa.record_batch({"image_id": ["a", "b", "c"]})
    found = stage.load()(ImageBatch(rows, (), pixels))
    assert found.schema.equals(stage.adds(), check_metadata=True)
    wanted = [model.score(image) for image in pixels]
    assert wanted[1] is None
    assert found["brisque"].equals(pa.array(wanted, pa.float32()))


def test_the_column_says_what_its_numbers_mean():
    (field,) = BrisqueStage().adds()
    assert set(field.metadata) == {b"scale", b"unit", b"better", b"source"}
    assert field.metadata[b"better"] == b"lower"
