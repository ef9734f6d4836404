"""The export plan: a table for each output shard, on disk before any image byte moves.

A plan table has a row per sample in the order of the shard, with the places of its bytes and all that the
sidecar says of it. Which sample goes where follows from the selection and the writer stage alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pixsieve import schema
from pixsieve.export import tar
from pixsieve.fingerprint import fingerprint
from pixsieve.storage import LocalStorage, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.select.base import Part

WRITER_VERSION = 1
"""Raise it when the same plan gives other bytes; it is part of every shard's name."""
BUCKET_ROWS = 50_000
"""Rows that planning holds at a time; more are set aside in files."""
HASH_DIGITS = 12

_PROBLEMS = ("problem", "problem_detail")
_LOCATED = [field for field in schema.INDEX if field.name not in _PROBLEMS]
_READ = [field for field in schema.INSPECTION if field.name not in (*_PROBLEMS, "metadata_problem")]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """One output shard: how many samples it will hold, its plan table, and the digest of their content."""

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
    names = ("new_key", "sha256", "siblings_sha256", "split")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return hashlib.sha256(
        "\n".join("\0".join(str(v) for v in row) for row in rows).encode()
    ).digest()


def _borders(
    parts: Sequence[Part], order: NDArray[np.int64], writer: ImageWriterStage
) -> NDArray[np.int64]:
    """Return the ranks at which shards start, and the number of samples: one more than there are shards."""
    if writer.max_bytes_per_tar is None:
        starts = np.arange(0, len(order), writer.images_per_tar)
    else:
        sizes = np.concatenate([_tar_sizes(part) for part in parts] or [np.empty(0, np.int64)])[
            order
        ]
        starts = _cut_by_bytes(sizes, writer.max_bytes_per_tar)
    return np.append(starts, len(order)).astype(np.int64)


def _cut_by_bytes(sizes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    ends = np.cumsum(sizes)
    room = most - tar.RECORD  # the end of the tar takes at most this
    starts = []
    start = 0
    while start < len(sizes):
        starts.append(start)
        before = int(ends[start - 1]) if start else 0
        start = max(start + 1, int(np.searchsorted(ends, before + room, side="right")))
    return np.array(starts, np.int64)


def _tar_sizes(part: Part) -> NDArray[np.int64]:
    """Return what each sample of a part takes in a tar, in bytes."""
    index = tables.read_table(part.index, ["image_size", "siblings"]).slice(part.start, part.rows)
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
    """Yield (first shard, shard behind the last, their rows in order), a bounded number of rows at a time.

    Rows come in index order and leave in export order: where there are more than one bucket's, they are set
    aside in one file for each bucket.
    """
    edges = _bucket_edges(borders)
    buckets = len(edges) - 1
    if not buckets:
        return
    bucket_of_shard = np.searchsorted(edges, np.arange(len(borders) - 1), side="right") - 1
    spill = [
        _Spill(folder / f"bucket-{number}.arrow", columns, buckets > 1) for number in range(buckets)
    ]
    at = 0
    for part in parts:
        ranks = rank_of[at : at + part.rows]
        at += part.rows
        kept = np.flatnonzero(ranks >= 0)
        if not len(kept):
            continue
        rows = _plan_rows(part, kept, ranks[kept], columns)
        owner = bucket_of_shard[np.searchsorted(borders, ranks[kept], side="right") - 1]
        for bucket in np.unique(owner):
            spill[bucket].add(rows.take(pa.array(np.flatnonzero(owner == bucket))))
    for number in range(buckets):
        yield int(edges[number]), int(edges[number + 1]), spill[number].read().sort_by("rank")


def _bucket_edges(borders: NDArray[np.int64]) -> list[int]:
    """Return the shards at which buckets start, and the number of shards."""
    edges = [0]
    for shard in range(1, len(borders) - 1):
        if borders[shard + 1] - borders[edges[-1]] > BUCKET_ROWS:
            edges.append(shard)
    return [*edges, len(borders) - 1] if len(borders) > 1 else [0]


def _plan_rows(
    part: Part, kept: NDArray[np.int64], ranks: NDArray[np.int64], columns: pa.Schema
) -> pa.Table:
    found: dict[str, pa.ChunkedArray] = {}
    index = tables.read_table(part.index, [field.name for field in _LOCATED])
    found |= dict(zip(index.column_names, index.slice(part.start, part.rows).columns, strict=True))
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


def order_rows(kept: NDArray[np.bool_], keys: NDArray[np.uint64] | None) -> NDArray[np.int64]:
    """Return the numbers of the kept rows in the order of the export: by key, then as indexed."""
    rows = np.flatnonzero(kept)
    if keys is None:
        return rows
    return rows[np.argsort(keys[rows], kind="stable")]
