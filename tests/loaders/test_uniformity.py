"""What is told of loaders is what they do: with each fault, and with members made uniform."""

from __future__ import annotations

import json
import math

import pytest

from pixsieve.testing.uneven import FAULTS, even_files, uneven_files
from tests.loaders.conftest import export
from tests.loaders.whole import IMAGES, LOADERS, read

pytestmark = [pytest.mark.loaders, pytest.mark.timeout(600)]

FAILS, LOSES, READS = "fails", "loses something", "reads all"
MEET = {
    "text that some lack": {"hf_bare": LOSES, "daft": FAILS, "energon": LOSES},
    "json that some lack": {"hf_bare": LOSES, "daft": FAILS},
    "a member that one has": {"hf_bare": LOSES, "daft": FAILS},
    "text that is not UTF-8": {
        "webdataset": FAILS, "wids": FAILS, "hf": FAILS, "ray": FAILS, "daft": FAILS,
        "energon": LOSES,
    },
    "json that is none": {
        "webdataset": FAILS, "wids": FAILS, "hf": FAILS, "ray": FAILS, "daft": FAILS,
    },
    "numbers, whole at first": {"hf_bare": LOSES, "daft": FAILS},
    "a number that becomes text": {"hf_bare": FAILS, "hf": LOSES, "daft": FAILS},
    "documents that are no objects": {
        "hf_bare": FAILS, "hf": LOSES, "daft": FAILS, "ray": LOSES,
    },
    "null at first": {"hf_bare": FAILS, "daft": FAILS},
    "null later": {},
    "a list, empty at first": {"hf_bare": FAILS, "daft": FAILS},
    "a key that comes": {"hf_bare": LOSES, "daft": FAILS},
    "a key that goes": {},
    "images of two formats": {"hf_bare": LOSES, "daft": FAILS, "ray": FAILS},
    "WebP": {"wids": LOSES, "ray": LOSES},
    "one grey image": {"ray": FAILS},
}  # fmt: skip
"""What loaders do with a fault where it is not nothing; Hugging Face with the card, too."""
ALSO = {"hf", "hf_bare", "ray", "daft"}
"""Those that are tried with each fault."""


def write(folder, files, **writer):
    source = folder / "in"
    source.mkdir(parents=True)
    for name, data in files.items():
        (source / name).write_bytes(data)
    return export(source, folder / "out", **({"per_tar": 100} | writer))


def outcome(loader, folder, files):
    samples, error = read(loader, folder)
    if error:
        return FAILS
    expected = {}
    for name, data in files.items():
        key, _, extension = name.partition(".")
        expected.setdefault(key, {})[extension] = data
    found = {name.partition("-")[0]: members for name, members in samples}
    same = found.keys() == expected.keys() and len(samples) == len(found)
    same = same and all(is_whole(loader, found[key], expected[key]) for key in expected)
    return READS if same else LOSES


def is_whole(loader, members, expected):
    """Tell whether a sample has the members that it should."""
    image = next(name for name in IMAGES if name in expected)
    decoded = members.get("image") or members.get(image)
    if not isinstance(decoded, list) and decoded != "ImageFile":  # that of Daft is decoded later
        return False
    for name in ("txt", "bin"):
        there = members.get(name) not in (None, "") and not is_nan(members[name])
        may_miss = name == "bin" and loader in ("energon", "dali")
        if there != (name in expected) and not may_miss:
            return False
    if "txt" in expected and members["txt"] != expected["txt"].decode():
        return False
    if "json" not in expected or loader in ("energon", "dali"):
        return True
    return same_json(members.get("json"), json.loads(expected["json"]))


def same_json(found, expected):
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = found.keys() | expected.keys()
        return all(same_json(found.get(key), expected.get(key)) for key in keys)
    return found == expected


def is_nan(value):
    return isinstance(value, float) and math.isnan(value)


@pytest.mark.parametrize(
    ("fault", "loader"),
    [(name, each) for name, found in MEET.items() for each in sorted(found.keys() | ALSO)],
)
def test_loaders_do_with_a_fault_what_is_told(tmp_path, fault, loader):
    kept = fault in ("images of two formats", "WebP")
    files = FAULTS[fault](even_files())
    folder = write(tmp_path, files, **({"image_format": "keep"} if kept else {}))
    told = MEET[fault].get(loader)
    if told is None and loader == "hf_bare":  # what the card does not help with, it does alone
        told = MEET[fault].get("hf")
    assert outcome(loader, folder, files) == (told or READS)


@pytest.fixture(scope="module", params=["as_found", "uniform"])
def ordinary(request, tmp_path_factory):
    files = even_files()
    return write(tmp_path_factory.mktemp("even"), files, per_tar=6, members=request.param), files


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_reads_all_of_ordinary_samples(ordinary, loader):
    folder, files = ordinary
    assert outcome(loader, folder, files) == READS


@pytest.fixture(scope="module", params=[False, True])
def uneven(request, tmp_path_factory):
    files = uneven_files(some_without_json=request.param)
    return write(tmp_path_factory.mktemp("uneven"), files, per_tar=9, members="uniform"), files


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_reads_what_was_made_uniform(uneven, loader):
    folder, files = uneven
    samples, error = read(loader, folder)
    assert error is None
    assert [name.partition("-")[0] for name, _ in samples] == [f"{n:03d}" for n in range(24)]
    without_text = {"001", "002", "013", "014", "020"}
    documents = []
    for name, members in samples:
        key = name.partition("-")[0]
        text = "" if key in without_text else files[f"{key}.txt"].decode()
        assert (members.get("txt") or "") == text
        if loader not in ("energon", "dali"):
            documents.append(members["json"])
            score = json.loads(files["000.json"])["score"]
            assert key != "000" or members["json"].get("score", score) == score
    assert len({json.dumps(types(document)) for document in documents}) <= 1


def types(value):
    if isinstance(value, dict):
        return {key: types(value[key]) for key in sorted(value)}
    return [types(value[0])] if isinstance(value, list) else type(value).__name__
