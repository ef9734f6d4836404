"""Captions become the tokens and vectors that their models' own classes make of them."""

import dataclasses
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


def test_an_end_token_that_is_not_the_largest_is_the_configurations(tmp_path):
    model, golden = Path(shutil.copytree(MODELS / "clip", tmp_path / "m")), GOLDEN["golden"]("clip")
    config = json.loads((model / "config.json").read_text())
    config["text_config"]["eos_token_id"] = int(golden["a"])
    (model / "config.json").write_text(json.dumps(config))
    expected = GOLDEN["unit"](golden["texts_to_a"])
    assert np.abs(expected - GOLDEN["unit"](golden["texts"])).max() > 0.1
    np.testing.assert_allclose(vectors(model, TEXTS), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_what_a_text_configuration_leaves_out_has_its_class_defaults(tmp_path, name):
    """The golden folder has them as that class wrote them; its generator gave none of these."""
    model = Path(shutil.copytree(MODELS / name, tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    for setting in ("hidden_act", "layer_norm_eps"):
        del config["text_config"][setting]
    (model / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(vectors(model, TEXTS), vectors(MODELS / name, TEXTS))


def siglip2_tokens(folder_of_model: Path, **settings: object) -> list[np.ndarray]:
    """Tokens of the golden texts by SigLIP 2's tokenizer, in a folder of our own."""
    model = Path(shutil.copytree(MODELS / "siglip", folder_of_model))
    for name in caption_model.FILES:
        shutil.copy(MODELS / "siglip2_tokenizer" / name, model)
    config = json.loads((model / "tokenizer_config.json").read_text()) | settings
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    place = folder.find(str(model))
    tower = architecture.text(place, image_model.read_tensors(place))
    return tokenizer.load(place, dataclasses.replace(tower, vocabulary=1000))(TEXTS)


def test_siglip_2_tokens_equal_those_of_its_own_tokenizer(tmp_path):
    expected = GOLDEN["golden"]("siglip2_tokenizer")["ids"]
    np.testing.assert_array_equal(siglip2_tokens(tmp_path / "m"), expected)


def test_siglip_2_texts_are_in_lower_case_even_if_its_file_does_not_say_so(tmp_path):
    def without_lower(normalizer: object) -> object:
        if isinstance(normalizer, dict) and normalizer["type"] == "Sequence":
            each = [without_lower(inner) for inner in normalizer["normalizers"]]
            return normalizer | {"normalizers": [inner for inner in each if inner]}
        lower = isinstance(normalizer, dict) and normalizer["type"] == "Lowercase"
        return None if lower else normalizer

    before = siglip2_tokens(tmp_path / "m")
    file = tmp_path / "m" / "tokenizer.json"
    told = json.loads(file.read_text())
    assert "Lowercase" in json.dumps(told["normalizer"])
    file.write_text(json.dumps(told | {"normalizer": without_lower(told["normalizer"])}))
    assert "Lowercase" not in file.read_text()
    place = folder.find(str(tmp_path / "m"))
    tower = architecture.text(place, image_model.read_tensors(place))
    found = tokenizer.load(place, dataclasses.replace(tower, vocabulary=1000))(TEXTS)
    np.testing.assert_array_equal(found, before)


def test_open_clip_reads_html_entities_and_clip_does_not():
    plain, escaped = ["dog & cat"], ["dog &amp;amp; cat"]
    (one,), (other,) = (tokens(MODELS / "open_clip", each) for each in (plain, escaped))
    np.testing.assert_array_equal(one, other)
    (one,), (other,) = (tokens(MODELS / "clip", each) for each in (plain, escaped))
    assert len(one) != len(other) or (one != other).any()


def test_a_folder_may_ask_to_fill_up_in_front_and_for_a_start_token(tmp_path):
    empty = TEXTS.index("")
    assert siglip2_tokens(tmp_path / "right")[empty].tolist() == [1] + [0] * 15
    left = siglip2_tokens(tmp_path / "left", padding_side="left")[empty]
    assert left.tolist() == [0] * 15 + [1]
    start = siglip2_tokens(tmp_path / "start", add_bos_token=True)[empty]
    assert start.tolist() == [2, 1] + [0] * 14


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
