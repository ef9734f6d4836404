"""Groups of duplicates, each built round the image that stays; never chains."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError
from pixsieve.select.base import Verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

_ROUNDS = 64
_KEPT, _DROPPED = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaders:
    """Which rows go, and for which one that stays.

    Attributes:
        dropped: Row numbers, ascending, int64.
        keeper: For each of them the number of the row that stays, int64.
        distance: Between the two.
        rank: Of the dropped row: what is merged comes in this order.
    """

    dropped: NDArray[np.int64]
    keeper: NDArray[np.int64]
    distance: NDArray[Any]
    rank: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """Images of an earlier dataset, for which rows may be dropped.

    Attributes:
        name: Of the dataset's folder or file, without where it lies.
        ids: The images' ``image_id``. The first one has the number ``len(rows)`` as a keeper.
    """

    name: str
    ids: pa.Array | pa.ChunkedArray


def leaders(
    rank: NDArray[np.int64],
    better: NDArray[np.int64],
    worse: NDArray[np.int64],
    distance: NDArray[Any],
) -> Leaders:
    """Go through the rows from the best one on: each that is near to one that stays is dropped.

    It is dropped for the best one of these. So every dropped row is within the threshold of its
    keeper, and no two rows that stay are.

    Args:
        rank: For each number its rank, lower is better; no two are equal.
        better: The better row of each pair within the threshold, int64.
        worse: The other one.
        distance: Of each pair.
    """
    numbers, ends = np.unique(np.concatenate([better, worse]), return_inverse=True)
    first, second = ends.reshape(2, -1)
    state = settled(rank[numbers], first, second)
    chosen = np.flatnonzero((state[first] == _KEPT) & (state[second] == _DROPPED))
    order = chosen[np.lexsort((distance[chosen], rank[better[chosen]], second[chosen]))]
    order = order[np.append(True, np.diff(second[order]) != 0)[: len(order)]]
    dropped = worse[order].astype(np.int64)
    return Leaders(
        dropped=dropped,
        keeper=better[order].astype(np.int64),
        distance=distance[order],
        rank=rank[dropped],
    )


def settled(
    rank: NDArray[np.int64], better: NDArray[np.int64], worse: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Return for each row 1 if it stays and 2 if it goes, (n,).

    In rounds: a row with no better neighbour that is open stays, neighbours of what stays go. Few
    rounds settle all but long chains, which the rest of the pairs is walked for, one by one.

    Args:
        rank: Of each row, (n,).
        better: Row numbers below n.
        worse: The other ends of the pairs.
    """
    state = np.zeros(len(rank), np.int8)
    for _ in range(_ROUNDS):
        if not len(better):
            break
        waits = np.zeros(len(rank), np.bool_)
        waits[worse] = True
        state[(state == 0) & ~waits] = _KEPT
        state[worse[state[better] == _KEPT]] = _DROPPED
        open_ = (state[worse] == 0) & (state[better] != _DROPPED)
        better, worse = better[open_], worse[open_]
    order = np.lexsort((rank[better], rank[worse]))
    for one, other in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if state[one] != _DROPPED:  # all of its better neighbours have been seen
            state[other] = _DROPPED
    state[state == 0] = _KEPT
    return state


def merged_fields(merge: Sequence[str]) -> list[pa.Field]:
    """Return the columns that merging adds: ``merged_caption`` for ``caption``, a list of text."""
    return [
        pa.field(
            f"merged_{name}",
            pa.list_(pa.string()),
            metadata={
                "scale": "",
                "unit": "",
                "better": "neither",
                "source": f"{name} of the images that were dropped for this one",
            },
        )
        for name in merge
    ]


def check_merge(stage: str, merge: Sequence[str], columns: pa.Schema) -> None:
    """Raise ``PlanError`` unless the columns to merge are there, once each, and hold text."""
    texts = [each.name for each in columns if pa.types.is_string(each.type)]
    for name in merge:
        if name not in texts:
            what = f"is {columns.field(name).type}" if name in columns.names else "is not there"
            msg = f"{stage}: merge names {name!r}, which {what}; it takes text: {', '.join(texts)}"
            raise PlanError(msg)
    if len(set(merge)) < len(merge):
        msg = f"{stage}: merge names a column twice: {', '.join(merge)}"
        raise PlanError(msg)


def verdicts(
    rows: Rows,
    leaders: Leaders,
    reason: str,
    evidence: Iterable[Mapping[str, object]],
    merge: Sequence[str] = (),
    earlier: Earlier | None = None,
    columns: Mapping[str, pa.Array | pa.ChunkedArray] | None = None,
) -> Verdicts:
    """Return what a deduplication stage answers.

    Args:
        rows: The table.
        leaders: Which rows go, and for which.
        reason: The stage's code.
        evidence: For each dropped row what is written as JSON; ``against`` is added for a keeper in
            the earlier dataset.
        merge: Columns of text whose values are collected for what stays; see :func:`merged`.
        earlier: Where keepers from ``len(rows)`` on are.
        columns: What else the stage adds.
    """
    inside = leaders.keeper < len(rows)
    ids = np.empty(len(inside), object)
    numbers, at = np.unique(leaders.keeper[inside], return_inverse=True)
    kept = rows.take(numbers, ("image_id",))["image_id"]
    ids[inside] = kept.take(pa.array(at)).to_numpy()
    told = [dict(each) for each in evidence]
    if earlier is not None:
        theirs = leaders.keeper[~inside] - len(rows)
        ids[~inside] = earlier.ids.take(pa.array(theirs)).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(~inside).tolist():
            told[row]["against"] = earlier.name
    found = dict(columns or {})
    found |= {f"merged_{name}": merged(rows, leaders, name) for name in merge}
    return Verdicts(
        drop=leaders.dropped,
        reason=reason,
        evidence=pa.array([json.dumps(each) for each in told], pa.string()),
        duplicate_of=pa.array(ids, pa.string()),
        columns=found,
    )


def merged(rows: Rows, leaders: Leaders, column: str) -> pa.Array:
    """Return for each row that stays the texts of those dropped for it, list<string> (n,).

    Each text once, in the order of rank, without the row's own and without empty ones; null where
    there are none.
    """
    inside = np.flatnonzero(leaders.keeper < len(rows))
    dropped, keeper = leaders.dropped[inside], leaders.keeper[inside]
    theirs = rows.take(dropped, (column,))[column].to_pylist()
    kept = np.unique(keeper)
    own = rows.take(kept, (column,))[column].to_pylist()
    found: dict[int, dict[str, None]] = {int(row): {} for row in kept}
    for at in np.argsort(leaders.rank[inside], kind="stable").tolist():
        if theirs[at]:
            found[int(keeper[at])][theirs[at]] = None
    for row, text in zip(kept.tolist(), own, strict=True):
        found[row].pop(text, None)
    lengths = np.zeros(len(rows), np.int32)
    lengths[kept] = [len(found[row]) for row in kept.tolist()]
    offsets = np.append(np.int32(0), np.cumsum(lengths, dtype=np.int32))
    values = pa.array([text for row in kept.tolist() for text in found[row]], pa.string())
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(lengths == 0))
