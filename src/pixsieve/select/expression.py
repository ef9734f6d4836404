"""SQL expressions over the columns of one row, in DuckDB's dialect.

An expression is checked before any work: its syntax, that it names columns there are, that it looks at
nothing but its own row (no subquery, aggregate or window), that it gives the same answer every time (no
``random()``, no ``now()``), and that it is a boolean.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from pixsieve.errors import PlanError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORBIDDEN = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a positional reference",
}


def check(text: str, columns: pa.Schema) -> tuple[str, ...]:
    """Return the names of the columns that the expression reads, in the order of the schema.

    Raises:
        PlanError: with what is wrong, the columns there are, and the nearest name.
    """
    tree = _parse(text)
    names = {name.lower(): name for name in columns.names}
    lambdas = {
        reference
        for node in _nodes(tree)
        if node.get("class") == "LAMBDA"
        for reference in _references(node["lhs"])
    }
    found = set()
    for node in _nodes(tree):
        kind = node.get("class")
        if kind in _FORBIDDEN:
            msg = f"filter {text!r} has {_FORBIDDEN[kind]}; it may look at one row's columns only"
            raise PlanError(msg)
        if kind == "FUNCTION":
            _check_function(text, node["function_name"])
        if kind == "COLUMN_REF":
            path = [str(part) for part in node["column_names"]]
            if tuple(path) in lambdas or path[0] in {name[0] for name in lambdas}:
                continue
            if path[0].lower() not in names:
                known = ", ".join(columns.names)
                msg = (
                    f"filter {text!r} names the column {path[0]!r}, which there is not"
                    f"{nearest(path[0], columns.names)}; the columns are: {known}"
                )
                raise PlanError(msg)
            found.add(names[path[0].lower()])
    _check_type(text, columns)
    return tuple(name for name in columns.names if name in found)


def evaluate(text: str, table: pa.Table) -> pa.ChunkedArray:
    """Return for each row true, false or null."""
    connection = _connection()
    connection.register("samples", table)
    try:
        result = connection.sql(f"SELECT ({text}\n) AS verdict FROM samples").to_arrow_table()
    except duckdb.Error as error:
        msg = f"filter {text!r} fails on the data: {_first_line(error)}; guard it, say with TRY_CAST or CASE"
        raise PlanError(msg) from error
    finally:
        connection.unregister("samples")
    return result["verdict"]


@functools.cache
def _connection() -> duckdb.DuckDBPyConnection:
    """A database in memory that can reach no file and no network, on one thread: row order is kept."""
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    return connection


@functools.cache
def _stable_functions() -> frozenset[str]:
    rows = (
        _connection()
        .execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE function_type = 'scalar' AND stability = 'CONSISTENT'"
        )
        .fetchall()
    )
    return frozenset(str(name) for (name,) in rows)


def _parse(text: str) -> object:
    ((found,),) = _connection().execute("SELECT json_serialize_sql(?)", [f"SELECT ({text}\n)"]).fetchall()
    answer = json.loads(found)
    if answer["error"]:
        msg = f"filter {text!r} is not an SQL expression: {answer['error_message']}"
        raise PlanError(msg)
    node = answer["statements"][0]["node"]
    selected = node.get("select_list", [])
    plain = (
        len(answer["statements"]) == 1
        and node["type"] == "SELECT_NODE"
        and len(selected) == 1
        and node["from_table"]["type"] == "EMPTY"
    )
    if not plain:
        msg = f"filter {text!r} must be one SQL expression, as after WHERE"
        raise PlanError(msg)
    return selected[0]


def _nodes(tree: object) -> Iterator[dict[str, object]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _references(tree: object) -> Iterator[tuple[str, ...]]:
    for node in _nodes(tree):
        if node.get("class") == "COLUMN_REF":
            yield tuple(node["column_names"])  # type: ignore[arg-type]


def _check_function(text: str, name: object) -> None:
    stable = _stable_functions()
    if str(name).lower() not in stable:
        msg = (
            f"filter {text!r} calls {name}(), which is no function of one row that always gives the same "
            f"answer{nearest(str(name), stable)}"
        )
        raise PlanError(msg)


def _check_type(text: str, columns: pa.Schema) -> None:
    connection = _connection()
    connection.register("samples", columns.empty_table())
    try:
        ((_, kind, *_),) = connection.execute(
            f"DESCRIBE SELECT ({text}\n) AS verdict FROM samples"
        ).fetchall()
    except duckdb.Error as error:
        msg = f"filter {text!r} does not fit the columns' types: {_first_line(error)}"
        raise PlanError(msg) from error
    finally:
        connection.unregister("samples")
    if kind != "BOOLEAN":
        msg = f"filter {text!r} gives {kind}, a boolean was expected; compare it with something"
        raise PlanError(msg)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
