"""What is decided over the samples of a folder that is repaired: what goes, where the rest was.

The tables beside the tars are looked at as witnesses. Where one contradicts its tar, the file that
is still what a manifest says of it is believed; of an image that was copied, a table has two
digests.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa

from pixsieve.repair.survey import read_columns, stands, survey, tables_and_manifest
from pixsieve.select.base import Verdicts
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pixsieve.repair.survey import OldShard, Survey
    from pixsieve.select.base import Rows

NOTE = "repaired"
"""The column that tells what was mended in a row, or is in doubt."""
NO_ROW = "there was no row of it"
_WITNESSES = ("key", "member_name", "sha256", "original_sha256", "encoding", "caption")
_READ = ("image_id", "original_path", "original_key", "sha256", "caption")
_SHORT = 200


class Fault(StrEnum):
    """Where a contradiction between a tar and its table comes from."""

    TAR = "the tar was changed"
    TABLE = "the table is wrong"
    UNKNOWN = "nothing says which is right"


class Conflict(NamedTuple):
    """A sample of which the table says something else than the tar.

    Attributes:
        number: Of its row.
        what: Of what they say it.
        fault: Which of them is wrong.
        stated: What the table says: the image's SHA-256, or the caption.
        found: What the tar says; ``None`` for no caption.
    """

    number: int
    what: Literal["image", "caption"]
    fault: Fault
    stated: str
    found: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfFolder(SelectStage):
    """A stage that looks at what lies in the folder.

    Args:
        folder: The folder that is repaired.
    """

    folder: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", os.fspath(self.folder))
        check_fields(self)

    def reads(self) -> tuple[str, ...]:
        return _READ

    def digests(self) -> tuple[str, ...]:
        """Return a digest of the manifest and the tables; the reader sees to the tars."""
        digest = hashlib.sha256()
        for name in tables_and_manifest(Path(self.folder)):
            with Path(self.folder, name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{name}\0{found}".encode(errors="surrogateescape"))
        return (digest.hexdigest(),)

    def without_places(self) -> Self:
        """Say that there is a folder, not where; the digest says what was in it."""
        return dataclasses.replace(self, folder="dataset")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedStage(_OfFolder):
    """Drops samples whose image, or caption, is not any more what it was.

    An image goes whose SHA-256 is not that of the table, unless the table is shown to be wrong: by
    its own second digest, or by the tar's being what the manifest says. A caption that differs from
    the table's goes with its sample if the tar is not what the manifest says, and the table is. The
    evidence is what both say.

    Args:
        folder: The folder that is repaired.
        what: What is compared.
        strict: Whether a caption goes, too, where nothing says which one is right.
    """

    what: Literal["image", "caption"]
    strict: bool = False

    def decide(self, rows: Rows) -> Verdicts:
        gone = [
            each
            for each in conflicts(rows, survey(Path(self.folder)), self.what)
            if rows.kept[each.number]
            and (
                each.fault is Fault.TAR
                or (each.fault is Fault.UNKNOWN and (self.strict or self.what == "image"))
            )
        ]
        evidence = [
            json.dumps({"table": each.stated, "tar": each.found, "told": str(each.fault)})
            for each in gone
        ]
        return Verdicts(
            drop=np.array([each.number for each in gone], np.int64),
            reason=f"{self.what}_changed",
            evidence=pa.array(evidence, pa.string()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiesStage(SelectStage):
    """Drops a sample that is there a second time: with the key, image and caption of another."""

    def reads(self) -> tuple[str, ...]:
        return _READ

    def decide(self, rows: Rows) -> Verdicts:
        digests = np.zeros(len(rows), np.uint64)
        for batch in rows.batches(_READ):
            columns = (batch.columns[name].to_pylist() for name in _READ[2:])
            found = np.fromiter(map(_digest, zip(*columns, strict=True)), np.uint64)
            digests[batch.first : batch.first + len(found)] = found
        kept = np.flatnonzero(rows.kept)
        _, first, group = np.unique(digests[kept], return_index=True, return_inverse=True)
        originals = kept[first[group]]
        again = originals != kept
        drop, of = kept[again], originals[again]
        known = dict(zip(np.unique(of).tolist(), _ids(rows, np.unique(of)), strict=True))
        return Verdicts(
            drop=drop,
            reason="copy",
            evidence=pa.array(["{}"] * len(drop), pa.string()),
            duplicate_of=pa.array([known[number] for number in of.tolist()], pa.string()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreStage(_OfFolder):
    """Puts samples back into their splits, buckets and order, and notes what was mended in each.

    Adds ``repaired``: null where the table agreed with the tar.

    Args:
        folder: The folder that is repaired.
    """

    def adds(self) -> pa.Schema:
        metadata = {"unit": "text", "source": "what was mended in the row, or is in doubt"}
        return pa.schema([pa.field(NOTE, pa.string(), metadata=metadata)])

    def decide(self, rows: Rows) -> Verdicts:
        known = survey(Path(self.folder))
        shards = {shard.tar: shard for shard in known.shards}
        place = {shard.tar: number for number, shard in enumerate(known.shards)}
        order = np.zeros(len(rows), np.uint64)
        words: dict[str, list[str | None]] = {"split": [], "bucket": []}
        notes: list[str | None] = [None] * len(rows)
        told_of = known.own or any(shard.sidecar for shard in known.shards)
        for first, tar, columns in _by_tar(rows):
            shard = shards.get(tar)
            order[first : first + len(columns)] = place.get(tar, len(place))
            for name in words:
                words[name] += [getattr(shard, name) if shard else None] * len(columns)
            table = None if shard is None else _table(known, shard)
            for at, key in enumerate(columns["original_key"].to_pylist() if told_of else ()):
                if table is None or key not in table.places:
                    notes[first + at] = NO_ROW
        for what in ("image", "caption"):
            for each in conflicts(rows, known, what):
                told = f"{what}: the table said {_shown(each.stated)}; {each.fault}"
                earlier = notes[each.number]
                notes[each.number] = told if earlier is None else f"{earlier}; {told}"
        return Verdicts(
            order=order,
            **{
                name: _words(values, [getattr(shard, name) for shard in known.shards])
                for name, values in words.items()
                if any(values)
            },
            columns={NOTE: pa.array(notes, pa.string())},
        )


# -- comparing --------------------------------------------------------------------------------


class _Table(NamedTuple):
    columns: dict[str, list[Any]]
    places: dict[str, list[int]]

    def row(self, key: str, digest: str | None) -> dict[str, Any] | None:
        """Return the row of a key: of several that with the digest, else the first."""
        found = self.places.get(key)
        if not found:
            return None
        digests = self.columns.get("sha256")
        same = (place for place in found if digests and digests[place] == digest)
        place = next(same, found[0])
        return {name: values[place] for name, values in self.columns.items()}


def conflicts(rows: Rows, known: Survey, what: Literal["image", "caption"]) -> Iterator[Conflict]:
    """Yield the samples of which a table says something else than the tar, in order."""
    shards = {shard.tar: shard for shard in known.shards}
    asked = bool(known.manifest)  # then the reader looked wherever captions are
    for first, tar, columns in _by_tar(rows):
        shard = shards.get(tar)
        table = None if shard is None else _table(known, shard)
        if shard is None or table is None:
            continue
        blame = functools.cache(functools.partial(_blame, known, shard))
        values = (columns[name].to_pylist() for name in ("original_key", "sha256", "caption"))
        for at, (key, digest, caption) in enumerate(zip(*values, strict=True)):
            row = None if digest is None else table.row(key, digest)
            if row is None:
                continue
            stated = row.get("sha256" if what == "image" else "caption")
            found = digest if what == "image" else caption
            if stated is None or stated == found or (what == "image" and not known.own):
                continue
            if found is None and not (known.own and asked):
                continue
            fault = blame()
            copied = row.get("encoding") == "copy"
            if what == "image" and copied and row.get("original_sha256") == found:
                fault = Fault.TABLE
            yield Conflict(first + at, what, fault, str(stated), found)


def _blame(known: Survey, shard: OldShard) -> Fault:
    """Return which of a shard's files is not what the manifest says, if it says so of just one."""
    listed = (known.vouched.get(shard.role), known.vouched.get(shard.stated_sidecar))
    files = (shard.tar, shard.sidecar or "")
    tar, table = (
        digest is not None and stands(known.folder / name, digest)
        for digest, name in zip(listed, files, strict=True)
    )
    if tar == table:
        return Fault.UNKNOWN
    return Fault.TABLE if tar else Fault.TAR


