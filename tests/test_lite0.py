"""EfficientNet-Lite0 computes what a plain rendering of its layers computes."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from pixsieve.errors import MissingExtraError, UsageError
from pixsieve.models.lite0 import Lite0
from pixsieve.models.packaged import LITE0

GOLDEN = Path(__file__).parent / "golden"
IMAGES = runpy.run_path(str(GOLDEN / "lite0_images.py"))["images"]()


@pytest.fixture(scope="module")
def model() -> Lite0:
    return Lite0()


def test_embeddings_equal_those_of_the_written_out_layers(model):
    with np.load(GOLDEN / "lite0.npz") as golden:
        expected = golden["embeddings"]
    found = model.embed(IMAGES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-5)  # of values up to 5.7


def test_an_image_has_the_same_embedding_in_any_company(model):
    together = model.embed(IMAGES)
    np.testing.assert_array_equal(model.embed(IMAGES[::-1])[::-1], together)
    for number in range(len(IMAGES)):
        np.testing.assert_array_equal(model.embed(IMAGES[number : number + 1])[0], together[number])


def test_no_image_gives_no_embedding(model):
    assert model.embed(IMAGES[:0]).shape == (0, Lite0.dim)


def test_openvino_computes_the_same(model):
    pytest.importorskip("openvino")
    found = Lite0(runtime="openvino").embed(IMAGES)
    np.testing.assert_allclose(found, model.embed(IMAGES), rtol=0, atol=1e-4)


def test_settings_reach_the_runtime():
    with pytest.raises(UsageError, match="precision='bf16' needs runtime='openvino'"):
        Lite0(precision="bf16")


def test_the_digest_is_that_of_the_file():
    assert Lite0.digest() == LITE0.sha256


def test_without_onnx_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"needs onnx: pip install 'pixsieve\[models\]'"):
        Lite0()
