"""Values of a column of any scalar type as hashes and as groups: what rows are held together by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError, nearest
from pixsieve.select.keys import mix64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

_WORD = 8
_INT64 = 2.0**63


def check_scalar(columns: pa.Schema, name: str, what: str) -> None:
    """Raise ``PlanError`` unless there is a column ``name`` of single values, for ``what``."""
    check_there(columns, name, what)
    kind = columns.field(name).type
    if pa.types.is_nested(kind):
        msg = f"{what}: the column {name!r} holds {kind}; expected one value a row"
        raise PlanError(msg)


def check_number(columns: pa.Schema, name: str, what: str) -> None:
    """Raise ``PlanError`` unless there is a column ``name`` of numbers, for ``what``."""
    check_there(columns, name, what)
    kind = columns.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        numbers = [each.name for each in columns if pa.types.is_floating(each.type)]
        listed = f", such as {', '.join(numbers)}" if numbers else ""
        msg = f"{what}: the column {name!r} holds {kind}; expected numbers{listed}"
        raise PlanError(msg)


def check_there(columns: pa.Schema, name: str, what: str) -> None:
    """Raise ``PlanError`` unless there is a column ``name``, for ``what``."""
    if name not in columns.names:
        msg = (
            f"{what}: there is no column {name!r}{nearest(name, columns.names)}; "
            f"the columns are: {', '.join(columns.names)}"
        )
        raise PlanError(msg)


def numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a column of numbers, (n,) float64; null is NaN."""
    if pa.types.is_float16(column.type):
        column = column.cast(pa.float32())
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def hashed(column: pa.ChunkedArray) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return a 64-bit hash of each value, (n,) uint64, and whether there is one, (n,) bool.

    Null and NaN are no values. Numbers that are equal have one hash, whatever their type, so that
    a column that becomes one of floats changes nothing. The hash is splitmix64, chained over the
    8-byte words of text; the same on every machine. Two of ten million values have one hash with a
    probability of 3e-6.
    """
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of no chunk
        array = pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.uint64), valid
    if pa.types.is_floating(kind):
        values = numbers(pa.chunked_array([array]))
        valid &= ~np.isnan(values)
        whole = (values == np.floor(values)) & (np.abs(values) < _INT64)
        bits = values.view(np.uint64).copy()
        bits[whole] = values[whole].astype(np.int64).view(np.uint64)
        return mix64(bits), valid
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_temporal(kind):
        array = array.cast(pa.int32()) if kind.bit_width == 32 else array  # noqa: PLR2004
        array = array.cast(pa.int64())
    if pa.types.is_integer(array.type):
        bits = array.fill_null(0).to_numpy(zero_copy_only=False)
        wide = np.uint64 if bits.dtype.kind == "u" else np.int64
        return mix64(bits.astype(wide).view(np.uint64)), valid
    if pa.types.is_decimal(kind):
        array = array.cast(pa.string())
    return _of_bytes(array.cast(pa.large_binary())), valid


def _of_bytes(array: pa.Array) -> NDArray[np.uint64]:
    """Return a hash of each run of bytes, word by word for all at once."""
    _, ends, data = array.buffers()
    count = len(array)
    if ends is None or not count:
        return np.zeros(count, np.uint64)
    offsets = np.frombuffer(ends, np.int64)[array.offset : array.offset + count + 1]
    found = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    lengths = np.diff(offsets)
    result = mix64(lengths.astype(np.uint64))
    left = np.flatnonzero(lengths)
    steps = np.arange(_WORD)
    done = 0
    while len(left):
        at = (offsets[left] + done)[:, None] + steps
        inside = steps < (lengths[left] - done)[:, None]
        words = np.where(inside, found[np.minimum(at, len(found) - 1)], 0).astype(np.uint8)
        result[left] = mix64(result[left] ^ words.view("<u8")[:, 0].astype(np.uint64))
        done += _WORD
        left = left[lengths[left] > done]
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """The kept rows by the values of a column.

    Attributes:
        codes: For each kept row, in order, the number of its group; (n,) int32.
        counts: Rows of each group; (g,) int64.
        names: The value of each group, as Python has it; ``None`` for rows without one.
    """

    codes: NDArray[np.int32]
    counts: NDArray[np.int64]
    names: list[object]


def groups(rows: Rows, column: str) -> Groups:
    """Return the kept rows by the values of ``column``; those without a value are a group, too.

    Groups are in an order that follows from their values alone. Takes 25 bytes a row, and leaves 4.
    """
    kept = np.flatnonzero(rows.kept)
    values = np.empty(len(kept), np.uint64)
    done = 0
    for batch in rows.batches((column,)):
        hashes, valid = hashed(batch.columns[column])
        hashes[~valid] = 0
        here = hashes[batch.kept]
        values[done : done + len(here)] = here
        done += len(here)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=~values[order[:1]]))
    counts = np.diff(starts, append=len(values))
    codes = np.empty(len(values), np.int32)
    codes[order] = np.repeat(np.arange(len(starts), dtype=np.int32), counts)
    first = order[starts]
    del order, values
    ascending = np.argsort(first)
    names: list[object] = [None] * len(first)
    found = rows.take(kept[first[ascending]], (column,))[column].to_pylist()
    for at, name in zip(ascending.tolist(), found, strict=True):
        names[at] = None if name != name else name  # noqa: PLR0124  # NaN is no value
    return Groups(codes=codes, counts=counts, names=names)


def told(name: object) -> str:
    """Return a group's value as a note shows it."""
    if name is None:
        return "no value"
    text = repr(name) if isinstance(name, str) else str(name)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004
