"""The output folder.

Whose it is, what may be written into it, and what an unfinished run left there.
"""

from __future__ import annotations

import contextlib
import difflib
import filecmp
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pixsieve import recipe
from pixsieve.engine.claim import claim
from pixsieve.engine.ledger import Workspace
from pixsieve.errors import OutputConflictError, UsageError
from pixsieve.export import dataset
from pixsieve.export.files import FileRecord, stands
from pixsieve.export.formats import FORMATS
from pixsieve.export.indexes import INDEXES
from pixsieve.export.plan import HASH_DIGITS, shard_stem
from pixsieve.export.shard import WrittenShard
from pixsieve.fingerprint import canonical
from pixsieve.storage import LocalStorage
from pixsieve.storage.local import storage_error

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pixsieve.engine.work import Planned
    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.pipeline import Plan

CONTROL = ".pixsieve"
"""Hidden folder in the output: the claim, what an unfinished run may have written, and the
workspace."""
INTENT = "intent.json"
REPLACED = "replaced"
_DROPPED = dataset.DROPPED.partition("/")[0]
_MARK = ".run-"

ABANDONED_SECONDS = 3600.0
"""A temporary file in a workspace that others may share is nobody's when it is so old."""

_TEMPORARY = re.compile(
    r"\.(.+\.[a-z]+|[0-9]{5,}|commit|config)\.[0-9a-f]{8}\.tmp"
)  # all that is written has an extension


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A plan as it reads on any machine, and the digest of all that it stands for."""

    plan: Plan
    sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as it stands in the manifest."""
        stages = [canonical(stage) for stage in self.plan.stages]
        return {"name": self.plan.name, "seed": self.plan.seed, "stages": stages}

    def to_yaml(self) -> str:
        """Return the recipe as a file that can be run again."""
        return recipe.dumps(self.plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Intent:
    """Which files a run writes into the output, noted before the first of them.

    Attributes:
        prefix: Of its shards' names.
        hash: Of its shards' names.
        recipe: Digest of the recipe.
        plan: Digest of the export plan.
        manifest: Digest of ``manifest.json`` once the dataset is finished: another one is damaged.
        beside: Suffixes of index files beside its tars.
        more: Other files and folders that it may write at the root.
        files: Those of index files, with what is in the folders.
    """

    prefix: str
    hash: str
    recipe: str
    plan: str
    manifest: str | None = None
    beside: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        """Tell whether a file of this name may be of this run."""
        if name in (_DROPPED, dataset.RECIPE, *self.more):
            return True
        stem = rf"{re.escape(self.prefix)}(-[a-z0-9_-]+)?-{re.escape(self.hash)}-[0-9]{{6,}}"
        ends = "|".join(map(re.escape, (".tar", ".parquet", *self.beside)))
        return re.fullmatch(rf"{stem}({ends})", name) is not None

    def stands(self, output: Path) -> bool:
        """Tell whether this was finished, and tars of it are still there."""
        return self.manifest is not None and any(
            self.covers(path.name) for path in output.glob("*.tar")
        )


def folders(plan: Plan, workspace: str | None) -> tuple[Path, Workspace]:
    """Return the control folder and the workspace of a plan.

    Raises:
        UsageError: the plan writes nothing, and no workspace is named.
    """
    if plan.writer is None and workspace is None:
        msg = "a pipeline without a writer needs a workspace for its scores; name one"
        raise UsageError(msg)
    places = (plan.writer.output_dir if plan.writer else None, workspace)
    control, *others = (_state(place) for place in places if place is not None)
    return control, Workspace(others[0] if others else control)


def _state(folder: str) -> Path:
    """Return where in a folder pixsieve's own files lie: hidden, so that no source has them."""
    place = Path(folder).resolve()
    return place if place.name == CONTROL else place / CONTROL


def clean(output_dir: str, workspace: str | None = None) -> tuple[str, ...]:
    """Remove the working state of a dataset, never the dataset.

    Args:
        output_dir: The dataset's folder.
        workspace: A workspace of the user's choice; its tables, plans, records and unpacked
            archives go too.

    Returns:
        The folders that were removed.

    Raises:
        BusyError: a run works on the output, or uses the workspace.
    """
    states = [_state(place) for place in (output_dir, workspace) if place is not None]
    found = [folder for folder in dict.fromkeys(states) if folder.is_dir()]
    for folder in [each for state in found for each in (state, *sorted(state.glob(f"{_MARK}*")))]:
        with claim(folder):
            pass
    for folder in found:
        shutil.rmtree(folder)
    return tuple(map(str, found))


@contextlib.contextmanager
def held(control: Path, workspace: Workspace) -> Iterator[None]:
    """Make the folders that a run writes to, and hold them.

    The output is this run's alone. A workspace elsewhere is shared with other runs: a mark in it
    keeps it from being cleaned meanwhile.

    Raises:
        BusyError: another run works on the output.
        StorageError: a folder cannot be made.
    """
    mark = control
    if workspace.root != control:
        mark = _mark(workspace, bytes(control))
    _make(control, mark, workspace=workspace)
    with contextlib.ExitStack() as stack:
        if mark != control:
            stack.callback(_remove_empty, mark)
        for folder in dict.fromkeys((control, mark)):
            stack.enter_context(claim(folder))
        yield


@contextlib.contextmanager
def visited(control: Path, workspace: Workspace) -> Iterator[None]:
    """Use a workspace beside other runs, and leave the output alone, whatever is in it.

    Raises:
        StorageError: the workspace cannot be made.
    """
    mark = _mark(workspace, bytes(control) + str(os.getpid()).encode())
    _make(mark, workspace=workspace)
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, mark)
        stack.enter_context(claim(mark))
        yield


