"""Finding out what kind of dataset lies at a path, checking its shards, and adding up."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixsieve.engine.drive import Stop, drive
from pixsieve.engine.local import LocalExecutor
from pixsieve.engine.progress import Quiet
from pixsieve.engine.units import Context, Unit
from pixsieve.errors import (
    InterruptedRunError,
    SourceError,
    SourceNotFoundError,
    StorageError,
    UsageError,
)
from pixsieve.schema import SIDECAR
from pixsieve.verify import accounts
from pixsieve.verify.card import check_card
from pixsieve.verify.described import (
    Described,
    check_described,
    energon_numbers,
    states_md5,
)
from pixsieve.verify.findings import (
    LIMIT_PER_FILE,
    Checked,
    Finding,
    Findings,
    VerifyReport,
    shown,
)
from pixsieve.verify.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    check_asked_for,
    check_counts,
    check_foreign_names,
    check_own_names,
    check_recipe,
    check_sizes,
    is_manifest,
    read_manifest,
)
from pixsieve.verify.shard import ShardResult, ShardTask, check_file, check_shard, digest
from pixsieve.verify.sidecars import LATER, Sidecar, UnreadableTableError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

Progress = Callable[[int, int, str], None]
"""Takes the number of shards that are done, that of all, and the name of the last one."""

_LOOSE = ("imagefolder/", "lance/_transactions/", "lance/_versions/")
"""What formats have that the manifest does not list: a file for each image; what holds a time."""
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What is to be verified: a folder or one tar of it, and what is known of it."""

    folder: Path
    own: bool
    manifest: Manifest | None
    shards: list[Shard]
    whole: bool


