"""The similarity of caption and image is the cosine of what the model's own classes give."""

import dataclasses
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.errors import PlanError, UsageError
from pixsieve.fingerprint import fingerprint
from pixsieve.scorers.caption_similarity import CaptionSimilarityStage
from pixsieve.scorers.embedding import ImageEmbeddingStage
from pixsieve.stage import ImageBatch

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))
MODELS, TEXTS = GOLDEN["MODELS"], GOLDEN["TEXTS"]
IMAGES = GOLDEN["golden_images"]()[: len(TEXTS)]
CAPTIONED = [bool(text.strip()) for text in TEXTS]


def batch(captions=TEXTS, images=IMAGES, **columns: pa.Array) -> ImageBatch:
    rows = pa.RecordBatch.from_pydict({"caption": pa.array(captions, pa.string()), **columns})
    return ImageBatch(rows, (), tuple(images))


def expected(name: str) -> np.ndarray:
    found = GOLDEN["golden"](name)
    images, texts = (GOLDEN["unit"](found[key]) for key in ("images", "texts"))
    return np.sum(images[: len(TEXTS)] * texts, axis=1)


def scores(stage: CaptionSimilarityStage, given: ImageBatch) -> list[float | None]:
    found = stage.load()(given)
    assert found.schema == stage.adds()
    return found.column("caption_similarity").to_pylist()


@pytest.mark.parametrize("name", GOLDEN["TEXT_MODELS"])
def test_cosines_equal_those_of_the_models_own_classes(name):
    stage = CaptionSimilarityStage(model=str(MODELS / name), embedding=None, exact=True)
    found = scores(stage, batch())
    assert [each is not None for each in found] == CAPTIONED
    some = [each for each in found if each is not None]
    np.testing.assert_allclose(some, expected(name)[CAPTIONED], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("float16", 1e-3)])
def test_an_earlier_embedding_serves_as_well_as_the_image(dtype, tolerance):
    images = ImageEmbeddingStage(model=str(MODELS / "clip"), dtype=dtype)
    first = images.load()(batch())
    stage = CaptionSimilarityStage(model=str(MODELS / "clip"))
    stage.check(pa.schema([pa.field("caption", pa.string()), *images.adds()]))
    assert stage.needs.pixels is None
    assert stage.reads() == ("caption", "embedding")
    found = scores(stage, batch(images=(), embedding=first.column("embedding")))
    own = scores(dataclasses.replace(stage, embedding=None), batch())
    np.testing.assert_allclose(np.array(found, float), np.array(own, float), rtol=0, atol=tolerance)


@pytest.mark.parametrize("caption", [None, "", " \n\t"])
def test_without_caption_there_is_no_score_and_none_is_made_up(caption):
    stage = CaptionSimilarityStage(model=str(MODELS / "clip"), embedding=None)
    found = scores(stage, batch([caption, "a dog"], IMAGES[:2]))
    assert found[0] is None
    assert found[1] == scores(stage, batch(["a dog"], IMAGES[1:2]))[0]
    assert scores(stage, batch([caption], IMAGES[:1])) == [None]


def test_without_embedding_there_is_no_score():
    vectors = ImageEmbeddingStage(model=str(MODELS / "clip")).load()(batch()).column(0).to_pylist()
    vectors[0] = None
    column = pa.array(vectors, pa.list_(pa.float32(), 24))
    found = scores(CaptionSimilarityStage(model=str(MODELS / "clip")), batch(embedding=column))
    assert found[0] is None
    assert found[1] is not None


def test_batches_change_no_bit():
    stage = CaptionSimilarityStage(model=str(MODELS / "clip"), embedding=None)
    one = dataclasses.replace(stage, model_inference_batch_size=1)
    assert scores(stage, batch()) == scores(one, batch())


def test_an_embedding_of_another_model_is_refused_before_any_work():
    stage = CaptionSimilarityStage(model=str(MODELS / "clip"))
    columns = pa.schema([pa.field("caption", pa.string())])
    with pytest.raises(PlanError, match=r"no column 'embedding'.*embedding=None"):
        stage.check(columns)
    with pytest.raises(PlanError, match="is of no model"):
        stage.check(columns.append(pa.field("embedding", pa.list_(pa.float32(), 24))))
    other = ImageEmbeddingStage(model=str(MODELS / "open_clip")).adds()
    with pytest.raises(PlanError, match=r"is of open_clip, the captions would be of clip"):
        stage.check(pa.schema([*columns, *other]))


def test_an_embedding_of_another_copy_of_the_model_is_refused(tmp_path):
    copy = Path(shutil.copytree(MODELS / "clip", tmp_path / "clip"))
    stage = CaptionSimilarityStage(model=str(copy))
    columns = ImageEmbeddingStage(model=str(MODELS / "clip")).adds()
    stage.check(columns)
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(1, 1))
    with pytest.raises(PlanError, match="another copy of clip"):
        stage.check(columns)


@pytest.mark.parametrize("name", ["dinov2", "default"])
def test_a_model_without_text_is_refused_before_any_work(name):
    model = name if name == "default" else str(MODELS / name)
    with pytest.raises(UsageError, match="text"):
        CaptionSimilarityStage(model=model, embedding=None).check(pa.schema([]))


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"model.json": '{"size": 32, "dim": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}'}, "onnx"),
        ({"config.json": '{"model_type": "dinov3_vit", "hidden_size": 8}'}, "dinov3_vit"),
    ],
)
def test_a_model_that_will_never_have_text_is_not_first_asked_for_packages(tmp_path, files, kind):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for name in ("model.onnx", "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
    shutil.copy(MODELS / "clip" / "preprocessor_config.json", tmp_path)
    stage = CaptionSimilarityStage(model=str(tmp_path), embedding=None)
    with pytest.raises(UsageError, match=rf"\({kind}\) has no text tower"):
        stage.check(pa.schema([]))


@pytest.mark.parametrize("threshold", [1.5, 26, -2])
def test_a_threshold_that_no_cosine_meets_is_refused(threshold):
    with pytest.raises(PlanError, match=r"usual thresholds: 0\.28"):
        CaptionSimilarityStage(score_threshold=threshold)


def test_a_threshold_selects_and_is_no_part_of_what_is_cached():
    stage = CaptionSimilarityStage(model=str(MODELS / "clip"), score_threshold=0.25)
    assert stage.selection().where == "caption_similarity >= 0.25"
    free = dataclasses.replace(stage, score_threshold=None)
    assert free.selection() is None
    assert fingerprint(stage.alone()) == fingerprint(free.alone())


def test_the_tokenizer_is_part_of_the_digest(tmp_path):
    copy = Path(shutil.copytree(MODELS / "clip", tmp_path / "clip"))
    stage = CaptionSimilarityStage(model=str(copy))
    before = stage.digests()
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + " ")
    assert stage.digests() != before