def _mark(workspace: Workspace, who: bytes) -> Path:
    return workspace.root / f"{_MARK}{hashlib.sha256(who).hexdigest()[:16]}"


def _make(*places: Path, workspace: Workspace) -> None:
    try:
        for folder in places:
            folder.mkdir(parents=True, exist_ok=True)
        workspace.prepare()
    except OSError as error:
        raise storage_error("cannot make", error.filename or places[0], error) from error


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another run on the same output holds it
        folder.rmdir()


def clean_temporary(plan: Plan, workspace: Workspace, control: Path) -> None:
    """Remove what killed writers left behind: only files of the form that pixsieve's own have.

    Nobody else writes to the output while it is claimed. In a workspace elsewhere other runs may
    write, so that only what is old is removed. What cannot be removed now, the next run removes.
    """
    now = time.time()
    places = [control] + ([Path(plan.writer.output_dir)] if plan.writer else [])
    places += [place for place in _folders_of(plan) if place.is_dir()]
    shared = [workspace.root / name for name in workspace.FOLDERS]
    shared += [folder for folder in (workspace.root / "plans").glob("*") if folder.is_dir()]
    alone = workspace.root == control and not any(workspace.root.glob(f"{_MARK}*"))
    least_age = 0.0 if alone else ABANDONED_SECONDS
    for place, age in [*((place, 0.0) for place in places), *((p, least_age) for p in shared)]:
        for path in place.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if _TEMPORARY.fullmatch(path.name) and path.stat().st_mtime <= now - age:
                    _remove(path)


def _folders_of(plan: Plan) -> Iterator[Path]:
    """Yield the folders in the output that index files and other formats have, with all in them."""
    if plan.writer is not None:
        for name in (_DROPPED, *_more(plan.writer)):
            top = Path(plan.writer.output_dir) / name
            yield top
            yield from (path for path in top.rglob("*") if path.is_dir())


def _more(writer: ImageWriterStage) -> tuple[str, ...]:
    """Return what a writer puts at the root beside shards: files and folders."""
    tops = {name.partition("/")[0]: None for name in _files(writer)}
    return (*tops, *writer.formats)


def _files(writer: ImageWriterStage) -> tuple[str, ...]:
    """Return the names of the files that describe the dataset to loaders, relative to it."""
    return tuple(name for index in writer.indexes for name in INDEXES[index].files)


def _beside(writer: ImageWriterStage) -> tuple[str, ...]:
    """Return the suffixes of the index files that a writer puts beside each tar."""
    suffixes = (INDEXES[index].suffix for index in writer.indexes)
    return tuple(suffix for suffix in suffixes if suffix is not None)


def check_output(writer: ImageWriterStage, control: Path, mine: Recipe) -> dict[str, Any] | None:
    """Return the manifest that stands in the output, if it is of this very recipe.

    A manifest that is not the one that a finished run left is damaged: as good as none.

    Raises:
        OutputConflictError: the folder holds another recipe's dataset, or files of unknown origin
            that this run would have to write over, or that loaders would mix with its own.
    """
    output = Path(writer.output_dir)
    intent = _read_intent(control)
    manifest = None if _damaged(output, intent) else dataset.read_manifest(output)
    if manifest is not None:
        if manifest.get("recipe_sha256") != mine.sha256:
            msg = (
                f"{output} holds the dataset of another recipe "
                f"({_difference(output, manifest, mine)}); "
                "choose another output folder, or delete this one"
            )
            raise OutputConflictError(msg)
        return manifest
    if intent and intent.recipe != mine.sha256 and intent.stands(output):
        msg = (
            f"{output} holds the dataset of another recipe, and its {dataset.MANIFEST} is gone or "
            "damaged: run that recipe again to mend it, or choose another output folder"
        )
        raise OutputConflictError(msg)
    in_the_way = [
        path.name
        for path in sorted(output.iterdir())
        if (
            path.suffix in (".tar", ".parquet")
            or path.name in (_DROPPED, dataset.RECIPE, *_more(writer))
        )
        and not (intent and intent.covers(path.name))
        and not (path.name == dataset.RECIPE and _has(path, mine.to_yaml().encode()))
    ]
    if in_the_way:
        msg = (
            f"{output} holds {len(in_the_way)} files of unknown origin that would be mixed with "
            f"the dataset or written over, such as {in_the_way[0]}; choose an empty folder"
        )
        raise OutputConflictError(msg)
    return None