def _table(known: Survey, shard: OldShard) -> _Table | None:
    if shard.sidecar is None:
        return None
    columns = read_columns(known.folder / shard.sidecar, _WITNESSES)
    keys = columns.get("key") or [
        None if name is None else _key(name) for name in columns.get("member_name", ())
    ]
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        if key is not None:
            places.setdefault(str(key), []).append(place)
    return _Table(columns, places)


def _key(member: str) -> str:
    folder, slash, last = member.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _by_tar(rows: Rows) -> Iterator[tuple[int, str, pa.Table]]:
    """Yield (number of the first row, tar, its rows), for runs of rows in one tar."""
    for batch in rows.batches(_READ):
        at = 0
        for tar, run in itertools.groupby(batch.columns["original_path"].to_pylist()):
            length = sum(1 for _ in run)
            yield batch.first + at, tar, batch.columns.slice(at, length)
            at += length


def _digest(values: Sequence[str | None]) -> int:
    text = json.dumps(values).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _ids(rows: Rows, numbers: NDArray[np.int64]) -> list[str]:
    found: list[str] = rows.take(numbers, ("image_id",))["image_id"].to_pylist()
    return found


def _words(values: list[str | None], order: Sequence[str | None]) -> pa.DictionaryArray:
    names = [name for name in dict.fromkeys(order) if name is not None]
    at = {name: number for number, name in enumerate(names)}
    indices = pa.array([None if v is None else at[v] for v in values], pa.int16())
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…")
