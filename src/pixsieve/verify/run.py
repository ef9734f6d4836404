"""Finding out what kind of dataset lies at a path, checking its shards, and adding up."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixsieve.errors import (
    SourceError,
    SourceNotFoundError,
    StorageError,
    UsageError,
    WorkerLostError,
)
from pixsieve.processes import without_main
from pixsieve.schema import SIDECAR
from pixsieve.verify import accounts
from pixsieve.verify.findings import Checked, Finding, Findings, VerifyReport, shown
from pixsieve.verify.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    check_counts,
    check_foreign_names,
    check_own_names,
    is_manifest,
    read_manifest,
)
from pixsieve.verify.shard import ShardResult, ShardTask, check_file, check_shard, digest
from pixsieve.verify.sidecars import Sidecar, UnreadableTableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")


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
    progress: Callable[[int, int, str], None] | None = None,
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
        workers: Number of processes.
        progress: Called after each shard with (shards done, shards to do, name of the shard).

    Raises:
        UsageError: If an argument is out of range.
        SourceNotFoundError: If there is nothing at ``path``.
        SourceError: If there is no tar in it.
        StorageError: If a file cannot be read for a reason of the environment.
        WorkerLostError: If a process died, for example in a decoder.
    """
    if not 0.0 < sample <= 1.0:
        raise UsageError(
            f"sample is {sample}, expected a share above 0 and at most 1, such as 0.01"
        )
    if workers < 1:
        raise UsageError(f"workers is {workers}, expected at least 1")
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
    progress: Callable[[int, int, str], None] | None,
    *,
    decode: bool,
    load: bool,
) -> VerifyReport:
    target, findings = _target(path)
    tasks = _tasks(target, sample, decode=decode, load=load)
    checked = Checked()
    if target.whole:
        checked += _check_folder(target, findings)
    results: list[ShardResult] = []
    for result in _run(tasks, workers):
        results.append(result)
        if progress is not None:
            progress(len(results), len(tasks), result.task.tar)
    _check_results(target, results, findings)
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
        packed = [child.name for child in folder.iterdir() if child.name.endswith(_COMPRESSED)]
        hint = "; compressed tars are not read, unpack them first" if packed else ""
        raise SourceError(f"{path} has no manifest.json and no .tar to verify{hint}")
    target = _Target(
        folder=folder, own=own, manifest=manifest, shards=list(shards), whole=path.is_dir()
    )
    return target, findings


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
    return found.kind == "pixsieve" or set(SIDECAR.names) <= set(found.schema.names)


def _tasks(target: _Target, sample: float, *, decode: bool, load: bool) -> list[ShardTask]:
    """Describe the shards to check, and choose those that are read."""
    count = max(1, round(sample * len(target.shards)))
    ranked = sorted((digest(shard.tar), shard.tar) for shard in target.shards)
    walked = {tar for _, tar in ranked[:count]}
    share = min(1.0, sample * len(target.shards) / count)
    listed = target.manifest.listed() if target.manifest else {}
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
            samples=shard.samples if target.manifest else None,
            walk=shard.tar in walked,
            share=share,
            decode=decode,
            load=load,
        )
        for shard in target.shards
    ]


# -- the folder -------------------------------------------------------------------------------


def _check_folder(target: _Target, findings: Findings) -> Checked:
    """Check all but the shards: the manifest's own sums, names, other files and strangers."""
    checked = Checked()
    if not target.own:
        check_foreign_names([shard.tar for shard in target.shards], findings)
        return checked
    manifest = target.manifest
    check_own_names(target.shards, manifest.hash if manifest else None, findings)
    _check_strangers(target, findings)
    if manifest is None:
        return checked
    check_counts(manifest, findings)
    in_shards = {name for shard in manifest.shards for name in (shard.tar, shard.sidecar)}
    for name, listed in manifest.listed().items():
        if name not in in_shards:
            checked += check_file(target.folder, name, listed, findings, content=True)
    return checked


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


# -- the shards -------------------------------------------------------------------------------


def _run(tasks: Sequence[ShardTask], workers: int) -> Iterator[ShardResult]:
    """Check the shards, in their order, in this process or in others."""
    if workers == 1 or len(tasks) <= 1:
        yield from map(check_shard, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        try:
            with without_main():  # processes start when they get their first task
                results = pool.map(check_shard, tasks)
            yield from results
        except BrokenProcessPool as error:
            raise WorkerLostError(
                "a verifying process died: killed, out of memory, or crashed in a decoder; "
                "verify the tars one by one to find which one does it"
            ) from error


def _check_results(target: _Target, results: Sequence[ShardResult], findings: Findings) -> None:
    accounts.check_unique(results, findings)
    accounts.check_schemas(results, findings)
    if not target.own or not target.whole:
        return
    if target.manifest is not None:
        accounts.check_kept(target.manifest, results, findings)
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
