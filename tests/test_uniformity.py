"""What loaders would stumble over is told before an export, and nothing is told without a reason.

That the loaders do so is tested with them, in ``tests/loaders``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.engine.preview import preview
from pixsieve.engine.progress import Quiet
from pixsieve.engine.run import run
from pixsieve.errors import RunError
from pixsieve.export.contents import Contents
from pixsieve.export.uniformity import complaints
from pixsieve.pipeline import Pipeline
from pixsieve.stages import FilterStage, ImageReaderStage, ImageWriterStage
from pixsieve.testing.uneven import FAULTS, even_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HF, DAFT, RAY, ENERGON = "Hugging Face", "Daft", "Ray", "Energon"
ALL = {"webdataset", "wids", HF, DAFT, RAY}
TOLD = {
    "text that some lack": ({DAFT, ENERGON}, "6 of 12 samples have no .txt: "),
    "json that some lack": ({DAFT}, "6 of 12 samples have no .json: "),
    "a member that one has": ({DAFT}, "the same members (.bin in 1): "),
    "text that is not UTF-8": (ALL | {ENERGON}, "the .txt of 1 of 12 samples is not UTF-8: "),
    "json that is none": (ALL, "the .json of 1 of 12 samples is not JSON"),
    "numbers, whole at first": ({DAFT}, "json 'a': values of several types: "),
    "a number that becomes text": ({DAFT, "card"}, "json 'a': values of several types: "),
    "documents that are no objects": ({DAFT, RAY, "card"}, "json 'documents': values of several"),
    "null at first": ({DAFT}, "json 's': missing, null or empty in some samples: "),
    "null later": ({DAFT}, "json 's': missing, null or empty in some samples: "),
    "a list, empty at first": ({DAFT}, "json 'l[]': missing, null or empty in some samples: "),
    "a key that comes": ({DAFT}, "json 'new': missing, null or empty in some samples: "),
    "a key that goes": ({DAFT}, "json 'a': missing, null or empty in some samples: "),
    "images of two formats": ({DAFT, RAY}, "several formats (11 .jpg, 1 .png): "),
    "WebP": ({"wids", RAY}, "12 of 12 images are .webp: "),
    "one grey image": ({RAY}, "1 of 12 images have one channel, the others more: "),
}
KEPT = {"images of two formats", "WebP"}
NAMES = (*ALL, ENERGON, "card", "DALI")


class Log(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, line: str) -> None:
        self.lines.append(line)


def told(folder: Path, files: Mapping[str, bytes], **writer: Any) -> list[str]:
    """Return what is told before an export, which is also what the run notes."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name, data in files.items():
        (source / name).write_bytes(data)
    pipeline = Pipeline(name="test").add_stage(ImageReaderStage(str(source)))
    pipeline.add_stage(ImageWriterStage(output_dir=str(folder / "out"), **writer))
    log = Log()
    result = pipeline.run(InlineExecutor(), RunOptions(progress=log))
    found = [line.removeprefix("warning: ") for line in log.lines if line.startswith("warning: ")]
    assert set(found) <= set(result.notes)
    return found


def kept(name: str) -> dict[str, str]:
    return {"image_format": "keep"} if name in KEPT else {}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_the_loaders_that_stumble_and_a_way_out(tmp_path: Path, name: str):
    loaders, says = TOLD[name]
    (found,) = told(tmp_path, FAULTS[name](even_files()), **kept(name))
    assert says in found
    assert {word for word in NAMES if word in found} == loaders
    assert "members='uniform'" in found or "image_format=" in found or "filter" in found


NOT_MENDED = KEPT | {"one grey image", "a member that one has"}


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - NOT_MENDED))
def test_uniform_members_leave_nothing_to_complain_of(tmp_path: Path, name: str):
    found = told(tmp_path, FAULTS[name](even_files()), members="uniform")
    assert not any(word in line for line in found for word in NAMES)


@pytest.mark.parametrize("extensions", [("jpg",), ("jpg", "txt"), ("jpg", "json", "txt")])
@pytest.mark.parametrize("members", ["as_found", "uniform"])
def test_of_ordinary_samples_nothing_is_told(
    tmp_path: Path, extensions: tuple[str, ...], members: str
):
    files = {k: v for k, v in even_files().items() if k.partition(".")[2] in extensions}
    found = told(tmp_path, files, members=members)
    assert [line for line in found if "written anew" not in line] == []


def test_images_of_several_formats_become_one_by_default(tmp_path: Path):
    assert told(tmp_path, FAULTS["images of two formats"](even_files())) == []


def test_only_loaders_whose_files_are_made_are_spoken_of(tmp_path: Path):
    (found,) = told(tmp_path, FAULTS["text that some lack"](even_files()), indexes=())
    assert ENERGON not in found
    assert f"{HF} datasets refuses them or loses members" in found
    contents = Contents(samples=2, images={"webp": 2}, members={})
    assert "wids" in complaints(contents, ["wids"])[0]
    assert "wids" not in complaints(contents, ["card"])[0]


def test_what_is_null_or_empty_in_all_is_no_fault(tmp_path: Path):
    files = even_files()
    for number in range(12):
        files[f"{number:03d}.json"] = b'{"a": null, "b": [], "c": {}, "d": [null]}'
    assert told(tmp_path, files) == []


@pytest.mark.parametrize("members", ["as_found", "uniform"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_preview_tells_the_same(tmp_path: Path, name: str, members: str):
    source = tmp_path / "source"
    source.mkdir()
    for file, data in FAULTS[name](even_files()).items():
        (source / file).write_bytes(data)
    writer = ImageWriterStage(output_dir=str(tmp_path / "out"), members=members, **kept(name))
    pipeline = Pipeline(name="test").add_stage(ImageReaderStage(str(source)))
    plan = pipeline.add_stage(FilterStage("width > 0")).add_stage(writer).plan()
    options = RunOptions(workspace=str(tmp_path / "work"))
    found = preview(plan, InlineExecutor(), options, cached_only=False).warnings
    log = Log()
    try:
        run(plan, InlineExecutor(), RunOptions(workspace=str(tmp_path / "work"), progress=log))
    except RunError as error:
        assert name == "a member that one has"
        log.log(f"warning: {error}")
    said = [line.removeprefix("warning: ") for line in log.lines if line.startswith("warning: ")]
    assert list(found) == said
