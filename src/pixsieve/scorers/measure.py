"""One pass over the samples of a part: one read and one decode of each, for all scorers together.

Filters that a row's own columns decide run in between: what an earlier one drops, a later scorer
does not look at. Rows that were scored before are not scored again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from pixsieve import image
from pixsieve.errors import PlanError
from pixsieve.schema import Problem
from pixsieve.scorers.inspection import (
    Facts,
    InspectOptions,
    inspect_image,
    inspect_siblings,
    inspection_table,
)
from pixsieve.scorers.reading import SampleBuffer, image_places, sibling_places
from pixsieve.select.base import FROM_INDEX
from pixsieve.stage import SHARED_PIXELS, ImageBatch, ScoreStage, SelectStage, blaming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pixsieve.scorers.guard import Guard
    from pixsieve.sources import SourceFiles

CHUNK_BYTES = 64 * 1024 * 1024
"""Pixels and encoded bytes that are held at a time for scorers."""
CHUNK_ROWS = 256
SCORED = "_scored"
"""Column of a score table: whether the row was scored. A filter, or a problem, may have spared
it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A scoring stage at work: its loaded function, and the scores that are there already.

    ``known`` has the part's rows, with the stage's columns and :data:`SCORED`; ``None``: there are
    none.
    """

    stage: ScoreStage
    score: Callable[[ImageBatch], pa.RecordBatch]
    known: pa.Table | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a pass over a part gave.

    Attributes:
        inspection: One row per row of the part.
        scores: For each scorer its columns and :data:`SCORED`, one row per row of the part.
        decoded: How many images were decoded.
    """

    inspection: pa.Table
    scores: tuple[pa.Table, ...]
    decoded: int


def measure_part(
    index: pa.Table,
    inspection: pa.Table | None,
    steps: Sequence[Scorer | SelectStage],
    options: InspectOptions,
    files: SourceFiles,
    guard: Guard,
    earlier: Sequence[pa.Table] = (),
    wanted: NDArray[np.bool_] | None = None,
) -> Measured:
    """Inspect the rows of an index table, unless that was done before, and score them.

    Args:
        index: Rows with the schema :data:`pixsieve.schema.INDEX`.
        inspection: An earlier inspection of the same rows, or ``None``.
        steps: Scorers and row-local selection stages, in the order of the pipeline.
        options: How to inspect.
        files: Opens the rows' files.
        guard: Told which row is being read.
        earlier: Score tables of earlier passes.
        wanted: Which rows to score; ``None`` for all.
    """
    reading = _Reading(index, inspection, options, files, guard)
    columns = {name: table[name] for table in earlier for name in table.column_names}
    scorers = [step for step in steps if isinstance(step, Scorer)]
    chunks: list[_Chunk] = []
    chunk = _Chunk(reading, steps, columns)
    for row in reading.rows(wanted):
        if inspection is None and not reading.inspect(row):
            continue
        if not scorers:
            reading.check(row)
            continue
        chunk.add(row)
        if chunk.full:
            chunk.score()
            chunks.append(chunk)
            chunk = _Chunk(reading, steps, columns)
    if chunk.rows:
        chunk.score()
        chunks.append(chunk)
    return Measured(
        inspection=inspection_table(reading.facts, options) if inspection is None else inspection,
        scores=tuple(
            _assembled(scorer, [(c.rows, c.scored[n]) for c in chunks], len(index))
            for n, scorer in enumerate(scorers)
        ),
        decoded=reading.decoded,
    )


