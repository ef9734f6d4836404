"""Groups of duplicates, each built round the image that stays; never chains."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError
from pixsieve.select.base import Verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

_ROLE = "merged"
_TEXTS = pa.list_(pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaders:
    """Which rows go, and for which one that stays.

    Attributes:
        dropped: Row numbers, ascending, int64.
        keeper: For each of them the number of the row that stays, int64.
        rank: Of the dropped row: what is merged comes in this order.
    """

    dropped: NDArray[np.int64]
    keeper: NDArray[np.int64]
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


def merged_fields(merge: Sequence[str]) -> list[pa.Field]:
    """Return the columns that merging adds: ``merged_caption`` for ``caption``, a list of text."""
    return [
        pa.field(
            f"merged_{name}",
            _TEXTS,
            metadata={
                "role": _ROLE,
                "scale": "",
                "unit": "",
                "better": "neither",
                "source": f"{name} of the images that were dropped for this one",
            },
        )
        for name in merge
    ]


def group_field(name: str) -> pa.Field:
    """Return a column that says which images are linked by pairs, and that splits go by."""
    about = {
        "role": "duplicate_group",
        "scale": "",
        "unit": "image_id",
        "better": "neither",
        "source": "smallest image_id of all that are linked by pairs",
    }
    return pa.field(name, pa.string(), metadata=about)


def takes_over(earlier: pa.Field, later: pa.Field) -> bool:
    """Tell whether a stage that merges may add the column once more: its lists hold the earlier."""
    same = (earlier.name, earlier.type) == (later.name, later.type)
    return same and is_merged(earlier) and is_merged(later)


def is_merged(field: pa.Field) -> bool:
    """Tell whether a column is one of what a deduplication collects."""
    return bool((field.metadata or {}).get(b"role") == _ROLE.encode())


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
    return Verdicts(
        drop=leaders.dropped,
        reason=reason,
        evidence=pa.array([json.dumps(each) for each in told], pa.string()),
        duplicate_of=pa.array(ids, pa.string()),
        columns={f"merged_{name}": merged(rows, leaders, name) for name in merge},
    )


def merged(rows: Rows, leaders: Leaders, column: str) -> pa.Array:
    """Return for each row that stays the texts of those dropped for it, list<string> (n,).

    What earlier stages have merged into a row, or into those dropped for it, is taken over. Each
    text once, in the order of rank, without the row's own and without empty ones; null where there
    are none.
    """
    inside = leaders.keeper < len(rows)
    dropped, keeper = leaders.dropped[inside], leaders.keeper[inside]
    kept = np.unique(keeper)
    theirs = rows.take(dropped, (column,))[column].to_pylist()
    own = rows.take(kept, (column,))[column].to_pylist()
    numbers, lists = _merged_before(rows, f"merged_{column}")
    changes = np.isin(numbers, np.concatenate([leaders.dropped, kept]))
    texts = lists.filter(pa.array(changes)).to_pylist()
    before = dict(zip(numbers[changes].tolist(), texts, strict=True))
    found = {row: dict.fromkeys(before.get(row, ())) for row in kept.tolist()}
    for at in np.argsort(leaders.rank[inside], kind="stable").tolist():
        texts = (theirs[at], *before.get(int(dropped[at]), ()))
        found[int(keeper[at])] |= dict.fromkeys(text for text in texts if text)
    for row, text in zip(kept.tolist(), own, strict=True):
        found[row].pop(text, None)
    new = {row: list(texts) for row, texts in found.items() if texts}
    lists = pa.concat_arrays(
        [lists.filter(pa.array(~changes)), pa.array(list(new.values()), _TEXTS)]
    )
    numbers = np.concatenate([numbers[~changes], np.array(list(new), np.int64)])
    place = np.full(len(rows), -1, np.int64)
    place[numbers] = np.arange(len(numbers))
    return lists.take(pa.array(place, mask=place < 0))


def _merged_before(rows: Rows, name: str) -> tuple[NDArray[np.int64], pa.Array]:
    """Return the kept rows into which earlier stages have merged something: numbers and lists."""
    numbers = [np.empty(0, np.int64)]
    lists = [pa.array([], _TEXTS)]
    for batch in rows.batches((name,)) if rows.has_decided(name) else ():
        column = batch.columns[name].combine_chunks()
        at = np.flatnonzero(batch.kept & column.is_valid().to_numpy(zero_copy_only=False))
        numbers.append(batch.first + at)
        lists.append(column.take(pa.array(at)))
    return np.concatenate(numbers), pa.concat_arrays(lists)
