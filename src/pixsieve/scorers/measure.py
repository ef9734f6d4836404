"""One pass over the samples of a part: one read and one decode of each, for all scorers together.

Filters that a row's own columns decide run in between: what an earlier one drops, a later scorer
does not look at. Rows that were scored before are not scored again.

A scorer that cannot score a sample fails it, which is part of its scores: the inspection is the
same whoever scores.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from pixsieve import image
from pixsieve.errors import PlanError
from pixsieve.schema import Problem
from pixsieve.scorers.guard import CHECK, DECODE, READ
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

    Numbers = Sequence[int] | NDArray[np.int64]

CHUNK_BYTES = 64 * 1024 * 1024
"""Pixels and encoded bytes that are held at a time for scorers."""
CHUNK_ROWS = 256
SCORED = "_scored"
"""Column of a score table: whether the row was scored. A filter, or a problem, may have spared
it."""
PROBLEM, PROBLEM_DETAIL = "_problem", "_problem_detail"
"""Columns of a score table: why the row could not be scored, as ``problem`` of an inspection."""
_MARKS = pa.schema([(SCORED, pa.bool_()), (PROBLEM, pa.string()), (PROBLEM_DETAIL, pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A scoring stage at work: its loaded function, and the scores that are there already.

    ``known`` has the part's rows, with the columns of :func:`score_schema`; ``None``: there are
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
        scores: For each scorer a table of :func:`score_schema`, one row per row of the part.
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
            _with(
                _known(scorer, len(index)), [(chunk.rows, chunk.scored[n]) for chunk in chunks]
            ).combine_chunks()
            for n, scorer in enumerate(scorers)
        ),
        decoded=reading.decoded,
    )


def missing_rows(
    index: pa.Table,
    inspection: pa.Table | None,
    steps: Sequence[tuple[ScoreStage, pa.Table | None] | SelectStage],
    earlier: Sequence[pa.Table] = (),
    wanted: NDArray[np.bool_] | None = None,
) -> list[NDArray[np.bool_]]:
    """Return for each scorer which rows :func:`measure_part` would have it score.

    A filter that reads what is missing itself counts as passed. Scorers come with the scores that
    are there; the other arguments are as above.
    """
    active = np.array(index["problem"].is_null(), np.bool_)
    columns = {name: index[source] for name, source in FROM_INDEX.items()}
    columns |= {name: table[name] for table in earlier for name in table.column_names}
    if inspection is not None:
        active &= inspection["problem"].is_null().to_numpy()
        columns |= {name: inspection[name] for name in inspection.column_names}
    if wanted is not None:
        active &= wanted
    unknown = np.full(len(index), inspection is None)
    needs = []
    for step in steps:
        if isinstance(step, SelectStage):
            if inspection is not None:
                with blaming(step):
                    active &= unknown | step.passes(pa.table(columns))
            continue
        stage, scores = step
        known = _unscored(stage, len(index)) if scores is None else scores
        sound = known[PROBLEM].is_null().to_numpy()
        need = active & ~known[SCORED].to_numpy() & sound
        needs.append(need)
        unknown |= need
        active &= sound
        columns |= {name: known[name] for name in stage.adds().names}
    return needs


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a sample cannot be had."""

    problem: Problem
    detail: str


