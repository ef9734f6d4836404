"""Column types that every reader of Parquet maps, and the way back.

Hugging Face's datasets has no fixed-size binary, Polars and DuckDB no 16-bit floats, and pyarrow 25
cannot read a null in a fixed-size list. So tables for others have plain binary, 32-bit floats and
lists without a size; the field's metadata says what it was.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY = b"stored_from"
"""Metadata of a field whose type was changed: the name of the type that it had."""

_BINARY = re.compile(r"fixed_size_binary\[(\d+)\]")
_LIST = re.compile(r"fixed_size_list<(halffloat|float|double)>\[(\d+)\]")
_FLOATS = {"halffloat": pa.float16(), "float": pa.float32(), "double": pa.float64()}


def portable(field: pa.Field) -> pa.Field:
    """Return the field as other readers can have it: of the same name, with all values."""
    kind, told = _portable(field.type)
    if kind == field.type:
        return field
    return field.with_type(kind).with_metadata({**(field.metadata or {}), KEY: told.encode()})


def _portable(kind: pa.DataType) -> tuple[pa.DataType, str]:
    if pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind):
        return pa.binary(), f"fixed_size_binary[{kind.byte_width}]"
    if pa.types.is_float16(kind):
        return pa.float32(), "halffloat"
    if pa.types.is_fixed_size_list(kind) and str(kind.value_type) in _FLOATS:
        value, _ = _portable(kind.value_type)
        return pa.list_(value), f"fixed_size_list<{kind.value_type}>[{kind.list_size}]"
    return kind, ""


def original(field: pa.Field) -> pa.Field:
    """Return the field as it was before :func:`portable`."""
    metadata = dict(field.metadata or {})
    told = metadata.pop(KEY, b"").decode("utf-8", "replace")
    kind = None
    if found := _BINARY.fullmatch(told):
        kind = pa.binary(int(found[1]))
    elif found := _LIST.fullmatch(told):
        kind = pa.list_(_FLOATS[found[1]], int(found[2]))
    elif told == "halffloat":
        kind = pa.float16()
    return field if kind is None else field.with_type(kind).with_metadata(metadata or None)


def convert(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column's values as another type: as ``cast``, also between lists and their like.

    Raises:
        pa.ArrowInvalid: a value does not fit, such as a list of another length.
    """
    if column.type == kind:
        return column
    return pa.chunked_array([_converted(chunk, kind) for chunk in column.chunks], kind)


def _converted(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(values.type) and pa.types.is_list(kind):
        # of a null the values are there, but no list has them
        present = values.is_valid()
        flat = values.filter(present).flatten().cast(kind.value_type)
        lengths = pc.if_else(present, values.type.list_size, 0).fill_null(0)
        ends = pc.cumulative_sum(lengths.cast(pa.int32()))
        offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
        return pa.ListArray.from_arrays(offsets, flat, kind, mask=pc.invert(present))
    if pa.types.is_list(values.type) and pa.types.is_fixed_size_list(kind):
        value = values.type.value_type
        sized = values.cast(pa.list_(value, kind.list_size))
        return _resized(sized, kind)
    return values.cast(kind)


def _resized(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a fixed-size list with values of another type."""
    if values.type == kind:
        return values
    inside = values.values[values.offset * kind.list_size :][: len(values) * kind.list_size]
    return pa.FixedSizeListArray.from_arrays(
        inside.cast(kind.value_type), type=kind, mask=values.is_null()
    )


def originals(table: pa.Table, names: Sequence[str] | None = None) -> pa.Table:
    """Return a table of others' types with the columns as they were."""
    fields = [original(field) for field in table.schema if names is None or field.name in names]
    columns = [convert(table[field.name], field.type) for field in fields]
    return pa.table(columns, schema=pa.schema(fields))
