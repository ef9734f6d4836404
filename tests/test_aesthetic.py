"""The aesthetic stage scores embeddings, and refuses what it cannot score before any work."""

import hashlib
import pickle
import runpy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from pixsieve.errors import PlanError, UsageError
from pixsieve.fingerprint import fingerprint
from pixsieve.models import laion
from pixsieve.select.filters import FilterStage
from pixsieve.stage import ImageBatch, Needs
from pixsieve.stages import ImageAestheticFilterStage

MADE = runpy.run_path(str(Path(__file__).parent / "golden" / "laion_heads.py"))
MODELS = list(laion.AESTHETIC)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, head in laion.AESTHETIC.items():
        (root / head.name).mkdir(parents=True)
        save_file(MADE["head"](name), root / head.name / "model.safetensors")
    return root


def column(head: laion.Head, name: str = "embedding") -> pa.RecordBatch:
    """Return an embedding column as an embedding stage leaves it, the second row null."""
    rows = MADE["embeddings"](head.dim).tolist()
    rows[1] = None
    metadata = {"model": head.embedding}
    field = pa.field(name, pa.list_(pa.float32(), head.dim), metadata=metadata)
    return pa.record_batch([pa.array(rows, field.type)], pa.schema([field]))


@pytest.mark.parametrize("model", MODELS)
def test_each_embedding_has_its_heads_score_and_null_has_none(models, model):
    stage = ImageAestheticFilterStage(model=model, model_dir=str(models))
    head = laion.AESTHETIC[model]
    rows = column(head)
    stage.check(rows.schema)
    found = stage.load()(ImageBatch(rows, (), ()))
    assert found.schema.equals(stage.adds(), check_metadata=True)
    scores = found["aesthetic_score"].to_pylist()
    assert scores[1] is None
    expected = head.load(head.find(str(models)))(MADE["embeddings"](head.dim))
    np.testing.assert_array_equal(np.delete(np.array(scores, float), 1), np.delete(expected, 1))


def test_it_looks_at_no_image():
    stage = ImageAestheticFilterStage(embedding="vector")
    assert stage.needs == Needs()
    assert stage.reads() == ("vector",)


@pytest.mark.parametrize("model", MODELS)
def test_scale_and_direction_are_in_the_schema(model):
    metadata = ImageAestheticFilterStage(model=model).adds().field(0).metadata
    assert metadata[b"scale"] == (b"1 to 10" if model == "v2" else b"0 to 10")
    assert metadata[b"better"] == b"higher"
    assert metadata[b"source"]


def test_a_threshold_keeps_what_reaches_it():
    assert ImageAestheticFilterStage().selection() is None
    stage = ImageAestheticFilterStage(score_threshold=5)
    assert stage.selection() == FilterStage("aesthetic_score >= 5.0")
    scores = pa.table({"aesthetic_score": pa.array([4.99, 5.0, 9.0, None], pa.float32())})
    assert stage.selection().passes(scores).tolist() == [False, True, True, False]


def test_the_usual_mistake_is_told():
    """NeMo Curator's default, which drops nothing on this scale."""
    with pytest.raises(PlanError, match=r"score_threshold=0.5: .* of model='v2' goes from 1 to 10"):
        ImageAestheticFilterStage(score_threshold=0.5)
    ImageAestheticFilterStage(score_threshold=0.5, model="v1")


def test_a_model_that_there_is_not_is_told_with_those_that_there_are():
    with pytest.raises(
        PlanError, match=r"model='v1b32'; expected one of v2, v1, v1-b32, v1-b16; did"
    ):
        ImageAestheticFilterStage(model="v1b32")


@pytest.mark.parametrize(("model", "other"), [("v2", "v1-b32"), ("v1-b32", "v1-b16")])
def test_an_embedding_of_another_model_is_refused(models, model, other):
    stage = ImageAestheticFilterStage(model=model, model_dir=str(models))
    with pytest.raises(PlanError, match=f"holds embeddings of {laion.AESTHETIC[other].embedding}"):
        stage.check(column(laion.AESTHETIC[other]).schema)


@pytest.mark.parametrize("given", [True, False])
def test_without_weights_it_says_so_and_makes_nothing_up(tmp_path, monkeypatch, given):
    monkeypatch.delenv("PIXSIEVE_MODELS", raising=False)
    stage = ImageAestheticFilterStage(model_dir=str(tmp_path) if given else None)
    schema = column(laion.AESTHETIC["v2"]).schema
    for use in (lambda: stage.check(schema), stage.digests, stage.load):
        with pytest.raises(UsageError, match="there are no weights of ttj/sac-logos-ava1-l14"):
            use()


def test_weights_that_are_damaged_are_told_before_any_work(tmp_path):
    head = laion.AESTHETIC["v2"]
    (tmp_path / head.name).mkdir(parents=True)
    path = tmp_path / head.name / "model.safetensors"
    save_file(MADE["head"]("v1"), path)
    stage = ImageAestheticFilterStage(model_dir=str(tmp_path))
    with pytest.raises(UsageError, match="is not ttj/sac-logos"):
        stage.check(column(head).schema)
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(UsageError, match="is a pickle"):
        stage.check(column(head).schema)


def test_the_digest_is_that_of_the_weights_and_no_path_is_kept(models):
    stage = ImageAestheticFilterStage(model_dir=str(models))
    path = models / laion.AESTHETIC["v2"].name / "model.safetensors"
    assert stage.digests() == (hashlib.sha256(path.read_bytes()).hexdigest(),)
    assert str(models) not in repr(stage.without_places())
    other = ImageAestheticFilterStage(
        model_dir="elsewhere", model_inference_batch_size=8, num_gpus_per_worker=0.25, verbose=True
    )
    assert fingerprint(stage.without_places()) == fingerprint(other.without_places())
