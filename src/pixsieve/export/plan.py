"""The export plan: a table for each output shard, on disk before any image byte moves.

A plan table has a row per sample in the order of the shard, with the places of its bytes and all
that the sidecar says of it. Which sample goes where follows from the selection and the writer stage
alone.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve import schema
from pixsieve.export import tar
from pixsieve.fingerprint import fingerprint
from pixsieve.storage import LocalStorage, tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.select.base import Part

WRITER_VERSION = 1
"""Raise it when the same plan gives other bytes; it is part of every shard's name."""
BUCKET_ROWS = 8_192
"""Rows that planning holds at a time; more are set aside in files."""
MOST_BUCKETS = 256
"""Files that are open for that; where they do not suffice, each holds more rows."""
HASH_DIGITS = 12

_PROBLEMS = ("problem", "problem_detail")
_UNTOLD = frozenset(
    {"rank", "occurrence", "image_name", "image_extension", "image_version", "siblings", "frames"}
)
"""Columns of a plan table that no byte of a shard depends on (siblings have a digest)."""
_LOCATED = [field for field in schema.INDEX if field.name not in _PROBLEMS]
_READ = [field for field in schema.INSPECTION if field.name not in _PROBLEMS]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """One output shard: how many samples it will hold, their digest, and its plan table."""

    split: str | None
    index: int
    samples: int
    table: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """All output shards, and the digest of the ordered content of the whole export."""

    digest: str
    shards: tuple[PlannedShard, ...]


def plan_schema(added: pa.Schema) -> pa.Schema:
    """Return the columns of a plan table; ``added`` are json fields and scores."""
    return pa.schema(
        [
            pa.field("rank", pa.int64(), nullable=False),
            pa.field("split", pa.string()),
            pa.field("new_key", pa.string(), nullable=False),
            *_LOCATED,
            *_READ,
            *added,
        ]
    )


def shard_stem(writer: ImageWriterStage, name_hash: str, split: str | None, index: int) -> str:
    """Return a shard's file name without its extension."""
    prefix = writer.prefix if split is None else f"{writer.prefix}-{split}"
    return f"{prefix}-{name_hash}-{index:06d}"


def plan_export(
    parts: Sequence[Part],
    order: NDArray[np.int64],
    writer: ImageWriterStage,
    added: pa.Schema,
    folder: Path,
) -> ExportPlan:
    """Write the plan tables of an export into ``folder``.

    Args:
        parts: All indexed rows.
        order: Numbers of the kept rows in the order of the export.
        writer: How shards are cut and members named.
        added: Columns beyond the fixed ones: json fields and scores.
        folder: Where the tables go; it is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    borders = _borders(parts, order, writer)
    total = int(sum(part.rows for part in parts))
    rank_of = np.full(total, -1, np.int64)
    rank_of[order] = np.arange(len(order))
    columns = plan_schema(added)
    digest = hashlib.sha256(
        fingerprint(WRITER_VERSION, _naming(writer), [str(field) for field in added]).encode()
    )
    shards = []
    width = max(9, len(str(len(order))))
    for first, last, rows in _buckets(parts, rank_of, borders, columns, folder):
        for index in range(first, last):
            start, stop = int(borders[index]), int(borders[index + 1])
            table = rows.slice(start - int(borders[first]), stop - start)
            keys = (
                table["image_id"]
                if writer.member_names == "id"
                else pa.array([f"{rank:0{width}d}" for rank in range(start, stop)])
            )
            table = table.set_column(
                columns.get_field_index("new_key"), columns.field("new_key"), keys
            ).cast(columns)
            content = _content_digest(table)
            digest.update(content)
            path = folder / f"{index:06d}.parquet"
            with LocalStorage().create(str(path), durable=False) as sink:
                sink.write(tables.table_bytes(table))
            shards.append(
                PlannedShard(
                    split=None,
                    index=index,
                    samples=len(table),
                    table=path,
                    digest=content.hex(),
                )
            )
    return ExportPlan(digest=digest.hexdigest(), shards=tuple(shards))


def _naming(writer: ImageWriterStage) -> dict[str, object]:
    """Return the writer's options that change the bytes of an export."""
    names = (
        "images_per_tar", "max_bytes_per_tar", "image_format", "member_names", "quality",
        "subsampling", "background",
    )  # fmt: skip
    return {name: getattr(writer, name) for name in names}


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


