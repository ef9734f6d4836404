"""The code in the docs for each other format reads every sample of an export."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pixsieve.pipeline import Pipeline
from pixsieve.stages import ImageReaderStage, ImageWriterStage
from pixsieve.testing import corpus as kit
from pixsieve.testing import images

PAGE = Path(__file__).parents[1] / "docs" / "other-formats.md"
BLOCK = re.compile(r"^```python\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
HERE = {"polars"}
TENSORFLOW = os.environ.get("PIXSIEVE_TENSORFLOW", sys.executable)


def blocks():
    for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        library = re.findall(r"^(?:import|from) (\w+)", found["text"], re.MULTILINE)
        (library,) = set(library) - {"glob", "io", "json", "pathlib", "PIL"}
        marks = () if library in HERE else pytest.mark.loaders
        yield pytest.param(library, found["text"], id=library, marks=marks)


@pytest.mark.parametrize(("library", "text"), list(blocks()))
def test_the_code_reads_every_sample(library, text, tmp_path):
    python = TENSORFLOW if library == "tensorflow" else sys.executable
    if subprocess.run(
        [python, "-c", f"import {library}"], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"no {library}; PIXSIEVE_TENSORFLOW can name a Python that has TensorFlow")
    (name,) = set(re.findall(r"out/(\w+)", text))
    for number in range(10):
        place = tmp_path / "photos" / f"class {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"k{number}.jpg").write_bytes(images.photo(number))
        (place / f"k{number}.txt").write_text(f"picture {number}")
    pipeline = Pipeline("docs").add_stage(ImageReaderStage(str(tmp_path / "photos")))
    pipeline.add_stage(
        ImageWriterStage(output_dir=str(tmp_path / "out"), images_per_tar=4, formats=(name,))
    )
    kit.run_pipeline(pipeline)
    done = subprocess.run(
        [python, "-c", text],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "LITDATA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("k")]
    said = "class" if library == "torchvision" else "picture"
    assert len({line.split()[0] for line in lines if said in line}) == 10
