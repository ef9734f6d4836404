"""The code for each loader in the docs reads a default export as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pixsieve.loaders.processes import environment
from tests.loaders.conftest import IN_EVERY_ENVIRONMENT

PAGE = Path(__file__).parents[2] / "docs" / "loaders.md"
BLOCK = re.compile(r"^```python\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    text = PAGE.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        libraries = re.findall(r"^(?:import|from) ([a-z]+)", found["text"], re.MULTILINE)
        here = set(libraries) <= {"glob", *IN_EVERY_ENVIRONMENT}
        name = f"{libraries[-1] if libraries else 'none'}:{text.count(chr(10), 0, found.start())}"
        yield pytest.param(found["text"], id=name, marks=() if here else pytest.mark.loaders)


@pytest.mark.parametrize("text", list(blocks()))
def test_the_code_reads_every_sample(text, small, tmp_path):
    assert small == tmp_path / "out"
    with tempfile.TemporaryDirectory(prefix="p-", ignore_cleanup_errors=True) as home:  # a short
        done = subprocess.run(  # path, else Ray's sockets have no name
            [sys.executable, "-c", text],
            cwd=tmp_path,
            env=environment(home),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    samples = [line for line in done.stdout.splitlines() if "Bild 0" in line]
    assert len(set(samples)) == (12 if "print" in text else 0)