def verify(
    path: str | Path,
    *,
    sample: float = 1.0,
    decode: bool = True,
    load: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check a dataset, or a single tar with its sidecar, with none of the code that writes them.

    It reads pixsieve's exports against their whole contract, and the sets of others as far as they
    say something that can be checked. Nothing is changed. Memory holds one shard's sidecar, its
    names and one image for each worker, and 8 bytes for each key and image_id of the dataset.

    Args:
        path: A folder with tars, or one tar.
        sample: Share of the samples to read, above 0 and at most 1. Below 1 that share of the tars,
            at least one, is read from end to end, and of their samples as many as make up the share
            are checked by content. The choice is by digests of the names, so it is the same each
            time. Manifest, file sizes, sidecar rows, uniqueness and counts are checked anyway.
        decode: Whether images are decoded completely; if not, only their headers are read.
        load: Whether the shards are also read with the webdataset library, where it is installed.
        workers: Number of worker processes. What an image may take of them is bounded, and one that
            ends a worker is a finding. 0 checks in this process, without that.
        progress: Called after each shard with (shards done, shards to do, name of the shard).

    Raises:
        UsageError: If an argument is out of range.
        SourceNotFoundError: If there is nothing at ``path``.
        SourceError: If there is no tar in it.
        StorageError: If a file cannot be read for a reason of the environment.
        WorkerLostError: If a worker died again and again while it was at no image.
        InterruptedRunError: If a signal came while workers were at work.
    """
    if not 0.0 < sample <= 1.0:
        raise UsageError(
            f"sample is {sample}, expected a share above 0 and at most 1, such as 0.01"
        )
    if workers < 0:
        raise UsageError(f"workers is {workers}, expected at least 0")
    try:
        return _verify(Path(path), sample, workers, progress, decode=decode, load=load)
    except OSError as error:
        if isinstance(error, (SourceError, StorageError)):
            raise
        raise StorageError(f"{path} cannot be read: {error}") from error


def _verify(
    path: Path,
    sample: float,
    workers: int,
    progress: Progress | None,
    *,
    decode: bool,
    load: bool,
) -> VerifyReport:
    target, findings = _target(path)
    tasks = _tasks(target, sample, decode=decode, load=load)
    checked, digests = Checked(), dict[str, str]()
    if target.whole:
        checked, digests = _check_folder(target, findings)
    results = _run(tasks, workers, progress or _silent)
    _check_results(target, results, digests, findings)
    for result in results:
        checked += result.checked
    found = [*findings.result(), *(finding for result in results for finding in result.findings)]
    return VerifyReport(
        path=str(path),
        kind="pixsieve" if target.own else "foreign",
        findings=tuple(sorted(found, key=_order)),
        checked=checked,
        unchecked=_unchecked(target, results, sample, decode=decode, load=load),
    )


def _order(finding: Finding) -> tuple[bool, str]:
    """Errors first, then by file; a stable sort keeps the order within a file."""
    return finding.severity != "error", finding.file


# -- what there is ----------------------------------------------------------------------------


def _target(path: Path) -> tuple[_Target, Findings]:
    if not path.exists():
        raise SourceNotFoundError(f"{path} does not exist; expected a dataset's folder or a tar")
    folder = path if path.is_dir() else path.parent
    tars = sorted(
        child.name for child in folder.glob("*.tar") if child.is_file() and child.name[0] != "."
    )
    if not path.is_dir():
        if path.suffix != ".tar":
            raise UsageError(f"{path} is neither a folder nor a .tar")
        tars = [path.name]
    shards = [Shard(tar=tar, sidecar=_sidecar_of(tar), split=None, samples=0) for tar in tars]
    manifest_path = folder / MANIFEST
    data = manifest_path.read_bytes() if manifest_path.is_file() else None
    own = (data is not None and is_manifest(data)) or any(
        _is_own(folder / s.sidecar) for s in shards[:3]
    )
    findings = Findings(own=own)
    manifest = None
    if own and path.is_dir():
        if data is None:
            findings.add(
                "manifest-missing",
                MANIFEST,
                "there is none: the export was not finished, or it was removed",
            )
        else:
            manifest = read_manifest(manifest_path, findings)
    if manifest is not None:
        shards = manifest.shards
    elif not shards and not own:
        passed = _passed_over(folder, shards)
        hint = f"; unpack compressed ones first, and name folders one by one: {passed}"
        raise SourceError(
            f"{path} has no manifest.json and no .tar to verify{hint if passed else ''}"
        )
    target = _Target(
        folder=folder, own=own, manifest=manifest, shards=list(shards), whole=path.is_dir()
    )
    return target, findings


def _passed_over(folder: Path, shards: Sequence[Shard]) -> str:
    """Name the tars that lie in a folder, compressed or below it, and are none of the shards."""
    known = {shard.tar for shard in shards}
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder)
        tars = {str(below / name) for name in names if name.endswith((".tar", *_COMPRESSED))}
        found += [name for name in tars - known if not Path(name).name.startswith(".")]
    listed = ", ".join(shown(name) for name in sorted(found)[:LIMIT_PER_FILE])
    more = len(found) - LIMIT_PER_FILE
    return f"{listed} and {more:,} more" if more > 0 else listed


def _sidecar_of(tar: str) -> str:
    return f"{tar.removesuffix('.tar')}.parquet"


def _is_own(sidecar: Path) -> bool:
    """Tell by a sidecar's metadata or columns whether pixsieve wrote it."""
    if not sidecar.is_file():
        return False
    try:
        found = Sidecar(sidecar, own=False, light=True)
    except UnreadableTableError:
        return False
    return found.kind == "pixsieve" or set(SIDECAR.names) <= {*found.schema.names, *LATER}


def _tasks(target: _Target, sample: float, *, decode: bool, load: bool) -> list[ShardTask]:
    """Describe the shards to check, and choose those that are read."""
    count = max(1, round(sample * len(target.shards)))
    ranked = sorted((digest(shard.tar), shard.tar) for shard in target.shards)
    walked = {tar for _, tar in ranked[:count]}
    share = min(1.0, sample * len(target.shards) / count)
    listed = target.manifest.listed() if target.manifest else {}
    md5 = target.whole and states_md5(target.folder)
    energon = energon_numbers(target.folder)
    return [
        ShardTask(
            folder=str(target.folder),
            tar=shard.tar,
            sidecar=shard.sidecar
            if target.own or (target.folder / shard.sidecar).is_file()
            else None,
            own=target.own,
            listed={name: listed[name] for name in (shard.tar, shard.sidecar) if name in listed},
            split=shard.split,
            bucket=shard.bucket,
            samples=shard.samples if target.manifest else None,
            walk=shard.tar in walked,
            share=share,
            decode=decode,
            load=load,
            md5=md5,
            energon=energon.get(shard.tar),
        )
        for shard in target.shards
    ]


# -- the folder -------------------------------------------------------------------------------


def _check_folder(target: _Target, findings: Findings) -> tuple[Checked, dict[str, str]]:
    """Check all but the shards: the manifest's own sums, names, other files and strangers.

    Return what was read, and the SHA-256 of each file that was.
    """
    checked, digests = Checked(), dict[str, str]()
    if not target.own:
        check_foreign_names([shard.tar for shard in target.shards], findings)
        return checked, digests
    manifest = target.manifest
    check_own_names(target.shards, manifest, findings)
    _check_strangers(target, findings)
    if manifest is None:
        return checked, digests
    check_counts(manifest, findings)
    check_sizes(manifest, findings)
    check_asked_for(manifest, findings)
    if manifest.recipe is not None:
        check_recipe(target.folder, manifest.recipe, findings)
    in_shards = {name for shard in manifest.shards for name in (shard.tar, shard.sidecar)}
    for name, listed in manifest.listed().items():
        if name not in in_shards:
            more, found = check_file(target.folder, name, listed, findings, content=True)
            checked += more
            if found is not None:
                digests[name] = found
    return checked, digests


def _check_strangers(target: _Target, findings: Findings) -> None:
    """Look for what does not belong at the root; hidden files are left alone, but leftovers."""
    manifest = target.manifest
    known = {MANIFEST}
    if manifest is not None:
        known |= {name.partition("/")[0] for name in manifest.listed()}
    for child in sorted(target.folder.iterdir()):
        name = child.name
        if name.startswith("."):
            if name.endswith(".tmp"):
                findings.add(
                    "file-leftover",
                    name,
                    "is left from a write that did not finish; it can be deleted",
                )
        elif name in known or manifest is None:
            continue
        elif name.endswith((".tar", ".parquet")):
            findings.add(
                "file-unlisted",
                name,
                "is not in the manifest, but loaders that read *.tar or *.parquet take it",
            )
        else:
            findings.add("file-stranger", name, "is not in the manifest")
    if manifest is not None:
        _check_below(target.folder, manifest, findings)


def _check_below(folder: Path, manifest: Manifest, findings: Findings) -> None:
    """Look for what does not belong in the sub-folders that the manifest has files of.

    A folder with a file for each image lists only those that describe them.
    """
    listed = manifest.listed()
    for top in sorted({name.partition("/")[0] for name in listed if "/" in name}):
        for path in sorted((folder / top).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.name.startswith(".") and path.name.endswith(".tmp"):
                text = "is left from a write that did not finish; it can be deleted"
                findings.add("file-leftover", name, text)
            elif path.is_file() and name not in listed and not name.startswith(_LOOSE):
                findings.add("file-stranger", name, "is not in the manifest")


# -- the shards -------------------------------------------------------------------------------


def _run(tasks: Sequence[ShardTask], workers: int, progress: Progress) -> list[ShardResult]:
    """Check the shards; return the results in the order of the tasks."""
    found: dict[str, ShardResult] = {}
    names = [f"{task.tar} ({number} of {len(tasks)})" for number, task in enumerate(tasks, 1)]
    units = [
        Unit(name=name, work=functools.partial(check_shard, task))
        for name, task in zip(names, tasks, strict=True)
    ]
    with contextlib.closing(_checked(units, workers)) as checked:
        for name, result in checked:
            found[name] = result
            progress(len(found), len(tasks), result.task.tar)
    return [found[name] for name in names]


def _checked(units: Sequence[Unit], workers: int) -> Generator[tuple[str, ShardResult], None, None]:
    """Yield the units' names with their results, in any order."""
    if not workers:
        yield from ((unit.name, unit.work(Context())) for unit in units)
        return
    stop = Stop()
    try:
        with stop.listening(), LocalExecutor(workers=workers).open() as session:
            for done in drive(iter(units), session, stop, Quiet()):
                yield done.unit.name, done.value
    except InterruptedRunError as error:
        name = signal.Signals(error.exit_code - 128).name
        msg = f"stopped by {name}; the dataset is as it was"
        raise InterruptedRunError(msg, error.exit_code) from None


def _silent(done: int, total: int, name: str) -> None:
    """Tell nobody."""


def _check_results(
    target: _Target,
    results: Sequence[ShardResult],
    digests: dict[str, str],
    findings: Findings,
) -> None:
    accounts.check_unique(results, findings)
    accounts.check_schemas(results, findings)
    if target.whole:
        known = Described(
            folder=target.folder,
            own=target.own,
            results=results,
            digests=digests | {name: sha for each in results for name, sha in each.digests.items()},
            listed=frozenset(target.manifest.listed() if target.manifest else ()),
            findings=findings,
        )
        check_described(known)
        check_card(known)
    if not target.own or not target.whole:
        return
    if target.manifest is not None:
        accounts.check_kept(target.manifest, results, findings)
        accounts.check_uniform(target.manifest, results, findings)
    accounts.check_dropped(target.folder, target.manifest, results, findings)


def _unchecked(
    target: _Target, results: Sequence[ShardResult], sample: float, *, decode: bool, load: bool
) -> tuple[str, ...]:
    """Say what was not checked, and why."""
    notes = []
    if not target.own:
        notes.append("file digests, counts and what was dropped: no pixsieve manifest states them")
    elif not target.whole:
        notes.append(
            "manifest, counts, dropped.parquet and other shards: one tar was named, not its folder"
        )
    elif target.manifest is None:
        notes.append("file digests and counts: there is no manifest to compare with")
    elif target.manifest.sha256 is None:
        notes.append("the manifest itself: it is of a version that gave it no digest of its own")
    if target.whole and target.manifest is None:
        passed = _passed_over(target.folder, target.shards)
        if passed:
            notes.append(f"tars that are compressed or lie in sub-folders: {passed}")
    extra = {
        name for result in results for name, _ in result.columns or () if name not in SIDECAR.names
    }
    if target.own and extra:
        notes.append(
            f"whether the values of {shown(', '.join(sorted(extra)))} are right: "
            "they are not computed again"
        )
    walked = sum(result.task.walk for result in results)
    if sample < 1.0:
        notes.append(
            f"the contents of all samples: {walked:,} of {len(results):,} tars were read, "
            f"and {results[0].task.share if results else 1.0:.2%} of the samples in them"
        )
    if not decode:
        notes.append("whether images decode: that was switched off, only headers were read")
    if not load:
        notes.append("loading with webdataset: that was switched off")
    of_shards = Counter(note for result in results for note in result.unchecked)
    notes += [f"{note} ({count:,} of {len(results):,} shards)" for note, count in of_shards.items()]
    return tuple(notes)
