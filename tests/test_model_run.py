"""A whole run with a user's folder of models: CLIP, aesthetics, NSFW and captions, as in real life.

The models are tiny or made of a seed; what the run stores is compared with the same arithmetic in
plain numpy over the stored embeddings.
"""

import json
import pickle
import runpy
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.engine.local import LocalExecutor
from pixsieve.errors import UsageError
from pixsieve.pipeline import Pipeline
from pixsieve.stages import (
    CaptionSimilarityStage,
    FilterStage,
    ImageAestheticFilterStage,
    ImageEmbeddingStage,
    ImageNSFWFilterStage,
    ImageReaderStage,
    ImageWriterStage,
)
from pixsieve.storage.portable import original
from pixsieve.testing.faults import tree

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))
MADE = runpy.run_path(str(Path(__file__).parent / "golden" / "curator_models.py"))
NAME, DIM = MADE["CLIP"], MADE["DIM"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    MADE["make"](root)
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, image in enumerate(GOLDEN["golden_images"]()):
        Image.fromarray(image).save(folder / f"{number}.png")
        if number < len(GOLDEN["TEXTS"]):
            (folder / f"{number}.txt").write_text(GOLDEN["TEXTS"][number], encoding="utf-8")
    return folder


def pipeline(photos: Path, models: Path | None, output: Path) -> Pipeline:
    where = {"model_dir": None if models is None else str(models)}
    made = Pipeline(name="models")
    made.add_stage(ImageReaderStage(str(photos)))
    made.add_stage(ImageEmbeddingStage(model=NAME, **where))
    made.add_stage(ImageAestheticFilterStage(score_threshold=None, **where))
    made.add_stage(ImageNSFWFilterStage(model="laion", score_threshold=None, **where))
    made.add_stage(CaptionSimilarityStage(model=NAME, **where))
    made.add_stage(FilterStage("width > 1"))
    made.add_stage(ImageWriterStage(output_dir=str(output)))
    return made


def sidecar(output: Path) -> pa.Table:
    (path,) = output.glob("images-*.parquet")
    return pq.read_table(path)


def test_scores_of_a_run_are_the_heads_and_the_captions_arithmetic(models, photos, tmp_path):
    pipeline(photos, models, tmp_path / "out").run(InlineExecutor())
    table = sidecar(tmp_path / "out")
    assert table.num_rows == len(GOLDEN["SIZES"]) - 1
    vectors = np.array(table["embedding"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    head = load_file(models / "ttj/sac-logos-ava1-l14-linearMSE" / "model.safetensors")
    x = vectors
    for layer in (0, 2, 4, 6, 7):
        x = x @ head[f"layers.{layer}.weight"].T + head[f"layers.{layer}.bias"]
    np.testing.assert_allclose(table["aesthetic_score"].to_numpy(), x[:, 0], atol=1e-5)
    head = load_file(models / "laion/clip-autokeras-binary-nsfw" / "model.safetensors")
    x = vectors
    for layer in (1, 2, 3, 4):
        x = np.maximum(x, 0) if layer > 1 else x
        x = x @ head[f"linear_{layer}.weight"].T + head[f"linear_{layer}.bias"]
    np.testing.assert_allclose(
        table["nsfw_score"].to_numpy(), 1 / (1 + np.exp(-x[:, 0])), atol=1e-5
    )
    similar = table["caption_similarity"].to_pylist()
    captioned = [bool((text or "").strip()) for text in table["caption"].to_pylist()]
    assert [each is not None for each in similar] == captioned
    assert sum(captioned) >= 5


def test_the_output_says_which_model_its_vectors_are_of(models, photos, tmp_path):
    pipeline(photos, models, tmp_path / "out").run(InlineExecutor())
    metadata = sidecar(tmp_path / "out").schema.field("embedding").metadata
    assert metadata[b"model"] == NAME.encode()
    assert str(models) not in (tmp_path / "out" / "recipe.yaml").read_text()


def test_where_models_lie_and_how_many_workers_there_are_changes_no_byte(
    models, photos, tmp_path, monkeypatch
):
    pipeline(photos, models, tmp_path / "one").run(InlineExecutor())
    elsewhere = Path(shutil.copytree(models, tmp_path / "elsewhere"))
    monkeypatch.setenv("PIXSIEVE_MODELS", str(elsewhere))
    pipeline(photos, None, tmp_path / "two").run(LocalExecutor(workers=2))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_changed_model_is_computed_anew(models, photos, tmp_path):
    mine = Path(shutil.copytree(models, tmp_path / "mine"))
    options = RunOptions(workspace=str(tmp_path / "workspace"))

    def run(output: str) -> tuple[int, dict[str, np.ndarray]]:
        result = pipeline(photos, mine, tmp_path / output).run(InlineExecutor(), options)
        table = sidecar(tmp_path / output)
        vectors = map(np.array, table["embedding"].to_pylist())
        return result.decoded, dict(zip(table["original_key"].to_pylist(), vectors, strict=True))

    decoded, before = run("first")
    assert decoded > 0
    assert run("again")[0] == 0, "the workspace has the vectors"
    path = mine / NAME / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"visual_projection.weight": -tensors["visual_projection.weight"]}, path)
    decoded, after = run("changed")
    assert decoded > 0
    assert after.keys() == before.keys()
    for key, vector in after.items():
        np.testing.assert_allclose(vector, -before[key], atol=1e-6)


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_pickle_in_the_place_of_weights_stops_the_run_before_any_work_and_runs_nothing(
    models, photos, tmp_path
):
    mine = Path(shutil.copytree(models, tmp_path / "mine"))
    weights, sang = mine / NAME / "model.safetensors", tmp_path / "sang"
    bait = pickle.dumps(Canary(sang))
    weights.unlink()
    weights.with_name("pytorch_model.bin").write_bytes(bait)
    with pytest.raises(UsageError, match="pixsieve models convert"):
        pipeline(photos, mine, tmp_path / "out").run(InlineExecutor())
    weights.write_bytes(bait)  # under a name that promises better
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        pipeline(photos, mine, tmp_path / "out").run(InlineExecutor())
    assert not sang.exists()
    assert not list((tmp_path / "out").glob("images-*"))
    pickle.loads(bait)  # noqa: S301  # the bait is real
    assert sang.exists()


def test_an_image_of_any_shape_costs_no_other_its_scores(models, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, size in {"dot": (1, 1), "line": (30000, 2), "pole": (2, 9000)}.items():
        Image.new("RGB", size, (200, 30, 90)).save(folder / f"{name}.png")
    Image.new("CMYK", (40, 30)).save(folder / "cmyk.jpg")
    (folder / "broken.jpg").write_bytes((folder / "cmyk.jpg").read_bytes()[:200])
    made = Pipeline(name="odd")
    made.add_stage(ImageReaderStage(str(folder)))
    made.add_stage(ImageEmbeddingStage(model=NAME, model_dir=str(models), dtype="float16"))
    made.add_stage(ImageWriterStage(output_dir=str(tmp_path / "out")))
    result = made.run(InlineExecutor(), RunOptions(max_failed=0.5))
    assert result.counts.failed == 1
    table = sidecar(tmp_path / "out")
    assert table.num_rows == 4
    assert table["embedding"].null_count == 0
    stored = table.schema.field("embedding")
    assert stored.type.value_type == pa.float32()
    assert original(stored).type == pa.list_(pa.float16(), DIM)
    json.dumps(table["embedding"].to_pylist())  # numbers, all of them
