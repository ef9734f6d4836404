"""A repair is a run like any other: resumable, whole or not at all, the same bytes each time."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pixsieve.engine.job import RunOptions
from pixsieve.errors import PlanError, UsageError
from pixsieve.export.indexes import INDEXES
from pixsieve.pipeline import Pipeline
from pixsieve.repair.account import RepairReport, account
from pixsieve.repair.stages import ChangedStage, CopiesStage, RestoreStage
from pixsieve.repair.survey import prefix_of, survey
from pixsieve.stages import ImageReaderStage, ImageWriterStage, SidecarStage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pixsieve.engine.progress import Progress
    from pixsieve.engine.units import Executor
    from pixsieve.repair.survey import Survey

Captions = Literal["judge", "tar", "strict"]

_MAGIC = re.compile(r"[*?\[\]{}]")
_DEFAULT_SAMPLES = 1000
_READING = ("json_fields", "caption_field", "max_pixels", "max_image_bytes")
_WRITING = ("images_per_tar", "max_bytes_per_tar", "shards_multiple_of", "prefix", "card")
"""Options of the old recipe's reader and writer that the new set has, too."""


def repair(
    folder: str | Path,
    output: str | Path,
    *,
    captions: Captions = "judge",
    images_per_tar: int | None = None,
    formats: Sequence[str] = (),
    executor: Executor | None = None,
    workspace: str | None = None,
    progress: Progress | None = None,
) -> RepairReport:
    """Make a sound dataset of what can be read of another one, which is left as it is.

    Run again after it was stopped, it goes on where it was.

    Args:
        folder: The faulty dataset: pixsieve's, or any folder with tars.
        output: Where the sound one goes.
        captions: What to do where the caption in a tar is not that of its table. ``"judge"``: the
            sample goes if the tar was changed by all that is known, and keeps the tar's caption
            else; ``"tar"``: all keep it; ``"strict"``: a sample goes, too, if nothing says which
            one is right.
        images_per_tar: Samples per shard; ``None`` for as many as in the old set.
        formats: Other formats to write as well.
        executor: Who does the work; ``None`` is one worker process per processor.
        workspace: Where working state lies; ``None`` for in the output.
        progress: Hears of the steps.

    Raises:
        UsageError: the folders are one, or one is in the other.
        SourceError: there is nothing to repair, or it changes meanwhile.
        StorageError: reading or writing failed.
        RunError: nothing could be saved, or the output is of something else.
    """
    _check_apart(Path(folder), Path(output))
    known = survey(Path(folder))
    made = pipeline(
        known, output, captions=captions, images_per_tar=images_per_tar, formats=tuple(formats)
    )
    options = RunOptions(workspace=workspace, max_failed=1.0, progress=progress)
    result = made.run(executor, options)
    return account(known, result)


def pipeline(
    known: Survey,
    output: str | Path,
    *,
    captions: Captions = "judge",
    images_per_tar: int | None = None,
    formats: Sequence[str] = (),
) -> Pipeline:
    """Return the pipeline that repairs a folder."""
    reader = _reader(known)
    made = Pipeline(
        name=_text(known.manifest.get("name")) or "repaired",
        seed=seed if isinstance(seed := known.manifest.get("seed"), int) else 0,
    ).add_stage(reader)
    folder = str(known.folder)
    for columns, prefix in ((known.columns, ""), (known.renamed, _free_prefix(known))):
        wanted = {name: kind for name, kind in columns.items() if name not in reader.json_fields}
        if wanted and any(shard.sidecar for shard in known.shards):
            stage = SidecarStage(
                folder=folder,
                columns=wanted,
                prefix=prefix,
                missing="null",
                beside=known.beside,
            )
            made.add_stage(stage)
    made.add_stage(ChangedStage(folder=folder, what="image"))
    if captions != "tar":
        made.add_stage(ChangedStage(folder=folder, what="caption", strict=captions == "strict"))
    made.add_stage(CopiesStage())
    made.add_stage(RestoreStage(folder=folder))
    return made.add_stage(_writer(known, output, images_per_tar, formats))


def _check_apart(folder: Path, output: Path) -> None:
    ours, theirs = Path(os.path.realpath(output)), Path(os.path.realpath(folder))
    if ours == theirs or theirs in ours.parents or ours in theirs.parents:
        msg = f"{output} and {folder} lie in each other; choose a folder beside it for the new set"
        raise UsageError(msg)


def _reader(known: Survey) -> ImageReaderStage:
    """Return the reader, which looks for captions and json fields where the old one did."""
    tars = [shard.tar for shard in known.shards]
    here = sorted(path.name for path in known.folder.glob("*.tar") if path.name[0] != ".")
    paths: str | list[str] = [str(known.folder / tar) for tar in tars]
    if sorted(tars) == here and not _MAGIC.search(str(known.folder)):
        paths = f"{known.folder}/*.tar"
    told = known.stage("ImageReaderStage")
    given = {name: told[name] for name in _READING if name in told}
    given["image_member"] = known.image_member
    try:
        return ImageReaderStage(paths, animated="first_frame", salvage=True, **given)
    except (PlanError, TypeError):  # the recipe is not what it was
        return ImageReaderStage(paths, animated="first_frame", salvage=True)


def _writer(
    known: Survey, output: str | Path, images_per_tar: int | None, formats: Sequence[str]
) -> ImageWriterStage:
    told = known.stage("ImageWriterStage")
    fullest = max((shard.rows or 0 for shard in known.shards), default=0)
    given: dict[str, Any] = {
        "prefix": prefix_of(known.shards) or "images",
        "images_per_tar": fullest or _DEFAULT_SAMPLES,
    }
    given |= {name: told[name] for name in _WRITING if name in told}
    indexes = told.get("indexes")
    if isinstance(indexes, list):
        given["indexes"] = tuple(name for name in indexes if name in INDEXES)
    if images_per_tar is not None:
        given |= {"images_per_tar": images_per_tar, "max_bytes_per_tar": None}
        given["shards_multiple_of"] = 1
    fixed: dict[str, Any] = {
        "output_dir": os.fspath(output),
        "image_format": "keep",
        "member_names": "key",
        "formats": tuple(formats),
    }
    known_fields = {each.name for each in fields(ImageWriterStage)}
    try:
        return ImageWriterStage(**fixed, **{n: v for n, v in given.items() if n in known_fields})
    except (PlanError, TypeError):
        if told:  # the recipe is not what it was
            return ImageWriterStage(
                **fixed, images_per_tar=images_per_tar or fullest or _DEFAULT_SAMPLES
            )
        raise


def _free_prefix(known: Survey) -> str:
    """Return a prefix that no column of the set has, since it may have been repaired before."""
    names: Mapping[str, str] = known.columns
    prefix, number = "earlier_", 1
    while any(name.startswith(prefix) for name in names):
        number += 1
        prefix = f"earlier{number}_"
    return prefix


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