def _has(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _damaged(output: Path, intent: _Intent | None) -> bool:
    """Tell whether the manifest is not the one that a finished run left."""
    if intent is None or intent.manifest is None:
        return False
    try:
        text = (output / dataset.MANIFEST).read_bytes()
    except OSError:
        return True
    return hashlib.sha256(text).hexdigest() != intent.manifest


def _difference(output: Path, manifest: Mapping[str, Any], mine: Recipe) -> str:
    """Say in a few words in what two recipes differ."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        theirs = (output / dataset.RECIPE).read_text().splitlines()
        compared = list(difflib.ndiff(theirs, mine.to_yaml().splitlines()))
        found = [
            f"{where}: " + ", ".join(lines)
            for where, mark in (("only there", "- "), ("only here", "+ "))
            if (lines := [line[2:].strip(" -") for line in compared if line.startswith(mark)])
        ]
        if found:
            return "; ".join(found)
    version = manifest.get("versions", {}).get("pixsieve")
    return (
        "another model, version, list or earlier dataset than it was made with; "
        f"written by pixsieve {version}"
    )


def name_hash(
    writer: ImageWriterStage,
    planned: Planned,
    mine: Recipe,
    control: Path,
    manifest: Mapping[str, Any] | None,
) -> str:
    """Return the part of file names that all shards of an export have in common."""
    if writer.deterministic_name:
        return planned.digest[:HASH_DIGITS]
    if manifest is not None:
        return str(manifest["hash"])
    intent = _read_intent(control)
    if intent and (intent.recipe, intent.plan) == (mine.sha256, planned.digest):
        return intent.hash
    return secrets.token_hex(HASH_DIGITS // 2)


def take_over(
    writer: ImageWriterStage,
    planned: Planned,
    mine: Recipe,
    name: str,
    control: Path,
    manifest: Mapping[str, Any] | None,
) -> tuple[str, ...]:
    """Note which files this run may write; remove those of an unfinished run that it will not.

    Returns:
        Names of index files that are not as they were written. As it cannot be told whether they
        are damaged or changed by hand, copies of them are kept in the control folder.

    Raises:
        OutputConflictError: the folder holds a finished dataset of other inputs.
    """
    output = Path(writer.output_dir)
    before = _read_intent(control)
    same = before is not None and (before.recipe, before.plan) == (mine.sha256, planned.digest)
    finished = manifest is not None or (before is not None and before.stands(output))
    standing = manifest["plan_sha256"] if manifest else before.plan if before else None
    if finished and standing != planned.digest:
        raise _other_inputs(output)
    beside, more = _beside(writer), _more(writer)
    names = {
        f"{shard_stem(writer, name, shard.split, shard.index, shard.bucket)}{end}"
        for shard in planned.shards
        for end in (".tar", ".parquet", *beside)
    }
    names |= {_DROPPED, dataset.RECIPE, *more}
    listed = {file["name"].partition("/")[0] for file in manifest["files"]} if manifest else set()
    known = {name for index in INDEXES.values() for name in index.files}
    changed = _changed(output, manifest, known)
    for file in changed:
        _put_aside(output / file, control / REPLACED / file)
    for path in sorted(output.iterdir()):
        ours = path.name in listed or (before is not None and before.covers(path.name))
        if path.name in names and not ours and path.name not in (_DROPPED, dataset.RECIPE):
            raise _in_the_way(path)
        if ours:
            _check_untouched(path)
        if ours and path.name not in names:
            if path.is_dir():
                clear(path)
            else:
                _remove(path)
        if path.name == dataset.MANIFEST and not same and _damaged(output, before):
            _remove(path)  # of a dataset that is gone; the new intent will not know it
    theirs = {file["name"] for file in manifest["files"]} if manifest else set()
    theirs |= set(before.files) if before else set()
    for file in sorted(set(_files(writer)) - theirs):
        if "/" in file and (output / file).exists():
            raise _in_the_way(output / file)
    for file in sorted(theirs & known - set(_files(writer))):
        if "/" in file and (output / file).exists():  # in a folder that other indexes share
            _remove(output / file)
    intent = _Intent(
        prefix=writer.prefix,
        hash=name,
        recipe=mine.sha256,
        plan=planned.digest,
        manifest=before.manifest if before and same else None,
        beside=beside,
        more=more,
        files=_files(writer),
    )
    put(control / INTENT, json.dumps(asdict(intent)).encode())
    return changed


def _put_aside(path: Path, kept: Path) -> None:
    """Keep a copy of a file that will be written over."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
    except OSError as error:
        raise storage_error("cannot keep a copy of", path, error) from error


def _in_the_way(path: Path) -> OutputConflictError:
    return OutputConflictError(
        f"{path} is in the way and not pixsieve's; move it away, choose another output folder, or "
        "leave out the index or format that has this name"
    )


def _changed(
    output: Path, manifest: Mapping[str, Any] | None, known: Collection[str]
) -> tuple[str, ...]:
    """Return the index files that are not as the manifest says: damaged, or changed by hand."""
    files = [FileRecord(**file) for file in manifest["files"]] if manifest else []
    return tuple(
        file.name
        for file in files
        if file.name in known and (output / file.name).is_file() and not stands(output, file)
    )


def clear(folder: Path) -> None:
    """Remove what index files or a format have in their folder, and it if nothing else is there.

    What somebody else put there stays.
    """
    try:
        if folder.name in FORMATS:
            for path in [*FORMATS[folder.name].owned(folder)]:
                path.unlink(missing_ok=True)
        for name in (name for index in INDEXES.values() for name in index.files):
            if name.startswith(f"{folder.name}/"):
                (folder.parent / name).unlink(missing_ok=True)
        for place in sorted(folder.rglob("*"), reverse=True):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise storage_error("cannot clear", folder, error) from error


def _check_untouched(path: Path) -> None:
    """Refuse to write over, or to remove, what somebody has changed by hand."""
    for index in INDEXES.values():
        if path.name in index.files and path.is_file() and index.is_edited(path.read_bytes()):
            msg = (
                f"{path} was changed by hand, and this run would write over it; move it away, or "
                "put what you added into the writer's card"
            )
            raise OutputConflictError(msg)


def check_inputs(
    output: Path, manifest: Mapping[str, Any] | None, inputs: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse to describe a finished dataset anew whose inputs changed, if not what was kept.

    Raises:
        OutputConflictError: they did.
    """
    if manifest is not None and manifest["inputs"] != list(inputs):
        raise _other_inputs(output)


def _other_inputs(output: Path) -> OutputConflictError:
    return OutputConflictError(
        f"{output} holds the dataset that this recipe made of other inputs; they have changed "
        "since. Choose another output folder, or delete this one"
    )


def finish(output: Path, control: Path) -> None:
    """Note that the manifest stands, which was the last file to be written."""
    intent = _read_intent(control)
    if intent is not None:
        digest = hashlib.sha256((output / dataset.MANIFEST).read_bytes()).hexdigest()
        put(control / INTENT, json.dumps(asdict(replace(intent, manifest=digest))).encode())


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise storage_error("cannot remove", path, error) from error


def _read_intent(control: Path) -> _Intent | None:
    try:
        return msgspec.json.decode((control / INTENT).read_bytes(), type=_Intent)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def known_shards(manifest: Mapping[str, Any] | None) -> dict[str, WrittenShard]:
    """Return the shards of a finished dataset by stem: a lost ledger costs a check only."""
    if manifest is None:
        return {}
    files = {entry["name"]: FileRecord(**entry) for entry in manifest["files"]}
    return {
        shard["tar"].removesuffix(".tar"): WrittenShard(
            tar=files[shard["tar"]],
            sidecar=files[shard["sidecar"]],
            samples=shard["samples"],
            encoded=0,
        )
        for shard in manifest["shards"]
    }


def put(path: Path, data: bytes) -> bool:
    """Write a small file, unless it has these bytes; return whether it was written."""
    return put_together({path: data})


def put_together(files: Mapping[Path, bytes]) -> bool:
    """Write small files, unless they have these bytes; return whether any was written."""
    lacking = {}
    for path, data in files.items():
        try:
            if path.read_bytes() != data:
                lacking[path] = data
        except FileNotFoundError:
            lacking[path] = data
        except OSError as error:
            raise storage_error("cannot read", path, error) from error
    if lacking:
        with LocalStorage().create_together(list(map(str, lacking))) as sinks:
            for sink, data in zip(sinks, lacking.values(), strict=True):
                sink.write(data)
    return bool(lacking)


def place(path: Path, made: Path) -> bool:
    """Copy a file that was made elsewhere into the output, unless it stands there.

    Return whether it was copied.
    """
    try:
        if path.exists() and filecmp.cmp(path, made, shallow=False):
            return False
    except OSError as error:
        raise storage_error("cannot read", path, error) from error
    with LocalStorage().create(str(path)) as sink, made.open("rb") as source:
        shutil.copyfileobj(source, sink, 1024 * 1024)
    return True
