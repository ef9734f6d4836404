"""``pixsieve models`` tells what is there and whether it works, and converts pickles unrun."""

import json
import os
import pickle
import runpy
import shlex
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from pixsieve.cli_models import models
from pixsieve.errors import PixsieveError, UsageError
from pixsieve.models import weights

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))
HEADS = runpy.run_path(str(Path(__file__).parent / "golden" / "laion_heads.py"))
NAME = "openai/clip-vit-base-patch32"
V2, NSFW = "ttj/sac-logos-ava1-l14-linearMSE", "laion/clip-autokeras-binary-nsfw"


def run(*arguments: object, **environment: str):
    text = [str(each) for each in arguments]
    return CliRunner().invoke(
        models, text, env={"PIXSIEVE_MODELS": None} | environment, standalone_mode=False
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image model, an image and text model, and a head."""
    shutil.copytree(GOLDEN["MODELS"] / "clip", tmp_path / NAME)
    shutil.copytree(GOLDEN["MODELS"] / "dinov2", tmp_path / "facebook" / "dinov2-small")
    head = tmp_path / V2
    head.mkdir(parents=True)
    save_file(HEADS["head"]("v2"), head / "model.safetensors")
    (head / "config.json").write_text("{}")
    return tmp_path


def check(root: Path, *arguments: str) -> tuple[int, dict[str, dict[str, object]], list[str]]:
    result = run("check", "--model-dir", root, "--json", *arguments)
    assert result.exception is None, result.exception
    told = json.loads(result.stdout)
    return result.return_value, {each["name"]: each for each in told["models"]}, told["missing"]


def test_check_tells_kind_length_revision_and_digests(root):
    (root / NAME / "pixsieve.json").write_text('{"revision": "abc"}')
    code, found, missing = check(root)
    assert code == 0
    clip = found[NAME]
    assert (clip["kind"], clip["dim"], clip["revision"]) == ("image and text model", 24, "abc")
    assert len(clip["files"]["model.safetensors"]) == 64
    assert found["facebook/dinov2-small"]["kind"] == "image model"
    assert found["facebook/dinov2-small"]["dim"] == 24
    assert (found[V2]["kind"], found[V2]["dim"], found[V2]["problem"]) == ("head", 768, None)
    assert len(found[V2]["files"]["model.safetensors"]) == 64
    v1 = [
        f"laion/aesthetic-predictor/sa_0_4_vit_{each}_linear" for each in ("b_16", "b_32", "l_14")
    ]
    assert {"openai/clip-vit-large-patch14", NSFW, *v1} <= set(missing)
    assert not {NAME, V2} & set(missing)


def test_check_says_the_same_in_words(root):
    result = run("check", PIXSIEVE_MODELS=str(root))
    assert f"  {NAME}: ok (image and text model, 24 numbers)" in result.stdout
    assert f"  {V2}: ok (head, 768 numbers)" in result.stdout
    assert "known, but not here (pixsieve models fetch NAME): " in result.stdout


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda model: (model / "preprocessor_config.json").unlink(), "preprocessor_config.json"),
        (lambda model: (model / "tokenizer.json").write_text("{}"), "tokenizer.json"),
        (lambda model: os.truncate(model / "model.safetensors", 5000), "model.safetensors"),
        (
            lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin"),
            "pixsieve models convert",
        ),
    ],
    ids=["processor", "tokenizer", "truncated", "pickle"],
)
def test_check_names_what_is_wrong_with_a_model_and_looks_at_the_others(root, damage, problem):
    damage(root / NAME)
    code, found, _ = check(root)
    assert code == UsageError.exit_code
    assert problem in found[NAME]["problem"]
    assert found["facebook/dinov2-small"]["problem"] is None


@pytest.mark.parametrize("name", ["v1", "v1-b32", "nsfw"])
def test_check_tells_a_head_that_is_another(root, name):
    save_file(HEADS["head"](name), root / V2 / "model.safetensors")
    code, found, _ = check(root, "--no-run")
    assert code == UsageError.exit_code
    assert f"is not {V2}: its tensor" in found[V2]["problem"]


def test_check_runs_a_head_on_a_vector_unless_told_not_to(root):
    broken = HEADS["head"]("v2") | {"layers.7.bias": np.array([np.nan], np.float32)}
    save_file(broken, root / V2 / "model.safetensors")
    assert check(root, "--no-run")[1][V2]["problem"] is None
    assert "not finite" in check(root)[1][V2]["problem"]


def test_a_head_that_is_still_a_pickle_is_found_with_the_way_out(root):
    (root / NSFW).mkdir(parents=True)
    (root / NSFW / "clip_autokeras_binary_nsfw.pth").write_bytes(b"\x80\x02.")
    _, found, missing = check(root, "--no-run")
    assert "pixsieve models convert" in found[NSFW]["problem"]
    assert found[NSFW]["kind"] == "head"
    assert NSFW not in missing


def test_a_model_that_is_still_a_pickle_is_no_head(root):
    (root / NAME / "model.safetensors").rename(root / NAME / "pytorch_model.bin")
    found = check(root, "--no-run")[1][NAME]
    assert found["kind"] == "model"
    assert "pixsieve models convert" in found["problem"]


def test_weights_of_nothing_that_is_known_are_told_as_such(root):
    (root / "mine").mkdir()
    save_file(HEADS["head"]("v2"), root / "mine" / "model.safetensors")
    assert "holds no model that can be read" in check(root, "--no-run")[1]["mine"]["problem"]


def test_a_damaged_record_costs_only_its_own_model(root):
    (root / V2 / "pixsieve.json").write_text("{")
    found = check(root, "--no-run")[1]
    assert "pixsieve.json is not JSON" in found[V2]["problem"]
    assert found[NAME]["problem"] is None


def test_a_model_without_its_tokenizer_still_serves_for_images(root):
    (root / NAME / "tokenizer.json").unlink()
    code, found, _ = check(root)
    assert code == 0
    assert found[NAME]["kind"] == "image model; captions would need tokenizer.json"


def test_check_runs_a_model_unless_told_not_to(root):
    path = root / NAME / "model.safetensors"
    tensors = load_file(path)
    broken = np.full_like(tensors["visual_projection.weight"], np.nan)
    save_file(tensors | {"visual_projection.weight": broken}, path)
    assert check(root, "--no-run")[1][NAME]["problem"] is None
    assert "not finite" in check(root)[1][NAME]["problem"]


def test_check_of_no_folder_tells_of_the_default_model_only(tmp_path):
    result = run("check", "--json", "--no-run")
    assert len(json.loads(result.stdout)["models"]) == 1
    with pytest.raises(UsageError, match="nowhere: there is no such folder"):
        raise run("check", "--model-dir", tmp_path / "nowhere").exception


def test_fetch_asks_where_to():
    with pytest.raises(UsageError, match="--model-dir"):
        raise run("fetch", NAME).exception


@pytest.mark.parametrize("arguments", [("absent.pth", "out.safetensors"), ("in.pth", "there")])
def test_convert_needs_a_file_and_does_not_overwrite(tmp_path, arguments):
    (tmp_path / "in.pth").write_bytes(b"")
    (tmp_path / "there").write_bytes(b"kept")
    with pytest.raises(UsageError):
        raise run("convert", *(tmp_path / each for each in arguments)).exception
    assert (tmp_path / "there").read_bytes() == b"kept"


class Canary:
    """Runs code when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return (os.mkdir, (str(self.file),))


def test_convert_runs_nothing_of_a_pickle(tmp_path):
    bait = tmp_path / "bait.pth"
    bait.write_bytes(pickle.dumps(OrderedDict(weight=Canary(tmp_path / "sang")), protocol=2))
    result = run("convert", bait, tmp_path / "out.safetensors")
    assert isinstance(result.exception, PixsieveError)
    assert not (tmp_path / "sang").exists()
    assert not (tmp_path / "out.safetensors").exists()
    pickle.loads(bait.read_bytes())  # noqa: S301  # the bait is real: it would have sung
    assert (tmp_path / "sang").exists()


def test_the_command_that_a_pickle_under_the_name_of_safetensors_is_answered_with_works(tmp_path):
    path = tmp_path / "my models" / "model.safetensors"
    path.parent.mkdir()
    shutil.copy(Path(__file__).parent / "golden" / "torch" / "zip.pth", path)
    with pytest.raises(UsageError, match="is a pickle") as error:
        weights.tensors(path)
    _, _, command = str(error.value).rpartition(" by: pixsieve models ")
    result = run(*shlex.split(command))
    assert result.exception is None, result.exception
    assert weights.tensors(path)


def test_convert_does_not_write_into_a_folder(tmp_path):
    file = Path(__file__).parent / "golden" / "torch" / "zip.pth"
    with pytest.raises(UsageError, match="is a folder; expected a file, such as"):
        raise run("convert", file, tmp_path, "--overwrite").exception