def _no_memory(what: str) -> _Failure:
    return _Failure(Problem.OUT_OF_MEMORY, f"not enough memory {what}")


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
        self.guard = guard
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
            if problem is None and (wanted is None or wanted[row]):
                yield row

    def ended(self, row: int, deed: int, doing: str) -> _Failure | None:
        """Return why a row must not be touched so, if a worker ended when it was."""
        problem = self.guard.avoid.get(row)
        if problem is None or deed not in (self.guard.lost or {}).get(row, {deed}):
            return None
        return _Failure(problem, f"{doing} ended a worker process")

    def fail(self, row: int, failure: _Failure) -> None:
        self.facts[row].problem = failure.problem
        self.facts[row].problem_detail = failure.detail

    def inspect(self, row: int) -> bool:
        """Read a sample and note what its bytes tell, without decoding.

        Return whether it is sound so far.
        """
        size = self._places[row][3]
        if size > self.options.limits.max_bytes:
            detail = f"{size} bytes, at most {self.options.limits.max_bytes}"
            self.fail(row, _Failure(Problem.TOO_MANY_BYTES, detail))
            return False
        if failure := self.ended(row, READ, "reading this image"):
            self.fail(row, failure)
            return False
        fact = self.facts[row]
        try:
            with self.guard.watch(row):
                siblings = self._siblings[row]
                places = [self._places[row], *(place for _, place in siblings)]
                self._data, *others = self._buffer.read(places)
                self._at = row
                members = zip((extension for extension, _ in siblings), others, strict=True)
                inspect_siblings(fact, members, self.options)
                inspect_image(fact, self._data, self.options)
        except MemoryError:
            self.fail(row, _no_memory("to read it"))
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
        """Decode a row's image completely, if that is asked for its format or orientation."""
        header = self.header(row)
        turned = self.options.decode_turned and header.exif_orientation > 1
        if header.format not in self.options.decode and not turned:
            return
        if failure := self.ended(row, CHECK, "decoding this image"):
            self.fail(row, failure)
            return
        self.decoded += 1
        try:
            with self.guard.watch(row, CHECK):
                image.check_decode(self.data(row) if data is None else data, header)
        except image.ImageProblemError as problem:
            self.fail(row, _Failure(problem.problem, problem.detail))
        except MemoryError:
            self.fail(row, _no_memory("to decode it"))

    def decode(
        self, row: int, pixels: int, data: memoryview | None
    ) -> NDArray[np.uint8] | _Failure:
        """Return a row's pixels, which checks it, too."""
        if failure := self.ended(row, DECODE, "decoding this image"):
            return failure
        self.decoded += 1
        try:
            with self.guard.watch(row, DECODE):
                found = self.data(row) if data is None else data
                return image.decode(found, self.header(row), min_side=pixels)
        except image.ImageProblemError as problem:
            return _Failure(problem.problem, problem.detail)
        except MemoryError:
            return _no_memory("to decode it")