def _borders(
    parts: Sequence[Part], order: NDArray[np.int64], writer: ImageWriterStage
) -> NDArray[np.int64]:
    """Return the ranks at which shards start, and the number of samples behind them."""
    if writer.max_bytes_per_tar is None:
        starts = np.arange(0, len(order), writer.images_per_tar)
    else:
        sizes = [np.empty(0, np.int64)]
        sizes += [_tar_sizes(rows) for rows in _located(parts, ("image_size", "siblings"))]
        starts = _cut_by_bytes(np.concatenate(sizes)[order], writer.max_bytes_per_tar)
    return np.append(starts, len(order)).astype(np.int64)


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


def _buckets(
    parts: Sequence[Part],
    rank_of: NDArray[np.int64],
    borders: NDArray[np.int64],
    columns: pa.Schema,
    folder: Path,
) -> Iterator[tuple[int, int, pa.Table]]:
    """Yield (first shard, shard behind the last, their rows in order), so many at a time as fit.

    Rows come in index order and leave in export order: where there are more than one bucket's, they
    are set aside in one file for each bucket.
    """
    edges = _bucket_edges(borders)
    buckets = len(edges) - 1
    if not buckets:
        return
    bucket_of_shard = np.searchsorted(edges, np.arange(len(borders) - 1), side="right") - 1
    token = secrets.token_hex(4)  # another run may plan the same in the same workspace
    spill = [
        _Spill(folder / f".bucket-{number}.{token}.tmp", columns, buckets > 1)
        for number in range(buckets)
    ]
    ends = np.cumsum([part.rows for part in parts])
    ranks = [rank_of[end - part.rows : end] for part, end in zip(parts, ends, strict=True)]
    used = [at for at in range(len(parts)) if (ranks[at] >= 0).any()]
    names = [field.name for field in _LOCATED]
    for at, index in zip(used, _located((parts[at] for at in used), names), strict=True):
        kept = np.flatnonzero(ranks[at] >= 0)
        rows = _plan_rows(parts[at], index, kept, ranks[at][kept], columns)
        owner = bucket_of_shard[np.searchsorted(borders, ranks[at][kept], side="right") - 1]
        for bucket in np.unique(owner):
            spill[bucket].add(rows.take(pa.array(np.flatnonzero(owner == bucket))))
    for number in range(buckets):
        yield int(edges[number]), int(edges[number + 1]), spill[number].read().sort_by("rank")


def _bucket_edges(borders: NDArray[np.int64]) -> list[int]:
    """Return the shards at which buckets start, and the number of shards."""
    edges = [0]
    most = max(BUCKET_ROWS, int(borders[-1]) // MOST_BUCKETS)
    for shard in range(1, len(borders) - 1):
        if borders[shard + 1] - borders[edges[-1]] > most:
            edges.append(shard)
    return [*edges, len(borders) - 1] if len(borders) > 1 else [0]


def _plan_rows(
    part: Part,
    index: pa.Table,
    kept: NDArray[np.int64],
    ranks: NDArray[np.int64],
    columns: pa.Schema,
) -> pa.Table:
    found = dict(zip(index.column_names, index.columns, strict=True))
    for path in part.families:
        family = tables.read_table(path)
        found |= {name: family[name] for name in family.column_names if name not in _PROBLEMS}
    take = pa.array(kept)
    wanted = [name for name in columns.names if name in found]
    rows = pa.table({name: found[name].take(take) for name in wanted})
    rows = rows.append_column("rank", pa.array(ranks))
    rows = rows.append_column("split", pa.nulls(len(kept), pa.string()))
    rows = rows.append_column("new_key", pa.array([""] * len(kept)))
    return rows.select(columns.names).cast(columns)


class _Spill:
    """Rows of one bucket: in memory where there is only one, else in a file."""

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
