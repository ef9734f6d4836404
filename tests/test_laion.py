"""LAION's heads give what they gave their authors."""

import json
import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pixsieve.errors import UsageError
from pixsieve.models import laion, weights

FOLDER = Path(__file__).parent / "golden"
MADE = runpy.run_path(str(FOLDER / "laion_heads.py"))
GOLDEN = json.loads((FOLDER / "laion.json").read_text())
HEADS = {**laion.AESTHETIC, "nsfw": laion.NSFW}
DIMS = {name: widths[0] for name, widths in MADE["WIDTHS"].items()}

REAL = os.environ.get("PIXSIEVE_HEADS")
"""A folder with the files that LAION published, and embeddings beside them."""
PUBLISHED = {
    # head: its file, the folder of embeddings, and the scores of rating0.npy to rating9.npy
    "v2": ("sac+logos+ava1-l14-linearMSE.pth", "vit_l_14_embeddings", 2e-4,
           [1.6555, 2.3593, 3.0698, 3.6725, 4.2380, 4.7010, 5.0731, 5.3654, 5.5767, 5.7468]),
    "v1": ("sa_0_4_vit_l_14_linear.pth", "vit_l_14_embeddings", 6e-4,
           [-2.458, -0.138, 1.895, 3.585, 5.100, 6.470, 7.787, 9.048, 10.226, 11.304]),
    "v1-b32": ("sa_0_4_vit_b_32_linear.pth", "vit_b_32_embeddings", 6e-4,
               [-1.470, 0.273, 1.990, 3.611, 5.087, 6.393, 7.668, 8.915, 9.917, 11.006]),
    "nsfw": ("clip_autokeras_binary_nsfw.zip", "vit_l_14_embeddings", 6e-6,
             [7.0e-5, 1.2e-4, 1.7e-4, 1.4e-4, 1.8e-4, 2.9e-4, 3.3e-4, 2.3e-4, 1.3e-4, 1.4e-4]),
}  # fmt: skip


def place(root: Path, name: str) -> Path:
    path = root / HEADS[name].name / "model.safetensors"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of models with all heads, of seed-made weights."""
    for name in HEADS:
        save_file(MADE["head"](name), place(tmp_path, name))
    return tmp_path


def load(models: Path, name: str):
    return HEADS[name].load(HEADS[name].find(str(models)))


@pytest.mark.parametrize("name", HEADS)
def test_scores_equal_those_of_the_published_layers_in_pytorch(models, name):
    found = load(models, name)(MADE["embeddings"](DIMS[name]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, GOLDEN[name], rtol=2e-6, atol=2e-6)


@pytest.mark.skipif(REAL is None, reason="PIXSIEVE_HEADS names no folder of published heads")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_heads_give_their_known_scores(tmp_path, name):
    file, rows, tolerance, expected = PUBLISHED[name]
    place(tmp_path, name).write_bytes(weights.convert(Path(REAL) / file))
    embeddings = np.stack([np.load(Path(REAL) / rows / f"rating{n}.npy") for n in range(10)])
    embeddings = embeddings.reshape(10, HEADS[name].dim).astype(np.float32)
    np.testing.assert_allclose(load(tmp_path, name)(embeddings), expected, rtol=0, atol=tolerance)


@pytest.mark.skipif(REAL is None, reason="PIXSIEVE_HEADS names no folder of published heads")
def test_the_published_head_for_b16_has_its_shapes(tmp_path):
    path = place(tmp_path, "v1-b16")
    path.write_bytes(weights.convert(Path(REAL) / "sa_0_4_vit_b_16_linear.pth"))
    assert np.isfinite(load(tmp_path, "v1-b16")(MADE["embeddings"](512))).all()


@pytest.mark.parametrize("name", HEADS)
def test_a_row_has_the_same_score_in_any_company(models, name):
    score, rows = load(models, name), MADE["embeddings"](DIMS[name])
    together = score(rows)
    np.testing.assert_array_equal(score(rows[::-1])[::-1], together)
    for row, expected in zip(rows, together, strict=True):
        assert score(row[None])[0] == expected
    assert score(rows[:0]).shape == (0,)


@pytest.mark.parametrize("name", HEADS)
def test_a_row_that_is_no_embedding_has_no_score_and_spoils_no_other(models, name):
    score, rows = load(models, name), MADE["embeddings"](DIMS[name])
    expected = score(rows)
    rows[3] = np.nan
    found = score(rows)
    assert np.isnan(found[3])
    np.testing.assert_array_equal(np.delete(found, 3), np.delete(expected, 3))


def test_the_detector_is_sure_without_overflow(models):
    path = laion.NSFW.find(str(models))
    tensors = MADE["head"]("nsfw")
    for bias, expected in ((1e6, 1), (-1e6, 0)):
        save_file(tensors | {"linear_4.bias": np.array([bias], np.float32)}, path)
        np.testing.assert_array_equal(laion.NSFW.load(path)(MADE["embeddings"](768)), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.7.bias": None}, r"tensor 'layers\.7\.bias' is missing, expected \(1,\)"),
        ({"layers.0.weight": np.zeros((1024, 512))}, r"\(1024, 512\), expected \(1024, 768\)"),
        ({"layers.9.bias": np.zeros(1)}, r"tensor 'layers\.9\.bias' is \(1,\), expected none"),
    ],
)
def test_another_head_is_refused(models, change, message):
    path = laion.AESTHETIC["v2"].find(str(models))
    tensors = {name: each for name, each in MADE["head"]("v2").items() if name not in change}
    tensors |= {name: each.astype(np.float32) for name, each in change.items() if each is not None}
    save_file(tensors, path)
    with pytest.raises(UsageError, match=rf"is not ttj/sac-logos-ava1-l14-linearMSE: .*{message}"):
        laion.AESTHETIC["v2"].load(path)


def test_a_head_that_is_not_there_is_told_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("PIXSIEVE_MODELS", raising=False)
    command = r"pixsieve models fetch ttj/sac-logos-ava1-l14-linearMSE --model-dir"
    with pytest.raises(UsageError, match=rf"no model_dir is given.*{command} DIR"):
        laion.AESTHETIC["v2"].find(None)
    with pytest.raises(UsageError, match=rf"has no model\.safetensors.*{command} {tmp_path}"):
        laion.AESTHETIC["v2"].find(str(tmp_path))


@pytest.mark.parametrize("name", ["nsfw", "v1", "v1-b32", "v1-b16"])
def test_a_head_that_is_not_on_the_hub_is_not_to_be_fetched_from_there(tmp_path, name):
    target = tmp_path / HEADS[name].name / "model.safetensors"
    with pytest.raises(UsageError, match=rf"Get .*: pixsieve models convert FILE {target}$") as e:
        HEADS[name].find(str(tmp_path))
    assert "fetch" not in str(e.value)


def test_heads_are_found_by_the_variable_too(models, monkeypatch):
    monkeypatch.setenv("PIXSIEVE_MODELS", str(models))
    assert laion.NSFW.find(None) == models / laion.NSFW.name / "model.safetensors"


@pytest.mark.parametrize("file", ["clip_autokeras_binary_nsfw.pth", "clip_autokeras.zip"])
def test_a_pickle_in_the_heads_folder_is_refused_with_the_way_out(tmp_path, file):
    path = place(tmp_path, "nsfw")
    (path.parent / file).write_bytes(b"\x80\x02.")
    with pytest.raises(
        UsageError, match=rf"is a pickle.*models convert {path.parent / file} {path}"
    ):
        laion.NSFW.find(str(tmp_path))
