"""Pixels are prepared as each model's own processor does it, whatever the shape of the image."""

import dataclasses
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixsieve.errors import UsageError
from pixsieve.models import image_model, preprocess
from pixsieve.models.preprocess import Preprocess

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))


@pytest.mark.parametrize("name", GOLDEN["IMAGE_MODELS"])
def test_pixels_equal_the_models_own_processor_on_odd_sizes(name):
    prepare = image_model.find(str(GOLDEN["MODELS"] / name), exact=True).preprocess
    np.testing.assert_array_equal(
        prepare(GOLDEN["golden_images"]()), GOLDEN["golden"](name)["pixels"]
    )


LEFT_OUT = ("resample", "do_resize", "do_rescale", "do_normalize", "rescale_factor")


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("clip", (*LEFT_OUT, "do_center_crop", "image_mean", "image_std")),
        ("siglip", (*LEFT_OUT, "image_mean", "image_std")),
        ("dinov2", (*LEFT_OUT, "do_center_crop")),
    ],
)
def test_what_a_file_leaves_out_is_as_the_processors_own_class_has_it(name, left_out):
    """The generator gave none of these; the class that made the pixels had its own."""
    file = GOLDEN["MODELS"] / name / "preprocessor_config.json"
    config = json.loads(file.read_text())
    whole = preprocess.from_processor(config, name, "here")
    assert set(left_out) <= set(config)
    for setting in left_out:
        del config[setting]
    found = preprocess.from_processor(config, name, "here")
    assert found == whole
    pixels = dataclasses.replace(found, exact=True)(GOLDEN["golden_images"]())
    np.testing.assert_array_equal(pixels, GOLDEN["golden"](name)["pixels"])


@pytest.mark.parametrize("name", GOLDEN["IMAGE_MODELS"])
def test_the_faster_way_differs_little_and_only_on_images_much_too_large(name):
    exact = image_model.find(str(GOLDEN["MODELS"] / name), exact=True).preprocess
    fast = dataclasses.replace(exact, exact=False)
    y, x = np.mgrid[:640, :900]
    large = np.stack([(x // 9 + y // 7) % 256, (x * y // 3000) % 256, y % 256], -1).astype(np.uint8)
    small = large[:64, :90]
    np.testing.assert_array_equal(exact([small]), fast([small]))
    difference = exact([large]).astype(int) - fast([large])
    assert 0 < np.abs(difference).mean() < 4


@pytest.mark.parametrize("size", [(2, 30000), (30000, 2), (1, 1), (1, 5000), (3, 24), (24, 3)])
@pytest.mark.parametrize("exact", [True, False])
def test_no_shape_is_too_odd(size, exact):
    image = np.full((*size, 3), 77, np.uint8)
    for prepare in (
        Preprocess(resize=224, crop=(224, 224), exact=exact),
        Preprocess(resize=(224, 224), crop=(224, 224), exact=exact),
    ):
        assert (prepare([image]) == 77).all()
        assert prepare([image]).shape == (1, 224, 224, 3)


def test_of_a_very_long_image_the_middle_is_taken_as_if_all_of_it_was_resized():
    generator = np.random.default_rng(3)
    image = generator.integers(0, 256, (40, 400, 3), np.uint8)
    found = Preprocess(resize=32, crop=(32, 32), exact=True)([image])[0]
    whole = Image.fromarray(image).resize((320, 32), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(whole)[:, 144:176].astype(int) - found).max() <= 1


def test_images_are_decoded_at_twice_the_size_that_is_looked_at():
    assert Preprocess(resize=224, crop=(224, 224)).pixels == 448
    assert Preprocess(resize=(384, 384), crop=(384, 384)).pixels == 768
    assert Preprocess(resize=224, crop=(224, 224), exact=True).pixels == preprocess.FULL


@pytest.mark.parametrize(
    ("config", "model_type", "resize", "crop"),
    [
        ({}, "clip", 224, (224, 224)),
        ({}, "siglip", (224, 224), (224, 224)),
        ({}, "dinov2", 256, (224, 224)),
        ({"size": 336, "crop_size": 336}, "clip", 336, (336, 336)),
        ({"size": {"height": 384, "width": 384}}, "siglip", (384, 384), (384, 384)),
        ({"size": {"shortest_edge": 300}}, "dinov2", 300, (224, 224)),
    ],
)
def test_what_a_processor_leaves_out_has_its_class_defaults(config, model_type, resize, crop):
    found = preprocess.from_processor(config, model_type, "here")
    assert (found.resize, found.crop) == (resize, crop)


@pytest.mark.parametrize(
    "config",
    [
        {"do_normalize": False},
        {"rescale_factor": 1.0},
        {"size": {"longest_edge": 224}},
        {"size": {"shortest_edge": 100}},
        {"image_mean": [0.5]},
        {"resample": "bicubic"},
        {"size": {"height": 300, "width": 300}},
    ],
)
def test_settings_that_are_not_followed_are_refused_by_name_of_the_file(config):
    with pytest.raises(UsageError, match=r"^here: "):
        preprocess.from_processor(config, "clip", "here")


@pytest.mark.parametrize(
    "config", [{"resize_mode": "longest"}, {"interpolation": "random"}, {"size": [1, 2]}]
)
def test_open_clip_settings_that_are_not_followed_are_refused(config):
    with pytest.raises(UsageError, match=r"^here: "):
        preprocess.from_open_clip(config, 224, "here")
