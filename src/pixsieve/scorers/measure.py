"""One pass over the samples of a part: one read and one decode of each, for all scorers together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

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
from pixsieve.select.base import FROM_INDEX
from pixsieve.stage import ImageBatch, Needs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pixsieve.scorers.guard import Guard
    from pixsieve.sources import SourceFiles
    from pixsieve.stage import ScoreStage

CHUNK_BYTES = 64 * 1024 * 1024
"""Pixels and encoded bytes that are held at a time for scorers."""
CHUNK_ROWS = 256
GAP = 64 * 1024
"""A sample whose members lie apart by at most so many bytes in all is read in one request."""

Place = tuple[str, str, int, int]
"""Where a member lies: file, version, offset, size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a pass over a part gave: one table per family, each with the part's rows.

    ``decoded`` counts the images whose pixels were looked at.
    """

    inspection: pa.Table
    scores: tuple[pa.Table, ...]
    decoded: int


def inspect_part(
    index: pa.Table, options: InspectOptions, files: SourceFiles, guard: Guard
) -> Measured:
    """Inspect the rows of an index table."""
    return measure_part(index, None, (), options, files, guard)


def measure_part(
    index: pa.Table,
    inspection: pa.Table | None,
    scorers: Sequence[tuple[ScoreStage, Callable[[ImageBatch], pa.RecordBatch]]],
    options: InspectOptions,
    files: SourceFiles,
    guard: Guard,
) -> Measured:
    """Inspect the rows of an index table, unless that was done before, and score them.

    Args:
        index: Rows with the schema :data:`pixsieve.schema.INDEX`.
        inspection: An earlier inspection of the same rows, or ``None``.
        scorers: Stages with their loaded functions, in the order of the pipeline.
        options: How to inspect.
        files: Opens the rows' files.
        guard: Told which row is being read.
    """
    needs = _shared_needs([stage for stage, _ in scorers])
    places = _places(index)
    siblings = _siblings(index)
    located = index["problem"].to_pylist()
    known = None if inspection is None else inspection["problem"].to_pylist()
    formats = None if inspection is None else inspection["format"].to_pylist()
    buffer = _SampleBuffer(files)
    facts = [Facts() for _ in located] if inspection is None else []
    chunk = _Chunk(index, facts, inspection, scorers, options)
    decoded = 0
    for row, problem in enumerate(located):
        if problem is not None or (known is not None and known[row] is not None):
            continue
        if row in guard.avoid:
            if known is None:
                facts[row].problem = guard.avoid[row]
                facts[row].problem_detail = "reading this image ended a worker process twice"
            continue
        if places[row][3] > options.limits.max_bytes:
            facts[row].problem = Problem.TOO_MANY_BYTES
            facts[row].problem_detail = f"{places[row][3]} bytes, at most {options.limits.max_bytes}"
            continue
        with guard.watch(row):
            if formats is None:
                fact = facts[row]
                data, *others = buffer.read([places[row], *(place for _, place in siblings[row])])
                inspect_siblings(
                    fact,
                    [(extension, view) for (extension, _), view in zip(siblings[row], others, strict=True)],
                    options,
                )
                inspect_image(fact, data, options)
                decoded += fact.header is not None and fact.header.format in options.decode
                if fact.problem is not None:
                    continue
            elif needs.encoded or needs.pixels is not None:
                (data,) = buffer.read([places[row]])
            else:
                data = memoryview(b"")
            if scorers:
                decoded += needs.pixels is not None
                chunk.add(row, data, needs, options)
        if chunk.full:
            chunk.score()
    chunk.score()
    table = inspection_table(facts, options) if inspection is None else inspection
    return Measured(inspection=table, scores=chunk.families(len(index)), decoded=decoded)


class _SampleBuffer:
    """Reads the members of a sample into memory that is used again for the next one."""

    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._buffer = memoryview(bytearray(1024 * 1024))

    def read(self, members: Sequence[Place]) -> list[memoryview]:
        """Return the members' bytes, which are valid until the next call."""
        total = sum(size for *_, size in members)
        file, version, *_ = members[0]
        start = min(offset for _, _, offset, _ in members)
        stop = max(offset + size for _, _, offset, size in members)
        if stop - start <= total + GAP and all(member[0] == file for member in members):
            view = self._view(stop - start)
            self._files.open(file, version).read_into([view], start)
            return [view[offset - start : offset - start + size] for _, _, offset, size in members]
        view = self._view(total)
        found, at = [], 0
        for file, version, offset, size in members:
            found.append(view[at : at + size])
            self._files.open(file, version).read_into([found[-1]], offset)
            at += size
        return found

    def _view(self, size: int) -> memoryview:
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        return self._buffer[:size]


