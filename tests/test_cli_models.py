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
NAME = "openai/clip-vit-base-patch32"


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
    head = tmp_path / "ttj" / "sac-logos-ava1-l14-linearMSE"
    head.mkdir(parents=True)
    save_file({"layers.0.weight": np.zeros((2, 3), np.float32)}, head / "model.safetensors")
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
    assert found["ttj/sac-logos-ava1-l14-linearMSE"]["kind"] == "head"
    assert "openai/clip-vit-large-patch14" in missing
    assert NAME not in missing
    assert "ttj/sac-logos-ava1-l14-linearMSE" not in missing


def test_check_says_the_same_in_words(root):
    result = run("check", PIXSIEVE_MODELS=str(root))
    assert f"  {NAME}: ok (image and text model, 24 numbers)" in result.stdout
    assert "known, but not here: " in result.stdout


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
    assert check(tmp_path / "nowhere", "--no-run")[0] == 0


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
