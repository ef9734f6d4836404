"""Apply a pass's selection stages and write down where every sample ended."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve import schema
from pixsieve.errors import PlanError
from pixsieve.schema import Status
from pixsieve.select import evidence
from pixsieve.select.base import Verdicts
from pixsieve.select.evidence import Values
from pixsieve.stage import blaming
from pixsieve.storage import LocalStorage, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows
    from pixsieve.stage import SelectStage

Outcome = tuple[str, str | None, str | None]
"""Status, stage and reason."""
Reason = tuple[str, str, str]
"""Stage, status and reason."""

_KEPT: Outcome = (Status.KEPT, None, None)
_WORDS = ("split", "bucket")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """How many samples ended where, over all passes so far.

    ``splits`` and ``buckets`` are the names of those, in their order; ``notes`` what the stages had
    to say.
    """

    indexed: int
    kept: int
    reasons: Counter[Reason]
    splits: tuple[str, ...]
    buckets: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _State:
    """What is decided so far: for each row a number in ``outcomes``, 0 for kept."""

    codes: NDArray[np.int16]
    outcomes: list[Outcome]
    keys: NDArray[np.uint64] | None = None
    words: dict[str, pa.DictionaryArray] = field(default_factory=dict)
    told: list[Verdicts] = field(default_factory=list)
    values: dict[str, Values] = field(default_factory=dict)


def decide(
    rows: Rows,
    stages: Sequence[tuple[str, SelectStage]],
    path: str,
    failed: Callable[[], Iterator[pa.Table]] | None = None,
) -> Decided:
    """Apply the stages in order and write the selection table to ``path``.

    Args:
        rows: All indexed rows; ``rows.selection`` is the table of what was decided before.
        stages: (label, stage), in the order of the pipeline.
        path: Where the new table goes: :data:`pixsieve.schema.SELECTION`, and what stages add.
        failed: Yields, piece by piece, ``problem`` and ``problem_detail`` of rows that a scorer
            could not score: those that are still kept behind the stages have failed.

    Raises:
        RunError: a user's own stage failed; the message has the line.
        PlanError: a stage's verdicts are not what :class:`~pixsieve.select.base.Verdicts` says.
    """
    kept = rows.kept
    state = _start(rows)
    for label, stage in stages:
        kept.flags.writeable = False  # stages only read it
        with blaming(stage):
            verdict = stage.decide(rows)
        kept.flags.writeable = True
        if fault := _fault(verdict, stage, kept):
            msg = f"{label}: {fault}; mend its decide()"
            raise PlanError(msg)
        _apply(state, label, verdict, rows)
    unscored = _unscored(state, rows, failed)
    ranks = _ranks(kept, state.keys)
    writer = _Writer(rows, state, ranks, unscored)
    writer.write(path)
    counts = np.bincount(state.codes, minlength=len(state.outcomes)).tolist()
    reasons: Counter[Reason] = Counter()
    for (status, stage_, reason), number in zip(state.outcomes[1:], counts[1:], strict=True):
        if number:
            reasons[str(stage_), status, str(reason)] += number
    count = int(kept.sum())
    if len(rows) != count + sum(reasons.values()):
        msg = (
            f"{len(rows)} samples were indexed, but {count} kept and {sum(reasons.values())} not; "
            "this is an error in pixsieve"
        )
        raise AssertionError(msg)
    return Decided(
        indexed=len(rows),
        kept=count,
        reasons=reasons,
        splits=_names(state.words.get("split")),
        buckets=_names(state.words.get("bucket")),
        notes=tuple(
            f"{label}: {note}"
            for (label, _), verdict in zip(stages, state.told, strict=True)
            for note in verdict.notes
        ),
    )


def _apply(state: _State, label: str, verdict: Verdicts, rows: Rows) -> None:
    """Take over what a stage decided."""
    rows.kept[verdict.drop] = False
    if len(verdict.drop):
        state.codes[verdict.drop] = _code(state, (Status.DROPPED, label, verdict.reason))
    if verdict.order is not None:
        state.keys = verdict.order
    for name in _WORDS:
        given = getattr(verdict, name)
        if given is not None:
            state.words[name] = _as_words(given)
    for name, column in verdict.columns.items():
        rows.decided[name] = pa.chunked_array(column) if isinstance(column, pa.Array) else column
    if isinstance(verdict.evidence, Values):
        state.values[label] = verdict.evidence
    state.told.append(verdict)


def _code(state: _State, outcome: Outcome) -> int:
    if outcome not in state.outcomes:
        state.outcomes.append(outcome)
    return state.outcomes.index(outcome)


def _as_words(column: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Return text as a dictionary array; where it is none yet, its values come by name."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        names = pc.unique(column).drop_null().sort()
        column = pa.DictionaryArray.from_arrays(pc.index_in(column, names), names)
    return column.cast(pa.dictionary(pa.int16(), pa.string()))


def _names(words: pa.DictionaryArray | None) -> tuple[str, ...]:
    return () if words is None else tuple(words.dictionary.to_pylist())


def _fault(verdict: object, stage: SelectStage, kept: NDArray[np.bool_]) -> str | None:
    """Say what is wrong with a stage's verdicts, if anything."""
    if not isinstance(verdict, Verdicts):
        return f"it returned a {type(verdict).__name__}, expected Verdicts"
    drop, order = verdict.drop, verdict.order
    if drop.dtype != np.int64 or (drop[:1] < 0).any() or (drop[1:] <= drop[:-1]).any():
        return f"the rows to drop are no ascending int64 numbers from 0 on ({drop.dtype})"
    if len(drop) and drop[-1] >= len(kept):
        return f"it dropped row {drop[-1]}, there are {len(kept)}"
    if not kept[drop].all():
        return f"it dropped row {drop[~kept[drop]][0]}, which was not kept any more"
    if len(drop) and not verdict.reason:
        return "it dropped rows and gave no reason"
    for name, column in (("evidence", verdict.evidence), ("duplicate_of", verdict.duplicate_of)):
        if isinstance(column, Values):
            continue
        if column is not None and len(column) != len(drop):
            return f"{name} has {len(column)} rows, {len(drop)} are dropped"
    if order is not None and (order.dtype != np.uint64 or order.shape != kept.shape):
        return f"order is {order.dtype} of shape {order.shape}, expected uint64 of {kept.shape}"
    given = {"split": verdict.split, "bucket": verdict.bucket, **verdict.columns}
    for name, column in given.items():
        if column is not None and len(column) != len(kept):
            return f"{name} has {len(column)} rows, expected {len(kept)}"
    declared = {field.name: field.type for field in stage.adds()}
    answered = {name: column.type for name, column in verdict.columns.items()}
    if declared != answered:
        return f"it gave the columns {answered}, its adds() says {declared}"
    return None