@dataclass(slots=True)
class _Chunk:
    """Images that wait to be scored together, and the scores so far."""

    index: pa.Table
    facts: list[Facts]
    inspection: pa.Table | None
    scorers: Sequence[tuple[ScoreStage, Callable[[ImageBatch], pa.RecordBatch]]]
    options: InspectOptions
    rows: list[int] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    pixels: list[NDArray[np.uint8]] = field(default_factory=list)
    held: int = 0
    scored: list[int] = field(default_factory=list)
    results: list[list[pa.RecordBatch]] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return self.held >= CHUNK_BYTES or len(self.rows) >= CHUNK_ROWS

    def add(self, row: int, data: memoryview, needs: Needs, options: InspectOptions) -> None:
        if needs.pixels is not None:
            header = self.facts[row].header if self.facts else image.probe(data, options.limits)
            assert header is not None  # noqa: S101  # the row has no problem, so it has a header
            self.pixels.append(image.decode(data, header, min_side=needs.pixels, gray=needs.gray))
            self.held += self.pixels[-1].nbytes
        if needs.encoded:
            self.encoded.append(bytes(data))
            self.held += len(data)
        self.rows.append(row)

    def score(self) -> None:
        if not self.rows:
            return
        columns = self._columns()
        batches = []
        for stage, function in self.scorers:
            rows = pa.RecordBatch.from_pydict({name: columns[name] for name in stage.reads()})
            if not stage.reads():
                rows = pa.RecordBatch.from_pydict({"image_id": columns["image_id"]})
            pixels = self.pixels if stage.needs.pixels is not None else []
            encoded = self.encoded if stage.needs.encoded else []
            found = function(ImageBatch(rows, tuple(encoded), tuple(pixels)))
            if found.num_rows != len(self.rows) or found.schema.names != stage.adds().names:
                msg = (
                    f"{type(stage).__name__} gave {found.num_rows} rows of {found.schema.names} for "
                    f"{len(self.rows)} images; expected one row each of {stage.adds().names}"
                )
                raise PlanError(msg)
            batches.append(found)
            columns |= {name: found.column(name) for name in found.schema.names}
        self.results.append(batches)
        self.scored.extend(self.rows)
        self.rows, self.encoded, self.pixels, self.held = [], [], [], 0

    def families(self, length: int) -> tuple[pa.Table, ...]:
        """Return each scorer's columns over all rows of the part: null where an image was not scored."""
        place = np.full(length, -1, np.int64)
        place[self.scored] = np.arange(len(self.scored))
        take = pa.array(place, mask=place < 0)
        tables = []
        for number, (stage, _) in enumerate(self.scorers):
            schema = stage.adds()
            scored = pa.Table.from_batches(
                [batches[number].cast(schema) for batches in self.results], schema
            )
            tables.append(scored.take(take).cast(schema))
        return tuple(tables)

    def _columns(self) -> dict[str, pa.Array]:
        rows = pa.array(self.rows, pa.int64())
        located = self.index.take(rows)
        columns = {
            name: located[source].combine_chunks() for name, source in FROM_INDEX.items()
        }
        if self.inspection is None:
            read = inspection_table([self.facts[row] for row in self.rows], self.options)
        else:
            read = self.inspection.take(rows)
        return columns | {name: read[name].combine_chunks() for name in read.column_names}


def _shared_needs(stages: Sequence[ScoreStage]) -> Needs:
    """Return the largest need of all: one decode serves every scorer."""
    pixels = [stage.needs.pixels for stage in stages if stage.needs.pixels is not None]
    return Needs(
        encoded=any(stage.needs.encoded for stage in stages),
        pixels=max(pixels, default=None),
        gray=bool(pixels) and all(stage.needs.gray for stage in stages if stage.needs.pixels is not None),
    )


def _places(index: pa.Table) -> list[Place]:
    names = ("image_file", "image_version", "image_offset", "image_size")
    return list(zip(*(index[name].to_pylist() for name in names), strict=True))


def _siblings(index: pa.Table) -> list[list[tuple[str, Place]]]:
    """Return for each row the extensions and places of the members beside the image."""
    lists = index["siblings"].combine_chunks()
    members = lists.flatten()
    names = ("file", "version", "offset", "size")
    places = list(zip(*(members.field(name).to_pylist() for name in names), strict=True))
    flat = list(zip(members.field("extension").to_pylist(), places, strict=True))
    lengths = lists.value_lengths().to_pylist()
    found, at = [], 0
    for length in lengths:
        found.append(flat[at : at + length])
        at += length
    return found