class _Reading:
    """The samples of a part while they are read: their places, and what is known of them."""

    def __init__(
        self,
        index: pa.Table,
        inspection: pa.Table | None,
        options: InspectOptions,
        files: SourceFiles,
        guard: Guard,
    ) -> None:
        self.index = index
        self.inspection = inspection
        self.facts = [Facts() for _ in range(len(index))] if inspection is None else []
        self.options = options
        self.decoded = 0
        self._guard = guard
        self._buffer = SampleBuffer(files)
        self._places = image_places(index)
        self._siblings = sibling_places(index)
        self._at: int | None = None  # the row whose image is in the buffer
        self._data = memoryview(b"")

    def rows(self, wanted: NDArray[np.bool_] | None) -> Iterator[int]:
        """Yield the rows that have no problem so far."""
        problems = self.index["problem"].to_pylist()
        if self.inspection is not None:
            read = self.inspection["problem"].to_pylist()
            problems = [first or second for first, second in zip(problems, read, strict=True)]
        for row, problem in enumerate(problems):
            if problem is None and (wanted is None or wanted[row]) and self._may_be_read(row):
                yield row

    def _may_be_read(self, row: int) -> bool:
        if row in self._guard.avoid:
            self._fail(row, self._guard.avoid[row], "reading this image ended a worker process")
            return False
        size = self._places[row][3]
        if size > self.options.limits.max_bytes:
            detail = f"{size} bytes, at most {self.options.limits.max_bytes}"
            self._fail(row, Problem.TOO_MANY_BYTES, detail)
            return False
        return True

    def _fail(self, row: int, problem: Problem, detail: str) -> None:
        if self.facts:
            self.facts[row].problem = problem
            self.facts[row].problem_detail = detail

    def inspect(self, row: int) -> bool:
        """Read a sample and note what its bytes tell, without decoding.

        Return whether it is sound so far.
        """
        with self._guard.watch(row):
            siblings = self._siblings[row]
            places = [self._places[row], *(place for _, place in siblings)]
            self._data, *others = self._buffer.read(places)
            self._at = row
            fact = self.facts[row]
            members = zip((extension for extension, _ in siblings), others, strict=True)
            inspect_siblings(fact, members, self.options)
            inspect_image(fact, self._data, self.options)
            return fact.problem is None

    def data(self, row: int) -> memoryview:
        """Return the bytes of a row's image, which are valid until the next row is read."""
        if self._at != row:
            (self._data,) = self._buffer.read([self._places[row]])
            self._at = row
        return self._data

    def header(self, row: int) -> image.ImageHeader:
        """Return what the image's header says."""
        known = self.facts[row].header if self.facts else None
        return known or image.probe(self.data(row), self.options.limits)

    def check(self, row: int, data: memoryview | None = None) -> None:
        """Decode a row's image completely, if that is asked for its format."""
        header = self.header(row)
        if header.format not in self.options.decode:
            return
        with self._guard.watch(row):
            self.decoded += 1
            try:
                image.check_decode(self.data(row) if data is None else data, header)
            except image.ImageProblemError as problem:
                self._fail(row, problem.problem, problem.detail)

    def decode(self, row: int, pixels: int, data: memoryview | None) -> NDArray[np.uint8] | None:
        """Return a row's pixels, which checks it, too; ``None``.

        It does not decode, and is noted so.
        """
        with self._guard.watch(row):
            self.decoded += 1
            try:
                found = self.data(row) if data is None else data
                return image.decode(found, self.header(row), min_side=pixels)
            except image.ImageProblemError as problem:
                self._fail(row, problem.problem, problem.detail)
                return None


