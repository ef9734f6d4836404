"""Checks over the whole dataset: nothing is there twice, and every sample is accounted for."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from pixsieve.schema import DROPPED, Status
from pixsieve.verify.manifest import MANIFEST
from pixsieve.verify.samples import IMAGE_EXTENSIONS
from pixsieve.verify.shard import digest, names_in
from pixsieve.verify.sidecars import UnreadableTableError, rows_of, schema_faults, schema_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pixsieve.verify.findings import Findings
    from pixsieve.verify.manifest import Manifest
    from pixsieve.verify.shard import ShardResult

DROPPED_NAMES = ("dropped/dropped.parquet", "dropped.parquet")
"""Where it lies, and where it lay in older exports."""

End = tuple[str | None, str, str]
"""The stage, status and reason with which a sample ended."""

_COLUMNS = ["image_id", "status", "stage", "reason", "duplicate_of"]


def check_unique(results: Sequence[ShardResult], findings: Findings) -> None:
    """Check that no key and no image_id is in the dataset twice.

    Only 64-bit digests are held; the names are read again where two digests are equal, so a chance
    collision is no finding.
    """
    twice = _repeated([result.keys for result in results])
    ids_twice = _repeated([result.image_ids for result in results])
    if not twice and not ids_twice:
        return
    keys: dict[str, str] = {}  # case-folded key: the file that had it first
    exact: dict[str, str] = {}
    ids: dict[str, str] = {}
    for result in results:
        tar, sidecar = result.task.tar, result.task.sidecar or result.task.tar
        for kind, name in names_in(result.task):
            folded = name.casefold()
            if kind == "image_id" and digest(name) in ids_twice:
                if name in ids:
                    findings.add(
                        "image-id-duplicate", sidecar, f"is in {ids[name]} as well", member=name
                    )
                ids.setdefault(name, sidecar)
            elif kind == "key" and digest(folded) in twice:
                if exact.get(name, tar) != tar:
                    findings.add("key-duplicate", tar, f"is in {exact[name]} as well", member=name)
                elif keys.get(folded, tar) != tar:
                    findings.add(
                        "key-case", tar, f"{keys[folded]} has it in another case", member=name
                    )
                keys.setdefault(folded, tar)
                exact.setdefault(name, tar)


def check_schemas(results: Sequence[ShardResult], findings: Findings) -> None:
    """Check that all sidecars have the columns, order and types of the first one."""
    with_columns = [result for result in results if result.columns is not None]
    for result in with_columns[1:]:
        first, columns = with_columns[0].columns or (), result.columns or ()
        if columns != first:
            more, less = sorted(set(columns) - set(first)), sorted(set(first) - set(columns))
            differs = f"more: {more}, less: {less}" if more or less else "their order differs"
            findings.add(
                "sidecar-schema-differs",
                result.task.sidecar or result.task.tar,
                f"columns are not those of {with_columns[0].task.sidecar}: {differs}",
            )


def check_uniform(manifest: Manifest, results: Sequence[ShardResult], findings: Findings) -> None:
    """Check that samples are as uniform as the recipe says."""
    if manifest.recipe is None or manifest.recipe.writes("members") != "uniform":
        return
    shapes: set[str] = set()
    for result in results:
        for part, count in sorted((result.parts or {}).items()):
            if count < result.samples and part not in IMAGE_EXTENSIONS:
                text = f"{result.samples - count:,} of {result.samples:,} samples have no .{part}"
                findings.add("members-uneven", result.task.tar, text)
        if result.shapes - shapes and shapes:
            other = min(result.shapes - shapes)
            text = f"has json of the shape {other[:200]}, others are {min(shapes)[:200]}"
            findings.add("members-uneven", result.task.tar, text)
        elif len(result.shapes) > 1:
            first, second = sorted(result.shapes)[:2]
            text = f"has json of the shapes {first[:200]} and {second[:200]}"
            findings.add("members-uneven", result.task.tar, text)
        shapes |= result.shapes
    parts = [set(result.parts) for result in results if result.parts]
    for result in results:
        lacks = set().union(*parts) - set(result.parts or ()) - IMAGE_EXTENSIONS
        if result.parts and lacks:
            text = f"no sample has .{min(lacks)}, those of other shards have"
            findings.add("members-uneven", result.task.tar, text)


def check_kept(manifest: Manifest, results: Sequence[ShardResult], findings: Findings) -> None:
    """Check that the samples that were found add up to the manifest's count."""
    found = sum(result.samples for result in results)
    if found != manifest.counts.kept:
        findings.add(
            "counts-kept",
            MANIFEST,
            f"kept is {manifest.counts.kept:,}, the shards have {found:,} samples",
        )


