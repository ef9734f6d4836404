"""Datasets that loaders are tried with, all made with the defaults of an export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pixsieve.engine.inline import InlineExecutor
from pixsieve.loaders import LOADERS
from pixsieve.pipeline import Pipeline
from pixsieve.stages import ImageReaderStage, ImageWriterStage, SplitStage
from pixsieve.testing import images

IN_EVERY_ENVIRONMENT = ("webdataset", "duckdb", "polars", "pyarrow")
"""Their libraries are pixsieve's own, or are there for other tests."""

OF_EVERY_EXPORT = [name for name, loader in LOADERS.items() if loader.reads != "format"]
OF_FORMATS = [name for name in LOADERS if name not in OF_EVERY_EXPORT]


def loaders(names=OF_EVERY_EXPORT):
    """Parameters for a test with each loader; most need an environment that has them."""
    for name in names:
        marks = () if name in IN_EVERY_ENVIRONMENT else (pytest.mark.loaders,)
        yield pytest.param(name, marks=marks)


def write_pictures(folder: Path, count: int, *, captions: bool = True, mixed: bool = False) -> None:
    """Write pictures of different sizes and modes; some JPEGs are to be turned."""
    folder.mkdir(parents=True)
    for number in range(count):
        width, height = 64 + number % 7 * 9, 48 + number % 5 * 11
        kind = ("PNG", "JPEG", "WEBP")[number % 3] if mixed else "JPEG"
        name = f"{number:03d}.{ {'PNG': 'png', 'JPEG': 'jpg', 'WEBP': 'webp'}[kind] }"
        if kind == "JPEG" and number % 25 == 4:
            data = images.oriented_jpeg(6 if number % 2 else 3, number, width, height)
        else:
            data = images.photo(number, width, height, kind, mode="L" if number == 7 else "RGB")
        (folder / name).write_bytes(data)
        if captions:
            (folder / f"{number:03d}.txt").write_text(f"Bild {number:03d}, grün", encoding="utf-8")
            fields = {"number": number, "tags": ["a", "b"], "score": number / 4}
            (folder / f"{number:03d}.json").write_text(json.dumps(fields))


def export(source: Path, output: Path, *stages, per_tar: int, **writer) -> Path:
    """Export pictures as a user does who leaves all at its default."""
    pipeline = Pipeline(name="pictures").add_stage(ImageReaderStage(str(source)))
    for stage in stages:
        pipeline.add_stage(stage)
    pipeline.add_stage(ImageWriterStage(output_dir=str(output), images_per_tar=per_tar, **writer))
    pipeline.run(InlineExecutor())
    shutil.rmtree(output / ".pixsieve")
    return output


SPLITS = (SplitStage(shares={"train": 0.8, "val": 0.2}),)
SETS = {
    "default": ({}, (), {}),
    "splits": ({}, SPLITS, {}),
    "without captions": ({"captions": False}, (), {}),
    "mixed": ({"mixed": True}, (), {}),
    "mixed, kept": ({"mixed": True}, (), {"image_format": "keep"}),
}
IN_FORMATS = {"formats": ("parquet", "mds", "litdata", "lance", "imagefolder"), "indexes": ()}
"""By name: how pictures are made, what is done with them, how they are written."""


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Makes the dataset of a name once; no test changes it."""
    folder, known = tmp_path_factory.mktemp("sets"), {}

    def make(name: str) -> Path:
        if name not in known:
            how, stages, writer = (SETS | {"formats": ({}, SPLITS, IN_FORMATS)})[name]
            source = folder / f"{name} in"
            write_pictures(source, 200, **how)
            output = folder / name.replace(", ", "-").replace(" ", "-")
            known[name] = export(source, output, *stages, per_tar=67, **writer)
        return known[name]

    return make


@pytest.fixture(scope="session")
def small_set(tmp_path_factory):
    """12 pictures in 3 shards; no test changes it."""
    folder = tmp_path_factory.mktemp("small")
    write_pictures(folder / "in", 12)
    return export(folder / "in", folder / "out", per_tar=4)


@pytest.fixture
def small(small_set, tmp_path):
    """A copy of those that the test may change."""
    return Path(shutil.copytree(small_set, tmp_path / "out"))