def _start(rows: Rows) -> _State:
    """Return what was decided before the pass."""
    codes = np.zeros(len(rows), np.int16)
    state = _State(codes=codes, outcomes=[_KEPT])
    if rows.selection is None:
        for batch in () if rows.kept.all() else rows.batches(("problem", "located")):
            problem, located = batch.columns["problem"], batch.columns["located"]
            for at in np.flatnonzero(problem.is_valid()):
                step = "inspect" if located[at].as_py() else "index"
                outcome = (Status.FAILED, step, problem[at].as_py())
                codes[batch.first + at] = _code(state, outcome)
        return state
    found = tables.read_table(rows.selection)
    for name in _WORDS:
        if found[name].null_count < len(found):
            state.words[name] = _as_words(found[name].combine_chunks())
    triples = [
        pc.fill_null(pc.cast(found[name], pa.string()), "")
        for name in ("status", "stage", "reason")
    ]
    joined = pc.binary_join_element_wise(*triples, "\0").combine_chunks().dictionary_encode()
    meaning = []
    for text in joined.dictionary.to_pylist():
        status, stage, reason = text.split("\0")
        meaning.append(_code(state, (status, stage or None, reason or None)))
    codes[:] = np.array(meaning, np.int16)[joined.indices.to_numpy()] if len(rows) else 0
    state.values = evidence.from_metadata(tables.schema_of(rows.selection))
    ranks = found["rank"].fill_null(0).to_numpy()
    state.keys = ranks.astype(np.uint64)
    return state


