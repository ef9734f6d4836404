"""Evidence that is some values of a row's own columns: written down only where somebody asks.

A filter may drop millions of rows. What decided stands in their columns already, so a selection
table only notes of which columns it is; ``dropped.parquet``, ``why`` and ``query`` spell it out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.select import expression

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY = b"pixsieve:evidence"


class Values(msgspec.Struct, frozen=True):
    """Evidence of all rows that a stage drops: what all share, and values of their columns."""

    fixed: dict[str, str | int | float]
    columns: tuple[str, ...]

    def of(self, table: pa.Table) -> pa.Array:
        """Return for each row a strict JSON object, (n,) string.

        What JSON has no form for, such as NaN or a date, becomes text.
        """
        if not self.columns:
            return pa.array([json.dumps(self.fixed)] * len(table), pa.string())
        told = expression.project(self.sql(table.schema), table.select(self.columns))
        return told.combine_chunks().cast(pa.string())

    def sql(self, schema: pa.Schema) -> str:
        """Return SQL that gives the same as :meth:`of`, over columns of these names and types."""
        pieces = [json.dumps(self.fixed)[: -1 if self.fixed else None].removesuffix("}")]
        comma = ", " if self.fixed else ""
        sources = []
        for name in self.columns:
            pieces.append(f"{comma}{json.dumps(name)}: ")
            sources.append(_in_json(_quoted(name), schema.field(name).type))
            comma = ", "
        texts = [_literal(piece) for piece in pieces]
        between = [each for pair in zip(texts[1:], sources, strict=True) for each in pair]
        return f"concat({', '.join([texts[0], *between])}, '}}')"


def to_metadata(known: Mapping[str, Values]) -> dict[bytes, bytes]:
    """Return what a selection table's metadata say of the evidence of each stage, by its label."""
    return {_KEY: msgspec.json.encode(known)} if known else {}


def from_metadata(schema: pa.Schema) -> dict[str, Values]:
    """Return what :func:`to_metadata` wrote down."""
    text = (schema.metadata or {}).get(_KEY)
    return msgspec.json.decode(text, type=dict[str, Values]) if text else {}


def spelled(known: Mapping[str, Values], rows: pa.Table) -> pa.Array:
    """Return the evidence of rows of a selection table that stand beside their columns."""
    rows = rows.combine_chunks()
    found = rows["evidence"]
    stages = pc.cast(rows["stage"], pa.string())
    for label, values in known.items():
        mine = pc.and_(pc.equal(stages, label), pc.is_null(rows["evidence"]))
        numbers = np.flatnonzero(pc.fill_null(mine, False))  # noqa: FBT003
        if len(numbers):
            told = values.of(rows.take(pa.array(numbers)))
            at = np.full(len(rows), -1, np.int64)
            at[numbers] = np.arange(len(numbers))
            found = pc.coalesce(found, told.take(pa.array(at, mask=at < 0)))
    return found


def _in_json(column: str, kind: pa.DataType) -> str:
    """Return SQL for the values of a column as JSON text."""
    if pa.types.is_floating(kind):
        text = f"CAST({column} AS VARCHAR)"
        spelled = f"CASE WHEN isfinite({column}) THEN {text} ELSE '\"' || {text} || '\"' END"
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        spelled = f"CAST({column} AS VARCHAR)"
    elif _is_list(kind) and pa.types.is_floating(kind.value_type):
        finite = "CASE WHEN isfinite(x) THEN to_json(x) ELSE to_json(CAST(x AS VARCHAR)) END"
        spelled = f"CAST(to_json(list_transform({column}, lambda x: {finite})) AS VARCHAR)"
    else:
        spelled = f"CAST(to_json({column}) AS VARCHAR)"
    return f"coalesce({spelled}, 'null')"


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
