"""Models are found where they are said to be, known by one name everywhere, and never pickles."""

import json
import os
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from pixsieve.errors import UsageError
from pixsieve.models import folder

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))
CLIP = GOLDEN["MODELS"] / "clip"
NAME = "openai/clip-vit-large-patch14"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of models with one in it, as NeMo Curator lays it out."""
    shutil.copytree(CLIP, tmp_path / "models" / NAME)
    return tmp_path / "models"


def test_a_name_is_looked_up_below_model_dir_or_the_environments_folder(root, monkeypatch):
    assert folder.find(NAME, str(root)).path == root / NAME
    monkeypatch.setenv(folder.ENVIRONMENT, str(root))
    assert folder.find(NAME).path == root / NAME


def test_model_dir_wins_over_the_environment(root, tmp_path, monkeypatch):
    monkeypatch.setenv(folder.ENVIRONMENT, str(tmp_path / "elsewhere"))
    assert folder.find(NAME, str(root)).path == root / NAME


@pytest.mark.parametrize("model_dir", [None, "models"])
def test_a_folder_is_found_by_its_path_with_any_model_dir(root, tmp_path, model_dir):
    found = folder.find(str(root / NAME), model_dir and str(tmp_path / model_dir))
    assert found.path == root / NAME


def test_a_model_has_one_name_wherever_it_lies(root, tmp_path):
    cache = tmp_path / "hub" / "models--openai--clip-vit-large-patch14" / "snapshots" / "0f1e2d"
    shutil.copytree(CLIP, cache)
    shutil.copytree(CLIP, tmp_path / "mine")
    assert folder.find(NAME, str(root)).name == NAME
    assert folder.find(str(root / NAME)).name == NAME
    assert folder.find(str(cache)).name == NAME
    assert folder.find(str(tmp_path / "mine")).name == "mine"
    assert folder.portable_name(str(tmp_path / "mine")) == "mine"
    assert folder.portable_name(NAME) == NAME


def test_a_missing_model_says_where_it_was_looked_for_and_what_to_do(tmp_path):
    with pytest.raises(UsageError) as error:
        folder.find("openai/clip-vit-large-patch41", str(tmp_path))
    text = str(error.value)
    assert str(tmp_path / "openai/clip-vit-large-patch41") in text
    assert f"did you mean '{NAME}'" in text
    assert f"pixsieve models fetch openai/clip-vit-large-patch41 --model-dir {tmp_path}" in text


def test_a_known_model_that_is_nowhere_is_not_taken_for_a_slip_of_the_pen(monkeypatch):
    monkeypatch.delenv(folder.ENVIRONMENT, raising=False)
    with pytest.raises(UsageError) as error:
        folder.find("openai/clip-vit-base-patch32")
    text = str(error.value)
    assert "did you mean" not in text
    assert "pixsieve models fetch openai/clip-vit-base-patch32 --model-dir DIR" in text
    assert f"then give model_dir='DIR', or set {folder.ENVIRONMENT}" in text


def test_the_command_for_a_folder_with_a_space_is_one_that_a_shell_reads(tmp_path):
    with pytest.raises(UsageError) as error:
        folder.find(NAME, str(tmp_path / "my models"))
    command = str(error.value).rpartition("run: ")[2]
    assert shlex.split(command)[-2:] == ["--model-dir", str(tmp_path / "my models")]


@pytest.mark.parametrize("model", ["clip", "a/b/c"])
def test_what_no_hub_can_have_is_not_to_be_fetched(tmp_path, model):
    with pytest.raises(UsageError, match="Expected a folder, or a name on the hub, such as") as e:
        folder.find(model, str(tmp_path))
    assert "fetch" not in str(e.value)


def test_a_folder_that_is_not_there_is_named_and_not_to_be_fetched(root, tmp_path):
    for model, model_dir in (("absent", None), (str(root / NAME), "absent")):
        where = [str(tmp_path / each) if each == "absent" else each for each in (model, model_dir)]
        with pytest.raises(UsageError, match=r"absent: there is no such folder") as error:
            folder.find(*where)
        assert "fetch" not in str(error.value)


@pytest.mark.parametrize(
    ("pickle", "config", "weights"),
    [
        ("pytorch_model.bin", "config.json", "model.safetensors"),
        ("model.pth", "config.json", "model.safetensors"),
        ("weights.pt", "config.json", "model.safetensors"),
        ("x.ckpt", "config.json", "model.safetensors"),
        ("open_clip_pytorch_model.bin", "open_clip_config.json", "open_clip_model.safetensors"),
    ],
)
def test_a_pickle_in_the_place_of_weights_is_refused_with_the_way_out(
    tmp_path, pickle, config, weights
):
    (tmp_path / config).write_text("{}")
    for name in (pickle, "a_training_state.bin"):
        (tmp_path / name).write_bytes(b"\x80\x02.")
    if not pickle.endswith("_model.bin"):
        (tmp_path / "a_training_state.bin").unlink()
    way = f"is a pickle.* by: pixsieve models convert {tmp_path / pickle} {tmp_path / weights}$"
    with pytest.raises(UsageError, match=way):
        folder.find(str(tmp_path))


def test_weights_in_several_pickles_are_not_to_be_converted_one_by_one(root):
    for number in (1, 2):
        (root / NAME / f"pytorch_model-0000{number}-of-00002.bin").write_bytes(b"\x80\x02.")
    (root / NAME / "model.safetensors").unlink()
    with pytest.raises(
        UsageError, match=rf"several pickles.*pixsieve models fetch {NAME}"
    ) as error:
        folder.find(NAME, str(root))
    assert "convert" not in str(error.value)


def test_a_pickle_without_a_configuration_is_no_model_that_converting_would_make(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"\x80\x02.")
    with pytest.raises(UsageError, match=r"holds no model that can be read; expected config\.json"):
        folder.find(str(tmp_path))


def test_a_folder_without_weights_says_what_was_expected(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json with model\.safetensors"):
        folder.find(str(tmp_path))


def test_the_revision_is_read_from_our_record_or_the_hubs_client_or_its_cache(root):
    place = root / NAME
    assert folder.find(NAME, str(root)).revision is None
    noted = place / ".cache" / "huggingface" / "download" / "config.json.metadata"
    noted.parent.mkdir(parents=True)
    noted.write_text("abc123\netag\n1.0\n")
    assert folder.find(NAME, str(root)).revision == "abc123"
    (place / folder.RECORD).write_text(json.dumps({"revision": "def456"}))
    assert folder.find(NAME, str(root)).revision == "def456"
    snapshot = root / "models--a--b" / "snapshots" / "0f1e2d"
    shutil.copytree(CLIP, snapshot)
    assert folder.find(str(snapshot)).revision == "0f1e2d"


def test_the_digest_follows_every_file_that_decides_and_not_the_place(root, tmp_path):
    shutil.copytree(root / NAME, tmp_path / "copy")
    first = folder.find(NAME, str(root)).digest()
    assert folder.find(str(tmp_path / "copy")).digest() == first
    seen = {first}
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        file = root / NAME / name
        file.write_bytes(file.read_bytes() + b" ")
        seen.add(folder.find(NAME, str(root)).digest())
    assert len(seen) == 4
    (root / NAME / "README.md").write_text("changes nothing")
    assert folder.find(NAME, str(root)).digest() in seen


def test_a_file_of_the_same_size_and_another_time_is_hashed_again(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"one")
    before = folder.sha256(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert folder.sha256(file) != before


def test_an_index_names_several_weight_files_and_all_must_be_there(tmp_path):
    shutil.copy(CLIP / "config.json", tmp_path)
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    (tmp_path / parts["a"]).write_bytes(b"")
    with pytest.raises(UsageError, match="00002-of-00002"):
        folder.find(str(tmp_path))
    (tmp_path / parts["b"]).write_bytes(b"")
    assert [path.name for path in folder.find(str(tmp_path)).weights] == sorted(parts.values())


def test_an_index_cannot_point_out_of_its_folder(tmp_path):
    shutil.copy(CLIP / "config.json", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x"}}')
    with pytest.raises(UsageError, match="names no files beside it"):
        folder.find(str(tmp_path))


def test_a_damaged_configuration_is_named(tmp_path):
    shutil.copytree(CLIP, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json is not JSON"):
        folder.find(str(tmp_path / "m")).config()


def test_models_are_listed_one_or_two_levels_deep(root):
    shutil.copytree(CLIP, root / "mine")
    (root / "empty" / "too").mkdir(parents=True)
    assert folder.folders(root) == [root / "mine", root / NAME]
    assert folder.folders(root / "nowhere") == []
