"""A small, varied corpus, the pipeline over it, and that pipeline as a program of its own.

What tests of a whole run start from, and what they disturb.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixsieve import recipe
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.pipeline import Pipeline
from pixsieve.stages import (
    ExactDeduplicationStage,
    FilterStage,
    ImageReaderStage,
    ImageWriterStage,
    ShuffleStage,
)
from pixsieve.testing import images

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pixsieve.engine.progress import Progress
    from pixsieve.engine.result import RunResult
    from pixsieve.engine.units import Executor
    from pixsieve.stage import ScoreStage

TIME = 1_700_000_000
"""When every file of the corpus was last changed, seconds since 1970."""

PROGRAM = """
import sys
from pathlib import Path

from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.local import LocalExecutor
from pixsieve.engine.progress import Lines
from pixsieve.engine.job import RunOptions
from pixsieve.engine.run import run
from pixsieve.errors import PixsieveError
from pixsieve.recipe import load

recipe, workers, workspace = sys.argv[1], int(sys.argv[2]), (*sys.argv[3:], None)[0]
plan = load(Path(recipe)).plan()
print("ready", flush=True)
try:
    run(
        plan,
        LocalExecutor(workers=workers) if workers else InlineExecutor(),
        RunOptions(max_failed=0.5, workspace=workspace, progress=Lines()),
    )
except PixsieveError as error:
    sys.exit(print(error, file=sys.stderr) or error.exit_code)
"""
"""Runs a recipe as the command does: one line and an exit code for each error."""


_SMALL = 3


def corpus_files() -> dict[str, bytes]:
    """Make 72 samples: most are fine, some are there twice, and there are faults of many kinds."""
    files: dict[str, bytes] = {}
    for number in range(60):
        stem = f"{'cats' if number % 2 else 'dogs'}/{number:03d}"
        size = (64, 48) if number % 7 == _SMALL else (120 + number % 5 * 8, 96)
        kind = {5: "PNG", 9: "WEBP"}.get(number % 10, "JPEG")
        extension = {"PNG": "png", "WEBP": "webp", "JPEG": "jpg"}[kind]
        files[f"{stem}.{extension}"] = images.photo(number, *size, kind)
        files[f"{stem}.txt"] = f"a caption, numéro {number}".encode()
        files[f"{stem}.json"] = json.dumps({"number": number, "source": f"s{number % 3}"}).encode()
    for number in range(0, 24, 4):  # copies, with no caption
        files[f"copies/{number:03d}.jpg"] = images.photo(number, 120 + number % 5 * 8, 96)
    files["odd/alpha.png"] = images.rgba_png(1, 128, 100)
    files["odd/empty.jpg"] = b""
    files["odd/moving.gif"] = images.animated_gif()
    files["odd/page.jpg"] = images.not_images()["HTML"]
    files["odd/torn.jpg"] = images.truncated(images.photo(500, 200, 160))
    files["odd/lonely.txt"] = b"a caption of nothing"
    return files


def write_files(
    folder: Path, files: Mapping[str, bytes], order: Iterable[str] | None = None
) -> None:
    """Write files below a folder, in an order, all with the same time of change."""
    for name in order or files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
        os.utime(path, (TIME, TIME))


def write_tars(folder: Path, files: Mapping[str, bytes], count: int = 3) -> list[Path]:
    """Write files into tars, the last one compressed; return the tars in order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(files)
    per_tar = 3 * -(-len(names) // count // 3)
    paths = []
    for number in range(count):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name in names[number * per_tar : (number + 1) * per_tar]:
                info = tarfile.TarInfo(name)
                info.size = len(files[name])
                tar.addfile(info, io.BytesIO(files[name]))
        data = out.getvalue()
        last = number == count - 1
        paths.append(folder / f"{number:05d}.tar{'.gz' if last else ''}")
        paths[-1].write_bytes(gzip.compress(data, 1, mtime=0) if last else data)
        os.utime(paths[-1], (TIME, TIME))
    return paths


def make_pipeline(
    source: str | Path | Sequence[str],
    output: Path,
    *,
    where: str = "least(width, height) >= 64",
    scorers: Sequence[ScoreStage] = (),
    images_per_tar: int = 8,
    **writer: Any,
) -> Pipeline:
    """Make a pipeline over the corpus in which every step has something to do."""
    paths = [source] if isinstance(source, str | Path) else source
    reader = ImageReaderStage(
        [str(path) for path in paths],
        caption_field="source",
        json_fields={"number": "int64", "source": "string"},
    )
    pipeline = Pipeline(name="corpus").add_stage(reader)
    for stage in (*scorers, FilterStage(where), ExactDeduplicationStage(), ShuffleStage()):
        pipeline.add_stage(stage)
    return pipeline.add_stage(
        ImageWriterStage(output_dir=str(output), images_per_tar=images_per_tar, **writer)
    )


def run_pipeline(
    pipeline: Pipeline,
    executor: Executor | None = None,
    *,
    progress: Progress | None = None,
    workspace: Path | None = None,
) -> RunResult:
    """Run a pipeline, in this process unless an executor is given; half of the images may fail."""
    options = RunOptions(
        max_failed=0.5, progress=progress, workspace=None if workspace is None else str(workspace)
    )
    return pipeline.run(executor or InlineExecutor(), options)


@dataclass(frozen=True, slots=True)
class Program:
    """Runs pipelines in processes of their own, to be killed or to be put into another environment.

    Attributes:
        folder: Where the recipes and the program go.
    """

    folder: Path

    def start(
        self,
        pipeline: Pipeline,
        *,
        workers: int = 2,
        workspace: Path | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        before: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        """Start a pipeline, and return once it is about to run.

        Args:
            pipeline: What to run.
            workers: Number of worker processes; 0 runs without any.
            workspace: Folder of the working state.
            environment: Variables to set; all processes of the run will have them.
            directory: Working directory. The recipe lies in it, so its paths are relative to it.
            before: A command that starts the program, such as ``prlimit``.

        Returns:
            The process, which leads a session of its own. What it says comes from ``stderr``.
        """
        folder = directory or self.folder
        path = folder / "run.yaml"
        path.write_text(recipe.dumps(pipeline))
        arguments = [str(path), str(workers), *([str(workspace)] if workspace else [])]
        process = subprocess.Popen(  # noqa: S603  # this very program
            [*before, sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        process.stdout.readline()
        return process

    def run(self, pipeline: Pipeline, **options: Any) -> tuple[int, str]:
        """Run a pipeline to its end; return its exit code and what it said."""
        process = self.start(pipeline, **options)
        _, said = process.communicate(timeout=120)
        return process.returncode, said
