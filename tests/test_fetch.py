"""Fetching writes the layout that is read, checks what came, and leaves no half of a file."""

import hashlib
import http.server
import json
import runpy
import threading
from pathlib import Path

import numpy as np
import pytest

from pixsieve.errors import StorageError, UsageError
from pixsieve.models import folder, image_model
from pixsieve.models.fetch import fetch

GOLDEN = runpy.run_path(str(Path(__file__).parent / "golden" / "inputs.py"))
CLIP = GOLDEN["MODELS"] / "clip"
COMMIT = "0123456789abcdef"


class Hub:
    """A hub on this machine: ``files`` are what it has, ``asked`` what it was asked for."""

    def __init__(self) -> None:
        self.files = {path.name: path.read_bytes() for path in CLIP.iterdir()}
        self.promised = {
            name: hashlib.sha256(data).hexdigest()
            for name, data in self.files.items()
            if name.endswith(".safetensors")
        }
        self.asked: list[str] = []
        self.moved: dict[str, str] = {}
        self.shown: dict[str, bytes] = {}
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                if self.path in hub.moved:
                    self.send_response(302)
                    self.send_header("Location", hub.moved[self.path])
                    self.end_headers()
                    return
                data = hub.answer(self.path)
                self.send_response(200 if data is not None else 404)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str) -> bytes | None:
        if path.startswith("/api/models/openai/tiny/revision/"):
            siblings = [
                {"rfilename": name, "size": len(data)}
                | ({"lfs": {"sha256": self.promised[name]}} if name in self.promised else {})
                for name, data in self.files.items()
            ]
            return json.dumps({"sha": COMMIT, "siblings": siblings}).encode()
        name = path.removeprefix(f"/openai/tiny/resolve/{COMMIT}/")
        return self.shown.get(name, self.files.get(name))


@pytest.fixture
def hub():
    made = Hub()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_what_was_fetched_is_found_with_its_revision_and_runs(hub, tmp_path):
    found = fetch("openai/tiny", tmp_path, hub=hub.address)
    assert found.revision == COMMIT
    place = folder.find("openai/tiny", str(tmp_path))
    assert place.revision == COMMIT
    model = image_model.find("openai/tiny", str(tmp_path))
    images = GOLDEN["golden_images"]()[:1]
    assert np.isfinite(image_model.load(model, image_model.Runtime())(images)).all()
    noted = json.loads((tmp_path / "openai/tiny" / folder.RECORD).read_text())
    weights = tmp_path / "openai/tiny/model.safetensors"
    assert noted["files"]["model.safetensors"] == folder.sha256(weights)
    assert noted["name"] == "openai/tiny"


def test_only_json_and_safetensors_of_the_top_are_taken(hub, tmp_path):
    hub.files |= dict.fromkeys(
        ["pytorch_model.bin", "a.py", "x/config.json", "../e.json", ".h.json", "flax.msgpack",
         "pytorch_model.bin.index.json", "adapter.safetensors", "open_clip_model.safetensors"],
        b"{}",
    )  # fmt: skip
    fetch("openai/tiny", tmp_path, hub=hub.address)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    expected = {f"openai/tiny/{path.name}" for path in CLIP.iterdir()}
    assert found == expected | {f"openai/tiny/{folder.RECORD}"}


def test_every_file_is_of_the_one_commit(hub, tmp_path):
    fetch("openai/tiny", tmp_path, hub=hub.address, revision="v1/x")
    listing, *files = hub.asked
    assert "/revision/v1%2Fx?" in listing
    assert files
    assert all(f"/resolve/{COMMIT}/" in path for path in files)


def test_what_is_there_and_right_is_not_fetched_again(hub, tmp_path):
    fetch("openai/tiny", tmp_path, hub=hub.address)
    hub.asked.clear()
    weights = tmp_path / "openai/tiny/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    fetch("openai/tiny", tmp_path, hub=hub.address)
    assert [path.rpartition("/")[2] for path in hub.asked[1:]] == ["model.safetensors"]
    assert weights.read_bytes() == hub.files["model.safetensors"]


def test_a_file_that_is_not_as_promised_is_refused_and_leaves_nothing(hub, tmp_path):
    hub.shown["model.safetensors"] = hub.files["model.safetensors"][:-1] + b"?"
    with pytest.raises(StorageError, match="the hub promised"):
        fetch("openai/tiny", tmp_path, hub=hub.address)
    left = [path.name for path in (tmp_path / "openai/tiny").iterdir()]
    assert "model.safetensors" not in left
    assert folder.RECORD not in left
    assert not [name for name in left if name.endswith(".tmp")]


def test_a_redirection_to_another_scheme_is_not_followed(hub, tmp_path):
    hub.moved[f"/openai/tiny/resolve/{COMMIT}/config.json"] = "ftp://127.0.0.1/config.json"
    with pytest.raises(StorageError, match="another scheme"):
        fetch("openai/tiny", tmp_path, hub=hub.address)


def test_a_redirection_within_the_scheme_is_followed(hub, tmp_path):
    hub.files["moved"] = hub.files["config.json"]
    place = f"/openai/tiny/resolve/{COMMIT}/"
    hub.moved[f"{place}config.json"] = f"{hub.address}{place}moved"
    fetch("openai/tiny", tmp_path, hub=hub.address)
    assert (tmp_path / "openai/tiny/config.json").read_bytes() == hub.files["config.json"]


def test_a_model_of_pickles_only_is_refused_with_the_way_out(hub, tmp_path):
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b""}
    with pytest.raises(UsageError, match="takes no pickles"):
        fetch("openai/tiny", tmp_path, hub=hub.address)


@pytest.mark.parametrize("name", ["clip", "../x/y", "a/b/c", "a/..", "https://x/y", "a/b?c"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_asked(hub, tmp_path, name):
    with pytest.raises(UsageError, match="no name of a model"):
        fetch(name, tmp_path, hub=hub.address)
    assert hub.asked == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", folder.ELSEWHERE)
def test_a_head_that_is_published_elsewhere_is_told_with_its_way(hub, tmp_path, name):
    with pytest.raises(UsageError, match=r"is not on the hub. Get .*pixsieve models convert FILE "):
        fetch(name, tmp_path, hub=hub.address)
    assert hub.asked == []


def test_a_hub_that_does_not_answer_is_an_error_of_storage(hub, tmp_path):
    with pytest.raises(StorageError, match="cannot be read"):
        fetch("openai/other", tmp_path, hub=hub.address)