def _unscored(
    state: _State, rows: Rows, failed: Callable[[], Iterator[pa.Table]] | None
) -> dict[int, str]:
    """Fail the kept rows that could not be scored; return the evidence of each."""
    details: dict[int, str] = {}
    first = 0
    for table in failed() if failed else ():
        problem, detail = table["problem"], table["problem_detail"]
        for at in np.flatnonzero(problem.is_valid()).tolist():
            if rows.kept[first + at]:
                rows.kept[first + at] = False
                outcome = (Status.FAILED, "inspect", problem[at].as_py())
                state.codes[first + at] = _code(state, outcome)
                details[first + at] = json.dumps({"detail": detail[at].as_py()})
        first += len(table)
    return details


def _ranks(kept: NDArray[np.bool_], keys: NDArray[np.uint64] | None) -> NDArray[np.int64]:
    """Return each row's place in the export: by key, then as indexed; -1 where it is not kept."""
    ranks = np.full(len(kept), -1, np.int64)
    rows = np.flatnonzero(kept)
    if keys is not None:
        rows = rows[_order(keys[rows])]
    ranks[rows] = np.arange(len(rows))
    return ranks


def _order(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return where the smallest key is, the next one, and so on; equal ones as they come.

    Sorts keys whose last bits are replaced by their place, which takes a fifth of the time, and
    then what these bits would have decided.
    """
    bits = np.uint64(len(keys).bit_length())
    packed = (keys >> bits << bits) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    order = (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    packed >>= bits
    same = np.flatnonzero(packed[1:] == packed[:-1])
    if len(same) > len(keys) // 16:
        return np.argsort(keys, kind="stable")
    at = np.union1d(same, same + 1)
    tied = order[at]
    order[at] = tied[np.lexsort((tied, keys[tied]))]
    return order


class _Writer:
    """Writes a selection table in runs of :data:`pixsieve.storage.tables.ROW_GROUP` rows."""

    def __init__(
        self, rows: Rows, state: _State, ranks: NDArray[np.int64], unscored: dict[int, str]
    ) -> None:
        self._rows = rows
        self._state = state
        self._ranks = ranks
        self._unscored = unscored
        added = [pa.field(name, column.type) for name, column in sorted(rows.decided.items())]
        earlier = [] if rows.selection is None else tables.schema_of(rows.selection)
        known = {*schema.SELECTION.names, *rows.decided}
        self._kept_columns = [field for field in earlier if field.name not in known]
        self._schema = pa.schema(
            [*schema.SELECTION, *self._kept_columns, *added],
            metadata=evidence.to_metadata(state.values),
        )
        words = [each for column in zip(*state.outcomes, strict=True) for each in column]
        self._dictionary = pa.array(sorted({word for word in words if word}), pa.string())
        at = {word: number for number, word in enumerate(self._dictionary.to_pylist())}
        self._word = [
            np.array([at.get(word or "", -1) for word in column], np.int16)
            for column in zip(*state.outcomes, strict=True)
        ]

    def write(self, path: str) -> None:
        with tables.table_writer(LocalStorage(), path, self._schema, tables.SELECTION) as writer:
            for start in range(0, len(self._rows), tables.ROW_GROUP):
                stop = min(start + tables.ROW_GROUP, len(self._rows))
                writer.write_table(self._run(start, stop))

    def _run(self, start: int, stop: int) -> pa.Table:
        """Return the rows from ``start`` to before ``stop``."""
        codes = self._state.codes[start:stop]
        ranks = self._ranks[start:stop]
        told, twin = self._told(start, stop)
        found: dict[str, pa.Array | pa.ChunkedArray] = {
            name: _words(words[codes], self._dictionary)
            for name, words in zip(("status", "stage", "reason"), self._word, strict=True)
        }
        found |= {"evidence": told, "duplicate_of": twin}
        for name in _WORDS:
            words = self._state.words.get(name)
            found[name] = pa.nulls(stop - start, self._schema.field(name).type)
            if words is not None:
                gone = pa.array(ranks < 0)
                part = words.slice(start, stop - start)
                indices = pc.if_else(gone, pa.scalar(None, pa.int16()), part.indices)
                found[name] = pa.DictionaryArray.from_arrays(indices, words.dictionary)
        found["rank"] = pa.array(ranks, mask=ranks < 0)
        if self._kept_columns:
            assert self._rows.selection is not None  # noqa: S101  # that is where they are from
            names = [field.name for field in self._kept_columns]
            earlier = tables.read_rows(self._rows.selection, start, stop, names)
            found |= {name: earlier[name] for name in names}
        found |= {
            name: column.slice(start, stop - start) for name, column in self._rows.decided.items()
        }
        return pa.table([found[field.name] for field in self._schema], schema=self._schema)

    def _told(self, start: int, stop: int) -> tuple[pa.Array, pa.Array]:
        """Return evidence and duplicate_of: of earlier passes, of what failed, of the stages."""
        count = stop - start
        pieces: list[tuple[NDArray[np.int64], pa.Array, pa.Array]] = []
        if self._rows.selection is not None:
            names = ["evidence", "duplicate_of"]
            earlier = tables.read_rows(self._rows.selection, start, stop, names).combine_chunks()
            there = np.flatnonzero(
                pc.or_(earlier["evidence"].is_valid(), earlier["duplicate_of"].is_valid())
            )
            pieces.append((there, *(_array(earlier[name]).take(pa.array(there)) for name in names)))
        else:
            pieces.append(self._failed(start, stop))
        for verdict in self._state.told:
            if verdict.duplicate_of is None and not isinstance(verdict.evidence, pa.Array):
                continue
            low, high = np.searchsorted(verdict.drop, (start, stop))
            size = int(high - low)
            columns = (
                pa.nulls(size, pa.string())
                if column is None or isinstance(column, Values)
                else _array(column).slice(low, size).cast(pa.string())
                for column in (verdict.evidence, verdict.duplicate_of)
            )
            pieces.append((verdict.drop[low:high] - start, *columns))
        late = sorted(row for row in self._unscored if start <= row < stop)
        lines = pa.array([self._unscored[row] for row in late], pa.string())
        numbers = np.array(late, np.int64) - start
        pieces.append((numbers, lines, pa.nulls(len(late), pa.string())))
        if not any(len(piece[0]) for piece in pieces):
            return pa.nulls(count, pa.string()), pa.nulls(count, pa.string())
        at = np.full(count, -1, np.int64)
        at[np.concatenate([piece[0] for piece in pieces])] = np.arange(
            sum(len(piece[0]) for piece in pieces)
        )
        take = pa.array(at, mask=at < 0)
        return tuple(
            pa.concat_arrays([piece[number] for piece in pieces]).take(take) for number in (1, 2)
        )

    def _failed(self, start: int, stop: int) -> tuple[NDArray[np.int64], pa.Array, pa.Array]:
        """Return the evidence of what could not be located or read."""
        statuses = [status == Status.FAILED for status, _, _ in self._state.outcomes]
        failed = np.array(statuses)[self._state.codes[start:stop]]
        numbers = np.flatnonzero(failed)
        numbers = numbers[[start + n not in self._unscored for n in numbers.tolist()]]
        details = self._rows.take(numbers + start, ("problem_detail",))["problem_detail"]
        lines = [json.dumps({"detail": detail}) for detail in details.to_pylist()]
        return numbers, pa.array(lines, pa.string()), pa.nulls(len(numbers), pa.string())


def _words(indices: NDArray[np.int16], dictionary: pa.Array) -> pa.DictionaryArray:
    """Return words of a dictionary; null where the index is negative."""
    there = np.packbits(indices >= 0, bitorder="little")
    buffers = [pa.py_buffer(there), pa.py_buffer(np.ascontiguousarray(indices))]
    numbers = pa.Array.from_buffers(pa.int16(), len(indices), buffers)
    return pa.DictionaryArray.from_arrays(numbers, dictionary)


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
