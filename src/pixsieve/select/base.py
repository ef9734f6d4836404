"""The selection seam: the table that stages decide over, and what they may answer.

A selection stage is a frozen description with a :meth:`~pixsieve.stage.SelectStage.decide` that
looks at columns of :class:`Rows` and returns :class:`Verdicts`. It never removes a row: the engine
writes down, for every row, where it ended and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve import schema
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

BATCH_ROWS = 16_384
"""Rows that a stage is handed at a time; memory follows it, not the dataset."""

FROM_INDEX = {
    "image_id": "image_id",
    "original_path": "image_file",
    "original_key": "key",
    "original_offset": "image_offset",
    "byte_size": "image_size",
    "class_name": "class_name",
}
"""Where the columns of SAMPLE that locating gives are found in an index table."""


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
        evidence: JSON objects, one for each dropped row: the values that decided.
        duplicate_of: The kept sample's image_id for each dropped row, or ``None``.
        order: For every row a sort key, uint64; rows with equal keys stay in index order.
    """

    drop: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    reason: str = ""
    evidence: pa.Array | None = None
    duplicate_of: pa.Array | None = None
    order: NDArray[np.uint64] | None = None


class Rows:
    """All indexed rows, column by column, in index order; never all columns at once.

    Attributes:
        kept: For every row whether it is kept so far. Stages read it; only the engine changes it.
        seed: The run's seed.
        columns: The schema of the columns that can be asked for.
    """

    def __init__(
        self, parts: Sequence[Part], columns: pa.Schema, kept: NDArray[np.bool_], seed: int
    ) -> None:
        self.parts = tuple(parts)
        self.columns = columns
        self.kept = kept
        self.seed = seed

    def __len__(self) -> int:
        return len(self.kept)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yield all rows in order, at least :data:`BATCH_ROWS` at a time but for the last."""
        waiting: list[pa.Table] = []
        first = count = 0
        for table in read_parts(self.parts, columns):
            waiting.append(table)
            count += len(table)
            if count >= BATCH_ROWS:
                yield self._batch(first, waiting)
                first, waiting, count = first + count, [], 0
        if waiting:
            yield self._batch(first, waiting)

    def take(self, numbers: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Return the named columns of the rows with these ascending numbers."""
        found = []
        for batch in self.batches(columns):
            inside = numbers[
                (numbers >= batch.first) & (numbers < batch.first + len(batch.columns))
            ]
            if len(inside):
                found.append(batch.columns.take(pa.array(inside - batch.first)))
        if not found:
            return pa.schema([self.columns.field(name) for name in columns]).empty_table()
        return pa.concat_tables(found)

    def _batch(self, first: int, waiting: list[pa.Table]) -> Batch:
        columns = pa.concat_tables(waiting)
        return Batch(first=first, columns=columns, kept=self.kept[first : first + len(columns)])


def read_parts(parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the named sample columns of each part.

    Each index table is read once for all of its parts.
    """
    wanted = dict.fromkeys(columns)
    from_index = [name for name in wanted if name in FROM_INDEX]
    index_path = ""
    index = pa.table({})
    for part in parts:
        if part.index != index_path:
            index_path = part.index
            names = [FROM_INDEX[name] for name in from_index] or ["image_id"]
            index = tables.read_table(part.index, names)
        sliced = index.slice(part.start, part.rows)
        found = {name: sliced[FROM_INDEX[name]] for name in from_index}
        missing = [name for name in wanted if name not in found]
        for path in part.families:
            if not missing:
                break
            family = tables.read_table(path)
            found |= {name: family[name] for name in missing if name in family.column_names}
            missing = [name for name in missing if name not in found]
        yield pa.table({name: found[name] for name in wanted})


def sample_schema(added: Sequence[pa.Schema]) -> pa.Schema:
    """Return the columns that stages see.

    Those of every pipeline, and what the stages before added.
    """
    fields = list(schema.SAMPLE)
    for extra in added:
        fields.extend(extra)
    return pa.schema(fields)


def failed_rows(part: Part) -> pa.Table:
    """Return ``problem`` and ``problem_detail`` of a part, from locating or else from reading."""
    names = ["problem", "problem_detail"]
    located = tables.read_table(part.index, names).slice(part.start, part.rows)
    read = tables.read_table(part.families[0], names)
    return pa.table({name: pc.coalesce(located[name], read[name]) for name in names})
