"""A model's file in a package is used only if it is the one that was tested."""

import hashlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pixsieve.errors import MissingExtraError, UsageError
from pixsieve.models.packaged import LITE0, OPEN_NSFW, PackagedFile

DATA = b"some weights"


@pytest.fixture
def file(tmp_path: Path, monkeypatch) -> PackagedFile:
    package = tmp_path / "carrier_of_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')")
    (package / "models" / "x.onnx").write_bytes(DATA)
    monkeypatch.syspath_prepend(tmp_path)
    return PackagedFile(
        module="carrier_of_weights",
        package="carrier-of-weights",
        path="models/x.onnx",
        sha256=hashlib.sha256(DATA).hexdigest(),
    )


def test_the_file_is_found_without_importing_its_package(file):
    assert file.find().read_bytes() == DATA
    assert "carrier_of_weights" not in sys.modules


def test_another_file_is_refused_even_after_the_right_one_was_seen(file):
    path = file.find()
    path.write_bytes(DATA + b"?")
    with pytest.raises(UsageError, match=rf"should be {file.sha256}, and is \w{{64}}; install car"):
        file.find()
    path.unlink()
    with pytest.raises(UsageError, match="there is no such file"):
        file.find()


def test_without_the_package_the_message_says_how_to_get_it(file):
    absent = replace(file, module="package_that_is_not_there")
    with pytest.raises(MissingExtraError, match=r"needs carrier-of-w.*pip install 'pixsieve\[mod"):
        absent.find()


@pytest.mark.parametrize("file", [LITE0, OPEN_NSFW], ids=lambda file: file.package)
def test_the_files_of_the_extra_are_those_that_are_pinned(file):
    assert importlib.util.find_spec(file.module)
    assert file.find().stat().st_size > 10_000_000
