"""The benchmark's input: no two images are equal, all are the photographs, none is half made."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_PATH = Path(__file__).parents[1] / "benchmarks" / "corpus.py"
_SPEC = importlib.util.spec_from_file_location("bench_corpus", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
corpus = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = corpus  # a dataclass looks its module up
_SPEC.loader.exec_module(corpus)

COUNT = 230


def _jpeg(seed, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photos():
    plain = _jpeg(1)
    without_app0 = plain[:2] + plain[4 + int.from_bytes(plain[4:6], "big") :]
    return {"plain": plain, "bare": without_app0, "progressive": _jpeg(2, progressive=True)}


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    return root, corpus.make(root, photos, COUNT, loose=True)


def _members(*tars):
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                yield member.name, tar.extractfile(member).read()


def test_tars_hold_all_samples_a_hundred_each(made):
    _, found = made
    counts = [len(list(_members(path))) for path in sorted(found.tars.iterdir())]
    assert counts == [300, 300, 90]
    assert found.size == sum(path.stat().st_size for path in found.tars.iterdir())


def test_images_differ_in_bytes_and_have_the_photographs_pixels(photos, made):
    _, found = made
    images = [
        data for name, data in _members(*sorted(found.tars.iterdir())) if name.endswith(".jpg")
    ]
    assert len(set(images)) == COUNT
    originals = [np.asarray(Image.open(io.BytesIO(data))) for data in photos.values()]
    for number, data in enumerate(images):
        pixels = np.asarray(Image.open(io.BytesIO(data)))
        assert np.array_equal(pixels, originals[number % len(originals)])


def test_captions_and_json_belong_to_their_sample(made):
    _, found = made
    members = dict(_members(*sorted(found.tars.iterdir())))
    for name, data in members.items():
        key, _, extension = name.partition(".")
        if extension == "json":
            assert json.loads(data)["key"] == key
            assert json.loads(data)["caption"].encode() == members[f"{key}.txt"]


def test_loose_files_are_the_tars_members(made):
    _, found = made
    files = {path.name: path.read_bytes() for path in found.loose.rglob("*") if path.is_file()}
    assert files == dict(_members(*sorted(found.tars.iterdir())))


def test_what_is_there_is_kept_and_other_photographs_get_another_folder(photos, made):
    root, found = made
    before = {path: path.stat().st_mtime_ns for path in found.tars.iterdir()}
    assert corpus.make(root, photos, COUNT, loose=True) == found
    assert {path: path.stat().st_mtime_ns for path in found.tars.iterdir()} == before
    assert corpus.make(root, {"plain": photos["plain"]}, COUNT, loose=False).tars != found.tars


def test_an_unfinished_folder_is_made_anew(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_write_files", lambda *_: sys.exit("killed"))
    with pytest.raises(SystemExit):
        corpus.make(tmp_path, photos, 3, loose=True)
    monkeypatch.undo()
    found = corpus.make(tmp_path, photos, 3, loose=True)
    assert len(list(found.loose.rglob("*.jpg"))) == 3
    assert {path.name for path in found.tars.parent.iterdir()} == {"tars", "loose"}


def test_a_folder_without_photographs_is_named(tmp_path):
    with pytest.raises(SystemExit, match=str(tmp_path)):
        corpus.photographs(tmp_path)