@dataclass(slots=True)
class _Chunk:
    """Samples that are scored together."""

    reading: _Reading
    steps: Sequence[Scorer | SelectStage]
    earlier: Mapping[str, pa.ChunkedArray]
    rows: list[int] = field(default_factory=list)
    scored: list[pa.Table] = field(default_factory=list)
    _kept: dict[int, memoryview] = field(default_factory=dict)
    _pixels: dict[tuple[int, int], NDArray[np.uint8] | None] = field(default_factory=dict)
    _held: int = 0

    @property
    def full(self) -> bool:
        return self._held >= CHUNK_BYTES or len(self.rows) >= CHUNK_ROWS

    def add(self, row: int) -> None:
        """Take a row whose sample may lie in the buffer.

        Its pixels are decoded when a scorer needs them.
        """
        self.rows.append(row)
        scorers = [step.stage for step in self.steps if isinstance(step, Scorer)]
        if self.reading.inspection is None:  # its bytes were read, and must not be read again
            self._kept[row] = memoryview(bytes(self.reading.data(row)))
            self._held += len(self._kept[row])
        for level in {_level(stage) for stage in scorers if stage.needs.pixels is not None}:
            width, height = self._size(row)
            factor = next(f for f in (8, 4, 2, 1) if f == 1 or min(width, height) // f >= level)
            self._held += 3 * (width // factor) * (height // factor)

    def _size(self, row: int) -> tuple[int, int]:
        if self.reading.inspection is None:
            header = self.reading.header(row)
            return header.width, header.height
        read = self.reading.inspection
        return read["width"][row].as_py(), read["height"][row].as_py()

    def score(self) -> None:
        """Take the steps in order; afterwards :attr:`scored` has a table for each scorer."""
        columns = self._columns()
        active = np.ones(len(self.rows), np.bool_)
        for step in self.steps:
            if isinstance(step, SelectStage):
                active &= step.passes(pa.table(columns))
                continue
            table = self._score(step, active, columns)
            self.scored.append(table)
            columns |= {name: table[name] for name in step.stage.adds().names}
        if self.reading.inspection is None:
            decoded = {row for row, _ in self._pixels}
            for row in self.rows:
                if row not in decoded:
                    self.reading.check(row, self._kept[row])
        self._kept.clear()
        self._pixels.clear()

    def _score(
        self, scorer: Scorer, active: NDArray[np.bool_], columns: Mapping[str, pa.ChunkedArray]
    ) -> pa.Table:
        """Score the active rows that have no scores yet.

        Return the columns for all rows of the chunk.
        """
        known = _known(scorer, len(self.reading.index)).take(pa.array(self.rows))
        need = active & ~known[SCORED].to_numpy()
        stage = scorer.stage
        if stage.needs.pixels is not None:
            for at in np.flatnonzero(need):
                need[at] = self._decoded(self.rows[at], _level(stage)) is not None
        numbers = np.flatnonzero(need)
        if not len(numbers):
            return known
        found = self._call(scorer, numbers, columns)
        scores = pa.Table.from_batches([found]).cast(stage.adds())
        scores = scores.append_column(SCORED, pa.array(np.ones(len(numbers), np.bool_)))
        take = np.arange(len(self.rows))
        take[numbers] = len(self.rows) + np.arange(len(numbers))
        return pa.concat_tables([known, scores]).take(pa.array(take))

    def _call(
        self, scorer: Scorer, numbers: NDArray[np.int64], columns: Mapping[str, pa.ChunkedArray]
    ) -> pa.RecordBatch:
        stage, needs = scorer.stage, scorer.stage.needs
        rows = pa.table({name: columns[name] for name in stage.reads() or ("image_id",)})
        batch = ImageBatch(
            rows.take(pa.array(numbers)).combine_chunks().to_batches()[0],
            tuple(bytes(self._bytes(self.rows[at])) for at in numbers) if needs.encoded else (),
            tuple(self._given(self.rows[at], stage) for at in numbers)
            if needs.pixels is not None
            else (),
        )
        with blaming(stage):
            found = scorer.score(batch)
        if fault := _fault(found, len(numbers), stage.adds()):
            msg = f"{type(stage).__name__} gave {fault}; mend what its load() returns"
            raise PlanError(msg)
        return found

    def _bytes(self, row: int) -> memoryview:
        kept = self._kept.get(row)
        return self.reading.data(row) if kept is None else kept

    def _decoded(self, row: int, level: int) -> NDArray[np.uint8] | None:
        if (row, level) not in self._pixels:
            self._pixels[row, level] = self.reading.decode(row, level, self._kept.get(row))
        return self._pixels[row, level]

    def _given(self, row: int, stage: ScoreStage) -> NDArray[np.uint8]:
        pixels = self._decoded(row, _level(stage))
        assert pixels is not None  # noqa: S101  # rows that do not decode were left out before
        return np.asarray(Image.fromarray(pixels).convert("L")) if stage.needs.gray else pixels

    def _columns(self) -> dict[str, pa.ChunkedArray]:
        rows = pa.array(self.rows, pa.int64())
        located = self.reading.index.take(rows)
        columns = {name: located[source] for name, source in FROM_INDEX.items()}
        columns |= {name: column.take(rows) for name, column in self.earlier.items()}
        if self.reading.inspection is None:
            facts = [self.reading.facts[row] for row in self.rows]
            read = inspection_table(facts, self.reading.options)
        else:
            read = self.reading.inspection.take(rows)
        return columns | {name: read[name] for name in read.column_names}


def _fault(found: object, rows: int, wanted: pa.Schema) -> str | None:
    """Say what is wrong with the scores of a batch, if anything."""
    if not isinstance(found, pa.RecordBatch):
        return f"a {type(found).__name__}, expected a pyarrow.RecordBatch"
    if found.num_rows != rows or found.schema.names != wanted.names:
        return (
            f"{found.num_rows} rows of {found.schema.names} for {rows} images; "
            f"expected one row each of {wanted.names}"
        )
    for expected, column in zip(wanted, found.columns, strict=True):
        try:
            column.cast(expected.type)
        except pa.ArrowException as error:
            return f"{expected.name!r} as {column.type}, expected {expected.type} ({error})"
    return None


def _level(stage: ScoreStage) -> int:
    """Return the shorter side that a stage's pixels are decoded for, whatever others need."""
    return max(stage.needs.pixels or 0, SHARED_PIXELS)


def score_schema(stage: ScoreStage) -> pa.Schema:
    """Return the columns of a stage's score table."""
    return stage.adds().append(pa.field(SCORED, pa.bool_()))


def _known(scorer: Scorer, length: int) -> pa.Table:
    """Return the scores that are there already: nulls where there are none."""
    if scorer.known is not None:
        return scorer.known
    schema = score_schema(scorer.stage)
    columns = [pa.nulls(length, column.type) for column in schema]
    columns[-1] = pa.array(np.zeros(length, np.bool_))
    return pa.table(columns, schema=schema)


def _assembled(
    scorer: Scorer, parts: Sequence[tuple[list[int], pa.Table]], length: int
) -> pa.Table:
    """Return a scorer's table over all rows of the part."""
    take = np.arange(length)
    at = length
    for rows, _ in parts:
        take[rows] = np.arange(at, at + len(rows))
        at += len(rows)
    tables = [_known(scorer, length), *(table for _, table in parts)]
    return pa.concat_tables(tables).take(pa.array(take)).combine_chunks()
