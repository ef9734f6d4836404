"""The output folder.

Whose it is, what may be written into it, and what an unfinished run left there.
"""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import json
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pixsieve import recipe
from pixsieve.engine.claim import claim
from pixsieve.engine.ledger import Workspace
from pixsieve.errors import OutputConflictError, UsageError
from pixsieve.export import dataset
from pixsieve.export.plan import HASH_DIGITS, shard_stem
from pixsieve.export.shard import FileRecord, WrittenShard
from pixsieve.fingerprint import canonical
from pixsieve.storage import LocalStorage
from pixsieve.storage.local import storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pixsieve.engine.work import Planned
    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.pipeline import Plan

CONTROL = ".pixsieve"
"""Hidden folder in the output: the claim, what an unfinished run may have written, and the
workspace."""
INTENT = "intent.json"

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")


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
        return recipe.dumps(self.plan.name, self.plan.seed, self.plan.stages)


def folders(plan: Plan, workspace: str | None) -> tuple[Path, Workspace]:
    """Return the control folder and the workspace of a plan.

    Raises:
        UsageError: the plan writes nothing, and no workspace is named.
    """
    if plan.writer is None and workspace is None:
        msg = "a pipeline without a writer needs a workspace for its scores; name one"
        raise UsageError(msg)
    if plan.writer is None:
        control = Path(workspace or "").resolve()
    else:
        control = Path(plan.writer.output_dir).resolve() / CONTROL
    return control, Workspace(Path(workspace).resolve() if workspace else control)


def clean(output_dir: str, workspace: str | None = None) -> tuple[str, ...]:
    """Remove the working state of a dataset, never the dataset.

    Args:
        output_dir: The dataset's folder.
        workspace: A workspace of the user's choice; its tables, plans, records and unpacked
            archives go too.

    Returns:
        The folders that were removed.

    Raises:
        BusyError: a run works on the output.
    """
    control = Path(output_dir).resolve() / CONTROL
    removed = []
    if control.is_dir():
        with claim(control):
            pass
        shutil.rmtree(control)
        removed.append(str(control))
    if workspace is not None:
        for name in Workspace.FOLDERS:
            folder = Path(workspace).resolve() / name
            if folder.is_dir():
                shutil.rmtree(folder)
                removed.append(str(folder))
    return tuple(removed)


@contextlib.contextmanager
def prepared(control: Path, workspace: Workspace) -> Iterator[None]:
    """Make the folders; what was made in vain is removed again."""
    try:
        control.mkdir(parents=True, exist_ok=True)
        workspace.prepare()
    except OSError as error:
        raise storage_error("cannot make", error.filename or control, error) from error
    yield


def check_apart(plan: Plan) -> None:
    """Refuse an output inside its own source: the next run would read what this one wrote."""
    if plan.writer is None:
        return
    output = Path(plan.writer.output_dir).resolve()
    named = plan.reader.path_or_paths or ""
    for path in [named] if isinstance(named, str) else named:
        source = Path(path).resolve()
        if source.is_dir() and (output == source or source in output.parents):
            msg = (
                f"the output {output} lies inside the source {source}, so the next run would "
                "read it; choose a folder beside it"
            )
            raise UsageError(msg)


def clean_temporary(plan: Plan, workspace: Workspace, control: Path) -> None:
    """Remove what killed writers left behind: only files of the form that pixsieve's own have."""
    places = [control]
    if workspace.root == control:
        places += [control / name for name in Workspace.FOLDERS]
    if plan.writer:
        places.append(Path(plan.writer.output_dir))
    for place in places:
        for path in place.glob(".*.tmp"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)


