"""Image towers compute what their authors' own classes compute."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pixsieve.errors import PixsieveError, UsageError
from pixsieve.models import image_model

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))
MODELS = GOLDEN["MODELS"]
IMAGES = GOLDEN["golden_images"]()


def embed(path: Path, images, batch: int = 32) -> np.ndarray:
    model = image_model.find(str(path), exact=True)
    return image_model.load(model, image_model.Runtime(batch=batch))(images)


@pytest.mark.parametrize("name", GOLDEN["IMAGE_MODELS"])
def test_embeddings_equal_those_of_the_models_own_classes(name):
    expected = GOLDEN["unit"](GOLDEN["golden"](name)["images"])
    np.testing.assert_allclose(embed(MODELS / name, IMAGES), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GOLDEN["IMAGE_MODELS"])
def test_an_image_has_the_same_embedding_in_any_company(name):
    together = embed(MODELS / name, IMAGES)
    for batch in (1, 2, 4):
        np.testing.assert_array_equal(embed(MODELS / name, IMAGES, batch), together)
    np.testing.assert_array_equal(embed(MODELS / name, IMAGES[::-1])[::-1], together)


def test_no_image_gives_no_vector():
    assert embed(MODELS / "clip", []).shape == (0, 24)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODELS / "clip", tmp_path / "clip"))


def change(path: Path, **settings: object) -> None:
    config = json.loads(path.read_text())
    for name, value in settings.items():
        place, _, key = name.rpartition("__")
        (config[place] if place else config)[key] = value
    path.write_text(json.dumps(config))


def test_weights_in_several_files_are_one_model(model):
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, model / file)
    weight_map = {name: file for file, some in parts.items() for name in some}
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    np.testing.assert_array_equal(embed(model, IMAGES), embed(MODELS / "clip", IMAGES))


def test_weights_may_be_links_into_a_store_of_blobs(model):
    blobs = model.parent / "blobs"
    blobs.mkdir()
    for file in list(model.iterdir()):
        file.rename(blobs / f"blob-{file.name}")
        file.symlink_to(blobs / f"blob-{file.name}")
    np.testing.assert_array_equal(embed(model, IMAGES), embed(MODELS / "clip", IMAGES))


def test_a_vector_without_direction_is_nan_and_costs_no_other(model):
    tensors = load_file(model / "model.safetensors")
    save_file(
        tensors | {"visual_projection.weight": np.zeros((24, 32), np.float32)},
        model / "model.safetensors",
    )
    assert np.isnan(embed(model, IMAGES)).all()
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1]], np.float32)
    found = image_model.normalised(vectors)
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), [False, True, True, True])
    np.testing.assert_allclose(found[0], [0.6, 0.8], rtol=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vision_config__num_hidden_layers": 3}, "the weights have 2 layers"),
        ({"vision_config__num_attention_heads": 5}, "5 attention heads do not divide"),
        ({"vision_config__hidden_act": "relu6"}, "'relu6' is not known"),
        ({"model_type": "siglip"}, "the weights have no tensor vision_model.head.probe"),
        ({"model_type": "dinov2"}, "the weights have no tensor"),
    ],
)
def test_files_that_do_not_fit_together_are_refused_before_any_work(model, settings, message):
    change(model / "config.json", **settings)
    with pytest.raises(UsageError, match=message):
        image_model.find(str(model))


@pytest.mark.parametrize("name", ["visual_projection.weight", "vision_model.pre_layrnorm.weight"])
def test_a_tensor_of_another_shape_is_refused_by_name(model, name):
    tensors = load_file(model / "model.safetensors")
    save_file(tensors | {name: tensors[name][:7].reshape(-1)}, model / "model.safetensors")
    with pytest.raises(PixsieveError, match=r"shape|cannot load"):
        embed(model, IMAGES)


def test_a_tensor_that_is_missing_is_named(model):
    tensors = load_file(model / "model.safetensors")
    name = "vision_model.encoder.layers.1.self_attn.k_proj.bias"
    del tensors[name]
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(UsageError, match=name):
        embed(model, IMAGES)


def test_a_processor_for_another_size_is_refused_before_any_work(model):
    change(
        model / "preprocessor_config.json",
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64},
    )  # fmt: skip
    with pytest.raises(UsageError, match="16 patches of 8 pixels, images of 64x64 have 8x8"):
        image_model.find(str(model))


def test_a_model_without_its_processors_settings_is_refused(model):
    (model / "preprocessor_config.json").unlink()
    with pytest.raises(UsageError, match=r"has no preprocessor_config\.json"):
        image_model.find(str(model))


def test_settings_may_stand_in_the_file_that_newer_folders_have(model):
    inner = json.loads((model / "preprocessor_config.json").read_text())
    (model / "preprocessor_config.json").unlink()
    (model / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    np.testing.assert_array_equal(embed(model, IMAGES), embed(MODELS / "clip", IMAGES))


@pytest.mark.parametrize(
    "settings",
    [
        {"vision_cfg": {"timm_model_name": "vit_base"}},
        {"vision_cfg": {"attentional_pool": True}},
        {"vision_cfg": {"pool_type": "avg"}},
    ],
)
def test_an_open_clip_tower_of_another_kind_is_refused_by_its_setting(tmp_path, settings):
    model = Path(shutil.copytree(MODELS / "open_clip", tmp_path / "m"))
    config = json.loads((model / "open_clip_config.json").read_text())
    for place, value in settings.items():
        config["model_cfg"][place] |= value
    (model / "open_clip_config.json").write_text(json.dumps(config))
    name = next(iter(next(iter(settings.values()))))
    with pytest.raises(UsageError, match=rf"vision_cfg\.{name} is .* not built here"):
        image_model.find(str(model))


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "dinov2_with_registers"])
def test_what_a_configuration_leaves_out_has_its_class_defaults(tmp_path, name):
    """The golden folder has them as that class wrote them; its generator gave none of these."""
    model = Path(shutil.copytree(MODELS / name, tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    part = config.get("vision_config", config)
    for setting in ("hidden_act", "layer_norm_eps"):
        del part[setting]
    (model / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(embed(model, IMAGES), embed(MODELS / name, IMAGES))


def test_a_changed_file_is_seen_by_the_next_look(model):
    assert image_model.find(str(model)).preprocess.mean[0] != 0.5
    change(model / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    assert image_model.find(str(model)).preprocess.mean[0] == 0.5
