"""The output is a function of source content, recipe and seed alone.

Each test changes one thing that must not matter, and compares the digests of all files. What these
catch and others do not: an order that comes from the file system, a hash table, a locale or the
first worker to finish; a path, a time or a host in a file; a file that another file's name shifts.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pixsieve.engine.local import LocalExecutor
from pixsieve.testing.corpus import (
    TIME,
    corpus_files,
    make_pipeline,
    run_pipeline,
    write_files,
)
from pixsieve.testing.faults import tree

if TYPE_CHECKING:
    from pixsieve.testing.corpus import Program


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_number_of_workers_changes_no_byte(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, str], workers: int
):
    run_pipeline(make_pipeline(corpus / "files", tmp_path / "out"), LocalExecutor(workers=workers))
    assert tree(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("workers", [1, 3])
def test_number_of_workers_changes_no_byte_of_what_comes_from_tars(
    corpus: Path, tmp_path: Path, workers: int
):
    run_pipeline(make_pipeline(corpus / "tars", tmp_path / "inline"))
    run_pipeline(make_pipeline(corpus / "tars", tmp_path / "out"), LocalExecutor(workers=workers))
    assert tree(tmp_path / "out") == tree(tmp_path / "inline")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns"},
        {"PYTHONHASHSEED": "31337", "TZ": "Asia/Kathmandu", "OMP_NUM_THREADS": "7"},
    ],
    ids=lambda variables: " ".join(f"{name}={value}" for name, value in variables.items()),
)
def test_environment_changes_no_byte(
    corpus: Path,
    tmp_path: Path,
    program: Program,
    undisturbed: dict[str, str],
    environment: dict[str, str],
):
    pipeline = make_pipeline(corpus / "files", tmp_path / "out")
    assert program.run(pipeline, environment=environment)[0] == 0
    assert tree(tmp_path / "out") == undisturbed


def test_order_in_which_files_were_made_changes_no_byte(
    tmp_path: Path, undisturbed: dict[str, str]
):
    files = corpus_files()
    for seed in range(3):
        names = list(files)
        random.Random(seed).shuffle(names)
        write_files(tmp_path / f"source{seed}", files, names)
        run_pipeline(make_pipeline(tmp_path / f"source{seed}", tmp_path / f"out{seed}"))
        assert tree(tmp_path / f"out{seed}") == undisturbed


def test_order_in_which_the_folder_is_listed_changes_no_byte(
    corpus: Path,
    tmp_path: Path,
    undisturbed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    real = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            with real(path) as entries:
                self._entries = list(entries)[::-1]

        def __enter__(self):
            return iter(self._entries)

        def __exit__(self, *_: object) -> None: ...

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", Backwards)
        run_pipeline(make_pipeline(corpus / "files", tmp_path / "out"))
    assert tree(tmp_path / "out") == undisturbed


def test_order_in_which_tars_are_named_changes_no_byte(corpus: Path, tmp_path: Path):
    tars = sorted(str(path) for path in (corpus / "tars").iterdir())
    run_pipeline(make_pipeline(tars, tmp_path / "sorted"))
    run_pipeline(make_pipeline(tars[::-1], tmp_path / "backwards"))
    run_pipeline(make_pipeline([tars[1], *tars], tmp_path / "twice"))
    assert tree(tmp_path / "backwards") == tree(tmp_path / "sorted")
    assert tree(tmp_path / "twice") == tree(tmp_path / "sorted")


def test_working_directory_changes_no_byte(
    corpus: Path,
    tmp_path: Path,
    undisturbed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(corpus)
    there = os.path.relpath(tmp_path, corpus)
    run_pipeline(make_pipeline("files", Path(there, "out")), LocalExecutor(workers=2))
    assert tree(tmp_path / "out") == undisturbed
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run_pipeline(make_pipeline(str(corpus / "files/"), Path("out")), LocalExecutor(workers=2))
    assert tree(tmp_path / "elsewhere" / "out") == undisturbed


def test_recipe_in_another_folder_changes_no_byte(
    source: Path, tmp_path: Path, program: Program, undisturbed: dict[str, str]
):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    pipeline = make_pipeline("../../source", Path("../out"))
    assert program.run(pipeline, directory=tmp_path / "deep" / "er")[0] == 0
    assert tree(tmp_path / "deep" / "out") == undisturbed
    assert source.is_dir()


def test_place_and_times_of_the_source_change_no_byte(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, str]
):
    moved = tmp_path / "a folder of another name" / "déjà vu"
    shutil.copytree(corpus / "files", moved)
    for number, path in enumerate(sorted(moved.rglob("*"))):
        os.utime(path, (TIME + 1000 + number, TIME + 1000 + number))
    run_pipeline(make_pipeline(moved, tmp_path / "out"))
    assert tree(tmp_path / "out") == undisturbed


def test_link_to_the_source_changes_no_byte(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, str]
):
    (tmp_path / "link").symlink_to(corpus / "files")
    run_pipeline(make_pipeline(tmp_path / "link", tmp_path / "out"))
    assert tree(tmp_path / "out") == undisturbed


def test_ways_to_name_the_same_tars_change_no_shard(corpus: Path, tmp_path: Path):
    """The recipe says how the tars were named; the data cannot tell."""
    tars = corpus / "tars"
    run_pipeline(make_pipeline(tars, tmp_path / "folder"))
    run_pipeline(make_pipeline(f"{tars}/*.tar*", tmp_path / "glob"))
    run_pipeline(make_pipeline(f"{tars}/{{00000.tar,00001.tar,00002.tar.gz}}", tmp_path / "braces"))
    told = ("manifest.json", "recipe.yaml", "README.md")
    found = [
        {name: digest for name, digest in tree(tmp_path / way).items() if name not in told}
        for way in ("folder", "glob", "braces")
    ]
    assert found[0] == found[1] == found[2]
    assert any(name.endswith(".tar") for name in found[0])


def test_workspace_elsewhere_changes_no_byte(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, str]
):
    pipeline = make_pipeline(corpus / "files", tmp_path / "out")
    run_pipeline(pipeline, LocalExecutor(workers=2), workspace=tmp_path / "work")
    assert tree(tmp_path / "out") == undisturbed
    pipeline = make_pipeline(corpus / "files", tmp_path / "again")
    result = run_pipeline(pipeline, LocalExecutor(workers=2), workspace=tmp_path / "work")
    assert tree(tmp_path / "again") == undisturbed
    assert result.decoded == 0


def test_sizes_of_batches_change_no_byte(
    corpus: Path,
    tmp_path: Path,
    undisturbed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("pixsieve.select.base.BATCH_ROWS", 5)
    monkeypatch.setattr("pixsieve.export.plan.HELD_ROWS", 10)
    run_pipeline(make_pipeline(corpus / "files", tmp_path / "out"))
    assert tree(tmp_path / "out") == undisturbed


def test_other_seed_changes_the_order(corpus: Path, tmp_path: Path, undisturbed: dict[str, str]):
    """The comparison above can fail."""
    pipeline = make_pipeline(corpus / "files", tmp_path / "out")
    pipeline.seed = 1
    run_pipeline(pipeline)
    assert tree(tmp_path / "out") != undisturbed