def check_output(output: Path, control: Path, mine: Recipe) -> dict[str, Any] | None:
    """Return the manifest that stands in the output, if it is of this very recipe.

    Raises:
        OutputConflictError: the folder holds another recipe's dataset, or tars of unknown origin.
    """
    manifest = dataset.read_manifest(output)
    if manifest is None:
        ours = _intended(control)
        foreign = sorted(
            path.name for path in output.glob("*.tar") if not (ours and ours.fullmatch(path.name))
        )
        if foreign:
            msg = (
                f"{output} holds {len(foreign)} tars that pixsieve did not write, such as "
                f"{foreign[0]}; choose an empty folder"
            )
            raise OutputConflictError(msg)
        return None
    if manifest.get("recipe_sha256") != mine.sha256:
        msg = (
            f"{output} holds the dataset of another recipe "
            f"({_difference(manifest, mine.to_dict())}); "
            "choose another output folder, or delete this one"
        )
        raise OutputConflictError(msg)
    return manifest


def _difference(manifest: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Say in a few words in what two recipes differ."""
    theirs = manifest.get("recipe") or {}
    for name in ("name", "seed"):
        if theirs.get(name) != mine[name]:
            return f"{name} {theirs.get(name)!r} there, {mine[name]!r} here"
    for there, here in itertools.zip_longest(theirs.get("stages", []), mine["stages"]):
        if there != here:
            return f"{json.dumps(there)} there, {json.dumps(here)} here"
    version = manifest.get("versions", {}).get("pixsieve")
    return f"another model or version; written by pixsieve {version}"


def name_hash(
    writer: ImageWriterStage, planned: Planned, control: Path, manifest: Mapping[str, Any] | None
) -> str:
    """Return the part of file names that all shards of an export have in common."""
    if writer.deterministic_name:
        return planned.digest[:HASH_DIGITS]
    if manifest is not None:
        return str(manifest["hash"])
    return _read_intent(control).get("random") or secrets.token_hex(HASH_DIGITS // 2)


def take_over(
    writer: ImageWriterStage,
    planned: Planned,
    name: str,
    control: Path,
    manifest: Mapping[str, Any] | None,
) -> None:
    """Note which files this run may write; remove those of an unfinished run that it will not.

    Raises:
        OutputConflictError: the folder holds a finished dataset of other inputs.
    """
    output = Path(writer.output_dir)
    if manifest is not None and manifest.get("plan_sha256") != planned.digest:
        msg = (
            f"{output} holds the dataset that this recipe made of other inputs; they have changed "
            "since. Choose another output folder, or delete this one"
        )
        raise OutputConflictError(msg)
    names = {
        f"{shard_stem(writer, name, shard.split, shard.index)}.{kind}"
        for shard in planned.shards
        for kind in ("tar", "parquet")
    }
    before = _intended(control)
    if manifest is None:
        for path in sorted(output.iterdir()):
            ours = before is not None and before.fullmatch(path.name) is not None
            if path.name in names and not ours:
                msg = f"{path} is in the way and not pixsieve's; choose another output folder"
                raise OutputConflictError(msg)
            if ours and path.name not in names:
                path.unlink()
    intent = {"prefix": writer.prefix, "hash": name}
    if not writer.deterministic_name:
        intent["random"] = name
    put(control / INTENT, json.dumps(intent).encode())


def _read_intent(control: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode((control / INTENT).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return {}


def _intended(control: Path) -> re.Pattern[str] | None:
    """Return what names the files have that an unfinished run may have written."""
    intent = _read_intent(control)
    if "hash" not in intent:
        return None
    stem = f"{re.escape(intent['prefix'])}(-[A-Za-z0-9_]+)?-{re.escape(intent['hash'])}-[0-9]{{6,}}"
    return re.compile(rf"{stem}\.(tar|parquet)|dropped\.parquet|recipe\.yaml")


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
    try:
        if path.read_bytes() == data:
            return False
    except FileNotFoundError:
        pass
    except OSError as error:
        raise storage_error("cannot read", path, error) from error
    with LocalStorage().create(str(path)) as sink:
        sink.write(data)
    return True


def place(path: Path, made: Path) -> bool:
    """Copy a table from the workspace into the output, unless it stands there.

    Return whether it was copied.
    """
    if path.exists() and filecmp.cmp(path, made, shallow=False):
        return False
    with LocalStorage().create(str(path)) as sink, made.open("rb") as source:
        shutil.copyfileobj(source, sink, 1024 * 1024)
    return True
