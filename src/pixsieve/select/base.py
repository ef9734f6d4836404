"""The selection seam: the table that stages decide over, and what they may answer.

A selection stage is a frozen description with a :meth:`~pixsieve.stage.SelectStage.decide` that
looks at columns of :class:`Rows` and returns :class:`Verdicts`. It never removes a row: the engine
writes down, for every row, where it ended and why.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve import schema
from pixsieve.select import keys
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pixsieve.select.evidence import Values

BATCH_ROWS = 262_144
BATCH_BYTES = 64 * 1024 * 1024
"""Rows that a stage is handed at a time, or what takes so many bytes: memory follows these, not the
dataset."""

FROM_INDEX = {
    "image_id": "image_id",
    "original_path": "image_file",
    "original_key": "key",
    "original_offset": "image_offset",
    "byte_size": "image_size",
    "class_name": "class_name",
}
"""Where the columns of SAMPLE that locating gives are found in an index table."""

PROBLEMS = pa.schema([pa.field("problem", pa.string()), pa.field("problem_detail", pa.string())])
INTERNAL = pa.schema(
    [*PROBLEMS, pa.field("located", pa.bool_()), pa.field("id_digest", pa.uint64())]
)
"""What else is known of every row: why it failed, if it did, and whether locating it succeeded; and
the digest in its image_id as a number, from which seeded choices derive."""

_WIDE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A run of rows of one index table, with the column families that were computed for it.

    Attributes:
        source: The tar that the rows lie in, relative to the source's root; ``""`` for loose files.
        index: Path of the index table.
        start: First row of the part in the index table.
        stop: Row behind the last one.
        families: Paths of tables with exactly ``stop - start`` rows, in the same order; the first
            one is the inspection.
    """

    source: str
    index: str
    start: int
    stop: int
    families: tuple[str, ...]

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The narrow columns of a run of parts in one table, quick to read again.

    Attributes:
        path: Of the table.
        rows: How many rows it has.
    """

    path: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Neighbouring rows.

    The first one's number, the columns asked for, and which of them are still kept.
    """

    first: int
    columns: pa.Table
    kept: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What a stage decided.

    Attributes:
        drop: Numbers of the rows to drop, ascending, int64; only rows that are kept so far.
        reason: Stable code of the stage's one reason to drop.
        evidence: JSON objects, one for each dropped row: the values that decided. Where these are
            values of the row's own columns, it is enough to name the columns.
        duplicate_of: The kept sample's image_id for each dropped row, or ``None``.
        order: For every row a sort key, uint64; rows with equal keys stay in index order.
        split: For every row the name of its split. A dictionary array says in which order splits
            come; else they come by name.
        bucket: For every row the name of its bucket; a shard holds one bucket alone.
        columns: For every row what the stage adds, by the names of its ``adds()``.
        notes: Lines for the run's report.
    """

    drop: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    reason: str = ""
    evidence: pa.Array | Values | None = None
    duplicate_of: pa.Array | None = None
    order: NDArray[np.uint64] | None = None
    split: pa.Array | None = None
    bucket: pa.Array | None = None
    columns: Mapping[str, pa.Array | pa.ChunkedArray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Rows:
    """All indexed rows, column by column, in index order; never all columns at once.

    Attributes:
        kept: For every row whether it is kept so far. Stages read it; only the engine changes it.
        seed: The run's seed.
        columns: The schema of the columns that can be asked for.
        found: Paths of the files that the last of a stage's own rounds of tasks left.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        columns: pa.Schema,
        kept: NDArray[np.bool_],
        seed: int,
        *,
        chunks: Sequence[Chunk] = (),
        selection: str | None = None,
        found: Sequence[str] = (),
    ) -> None:
        self.parts = tuple(parts)
        self.columns = columns
        self.kept = kept
        self.seed = seed
        self.chunks = tuple(chunks)
        self.selection = selection
        self.found = tuple(found)
        self.decided: dict[str, pa.ChunkedArray] = {}
        self._ends = np.cumsum([part.rows for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.kept)

    def batches(
        self, columns: Sequence[str], start: int = 0, stop: int | None = None
    ) -> Iterator[Batch]:
        """Yield the rows from ``start`` to before ``stop``, in order.

        A batch has about :data:`BATCH_ROWS` rows, or :data:`BATCH_BYTES`.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        waiting: list[pa.Table] = []
        first, count, size = start, 0, 0
        for table in self._tables(columns, start, stop):
            waiting.append(table)
            count += len(table)
            size += table.nbytes
            if count >= BATCH_ROWS or size >= BATCH_BYTES:
                yield self._batch(first, waiting)
                first, waiting, count, size = first + count, [], 0, 0
        if waiting:
            yield self._batch(first, waiting)

    def uniform(self, seed: int) -> NDArray[np.uint64]:
        """Return for every row a uniform number, (n,): see :func:`pixsieve.select.keys.uniform`."""
        found = [
            keys.mixed(batch.columns["id_digest"].to_numpy(), seed)
            for batch in self.batches(("id_digest",))
        ]
        return np.concatenate([np.empty(0, np.uint64), *found])

    def take(self, numbers: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Return the named columns of the rows with these ascending numbers."""
        found = []
        for run in _runs(numbers):
            for batch in self.batches(columns, int(run[0]), int(run[-1]) + 1):
                low, high = np.searchsorted(run, (batch.first, batch.first + len(batch.columns)))
                if high > low:
                    found.append(batch.columns.take(pa.array(run[low:high] - batch.first)))
        if not found:
            return pa.schema(
                [
                    (PROBLEMS if name in PROBLEMS.names else self.columns).field(name)
                    for name in columns
                ]
            ).empty_table()
        return pa.concat_tables(found).combine_chunks()

    def has_decided(self, name: str) -> bool:
        """Tell whether a selection stage before this one, in any pass, has added a column.

        ``columns`` has those of all stages of the pass.
        """
        return name in self.decided or name in self._selected()

    def _tables(self, columns: Sequence[str], start: int, stop: int) -> Iterator[pa.Table]:
        """Yield the columns of the rows from ``start`` to ``stop``, in pieces."""
        names = tuple(dict.fromkeys(columns))
        decided = [name for name in names if name in self.decided]
        earlier = [name for name in self._selected() if name in names and name not in decided]
        stored = [name for name in names if name not in decided and name not in earlier]
        for first, read in self._pieces(stored or ["image_id"], start, stop):
            table = read
            for name in decided:
                table = table.append_column(name, self.decided[name].slice(first, len(read)))
            if earlier and self.selection is not None:
                more = tables.read_rows(self.selection, first, first + len(read), earlier)
                for name in earlier:
                    table = table.append_column(name, more[name])
            yield table.select(names)

    def _selected(self) -> tuple[str, ...]:
        """Return the columns that selection stages of earlier passes added."""
        if self.selection is None:
            return ()
        return tuple(
            name
            for name in tables.schema_of(self.selection).names
            if name not in schema.SELECTION.names
        )

    def _pieces(
        self, names: Sequence[str], start: int, stop: int
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield (number of the first row, the stored columns), piece by piece."""
        narrow = bool(self.chunks) and not set(names) - set(
            tables.schema_of(self.chunks[0].path).names
        )
        if narrow:
            first = 0
            for chunk in self.chunks:
                low, high = max(start - first, 0), min(stop - first, chunk.rows)
                if low < high:
                    read = tables.read_table(chunk.path, names)
                    yield first + low, read.slice(low, high - low)
                first += chunk.rows
            return
        from_part = int(np.searchsorted(self._ends, start, side="right"))
        to_part = int(np.searchsorted(self._ends, stop, side="left")) + 1
        parts = self.parts[from_part:to_part]
        first = int(self._ends[from_part - 1]) if from_part else 0
        for part, read in zip(parts, read_parts(parts, names), strict=True):
            low, high = max(start - first, 0), min(stop - first, part.rows)
            if low < high:
                yield first + low, read.slice(low, high - low)
            first += part.rows

    def _batch(self, first: int, waiting: list[pa.Table]) -> Batch:
        columns = pa.concat_tables(waiting)
        return Batch(first=first, columns=columns, kept=self.kept[first : first + len(columns)])


_NEAR_ROWS = 65_536


def _runs(numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield ascending numbers in runs without large gaps: what lies in a gap need not be read."""
    if len(numbers):
        yield from np.split(numbers, np.flatnonzero(np.diff(numbers) > _NEAR_ROWS) + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The table that a selection stage's own tasks work on, small enough to be sent to a worker.

    Attributes:
        listing: Path of the list of parts and chunks.
        columns: The columns that can be asked for.
        selection: Path of what was decided before; ``None`` if nothing was.
        seed: The run's seed.
    """

    listing: str
    columns: pa.Schema
    selection: str | None
    seed: int

    def rows(self, found: Sequence[str] = ()) -> Rows:
        """Return the rows, of which those are kept that nothing has dropped and that are sound."""
        parts, chunks = read_listing(self.listing)
        count = sum(part.rows for part in parts)
        rows = Rows(
            parts,
            self.columns,
            np.zeros(count, np.bool_),
            self.seed,
            chunks=chunks,
            selection=self.selection,
            found=found,
        )
        if self.selection is not None:
            ranks = tables.read_table(self.selection, ["rank"])["rank"]
            rows.kept[:] = ranks.is_valid().to_numpy()
        else:
            for batch in rows.batches(("problem",)):
                batch.kept[:] = batch.columns["problem"].is_null().to_numpy()
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A piece of a stage's work that any worker can do.

    Attributes:
        name: For progress and messages; unlike the others of its round.
        work: Called with the path of the one file that it must write, whole or not at all.
    """

    name: str
    work: Callable[[str], None]


class _Listing(msgspec.Struct):
    parts: tuple[Part, ...]
    chunks: tuple[Chunk, ...]


def listing_bytes(parts: Sequence[Part], chunks: Sequence[Chunk]) -> bytes:
    """Return the content of the file that :attr:`Scope.listing` names."""
    return msgspec.json.encode(_Listing(tuple(parts), tuple(chunks)))


@functools.lru_cache(maxsize=1)
def read_listing(path: str) -> tuple[tuple[Part, ...], tuple[Chunk, ...]]:
    """Return the parts and chunks that a list names."""
    with open(path, "rb") as file:  # noqa: PTH123  # a path of the working state
        found = msgspec.json.decode(file.read(), type=_Listing)
    return found.parts, found.chunks


def read_parts(parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the named columns of each part: those of samples, and of :data:`INTERNAL`.

    Each index table is read once for all of its parts.
    """
    wanted = dict.fromkeys(columns)
    failing = [name for name in wanted if name in (*PROBLEMS.names, "located")]
    from_index = [name for name in wanted if name in FROM_INDEX]
    index_path = ""
    index = pa.table({})
    for part in parts:
        if part.index != index_path:
            index_path = part.index
            names = [FROM_INDEX[name] for name in from_index]
            names += PROBLEMS.names if failing else []
            index = tables.read_table(part.index, [*names, "image_id"])
        sliced = index.slice(part.start, part.rows)
        found = {name: sliced[FROM_INDEX[name]] for name in from_index}
        if "id_digest" in wanted:
            digest = keys.id_digests(sliced["image_id"])
            found["id_digest"] = pa.chunked_array([pa.array(digest)])
        missing = [name for name in wanted if name not in found and name not in failing]
        for number, path in enumerate(part.families):
            asked = [*missing, *(PROBLEMS.names if failing and number == 0 else ())]
            if not asked:
                break
            family = tables.read_table(path, asked)
            if failing and number == 0:
                found |= _problems(sliced, family)
            found |= {name: family[name] for name in missing if name in family.column_names}
            missing = [name for name in missing if name not in found]
        yield pa.table({name: found[name] for name in wanted})


def _problems(index: pa.Table, inspection: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return why rows failed: a sample that could not be located was not read, either."""
    found = {name: pc.coalesce(index[name], inspection[name]) for name in PROBLEMS.names}
    return {**found, "located": pc.is_null(index["problem"])}


def collected(parts: Sequence[Part], columns: pa.Schema) -> pa.Table:
    """Return the narrow columns of parts in one table: what a :class:`Chunk` holds."""
    narrow = [field for field in columns if not _is_wide(field.type)]
    wanted = pa.schema([*narrow, *INTERNAL])
    found = [table.cast(wanted) for table in read_parts(parts, wanted.names)]
    return pa.concat_tables(found).combine_chunks() if found else wanted.empty_table()


def _is_wide(kind: pa.DataType) -> bool:
    """Tell whether values are vectors or pictures, of which a copy would cost too much."""
    if pa.types.is_fixed_size_binary(kind):
        return bool(kind.byte_width > _WIDE_BYTES)
    return bool(
        pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )


def sample_schema(added: Sequence[pa.Schema]) -> pa.Schema:
    """Return the columns that stages see.

    Those of every pipeline, and what the stages before added, each once: stages that merge take
    over a column.
    """
    return pa.schema(
        {each.name: each for extra in (schema.SAMPLE, *added) for each in extra}.values()
    )
