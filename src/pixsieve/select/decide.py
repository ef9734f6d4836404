"""Apply a pass's selection stages and write down where every sample ended."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pixsieve import schema
from pixsieve.errors import PlanError
from pixsieve.schema import Status
from pixsieve.select.base import Rows, Verdicts, failed_rows
from pixsieve.stage import blaming
from pixsieve.storage import LocalStorage, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Part
    from pixsieve.stage import SelectStage

Reason = tuple[str, str, str]
"""Stage, status and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """How many samples ended where, over all passes so far."""

    indexed: int
    kept: int
    reasons: Counter[Reason]


def decide(
    parts: Sequence[Part],
    columns: pa.Schema,
    stages: Sequence[tuple[str, SelectStage]],
    seed: int,
    earlier: str | None,
    path: str,
) -> Decided:
    """Apply the stages in order and write the selection table to ``path``.

    Args:
        parts: All indexed rows.
        columns: The columns that stages see.
        stages: (label, stage), in the order of the pipeline.
        seed: The run's seed.
        earlier: The selection table of the pass before; ``None`` in the first pass.
        path: Where the new table goes: :data:`pixsieve.schema.SELECTION`.

    Raises:
        RunError: a user's own stage failed; the message has the line.
        PlanError: a stage's verdicts are not what :class:`~pixsieve.select.base.Verdicts` says.
    """
    kept, keys = _start(parts, earlier)
    rows = Rows(parts, columns, kept, seed)
    verdicts: list[tuple[str, Verdicts]] = []
    for label, stage in stages:
        kept.flags.writeable = False  # stages only read it
        with blaming(stage):
            verdict = stage.decide(rows)
        kept.flags.writeable = True
        if fault := _fault(verdict, kept):
            msg = f"{label}: {fault}; mend its decide()"
            raise PlanError(msg)
        kept[verdict.drop] = False
        keys = keys if verdict.order is None else verdict.order
        verdicts.append((label, verdict))
    reasons: Counter[Reason] = Counter()
    ranks = _ranks(kept, keys)
    with tables.table_writer(LocalStorage(), path, schema.SELECTION) as writer:
        for batch in _batches(parts, earlier, verdicts, ranks):
            writer.write_table(batch)
            for reason in zip(
                *(batch[name].to_pylist() for name in ("stage", "status", "reason")), strict=True
            ):
                if reason[1] != Status.KEPT:
                    reasons[reason] += 1
    count = int(kept.sum())
    if len(rows) != count + sum(reasons.values()):
        msg = (
            f"{len(rows)} samples were indexed, but {count} kept and {sum(reasons.values())} not; "
            "this is an error in pixsieve"
        )
        raise AssertionError(msg)
    return Decided(indexed=len(rows), kept=count, reasons=reasons)


def _fault(verdict: object, kept: NDArray[np.bool_]) -> str | None:
    """Say what is wrong with a stage's verdicts, if anything."""
    if not isinstance(verdict, Verdicts):
        return f"it returned a {type(verdict).__name__}, expected Verdicts"
    drop, order = verdict.drop, verdict.order
    if drop.dtype != np.int64 or (np.diff(drop, prepend=-1) <= 0).any():
        return f"the rows to drop are no ascending int64 numbers from 0 on ({drop.dtype})"
    if len(drop) and drop[-1] >= len(kept):
        return f"it dropped row {drop[-1]}, there are {len(kept)}"
    if not kept[drop].all():
        return f"it dropped row {drop[~kept[drop]][0]}, which was not kept any more"
    if len(drop) and not verdict.reason:
        return "it dropped rows and gave no reason"
    for name, column in (("evidence", verdict.evidence), ("duplicate_of", verdict.duplicate_of)):
        if column is not None and len(column) != len(drop):
            return f"{name} has {len(column)} rows, {len(drop)} are dropped"
    if order is not None and (order.dtype != np.uint64 or order.shape != kept.shape):
        return f"order is {order.dtype} of shape {order.shape}, expected uint64 of {kept.shape}"
    return None


def _start(
    parts: Sequence[Part], earlier: str | None
) -> tuple[NDArray[np.bool_], NDArray[np.uint64] | None]:
    """Return which rows are kept before the pass, and the order that an earlier pass gave them."""
    if earlier is not None:
        rank = tables.read_table(earlier, ["rank"])["rank"]
        numbers = rank.fill_null(-1).to_numpy()
        return numbers >= 0, numbers.astype(np.uint64)
    kept = [failed_rows(part)["problem"].is_null().to_numpy() for part in parts]
    return np.concatenate(kept) if kept else np.empty(0, np.bool_), None


def _ranks(kept: NDArray[np.bool_], keys: NDArray[np.uint64] | None) -> NDArray[np.int64]:
    """Return each row's place in the export: by key, then as indexed; -1 where it is not kept."""
    ranks = np.full(len(kept), -1, np.int64)
    rows = np.flatnonzero(kept)
    if keys is not None:
        rows = rows[np.argsort(keys[rows], kind="stable")]
    ranks[rows] = np.arange(len(rows))
    return ranks


def _batches(
    parts: Sequence[Part],
    earlier: str | None,
    verdicts: Sequence[tuple[str, Verdicts]],
    ranks: NDArray[np.int64],
) -> Iterator[pa.Table]:
    """Yield the selection table part by part."""
    first = 0
    for number, part in enumerate(parts):
        stop = first + part.rows
        if earlier is None:
            found = _failed(part)
        else:
            found = tables.read_row_group(earlier, number).to_pydict()
        for label, verdict in verdicts:
            low, high = np.searchsorted(verdict.drop, (first, stop))
            for at in range(low, high):
                row = int(verdict.drop[at]) - first
                found["status"][row] = Status.DROPPED
                found["stage"][row] = label
                found["reason"][row] = verdict.reason
                if verdict.evidence is not None:
                    found["evidence"][row] = verdict.evidence[at].as_py()
                if verdict.duplicate_of is not None:
                    found["duplicate_of"][row] = verdict.duplicate_of[at].as_py()
        found["row"] = list(range(first, stop))
        found["rank"] = [None if rank < 0 else rank for rank in ranks[first:stop].tolist()]
        yield pa.table(
            [pa.array(found[field.name], field.type) for field in schema.SELECTION],
            schema=schema.SELECTION,
        )
        first = stop


def _failed(part: Part) -> dict[str, list[object]]:
    """Return the columns of a part in which nothing is decided yet but what failed."""
    located = tables.read_table(part.index, ["image_id", "problem"]).slice(part.start, part.rows)
    problems = failed_rows(part)
    problem = problems["problem"].to_pylist()
    details = problems["problem_detail"].to_pylist()
    in_index = located["problem"].to_pylist()
    steps = ["index" if found else "inspect" for found in in_index]
    nothing: list[object] = [None] * part.rows
    return {
        "image_id": located["image_id"].to_pylist(),
        "status": [Status.FAILED if found else Status.KEPT for found in problem],
        "stage": [step if found else None for step, found in zip(steps, problem, strict=True)],
        "reason": list(problem),
        "evidence": [
            json.dumps({"detail": detail}) if found else None
            for found, detail in zip(problem, details, strict=True)
        ],
        "duplicate_of": list(nothing),
        "split": list(nothing),
    }
