"""Other formats, chosen with an export: made once, by any number of workers, and verified."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest

from pixsieve.engine.local import LocalExecutor
from pixsieve.errors import MissingExtraError
from pixsieve.export.formats import FORMATS
from pixsieve.export.formats import folder as folder_module
from pixsieve.pipeline import Pipeline
from pixsieve.stages import ImageReaderStage, ImageWriterStage, SplitStage
from pixsieve.testing import corpus as kit
from pixsieve.testing import images
from pixsieve.testing.faults import leftovers, tree, wait_until
from pixsieve.verify import verify

CORE = ("parquet", "imagefolder", "tfrecord")
COMMITS = ("lance/_versions/", "lance/_transactions/")


@pytest.fixture
def photos(tmp_path):
    for number in range(20):
        folder = tmp_path / "photos" / f"class {number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(images.photo(number))
        if number % 4:
            (folder / f"{number}.txt").write_text(f"picture {number}")
    return tmp_path / "photos"


def pipeline_of(photos, output, formats):
    pipeline = Pipeline("formats").add_stage(ImageReaderStage(str(photos)))
    pipeline.add_stage(SplitStage({"train": 0.7, "test": 0.3}, exact=True))
    return pipeline.add_stage(
        ImageWriterStage(output_dir=str(output), images_per_tar=5, formats=formats)
    )


def export(photos, output, formats, executor=None):
    return kit.run_pipeline(pipeline_of(photos, output, formats), executor)


def steady(output):
    return {
        name: each
        for name, each in tree(output).items()
        if not name.startswith(COMMITS) and name != "recipe.yaml"
    }


def check(photos, tmp_path, formats):
    one, two = tmp_path / "one", tmp_path / "two"
    export(photos, one, formats)
    export(photos, two, formats, LocalExecutor(workers=2))
    assert steady(one) == steady(two)
    assert {name.partition("/")[0] for name in steady(one) if "/" in name} >= set(formats)
    assert export(photos, one, formats).did_nothing
    assert not leftovers(one)
    assert not leftovers(two)
    report = verify(one)
    assert not report.findings, report.to_text()
    listed = {each["name"] for each in json.loads((one / "manifest.json").read_bytes())["files"]}
    assert not any(name.startswith(COMMITS) for name in listed)


def test_they_are_the_same_with_any_number_of_workers_and_found_again(photos, tmp_path):
    check(photos, tmp_path, CORE)


@pytest.mark.loaders
def test_so_are_all_of_them(photos, tmp_path):
    check(photos, tmp_path, tuple(FORMATS))


def test_one_can_be_added_later_and_go_again(photos, tmp_path):
    output = tmp_path / "out"
    export(photos, output, ())
    bare = tree(output)
    export(photos, output, ("parquet",))
    more = tree(output)
    export(photos, output, ("parquet", "tfrecord"))
    assert more.keys() < tree(output).keys()
    export(photos, output, ())
    assert tree(output) == bare


def test_a_library_that_is_missing_is_told_before_any_work(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module.importlib.util, "find_spec", lambda _: None)
    for name in sorted(set(FORMATS) - {"parquet", "imagefolder"}):
        with pytest.raises(MissingExtraError, match=rf"pip install 'pixsieve\[{name}\]'"):
            export(photos, tmp_path / "out", (name,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(CORE, marks=pytest.mark.slow, id="core"),
        pytest.param(tuple(FORMATS), marks=pytest.mark.loaders, id="all"),
    ],
)
def test_a_run_that_is_killed_while_it_writes_them_ends_as_any(photos, tmp_path, program, kind):
    export(photos, tmp_path / "whole", kind)
    whole = steady(tmp_path / "whole")
    rng = random.Random(5)
    kills = 0
    for attempt in range(8):
        output = tmp_path / f"out{attempt}"
        pipeline = pipeline_of(photos, output, kind)
        process = program.start(pipeline)
        wait_until(lambda folder=output: (folder / "parquet").exists(), 30)
        time.sleep(rng.uniform(0, 0.3 if kind == CORE else 3))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        for name, digest in steady(output).items():
            if not any(part.startswith(".") for part in name.split("/")):
                assert digest == whole[name], name
        kit.run_pipeline(pipeline)
        assert steady(output) == whole
        assert leftovers(output) == []
    assert kills
