"""All samples with all that was measured and decided, to look at; a few bytes per row."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pixsieve.engine.selecting import decided
from pixsieve.errors import PlanError
from pixsieve.schema import Status
from pixsieve.scorers.measure import SCORED
from pixsieve.select import expression
from pixsieve.stage import ScoreStage
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pixsieve.engine.job import Job
    from pixsieve.engine.run import Decision
    from pixsieve.select.base import Rows

_FLOAT_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Neighbouring rows: their columns, which are sound, and of which what was measured."""

    columns: pa.Table
    sound: NDArray[np.bool_]
    measured: tuple[NDArray[np.bool_], ...]


class Scored:
    """All rows with all columns, and what was measured of which; a few bytes per row."""

    def __init__(self, job: Job, done: Decision) -> None:
        scope = decided(job, done.parts, done.each, done.selected)
        self.rows: Rows = scope.rows()
        self._selection = job.ledger.resolve(done.selected.table.path)
        self.sound = ~self._has("status", Status.FAILED)
        self.sound_count = int(self.sound.sum())
        self._origins: dict[str, int] = {}  # family behind the inspection, if filters spared rows
        self._added: dict[str, int] = {}  # place of the selection stage that added it
        self._labels = [label for each in job.plan.passes for label, _ in each.selectors]
        self._marks: dict[int, NDArray[np.bool_]] = {}
        scorers = selectors = 0
        for step in (step for each in job.plan.passes for step in each.steps):
            names = step.stage.adds().names
            if isinstance(step.stage, ScoreStage):
                scorers += 1
                self._origins |= dict.fromkeys(names, scorers) if selectors else {}
            else:
                self._added |= dict.fromkeys(names, selectors)
                selectors += 1

    def numeric(self, compared: str) -> str | None:
        """Return the name of a column or expression if its values are numbers, else ``None``."""
        names = {name.lower(): name for name in self.rows.columns.names}
        name = names.get(compared.lower(), compared)
        reads = self._reads(name)
        if reads is None:
            return None
        fields = [self.rows.columns.field(each) for each in reads]
        nulls = pa.table([pa.nulls(1, field.type) for field in fields], names=reads)
        kind = fields[0].type if name in reads else expression.project(name, nulls).type
        return name if is_number(kind) else None

    def about(self, name: str) -> Mapping[bytes, bytes]:
        """Return the metadata of a column."""
        columns = self.rows.columns
        return (columns.field(name).metadata or {}) if name in columns.names else {}

    def values(self, name: str) -> tuple[NDArray[np.floating], int]:
        """Return the finite values of sound samples, ascending, and how many were not measured."""
        reads = self._reads(name) or ()
        found = [np.empty(0, np.float32)]
        missing = 0
        for batch in self.rows.batches(reads):
            part = slice(batch.first, batch.first + len(batch.columns))
            sound, measured = self.sound[part], self._measured(reads, part)
            column = (
                batch.columns[name] if name in reads else expression.project(name, batch.columns)
            )
            narrow = pa.types.is_floating(column.type) and column.type.bit_width <= _FLOAT_BITS
            kind = pa.float32() if narrow else pa.float64()
            numbers = column.cast(kind).to_numpy()
            found.append(numbers[sound & measured & np.isfinite(numbers)])
            missing += int((sound & ~measured).sum())
        values = np.concatenate(found)
        values.sort()
        return values, missing

    def batches(self, sets: Sequence[Sequence[str]]) -> Iterator[Batch]:
        """Yield the rows with some sets of columns, and for each set whether all was measured."""
        wanted = dict.fromkeys(name for names in sets for name in names)
        for batch in self.rows.batches(tuple(wanted) or ("image_id",)):
            part = slice(batch.first, batch.first + len(batch.columns))
            yield Batch(
                columns=batch.columns,
                sound=self.sound[part],
                measured=tuple(self._measured(names, part) for names in sets),
            )

    def _reads(self, name: str) -> tuple[str, ...] | None:
        """Return the columns of a column's name or an expression; ``None`` if there are others."""
        if name in self.rows.columns.names:
            return (name,)
        try:
            return expression.check(f"({name}) IS NOT NULL", self.rows.columns)
        except PlanError:  # a parameter of a lambda
            return None

    def _measured(self, names: Sequence[str], part: slice) -> NDArray[np.bool_]:
        """Tell for some rows whether these columns were all measured."""
        found = np.ones(part.stop - part.start, np.bool_)
        for name in names:
            if name in self._origins:
                found &= self._scored(self._origins[name])[part]
            elif name in self._added:
                found &= self._ended[part] >= self._added[name]
        return found

    def _scored(self, family: int) -> NDArray[np.bool_]:
        if family not in self._marks:
            marks = [
                tables.read_table(part.families[family], [SCORED])[SCORED].to_numpy()
                for part in self.rows.parts
            ]
            self._marks[family] = np.concatenate(marks)
        return self._marks[family]

    @functools.cached_property
    def _ended(self) -> NDArray[np.int16]:
        """For each row the place of the selection stage that dropped it, or one behind the last."""
        ended = np.full(len(self.rows), len(self._labels), np.int16)
        for number, label in enumerate(self._labels):
            ended[self._has("stage", label)] = number
        return ended

    def _has(self, name: str, word: str) -> NDArray[np.bool_]:
        """Tell for each row whether a column of the selection has this word."""
        column = tables.read_table(self._selection, [name])[name]
        found = column.unify_dictionaries().combine_chunks()
        words = found.dictionary.to_pylist()
        if word not in words:
            return np.zeros(len(found), np.bool_)
        same = found.indices.fill_null(-1).to_numpy() == words.index(word)
        return np.asarray(same, np.bool_)


def is_number(kind: pa.DataType) -> bool:
    """Tell whether values of a type have a size."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )
