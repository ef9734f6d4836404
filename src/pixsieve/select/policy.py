"""Which of several images is the best one: an ordered list of keys, and a total order from it.

An entry of the list is ``resolution`` (width times height), ``has_caption`` (one that is more than
white space), ``file_size`` (bytes), ``source_order`` (path, offset and key in the source, the first
one being best), or a column's name. ``" asc"`` behind it says that the lower value is better,
``" desc"`` that the higher one is. Without either, a column's own metadata ``better`` decides, and
where that says nothing the higher value is better. What has no value (null, NaN) comes last either
way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

KEEP: tuple[str, ...] = (
    "resolution",
    "sharpness",
    "aesthetic_score",
    "has_caption",
    "file_size",
    "source_order",
)
"""The usual policy. Entries whose columns no stage has added fall away."""

_MADE_OF = {
    "resolution": ("width", "height"),
    "has_caption": ("caption",),
    "file_size": ("byte_size",),
    "source_order": ("original_path", "original_offset", "original_key"),
}
_TIE = "image_id"


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    columns: tuple[str, ...]
    ascending: bool


def columns(keep: Sequence[str] | None, schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that :func:`ranks` reads, each once.

    Args:
        keep: Ordered entries; ``None`` for :data:`KEEP` as far as its columns are there.
        schema: The columns that there are.

    Raises:
        PlanError: an entry names no column, or one whose values have no order.
    """
    names = [name for key in _keys(keep, schema) for name in key.columns]
    return tuple(dict.fromkeys(names))


def named(keep: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns that the entries name, whatever columns there are; none for ``None``."""
    names = [_read(entry)[0] for entry in keep or ()]
    return tuple(dict.fromkeys(column for name in names for column in _MADE_OF.get(name, (name,))))


def ranks(rows: Rows, keep: Sequence[str] | None) -> NDArray[np.int64]:
    """Return each kept row's place, (n,): 0 is the best one, -1 stands for rows that are not kept.

    It is a total order: rows that all keys call equal come by ``image_id``. A key is read for those
    rows alone that the keys before it call equal. Takes about 40 bytes a row, and the text of keys
    that are text.

    Raises:
        PlanError: as :func:`columns`.
    """
    kept = np.flatnonzero(rows.kept)
    place = np.zeros(len(kept), np.int64)  # how many rows are better, by the keys so far
    tied = np.arange(len(kept))
    for key in _keys(keep, rows.columns):
        if len(tied) < 2:  # noqa: PLR2004  # one alone is no tie
            break
        values, missing = _values(rows, key, kept[tied])
        order = np.lexsort((values, missing, place[tied]))
        tied = tied[order]
        before = place[tied]
        group = _differs(before)
        new = group | _differs(values[order]) | _differs(missing[order])
        at = np.arange(len(tied))
        place[tied] += np.maximum.accumulate(np.where(new, at, 0))
        place[tied] -= np.maximum.accumulate(np.where(group, at, 0))
        alone = new & np.append(new[1:], True)
        tied = np.sort(tied[~alone])
    found = np.full(len(rows), -1, np.int64)
    found[kept] = place
    return found


def _differs(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which of sorted values are not those before them."""
    return np.append(True, values[1:] != values[:-1])


def _keys(keep: Sequence[str] | None, schema: pa.Schema) -> list[_Key]:
    """Return the keys, the first one counts most; the last one is the id."""
    wanted = KEEP if keep is None else tuple(keep)
    if not wanted:
        msg = "keep is empty; name what is better, such as resolution, or leave it out"
        raise PlanError(msg)
    found = []
    for entry in wanted:
        name, direction = _read(entry)
        needed = _MADE_OF.get(name, (name,))
        absent = [column for column in needed if column not in schema.names]
        if absent and keep is None:
            continue
        if absent:
            have = ", ".join([*_MADE_OF, *sorted(schema.names)])
            msg = (
                f"keep names {name!r}, but there is no column {absent[0]!r}; expected a name, or a "
                f"name and asc or desc behind it; there are: {have}"
            )
            raise PlanError(msg)
        if name not in _MADE_OF and not _has_order(schema.field(name).type):
            kind = schema.field(name).type
            msg = f"keep names {name!r}, but values of {kind} have no order; name another column"
            raise PlanError(msg)
        ascending = _is_ascending(name, direction, schema)
        if name == "source_order":
            found += [_Key(column, (column,), ascending) for column in needed]
        else:
            found.append(_Key(name, needed, ascending))
    return [*found, _Key(_TIE, (_TIE,), ascending=True)]


def _read(entry: str) -> tuple[str, str]:
    """Return the name of an entry, which may have spaces in it, and its direction."""
    name, _, direction = entry.rpartition(" ")
    return (name, direction) if name and direction in {"asc", "desc"} else (entry, "")


def _has_order(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_date(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
    )


def _is_ascending(name: str, direction: str, schema: pa.Schema) -> bool:
    if direction:
        return direction == "asc"
    if name in _MADE_OF:
        return name == "source_order"
    about = schema.field(name).metadata or {}
    return bool(about.get(b"better") == b"lower")


def _values(
    rows: Rows, key: _Key, numbers: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return what to sort rows by, the best one first, and which of them have no value.

    Args:
        rows: The table.
        key: What to sort by.
        numbers: Of the rows, ascending.

    Returns:
        Numbers, (m,), 0 where there is no value; and whether there is none, (m,).
    """
    pieces = []
    for batch in rows.batches(key.columns):
        low, high = np.searchsorted(numbers, (batch.first, batch.first + len(batch.columns)))
        if low < high:
            wanted = pa.array(numbers[low:high] - batch.first)
            read = [batch.columns[name].combine_chunks().take(wanted) for name in key.columns]
            pieces.append(_made(key, read))
    column = pa.chunked_array(pieces)
    if pa.types.is_dictionary(column.type):
        column = _places_of_words(column)
    missing = column.is_null(nan_is_null=True).to_numpy()
    filled = column.fill_null(pa.scalar(0, column.type)).to_numpy()
    values = np.where(missing, filled.dtype.type(0), filled)
    if not key.ascending:
        values = -values if values.dtype.kind == "f" else ~values  # ~ has no value that overflows
    values[missing] = 0
    return values, missing


def _made(key: _Key, read: list[pa.Array]) -> pa.Array:
    """Return a key's values: integers, floats, or words in a dictionary."""
    if key.name == "resolution":
        return pc.multiply(*(column.cast(pa.int64()) for column in read))
    if key.name == "has_caption":
        told = pc.not_equal(pc.utf8_trim_whitespace(read[0]), "")
        return pc.fill_null(told, False).cast(pa.int8())  # noqa: FBT003  # positional in pyarrow
    (column,) = read
    kind = column.type
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8())
    if pa.types.is_floating(kind):
        return column.cast(pa.float64())
    if pa.types.is_date32(kind):
        return column.cast(pa.int32())
    if pa.types.is_temporal(kind):
        return column.cast(pa.int64())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string()).dictionary_encode()
    return column


def _places_of_words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return each word's place among all words in the order of their bytes, int32."""
    whole = column.unify_dictionaries()
    words = whole.chunk(0).dictionary
    order = pc.sort_indices(words).to_numpy()
    place = np.empty(len(words), np.int32)
    place[order] = np.arange(len(words), dtype=np.int32)
    places = pa.array(place)
    return pa.chunked_array([places.take(chunk.indices) for chunk in whole.chunks])