@dataclass(slots=True)
class _Chunk:
    """Samples that are scored together."""

    reading: _Reading
    steps: Sequence[Scorer | SelectStage]
    earlier: Mapping[str, pa.ChunkedArray]
    rows: list[int] = field(default_factory=list)
    scored: list[pa.Table] = field(default_factory=list)
    _kept: dict[int, memoryview] = field(default_factory=dict)
    _pixels: dict[tuple[int, int], NDArray[np.uint8] | _Failure] = field(default_factory=dict)
    _held: int = 0

    @property
    def full(self) -> bool:
        return self._held >= CHUNK_BYTES or len(self.rows) >= CHUNK_ROWS

    def add(self, row: int) -> None:
        """Take a row whose sample may lie in the buffer.

        Its pixels are decoded when a scorer needs them.
        """
        scorers = [step.stage for step in self.steps if isinstance(step, Scorer)]
        if self.reading.inspection is None:  # its bytes were read, and must not be read again
            try:
                self._kept[row] = memoryview(bytes(self.reading.data(row)))
            except MemoryError:
                self.reading.fail(row, _no_memory("to read it"))
                return
            self._held += len(self._kept[row])
        self.rows.append(row)
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
                with blaming(step):
                    active &= step.passes(pa.table(columns))
                continue
            table = self._score(step, active, columns)
            self.scored.append(table)
            active &= table[PROBLEM].is_null().to_numpy()
            columns |= {name: table[name] for name in step.stage.adds().names}
        if self.reading.inspection is None:
            sound = {
                row for (row, _), found in self._pixels.items() if not isinstance(found, _Failure)
            }
            for row in self.rows:
                if row not in sound:
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
        need = active & ~known[SCORED].to_numpy() & known[PROBLEM].is_null().to_numpy()
        stage = scorer.stage
        pieces: list[tuple[Numbers, pa.Table]] = []
        if stage.needs.pixels is not None:
            for at in np.flatnonzero(need):
                found = self._decoded(self.rows[at], _level(stage))
                if isinstance(found, _Failure):
                    need[at] = False
                    pieces.append(([int(at)], _unscored(stage, 1, found)))
        numbers = np.flatnonzero(need)
        if len(numbers):
            pieces += self._call(scorer, numbers, columns)
        return _with(known, pieces)

    def _call(
        self, scorer: Scorer, numbers: NDArray[np.int64], columns: Mapping[str, pa.ChunkedArray]
    ) -> list[tuple[Numbers, pa.Table]]:
        """Score rows together, or one by one where that ended a worker or takes too much memory."""
        guard, deed = self.reading.guard, len(self.scored)
        if guard.lost is None:
            with contextlib.suppress(MemoryError), guard.watch(None, deed):
                return [(numbers, self._scores(scorer, numbers, columns))]
        return [
            (number, self._alone(scorer, deed, number, columns))
            for number in numbers.reshape(-1, 1)
        ]

    def _alone(
        self,
        scorer: Scorer,
        deed: int,
        number: NDArray[np.int64],
        columns: Mapping[str, pa.ChunkedArray],
    ) -> pa.Table:
        row, name = self.rows[number[0]], type(scorer.stage).__name__
        failure = self.reading.ended(row, deed, f"scoring this image with {name}")
        if failure is None:
            try:
                with self.reading.guard.watch(row, deed):
                    return self._scores(scorer, number, columns)
            except MemoryError:
                failure = _no_memory(f"for {name} to score it")
        return _unscored(scorer.stage, 1, failure)

    def _scores(
        self, scorer: Scorer, numbers: NDArray[np.int64], columns: Mapping[str, pa.ChunkedArray]
    ) -> pa.Table:
        stage, needs = scorer.stage, scorer.stage.needs
        rows = pa.table({name: columns[name] for name in stage.reads() or ("image_id",)})
        batch = ImageBatch(
            rows.take(pa.array(numbers)).combine_chunks().to_batches()[0],
            tuple(bytes(self._bytes(self.rows[at])) for at in numbers) if needs.encoded else (),
            tuple(self._given(self.rows[at], stage) for at in numbers)
            if needs.pixels is not None
            else (),
        )
        with blaming(stage), contextlib.suppress(MemoryError):
            return _checked(scorer.score(batch), len(numbers), stage)
        raise MemoryError  # of the samples, not blamed on the stage

    def _bytes(self, row: int) -> memoryview:
        kept = self._kept.get(row)
        return self.reading.data(row) if kept is None else kept

    def _decoded(self, row: int, level: int) -> NDArray[np.uint8] | _Failure:
        if (row, level) not in self._pixels:
            self._pixels[row, level] = self.reading.decode(row, level, self._kept.get(row))
        return self._pixels[row, level]

    def _given(self, row: int, stage: ScoreStage) -> NDArray[np.uint8]:
        pixels = self._decoded(row, _level(stage))
        assert not isinstance(pixels, _Failure)  # noqa: S101  # rows that do not decode were left out before
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


def _checked(found: object, rows: int, stage: ScoreStage) -> pa.Table:
    """Return the scores of a batch as rows of a score table."""
    if fault := _fault(found, rows, stage.adds()):
        msg = f"{type(stage).__name__} gave {fault}; mend what its load() returns"
        raise PlanError(msg)
    return _marked(pa.Table.from_batches([found]).cast(stage.adds()), scored=True)


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
    return pa.schema([*stage.adds(), *_MARKS])


def _marked(scores: pa.Table, *, scored: bool = False, failure: _Failure | None = None) -> pa.Table:
    """Return scores as rows of a score table."""
    told = (failure.problem, failure.detail) if failure else (None, None)
    for column, mark in zip(_MARKS, (scored, *told), strict=True):
        scores = scores.append_column(column, pa.array([mark] * len(scores), column.type))
    return scores


def _unscored(stage: ScoreStage, length: int, failure: _Failure | None = None) -> pa.Table:
    """Return rows of a score table that have no scores, and why."""
    nulls = [pa.nulls(length, column.type) for column in stage.adds()]
    return _marked(pa.table(nulls, schema=stage.adds()), failure=failure)


def _known(scorer: Scorer, length: int) -> pa.Table:
    """Return the scores that are there already: nulls where there are none."""
    return _unscored(scorer.stage, length) if scorer.known is None else scorer.known


def _with(table: pa.Table, pieces: Sequence[tuple[Numbers, pa.Table]]) -> pa.Table:
    """Return the table with other rows in the place of some."""
    take = np.arange(len(table))
    end = len(table)
    for numbers, piece in pieces:
        take[numbers] = np.arange(end, end + len(piece))
        end += len(piece)
    return pa.concat_tables([table, *(piece for _, piece in pieces)]).take(pa.array(take))
