"""The export plan: a table for each output shard, on disk before any image byte moves.

A plan table has a row per sample in the order of the shard, with the places of its bytes and all
that the sidecar says of it. Which sample goes where follows from the selection and the writer stage
alone. A shard holds samples of one group: of one split and one bucket.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve import schema
from pixsieve.errors import RunError
from pixsieve.export import tar
from pixsieve.export.contents import Contents, tally, together
from pixsieve.export.naming import lasting
from pixsieve.export.uniform import Uniform, exported, uniform_of
from pixsieve.fingerprint import fingerprint
from pixsieve.storage import LocalStorage, tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pixsieve.export.transform import ImageTransformStage
    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.select.base import Part

WRITER_VERSION = 3
"""Raise it when the same plan gives other bytes; it is part of every shard's name."""
HELD_ROWS = 8_192
"""Rows that planning holds at a time; more are set aside in files."""
MOST_FILES = 256
"""Files that are open for that; where they do not suffice, each holds more rows."""
HASH_DIGITS = 12

_PROBLEMS = ("problem", "problem_detail")
_UNTOLD = frozenset(
    {
        "rank", "occurrence", "image_name", "image_extension", "image_version", "siblings",
        "extensions", "json_type", "frames",
    }
)  # fmt: skip
"""Columns of a plan table that no byte of a shard depends on (siblings have a digest)."""
_LOCATED = [field for field in schema.INDEX if field.name not in _PROBLEMS]
_READ = [field for field in schema.INSPECTION if field.name not in _PROBLEMS]
_GROUP_NAME = re.compile(r"[a-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Which split, or which bucket, every row is in.

    Attributes:
        names: In the order in which they are exported.
        codes: For every row, kept or not, the place of its name, -1 for none; int16 of shape (n,).
    """

    names: tuple[str, ...]
    codes: NDArray[np.int16]

    @classmethod
    def of(cls, names: Sequence[str], column: pa.ChunkedArray) -> Self:
        """Return the groups of a column of text, plain or of dictionary type.

        Raises:
            ValueError: the column has a name that is not in ``names``.
        """
        known = pa.array(names, pa.string())
        codes = [np.empty(0, np.int16)]
        for chunk in column.chunks:
            if pa.types.is_dictionary(chunk.type):
                found = pc.index_in(chunk.dictionary, known).take(chunk.indices)
            else:
                found = pc.index_in(chunk, known)
            if found.null_count != chunk.null_count:
                msg = f"the column has names that are not among {list(names)}"
                raise ValueError(msg)
            codes.append(found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int16))
        return cls(names=tuple(names), codes=np.concatenate(codes))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """One output shard: how many samples it will hold, their digest, and its plan table.

    ``index`` is its number within its split and bucket.
    """

    split: str | None
    bucket: str | None
    index: int
    samples: int
    table: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """All output shards, the digest of their ordered content, and what they are made of.

    ``uniform`` is what every sample will have, where that was asked for.
    """

    digest: str
    shards: tuple[PlannedShard, ...]
    contents: Contents
    uniform: Uniform | None


def plan_schema(added: pa.Schema) -> pa.Schema:
    """Return the columns of a plan table.

    ``added`` are json fields, scores, and what selection stages added.
    """
    return pa.schema(
        [
            pa.field("rank", pa.int64(), nullable=False),
            pa.field("split", pa.string()),
            pa.field("bucket", pa.string()),
            pa.field("new_key", pa.string(), nullable=False),
            *_LOCATED,
            *_READ,
            *added,
        ]
    )


def shard_stem(
    writer: ImageWriterStage,
    name_hash: str,
    split: str | None,
    index: int,
    bucket: str | None = None,
) -> str:
    """Return a shard's file name without its extension."""
    parts = (writer.prefix, split, bucket, name_hash, f"{index:06d}")
    return "-".join(part for part in parts if part is not None)


def plan_export(
    parts: Sequence[Part],
    order: NDArray[np.int64],
    writer: ImageWriterStage,
    added: pa.Schema,
    folder: Path,
    *,
    splits: Groups | None = None,
    buckets: Groups | None = None,
    extra: Iterable[pa.Table] | None = None,
    transform: ImageTransformStage | None = None,
) -> ExportPlan:
    """Write the plan tables of an export into ``folder``.

    Samples are exported split by split, within a split bucket by bucket, and within a bucket in the
    order given; what has no split or no bucket comes before what has one.

    Args:
        parts: All indexed rows.
        order: Numbers of the kept rows in their order.
        writer: How shards are cut and members named.
        added: Columns beyond the fixed ones: json fields, scores, and what ``extra`` has.
        folder: Where the tables go; it is made.
        splits: The split of every row; ``None`` if there are none.
        buckets: The bucket of every row; ``None`` if there are none.
        extra: For every part, in order, a table of its rows with the columns that selection stages
            added; ``None`` if there are none.
        transform: What becomes of images.

    Raises:
        RunError: a split or bucket cannot be part of a file name, two of them give the same file
            names, or one has too few samples for ``shards_multiple_of``; or samples cannot be made
            uniform.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order, groups = _grouped(order, splits, buckets)
    _check_names(groups)
    borders, shard_names = _borders(parts, order, groups, writer)
    total = int(sum(part.rows for part in parts))
    rank_of = np.full(total, -1, np.int64)
    rank_of[order] = np.arange(len(order))
    columns = plan_schema(added)
    digest = hashlib.sha256(
        fingerprint(
            WRITER_VERSION, _naming(writer, transform), [str(field) for field in added]
        ).encode()
    )
    shards = []
    found = together([])
    kept_keys = None
    if writer.member_names == "key":
        kept_keys = lasting((rows["key"] for rows in _located(parts, ("key",))), order)
    width = max(9, len(str(len(order))))
    for first, last, rows in _heaps(parts, extra, rank_of, borders, columns, folder):
        for number in range(first, last):
            split, bucket, index = shard_names[number]
            start, stop = int(borders[number]), int(borders[number + 1])
            table = rows.slice(start - int(borders[first]), stop - start)
            if writer.member_names == "sequential":
                keys = pa.array([f"{rank:0{width}d}" for rank in range(start, stop)])
            elif kept_keys is None:
                keys = table["image_id"]
            else:
                keep = pa.array(kept_keys[start:stop])
                keys = pc.if_else(keep, table["key"], table["image_id"])
            given = {
                "new_key": keys,
                "split": pa.repeat(pa.scalar(split, pa.string()), len(table)),
                "bucket": pa.repeat(pa.scalar(bucket, pa.string()), len(table)),
            }
            for name, column in given.items():
                at = columns.get_field_index(name)
                table = table.set_column(at, columns.field(at), column)
            table = table.cast(columns)
            found = together([found, tally(table, writer, transform)])
            content = _content_digest(table)
            digest.update(content)
            path = folder / f"{number:06d}.parquet"
            with LocalStorage().create(str(path), durable=False) as sink:
                sink.write(tables.table_bytes(table))
            shards.append(
                PlannedShard(
                    split=split,
                    bucket=bucket,
                    index=index,
                    samples=len(table),
                    table=path,
                    digest=content.hex(),
                )
            )
    uniform = None
    if writer.members == "uniform":
        uniform = uniform_of(found)
        found = exported(found, uniform)
        shape = fingerprint(uniform.members, uniform.json, uniform.originals)
        digest.update(shape.encode())
        shards = [replace(each, digest=fingerprint(each.digest, shape)) for each in shards]
    return ExportPlan(
        digest=digest.hexdigest(), shards=tuple(shards), contents=found, uniform=uniform
    )


def contents_of(
    parts: Sequence[Part],
    rank: NDArray[np.int64],
    writer: ImageWriterStage,
    transform: ImageTransformStage | None = None,
) -> Contents:
    """Return what an export would be made of, without planning it; ``rank`` is -1 if not kept."""
    read = ["format", "mode", "json_type", "metadata_problem"]
    found, first = together([]), 0
    for part, located in zip(parts, _located(parts, ["siblings"]), strict=True):
        kept = pa.array(np.flatnonzero(rank[first : first + part.rows] >= 0))
        first += part.rows
        if len(kept):
            rows = tables.read_table(part.families[0], read).take(kept)
            rows = rows.append_column("siblings", located["siblings"].take(kept))
            found = together([found, tally(rows, writer, transform)])
    return found


def _naming(writer: ImageWriterStage, transform: ImageTransformStage | None) -> dict[str, object]:
    """Return the options of what writes that change the bytes of an export."""
    names = (
        "images_per_tar", "max_bytes_per_tar", "shards_multiple_of", "image_format", "member_names",
        "quality", "subsampling", "progressive", "background", "members",
    )  # fmt: skip
    return {name: getattr(writer, name) for name in names} | {"transform": transform}


def _content_digest(table: pa.Table) -> bytes:
    """Return a digest of all that a shard's tar and sidecar are made of.

    Two exports that differ in one caption or score must not share a name.
    """
    digest = hashlib.sha256()
    for name in table.column_names:
        if name not in _UNTOLD:
            digest.update(f"{name}\n".encode())
            _digest_array(digest, table[name].combine_chunks())
    return digest.digest()


def _digest_array(digest: hashlib._Hash, values: pa.Array) -> None:
    """Add an array's values, whatever its layout in memory is; which rows are null comes first."""
    kind, present = values.type, values.drop_null()
    digest.update(f"{len(values)}\n".encode())
    digest.update(np.packbits(values.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if not len(present):
        return
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        present = present.cast(pa.large_binary())
        _, offsets, data = present.buffers()
        ends = np.frombuffer(offsets, np.int64)[present.offset :][: len(present) + 1]
        digest.update(np.diff(ends).tobytes())
        digest.update(memoryview(data or b"")[ends[0] : ends[-1]])
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        digest.update(pc.list_value_length(present).to_numpy().tobytes())
        _digest_array(digest, present.flatten())
    elif pa.types.is_primitive(kind):
        digest.update(present.to_numpy(zero_copy_only=False).tobytes())
    else:
        digest.update(repr(present.to_pylist()).encode())


class _Group(NamedTuple):
    """The samples of one split and one bucket."""

    split: str | None
    bucket: str | None
    samples: int

    def __str__(self) -> str:
        named = (("split", self.split), ("bucket", self.bucket))
        return ", ".join(f"{kind} {name!r}" for kind, name in named if name is not None) or "export"


def _grouped(
    order: NDArray[np.int64], splits: Groups | None, buckets: Groups | None
) -> tuple[NDArray[np.int64], list[_Group]]:
    """Return the order in which the samples of each group are together, and the groups in turn."""
    if splits is None and buckets is None:
        return order, [_Group(None, None, len(order))] if len(order) else []
    names = [(None, *(groups.names if groups else ())) for groups in (splits, buckets)]
    width = len(names[1])
    count = len(names[0]) * width
    keys = np.zeros(len(order), np.int32)
    if splits is not None:
        keys += (splits.codes[order].astype(np.int32) + 1) * width
    if buckets is not None:
        keys += buckets.codes[order].astype(np.int32) + 1
    samples = np.bincount(keys, minlength=count).tolist()
    found = [
        _Group(names[0][key // width], names[1][key % width], number)
        for key, number in enumerate(samples)
        if number
    ]
    if count <= np.iinfo(np.int16).max:
        keys = keys.astype(np.int16)  # for which numpy has a radix sort
    return order[np.argsort(keys, kind="stable")], found


def _check_names(groups: Sequence[_Group]) -> None:
    """Check that splits and buckets can be parts of file names, which are then different ones."""
    known: dict[str, _Group] = {}
    for group in groups:
        given = [name for name in group[:2] if name is not None]
        for name in given:
            if not _GROUP_NAME.fullmatch(name):
                msg = (
                    f"{group}: {name!r} cannot be part of file names; expected 1 to 64 lower-case "
                    "letters, digits, '_' or '-'"
                )
                raise RunError(msg)
        other = known.setdefault("-".join(given), group)
        if other is not group:
            msg = (
                f"{other} and {group} would have the same file names; give one of them another "
                "name, best without '-'"
            )
            raise RunError(msg)


def _borders(
    parts: Sequence[Part],
    order: NDArray[np.int64],
    groups: Sequence[_Group],
    writer: ImageWriterStage,
) -> tuple[NDArray[np.int64], list[tuple[str | None, str | None, int]]]:
    """Return where shards start, with the number of samples behind them, and what they are.

    They are (split, bucket, number within these).
    """
    _check_sizes(groups, writer)
    sizes = None
    if writer.max_bytes_per_tar is not None:
        found = [np.empty(0, np.int64)]
        found += [_tar_sizes(rows) for rows in _located(parts, ("image_size", "siblings"))]
        sizes = np.concatenate(found)[order]
    starts = [np.empty(0, np.int64)]
    shards = []
    first = 0
    for group in groups:
        if sizes is not None and writer.max_bytes_per_tar is not None:
            cut = _cut_by_bytes(sizes[first : first + group.samples], writer.max_bytes_per_tar)
        elif writer.shards_multiple_of > 1:
            cut = _dealt(group.samples, _shard_count(group.samples, writer))
        else:
            cut = np.arange(0, group.samples, writer.images_per_tar)
        starts.append(first + cut)
        shards += [(group.split, group.bucket, index) for index in range(len(cut))]
        first += group.samples
    return np.append(np.concatenate(starts), len(order)).astype(np.int64), shards


def _shard_count(samples: int, writer: ImageWriterStage) -> int:
    """Return into how many shards samples are cut: enough, and a multiple of what was asked for."""
    multiple = writer.shards_multiple_of
    return -(-samples // (writer.images_per_tar * multiple)) * multiple


def _check_sizes(groups: Sequence[_Group], writer: ImageWriterStage) -> None:
    """Check that no group's shards would be empty."""
    multiple = writer.shards_multiple_of
    few = [group for group in groups if _shard_count(group.samples, writer) > group.samples]
    if multiple == 1 or not few:
        return
    least = min(few, key=lambda group: group.samples)
    others = f" ({len(few) - 1:,} more have too few as well)" if len(few) > 1 else ""
    way_out = f"lower shards_multiple_of to {least.samples:,} or less"
    if least.samples >= multiple:
        way_out = "raise images_per_tar to 2 or more"
    msg = (
        f"{least}: {least.samples:,} samples are too few for "
        f"{_shard_count(least.samples, writer):,} shards, the next multiple of "
        f"{multiple:,}{others}; {way_out}, or put more samples into it"
    )
    raise RunError(msg)


def _dealt(samples: int, shards: int) -> NDArray[np.int64]:
    """Return where shards start that differ by one sample at most, the larger ones first."""
    each, more = divmod(samples, shards)
    numbers = np.arange(shards)
    return numbers * each + np.minimum(numbers, more)


def _cut_by_bytes(sizes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    ends = np.cumsum(sizes)
    room = most // tar.RECORD * tar.RECORD - 2 * tar.BLOCK  # what is left by the end of the tar
    starts = []
    start = 0
    while start < len(sizes):
        starts.append(start)
        before = int(ends[start - 1]) if start else 0
        start = max(start + 1, int(np.searchsorted(ends, before + room, side="right")))
    return np.array(starts, np.int64)


def _located(parts: Iterable[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield each part's rows of its index table, which is read once for all neighbours in it."""
    path, index = "", pa.table({})
    for part in parts:
        if part.index != path:
            path, index = part.index, tables.read_table(part.index, columns)
        yield index.slice(part.start, part.rows)


def _tar_sizes(index: pa.Table) -> NDArray[np.int64]:
    """Return what each sample takes in a tar, in bytes."""
    siblings = index["siblings"].combine_chunks()
    owners = np.repeat(np.arange(len(index)), siblings.value_lengths().to_numpy())
    sizes = _padded(index["image_size"].to_numpy())
    np.add.at(sizes, owners, _padded(siblings.flatten().field("size").to_numpy()))
    return sizes


def _padded(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return tar.BLOCK + sizes + (-sizes % tar.BLOCK)


def _heaps(
    parts: Sequence[Part],
    extra: Iterable[pa.Table] | None,
    rank_of: NDArray[np.int64],
    borders: NDArray[np.int64],
    columns: pa.Schema,
    folder: Path,
) -> Iterator[tuple[int, int, pa.Table]]:
    """Yield (first shard, shard behind the last, their rows in order), so many at a time as fit.

    Rows come in index order and leave in export order: where there are more than one heap's, they
    are set aside in one file for each heap.
    """
    edges = _heap_edges(borders)
    count = len(edges) - 1
    if not count:
        return
    token = secrets.token_hex(4)  # another run may plan the same in the same workspace
    names = [f".heap-{number}.bin.{token}.tmp" for number in range(count)]
    heaps = [_Heap(folder / name, columns, count > 1) for name in names]
    waiting: list[pa.Table] = []
    for rows in _rows(parts, extra, rank_of, columns):
        waiting.append(rows)
        if sum(map(len, waiting)) >= HELD_ROWS:
            _set_aside(waiting, heaps, borders[edges])
            waiting.clear()
    _set_aside(waiting, heaps, borders[edges])
    for number, heap in enumerate(heaps):
        yield edges[number], edges[number + 1], _by_rank(heap.read())


def _heap_edges(borders: NDArray[np.int64]) -> list[int]:
    """Return the shards at which heaps start, and the number of shards."""
    edges = [0]
    most = max(HELD_ROWS, int(borders[-1]) // MOST_FILES)
    for shard in range(1, len(borders) - 1):
        if borders[shard + 1] - borders[edges[-1]] > most:
            edges.append(shard)
    return [*edges, len(borders) - 1] if len(borders) > 1 else [0]


def _set_aside(
    waiting: Sequence[pa.Table], heaps: Sequence[_Heap], starts: NDArray[np.int64]
) -> None:
    """Put rows on the heaps that they belong to: many at once, since each write costs the same."""
    if not waiting:
        return
    rows = _by_rank(pa.concat_tables(waiting).combine_chunks())
    cuts = np.searchsorted(rows["rank"].to_numpy(), starts)
    for heap, (start, stop) in zip(heaps, itertools.pairwise(cuts.tolist()), strict=True):
        if start < stop:
            heap.add(rows.slice(start, stop - start))


def _by_rank(rows: pa.Table) -> pa.Table:
    """Return rows in export order, in which they often are already."""
    in_order = (np.diff(rows["rank"].to_numpy()) > 0).all()
    return rows if in_order else rows.sort_by("rank")


def _rows(
    parts: Sequence[Part],
    extra: Iterable[pa.Table] | None,
    rank_of: NDArray[np.int64],
    columns: pa.Schema,
) -> Iterator[pa.Table]:
    """Yield the rows of plan tables of each part in turn; of what is not kept nothing is read."""
    ends = np.cumsum([part.rows for part in parts])
    ranks = [rank_of[end - part.rows : end] for part, end in zip(parts, ends, strict=True)]
    used = [bool((rank >= 0).any()) for rank in ranks]
    names = [field.name for field in _LOCATED]
    none = itertools.repeat(pa.table({}))
    for part, rank, index, more in zip(
        itertools.compress(parts, used),
        itertools.compress(ranks, used),
        _located(itertools.compress(parts, used), names),
        itertools.compress(none if extra is None else extra, used),
        strict=True,
    ):
        kept = np.flatnonzero(rank >= 0)
        yield _plan_rows(part, index, more, kept, rank[kept], columns)


def _plan_rows(
    part: Part,
    index: pa.Table,
    more: pa.Table,
    kept: NDArray[np.int64],
    ranks: NDArray[np.int64],
    columns: pa.Schema,
) -> pa.Table:
    found = dict(zip(index.column_names, index.columns, strict=True))
    for path in part.families:
        family = tables.read_table(path)
        found |= {name: family[name] for name in family.column_names if name not in _PROBLEMS}
    found |= dict(zip(more.column_names, more.columns, strict=True))
    take = pa.array(kept)
    wanted = [name for name in columns.names if name in found]
    rows = pa.table({name: found[name].take(take) for name in wanted})
    rows = rows.append_column("rank", pa.array(ranks))
    for name in ("split", "bucket"):  # each shard has its own
        rows = rows.append_column(name, pa.nulls(len(kept), pa.string()))
    rows = rows.append_column("new_key", pa.array([""] * len(kept)))
    return rows.select(columns.names).cast(columns)


class _Heap:
    """Rows of some neighbouring shards: in memory where there is only one, else in a file."""

    def __init__(self, path: Path, columns: pa.Schema, to_file: bool) -> None:  # noqa: FBT001
        self._path = path
        self._columns = columns
        self._rows: list[pa.Table] = []
        self._writer: pa.RecordBatchFileWriter | None = None
        self._to_file = to_file

    def add(self, rows: pa.Table) -> None:
        if not self._to_file:
            self._rows.append(rows)
            return
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._path), self._columns)
        self._writer.write_table(rows)

    def read(self) -> pa.Table:
        if self._writer is None:
            return pa.concat_tables(self._rows) if self._rows else self._columns.empty_table()
        self._writer.close()
        with pa.OSFile(str(self._path)) as file:
            rows = pa.ipc.open_file(file).read_all()
        self._path.unlink()
        return rows
