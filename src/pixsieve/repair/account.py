"""What became of every sample of a set that was repaired, told from the two sets as they lie."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pixsieve.export.dataset import DROPPED, read_manifest
from pixsieve.repair.stages import NO_ROW, NOTE, Fault
from pixsieve.repair.survey import read_columns
from pixsieve.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pixsieve.engine.result import RunResult
    from pixsieve.repair.survey import OldShard, Survey

SHOWN = 20
"""Samples that the text names of each kind; the JSON has all."""
_COMPARED = {
    "sha256": "sha256",
    "width": "width",
    "height": "height",
    "format": "format",
    "mode": "mode",
    "exif_orientation": "exif_orientation",
    "member_offset": "original_offset",
    "member_size": "member_size",
    "member_sizes": "member_sizes",
    "caption": "caption",
    "split": "split",
    "bucket": "bucket",
}
"""Columns of the old tables, and those of the new ones that say how they should have been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A sample that is not in the new set: where it was, and why it is not there now."""

    tar: str
    key: str
    reason: str
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a repair saved, what it mended, and what it could not.

    Attributes:
        source: The folder that was repaired.
        output: The new set.
        kind: ``pixsieve``, or ``foreign`` for any other maker's.
        expected: Samples that the old set should have had; ``None`` if nothing says so.
        kept: Samples of the new set.
        lost: Those that are not in it, but for copies.
        nameless: Samples of which only the number is known, by tar.
        copies: How many were there a second time.
        corrected: How many values of each column of the old tables were wrong.
        rows_made: How many samples had no row.
        renamed: Old and new key of those that could not keep theirs.
        doubtful: Key and what is in doubt, of those that were kept all the same.
        missing: Shards that are not there at all.
        left_out: Tars that the manifest does not know.
        notes: What else there is to say.
    """

    source: str
    output: str
    kind: str
    expected: int | None
    kept: int
    lost: tuple[Lost, ...]
    nameless: dict[str, int]
    copies: int
    corrected: dict[str, int]
    rows_made: int
    renamed: tuple[tuple[str, str], ...]
    doubtful: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """Return the report as one JSON object on one line; ``docs/repair.md`` lists its fields."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def to_text(self) -> str:
        """Return the report as lines for people."""
        gone = len(self.lost) + sum(self.nameless.values())
        should = "" if self.expected is None else f" of {self.expected:,}"
        lines = [f"{self.kept:,}{should} samples are in {self.output}; lost: {gone:,}"]
        lines += _listed(
            "lost",
            (
                f"{each.tar}: {each.key}: {each.reason}"
                + (f" ({each.detail})" if each.detail else "")
                for each in self.lost
            ),
            len(self.lost),
        )
        lines += [
            f"lost: {tar}: {count:,} more, whose keys nothing says"
            for tar, count in self.nameless.items()
        ]
        lines += [f"not there: {tar}" for tar in self.missing]
        lines += [f"left out, since the manifest does not know it: {tar}" for tar in self.left_out]
        lines += [f"mended: {name} of {_counted(count)}" for name, count in self.corrected.items()]
        if self.rows_made:
            text = "without a row: what only that told is unknown"
            lines.append(f"mended: {_counted(self.rows_made)} {text}")
        if self.copies:
            lines.append(f"mended: {_counted(self.copies)} there a second time")
        lines += _listed(
            "renamed", (f"{old} is {new}" for old, new in self.renamed), len(self.renamed)
        )
        lines += _listed(
            "in doubt", (f"{key}: {what}" for key, what in self.doubtful), len(self.doubtful)
        )
        lines += [f"note: {note}" for note in self.notes]
        return "".join(f"{printable(line)}\n" for line in lines)


def _counted(samples: int) -> str:
    return f"{samples:,} sample" + ("" if samples == 1 else "s")


def _listed(kind: str, lines: Iterable[str], count: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number == SHOWN:
            yield f"{kind}: {count - SHOWN:,} more; --json names all"
            return
        yield f"{kind}: {line}"


@dataclass(slots=True)
class _Found:
    """What is found out on the way."""

    keys: dict[str, list[NDArray[np.uint64]]] = field(default_factory=dict)
    corrected: Counter[str] = field(default_factory=Counter)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    doubtful: list[tuple[str, str]] = field(default_factory=list)
    rows_made: int = 0


def account(known: Survey, result: RunResult) -> RepairReport:
    """Compare the new set with the tables of the old one."""
    output = result.output_dir
    assert output is not None  # noqa: S101  # a repair has a writer
    found = _Found()
    manifest = read_manifest(output) or {}
    for shard in manifest.get("shards", ()):
        _compare(known, output / shard["sidecar"], found)
    lost, copies = _dropped(output, found)
    nameless: dict[str, int] = {}
    expected: int | None = 0
    for shard in (*known.shards, *known.missing):
        keys = _keys(known.folder, shard)
        seen = set(
            np.concatenate([np.empty(0, np.uint64), *found.keys.get(shard.tar, ())]).tolist()
        )
        gone = [key for key in dict.fromkeys(keys) if _digest(key) not in seen]
        lost += [Lost(tar=shard.role, key=key, reason="not_in_tar", detail=None) for key in gone]
        stated = [
            number for number in (shard.samples, len(set(keys)) or None) if number is not None
        ]
        if not stated:
            expected = None
        more = max(stated, default=0) - len(gone) - len(seen)
        if more > 0:
            nameless[shard.role] = more
        expected = None if expected is None else expected + max(stated, default=0)
    return RepairReport(
        source=str(known.folder),
        output=str(output),
        kind="pixsieve" if known.own else "foreign",
        expected=expected,
        kept=result.counts.kept,
        lost=tuple(lost),
        nameless=nameless,
        copies=copies,
        corrected={name: count for name, count in sorted(found.corrected.items()) if count},
        rows_made=found.rows_made,
        renamed=tuple(found.renamed),
        doubtful=tuple(found.doubtful),
        missing=tuple(shard.role for shard in known.missing),
        left_out=known.left_out,
        notes=(*known.notes, *_formats(known), *result.notes),
    )


def _compare(known: Survey, sidecar: Path, found: _Found) -> None:
    """Look at the rows of a new shard beside those of the old ones that they were made of."""
    names = {*_COMPARED.values(), "key", "member_name", "original_path", "original_key", NOTE}
    rows = read_columns(sidecar, sorted(names))
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    shards = {shard.tar: shard for shard in known.shards}
    digests: dict[str, list[int]] = {}
    for at, (tar, old) in enumerate(zip(rows["original_path"], rows["original_key"], strict=True)):
        digests.setdefault(tar, []).append(_digest(old))
        if rows["key"][at] != old:
            found.renamed.append((old, rows["key"][at]))
        note = rows[NOTE][at] or ""
        found.rows_made += NO_ROW in note
        if doubtful := Fault.UNKNOWN in note:
            found.doubtful.append((rows["key"][at], note))
        if known.own and tar in shards:
            table = tables.setdefault(tar, _table(known.folder, shards[tar]))
            was = table.get(old, {})
            for name, mine in _COMPARED.items():
                if name in was and was[name] != rows[mine][at]:
                    found.corrected[name] += not (doubtful and name == "caption")
            extensions = [
                str(name).partition(".")[2]
                for name in (was.get("member_name"), rows["member_name"][at])
            ]
            found.corrected["extension"] += bool(was) and extensions[0] != extensions[1]
    for tar, numbers in digests.items():
        found.keys.setdefault(tar, []).append(np.array(numbers, np.uint64))


def _table(folder: Path, shard: OldShard) -> dict[str, dict[str, Any]]:
    if shard.sidecar is None:
        return {}
    columns = read_columns(folder / shard.sidecar, ("key", "member_name", *_COMPARED))
    keys = columns.pop("key", [])
    rows = (
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    )
    return dict(zip(keys, rows, strict=False))


def _dropped(output: Path, found: _Found) -> tuple[list[Lost], int]:
    """Return what was found in the old tars and is not in the new set, and how many copies."""
    names = ("original_path", "original_key", "reason", "evidence")
    columns = read_columns(output / DROPPED, names)
    lost, copies = [], 0
    for tar, key, reason, evidence in zip(*(columns[name] for name in names), strict=True):
        if key.startswith("unreadable@"):
            continue  # a place in a tar, of which the notes tell; the keys that were there are lost
        found.keys.setdefault(tar, []).append(np.array([_digest(key)], np.uint64))
        if reason == "copy":
            copies += 1
        else:
            lost.append(Lost(tar=tar, key=key, reason=reason, detail=_detail(evidence)))
    return lost, copies


def _detail(evidence: str | None) -> str | None:
    try:
        told = json.loads(evidence or "{}")
    except ValueError:
        return evidence
    if isinstance(told, dict):
        return (
            "; ".join(
                f"{key}: {value}" if key != "detail" else str(value) for key, value in told.items()
            )
            or None
        )
    return evidence


def _keys(folder: Path, shard: OldShard) -> list[str]:
    """Return the keys of the samples that a shard's table has; not those of failed downloads."""
    if shard.sidecar is None:
        return []
    columns = read_columns(folder / shard.sidecar, ("key", "member_name", "status"))
    keys = columns.get("key") or [_key(name) for name in columns.get("member_name", ()) if name]
    statuses = columns.get("status") or ["success"] * len(keys)
    return [
        str(key)
        for key, status in zip(keys, statuses, strict=False)
        if key is not None and status == "success"
    ]


def _key(member: str) -> str:
    folder, slash, last = member.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _formats(known: Survey) -> Iterator[str]:
    """Say which other formats the old set had, which are not made anew unless asked for."""
    formats = known.stage("ImageWriterStage").get("formats")
    if isinstance(formats, list) and formats:
        listed = ", ".join(map(str, formats))
        yield f"the old set was also written as {listed}; --format makes that of the new one"
