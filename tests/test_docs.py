"""Every code block of the README and the docs runs, as a reader would run it."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pixsieve import image
from pixsieve.engine.inline import InlineExecutor
from pixsieve.pipeline import Pipeline
from pixsieve.stages import ImageReaderStage, ImageWriterStage
from pixsieve.testing import images

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"python", "sh", "yaml", "json"}
ELSEWHERE = {("loaders.md", "python"), ("other-formats.md", "python")}
"""What needs libraries that are not here; ``tests/loaders/test_docs.py`` runs it, and
``tests/test_format_docs.py``."""
PYTHON = f"{shlex.quote(sys.executable)} -m pixsieve"


def blocks():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            if (page.name, found["kind"]) in ELSEWHERE:
                continue
            line = text.count("\n", 0, found.start()) + 1
            yield pytest.param(found["kind"], found["text"], id=f"{page.name}:{line}")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """What readers have at hand: photographs, tars of them, a dataset, and models."""
    folder = tmp_path_factory.mktemp("docs")
    photos = folder / "photos"
    photos.mkdir()
    for number in range(20):
        data = images.photo(number, 320 if number % 4 else 120, 280)
        (photos / f"cat_{number:04d}.jpg").write_bytes(data)
        (photos / f"cat_{number:04d}.txt").write_text(f"cat number {number}")
        (photos / f"cat_{number:04d}.json").write_text(json.dumps({"license": "cc0"}))
    (folder / "in").mkdir()
    for shard in range(2):
        with tarfile.open(folder / "in" / f"{shard:05d}.tar", "w") as tar:
            for path in sorted(photos.iterdir())[shard * 30 : shard * 30 + 30]:
                tar.add(path, path.name)
    pipeline = Pipeline(name="docs").add_stage(ImageReaderStage(str(photos)))
    pipeline.add_stage(ImageWriterStage(output_dir=str(folder / "dataset"), images_per_tar=8))
    pipeline.run(InlineExecutor())
    runpy.run_path(str(ROOT / "tests/golden/curator_models.py"))["make"](folder / "models")
    return folder


@pytest.fixture
def desk(made, tmp_path):
    """A folder of the reader's own with all that in it."""
    for name in ("photos", "in", "models"):
        (tmp_path / name).symlink_to(made / name)
    return tmp_path


@pytest.mark.parametrize(("kind", "text"), list(blocks()))
def test_the_block_runs(kind, text, desk, made):
    assert kind in KINDS, "a new kind of block needs a way to run it, or no name"
    if not image.can_turn_losslessly() and ("Transform" in text or "--strip" in text):
        pytest.skip("libturbojpeg is not there: apt-get install libturbojpeg0")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    if kind == "python":
        if "verify(" in text:
            (desk / "out").symlink_to(made / "dataset")
        subprocess.run([sys.executable, "-c", text], cwd=desk, env=environment, check=True)
    elif kind == "sh":
        script = re.sub(r"^pixsieve ", f"{PYTHON} ", text, flags=re.MULTILINE)
        script = "set -e\n" + script
        subprocess.run(["bash", "-c", script], cwd=desk, env=environment, check=True)
    elif kind == "yaml":
        (desk / "recipe.yaml").write_text(text)
        command = [sys.executable, "-m", "pixsieve", "describe", "recipe.yaml"]
        subprocess.run(command, cwd=desk, env=environment, check=True, capture_output=True)
    else:
        json.loads(text)


def links():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                yield pytest.param(page, target, id=f"{page.name}:{target}")


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_the_link_leads_somewhere(page, target):
    assert (page.parent / target).exists()
