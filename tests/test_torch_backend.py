"""Architectures beyond the graphs built here run through transformers, from the folder only.

Needs the extra ``torch``; without it, only the message is tested (``test_embedding.py``).
"""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from pixsieve.errors import UsageError
from pixsieve.models import folder, image_model, torch_backend

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))
IMAGES = GOLDEN["golden_images"]()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"hidden_size": 8}, 8),
        ({"projection_dim": 5, "hidden_size": 8}, 5),
        ({"vision_config": {"hidden_size": 7}}, 7),
        ({"vision_config": {"hidden_size": 7}, "projection_dim": 6}, 6),
        ({"hidden_size": "8"}, None),
        ({}, None),
    ],
)
def test_the_length_of_the_vector_is_read_from_the_configuration(config, expected):
    assert torch_backend.dimension(config) == expected


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_vectors_equal_those_of_the_models_own_classes(name):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    model = image_model.find(str(GOLDEN["MODELS"] / name), exact=True)
    assert model.folder is not None
    embed = torch_backend.load(model.folder, model.preprocess, "cpu")
    found = image_model.normalised(embed(model.preprocess(IMAGES)))
    expected = GOLDEN["unit"](GOLDEN["golden"](name)["images"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_an_architecture_beyond_is_taken_to_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=8,
    )  # fmt: skip
    reference = transformers.ViTModel(config).eval()
    reference.save_pretrained(tmp_path)
    shutil.copy(GOLDEN["MODELS"] / "clip" / "preprocessor_config.json", tmp_path)
    model = image_model.find(str(tmp_path), exact=True)
    found = image_model.load(model, image_model.Runtime())(IMAGES)
    pixels = model.preprocess(IMAGES) / 255
    values = ((pixels - model.preprocess.mean) / model.preprocess.std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        expected = reference(torch.from_numpy(values.astype(np.float32))).pooler_output.numpy()
    np.testing.assert_allclose(found, GOLDEN["unit"](expected), rtol=0, atol=1e-5)


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    model = Path(shutil.copytree(GOLDEN["MODELS"] / "clip", tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoModel": "own.Own", "AutoConfig": "own.C"}}
    config["hidden_size"] = 8
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text(f"open({str(tmp_path / 'sang')!r}, 'w')")
    found = folder.find(str(model))
    prepare = image_model.find(str(GOLDEN["MODELS"] / "clip")).preprocess
    with pytest.raises(UsageError, match="transformers cannot make a model"):
        torch_backend.load(found, prepare, "cpu")
    assert not (tmp_path / "sang").exists()
