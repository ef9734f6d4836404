"""What the tests of whole runs share."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from pixsieve.testing import corpus as kit
from pixsieve.testing.faults import tree

# Under nohup, or in the background of a script, some are ignored: by what the tests start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``files/`` with loose files and ``tars/`` with the same in tars; no test changes them."""
    folder = tmp_path_factory.mktemp("corpus")
    files = kit.corpus_files()
    kit.write_files(folder / "files", files)
    kit.write_tars(folder / "tars", files)
    return folder


@pytest.fixture
def source(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the corpus's loose files that the test may change."""
    return Path(shutil.copytree(corpus / "files", tmp_path / "source"))


@pytest.fixture
def program(tmp_path: Path) -> kit.Program:
    folder = tmp_path / "program"
    folder.mkdir()
    return kit.Program(folder)


@pytest.fixture(scope="session")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the pipeline makes of the loose files when nothing comes in between."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    kit.run_pipeline(kit.make_pipeline(corpus / "files", output))
    return tree(output)