def check_dropped(
    folder: Path, manifest: Manifest | None, results: Sequence[ShardResult], findings: Findings
) -> None:
    """Check ``dropped.parquet`` against the manifest and against what was kept."""
    listed = manifest.listed() if manifest else {}
    names = [each for each in DROPPED_NAMES if each in listed] or DROPPED_NAMES
    name = next((each for each in names if (folder / each).is_file()), None)
    if name is None:
        return  # the check of the manifest's files says so
    path = folder / name
    try:
        faults = schema_faults(schema_of(path), DROPPED)
        for fault in faults:
            findings.add("dropped-schema", name, fault)
        if faults:
            return
        ends = _check_rows(path, name, results, findings)
    except UnreadableTableError as error:
        findings.add("dropped-unreadable", name, str(error))
        return
    if manifest is not None:
        _check_reasons(manifest, ends, name, findings)


def _check_rows(
    path: Path, name: str, results: Sequence[ShardResult], findings: Findings
) -> Counter[End]:
    """Check every row; return how many ended with which stage, status and reason."""
    ends: Counter[End] = Counter()
    ids, copied = array("Q"), array("Q")
    for row in rows_of(path, _COLUMNS):
        ends[row["stage"], row["status"], row["reason"]] += 1
        ids.append(digest(row["image_id"] or ""))
        if row["duplicate_of"] is not None:
            copied.append(digest(row["duplicate_of"]))
        if row["status"] not in {Status.DROPPED, Status.FAILED}:
            findings.add(
                "dropped-status",
                name,
                f"status is {row['status']!r}, expected dropped or failed",
                member=row["image_id"],
            )
    kept = np.unique(np.concatenate([np.empty(0, np.uint64), *(r.image_ids for r in results)]))
    dropped = np.frombuffer(ids, np.uint64)
    both = set(np.intersect1d(kept, dropped).tolist())
    twice = _repeated([dropped])
    # without every sidecar it cannot be told what was kept
    whole = all(result.columns is not None for result in results)
    gone = set(np.setdiff1d(np.frombuffer(copied, np.uint64), kept).tolist()) if whole else set()
    _check_ids(path, name, both, twice, findings)
    _check_copies(path, name, gone, findings)
    return ends


def _check_ids(path: Path, name: str, both: set[int], twice: set[int], findings: Findings) -> None:
    if not both and not twice:
        return
    for row in rows_of(path, ["image_id"]):
        image = row["image_id"] or ""
        if digest(image) in both:
            findings.add("dropped-and-kept", name, "is in a sidecar too", member=image)
        if digest(image) in twice:
            findings.add("dropped-twice", name, "has more than one row", member=image)


def _check_copies(path: Path, name: str, gone: set[int], findings: Findings) -> None:
    """Check copies whose original was not kept: only another stage may have dropped it since.

    The original of a copy whose evidence has ``against`` is in another dataset.
    """
    if not gone:
        return
    ended: dict[int, End] = {}
    for row in rows_of(path, _COLUMNS):
        if digest(row["image_id"] or "") in gone:
            ended[digest(row["image_id"] or "")] = (row["stage"], row["status"], row["reason"])
    for row in rows_of(path, [*_COLUMNS, "evidence"]):
        original = row["duplicate_of"]
        if original is None or digest(original) not in gone or _is_elsewhere(row["evidence"]):
            continue
        end = ended.get(digest(original))
        if end is None:
            message = f"duplicate_of is {original!r}, which is no image of the dataset"
        elif end == (row["stage"], row["status"], row["reason"]):
            message = (
                f"duplicate_of is {original!r}, which the same stage dropped for the same reason"
            )
        else:
            continue
        findings.add("duplicate-of", name, message, member=row["image_id"])


def _is_elsewhere(evidence: str | None) -> bool:
    """Tell whether evidence names another dataset that the original is in."""
    try:
        found = json.loads(evidence or "null")
    except ValueError:
        return False
    return isinstance(found, dict) and "against" in found


def _check_reasons(manifest: Manifest, ends: Counter[End], name: str, findings: Findings) -> None:
    stated: Counter[End] = Counter()
    for reason in manifest.reasons:
        if reason.status != Status.KEPT:
            stated[reason.stage, reason.status, reason.reason] += reason.count
    for end in sorted(stated.keys() | ends.keys(), key=str):
        if stated[end] != ends[end]:
            findings.add(
                "counts-reasons",
                name,
                f"has {ends[end]:,} rows for stage, status and reason {end}, "
                f"the manifest says {stated[end]:,}",
            )
    for status, count in (
        (Status.DROPPED, manifest.counts.dropped),
        (Status.FAILED, manifest.counts.failed),
    ):
        found = sum(number for end, number in ends.items() if end[1] == status)
        if found != count:
            findings.add(
                "counts-reasons",
                name,
                f"has {found:,} {status} rows, the manifest counts {count:,}",
            )


def _repeated(arrays: Sequence[NDArray[np.uint64]]) -> set[int]:
    """Return the digests that occur more than once."""
    together = np.sort(np.concatenate([np.empty(0, np.uint64), *arrays]))
    return set(together[1:][together[1:] == together[:-1]].tolist())
