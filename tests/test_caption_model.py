"""Captions become the tokens and vectors that their models' own classes make of them."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from pixsieve.errors import UsageError
from pixsieve.models import architecture, caption_model, folder, image_model, tokenizer

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))
MODELS, TEXTS = GOLDEN["MODELS"], GOLDEN["TEXTS"]


def tokens(path: Path, texts: list[str]) -> list[np.ndarray]:
    place = folder.find(str(path))
    tower = architecture.text(place, image_model.read_tensors(place))
    return tokenizer.load(place, tower)(texts)


def vectors(path: Path, texts: list[str], batch: int = 32) -> np.ndarray:
    return caption_model.load(folder.find(str(path)), image_model.Runtime(batch=batch))(texts)


@pytest.mark.parametrize("name", GOLDEN["TEXT_MODELS"])
def test_tokens_equal_those_of_the_models_own_tokenizer(name):
    for found, expected in zip(
        tokens(MODELS / name, TEXTS), GOLDEN["golden"](name)["ids"], strict=True
    ):
        np.testing.assert_array_equal(found, expected[: len(found)])
        assert len(set(expected[len(found) :])) <= 1, "only filling is left out"


@pytest.mark.parametrize(("name", "context"), [("clip", 24), ("siglip", 16)])
def test_a_text_that_is_too_long_is_cut_and_keeps_its_end_token(name, context):
    short, long = tokens(MODELS / name, ["a", "a photo " * 500])
    assert len(long) == context
    assert long[-1] == (short[-1] if name == "clip" else 1)
    assert long[-2] != long[-1]


def test_siglip_texts_are_canonical():
    one, other = tokens(MODELS / "siglip", ["A  Photo, of a\n dog!", "a photo of a dog"])
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", GOLDEN["TEXT_MODELS"])
def test_vectors_equal_those_of_the_models_own_classes(name):
    expected = GOLDEN["unit"](GOLDEN["golden"](name)["texts"])
    np.testing.assert_allclose(vectors(MODELS / name, TEXTS), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", GOLDEN["TEXT_MODELS"])
def test_a_caption_has_the_same_vector_in_any_company(name):
    together = vectors(MODELS / name, TEXTS)
    for batch in (1, 3):
        np.testing.assert_array_equal(vectors(MODELS / name, TEXTS, batch), together)
    alone = np.concatenate([vectors(MODELS / name, [text]) for text in TEXTS])
    np.testing.assert_array_equal(alone, together)


def test_an_old_configuration_that_names_the_wrong_end_token_takes_the_largest(tmp_path):
    model = Path(shutil.copytree(MODELS / "clip", tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (model / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(vectors(model, TEXTS), vectors(MODELS / "clip", TEXTS))


def test_siglip_2_texts_are_lower_case_and_end_and_fill_with_gemmas_tokens(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415  # only here

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "a", "cat", ","]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106  # a token
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    model = Path(shutil.copytree(MODELS / "siglip", tmp_path / "m"))
    made.save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").unlink()
    (found,) = tokens(model, ["A cat, DOG"])
    assert found.tolist() == [4, 5, 6, 3, 1] + [0] * 11


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(tmp_path):
    model = Path(shutil.copytree(MODELS / "siglip", tmp_path / "m"))
    shutil.copy(MODELS / "clip" / "tokenizer.json", model)
    with pytest.raises(UsageError, match="they do not fit"):
        tokens(model, ["a"])


def test_a_folder_without_tokenizer_or_text_tower_is_refused_before_any_work(tmp_path):
    model = Path(shutil.copytree(MODELS / "clip", tmp_path / "m"))
    (model / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"has no tokenizer\.json"):
        caption_model.check(folder.find(str(model)))
    with pytest.raises(UsageError, match=r"dinov2 \(dinov2\) has no text tower"):
        caption_model.check(folder.find(str(MODELS / "dinov2")))
