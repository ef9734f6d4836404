"""SQL expressions over the columns of one row, in DuckDB's dialect.

An expression is checked before any work: its syntax, that it names columns there are, that it
looks at nothing but its own row (no subquery, aggregate or window), that it gives the same answer
every time (no ``random()``, no ``now()``), and that it is a boolean.
"""

from __future__ import annotations

import functools
import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import pyarrow as pa

from pixsieve.errors import PlanError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FORBIDDEN = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a positional reference",
}
_CALLED_STABLE_YET_NOT = frozenset(
    {"age", "current_localtime", "current_localtimestamp", "version"}
)
"""Functions that DuckDB calls constant, though the clock or the release decides what they give."""

_lock = threading.Lock()  # around the one connection of this process


def check(text: str, columns: pa.Schema) -> tuple[str, ...]:
    """Return the names of the columns that the expression reads, in the order of the schema.

    Raises:
        PlanError: with what is wrong, the columns there are, and the nearest name.
    """
    tree = _select(_parse(text))
    names = {name.lower(): name for name in columns.names}
    # The arrow of json has the class of a lambda, too, and a parameter may be called like a column:
    # what could be a column counts as one.
    parameters = {
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
            name = node["column_names"][0]
            if name.lower() in names:
                found.add(names[name.lower()])
            elif name not in parameters:
                known = ", ".join(columns.names)
                msg = (
                    f"filter {text!r} names the column {name!r}, which there is not"
                    f"{nearest(name, columns.names)}; the columns are: {known}"
                )
                raise PlanError(msg)
    _check_type(text, columns)
    return tuple(name for name in columns.names if name in found)


class Threshold(NamedTuple):
    """A comparison of a column with a number.

    ``column`` may also be an expression of columns, such as ``least(width, height)``. ``keeps`` is
    the end that makes the whole expression true, ``"higher"`` or ``"lower"``, where that can be
    told. ``ordered`` tells a comparison of order from ``=`` and the like.
    """

    column: str
    value: float
    keeps: str | None
    ordered: bool


_KEEPS = {
    "COMPARE_GREATERTHAN": "higher",
    "COMPARE_GREATERTHANOREQUALTO": "higher",
    "COMPARE_LESSTHAN": "lower",
    "COMPARE_LESSTHANOREQUALTO": "lower",
}
_SWAPPED = {"higher": "lower", "lower": "higher"}
_COMPARING = frozenset({"COMPARISON", "BETWEEN"})
_PLAIN = _COMPARING | {"CONJUNCTION", "COLUMN_REF", "CONSTANT"}


def thresholds(text: str) -> tuple[Threshold, ...]:
    """Return the comparisons of columns with numbers, those of ``BETWEEN`` included."""
    tree = _parse(text)
    nodes = list(_nodes(_select(tree)))
    # Nothing negates a comparison, be it another one: (a < 5) = false.
    told = all(node["class"] in _PLAIN for node in nodes if "class" in node) and not any(
        side["class"] in (*_COMPARING, "CONJUNCTION")
        for node in nodes
        if node.get("class") in _COMPARING
        for side in node.values()
        if isinstance(side, dict)
    )
    return tuple(
        Threshold(
            column=str(side["column_names"][0]) if _is_column(side) else _sql(tree, side),
            value=float(number["literal"]["text"]),
            keeps=end if told else None,
            ordered=end is not None,
        )
        for side, number, end in _comparisons(tree)
    )


def with_threshold(text: str, number: int, value: float) -> str:
    """Return the expression with another value in one of its comparisons.

    Args:
        text: The expression.
        number: Which of its :func:`thresholds`.
        value: The new value.
    """
    tree = _parse(text)
    constant = list(_comparisons(tree))[number][1]
    kind = "INTEGER" if isinstance(value, int) else "NUMERIC"
    constant["literal"] = {"kind": kind, "text": repr(value)}
    return _sql(tree, _select(tree))


def _sql(tree: Any, expression: dict[str, Any]) -> str:
    """Return an expression of a statement as SQL."""
    statement = tree["statements"][0]
    node = {**statement["node"], "select_list": [expression]}
    answer = json.dumps({**tree, "statements": [{**statement, "node": node}]})
    with _lock:
        query = "SELECT json_deserialize_sql(?::JSON)"
        ((found,),) = _connection().execute(query, [answer]).fetchall()
    return str(found).removeprefix("SELECT ")


def _comparisons(tree: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any], str | None]]:
    """Yield what is compared, with which constant, and the end that makes the comparison true."""
    for node in _nodes(_select(tree)):
        sides = []
        if node.get("class") == "COMPARISON":
            end = _KEEPS.get(node["type"])
            sides.append((node["left"], node["right"], end))
            sides.append((node["right"], node["left"], _SWAPPED.get(end or "")))
        elif node.get("class") == "BETWEEN":
            sides.append((node["input"], node["lower"], "higher"))
            sides.append((node["input"], node["upper"], "lower"))
        for side, number, end in sides:
            if _is_number(number) and any(map(_is_column, _nodes(side))):
                yield side, number, end


def _is_column(node: dict[str, Any]) -> bool:
    return node.get("class") == "COLUMN_REF"


def _is_number(node: dict[str, Any]) -> bool:
    return node.get("class") == "CONSTANT" and node["literal"]["kind"] in ("INTEGER", "NUMERIC")


def evaluate(text: str, table: pa.Table) -> pa.ChunkedArray:
    """Return for each row true, false or null."""
    try:
        return _evaluate(text, table)[0]
    except duckdb.Error as error:
        msg = (
            f"filter {text!r} fails on the data: {_first_line(error)}; "
            "guard it, say with TRY_CAST or CASE"
        )
        raise PlanError(msg) from error


def project(sql: str, table: pa.Table) -> pa.ChunkedArray:
    """Return the value of SQL of pixsieve's own for each row."""
    return _evaluate(sql, table)[0]


@functools.cache
def _connection() -> duckdb.DuckDBPyConnection:
    """A database in memory that reaches no file and no network; one thread keeps the order."""
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    return connection


@functools.cache
def _functions() -> Mapping[str, bool]:
    """Return for each function whether it looks at one row, and always gives the same answer."""
    query = (
        "SELECT function_name, bool_or(function_type = 'scalar' AND stability = 'CONSISTENT') "
        "FROM duckdb_functions() GROUP BY function_name"
    )
    with _lock:
        rows = _connection().execute(query).fetchall()
    return {name: bool(stable) and name not in _CALLED_STABLE_YET_NOT for name, stable in rows}


def _parse(text: str) -> Any:
    """Return DuckDB's syntax tree of a statement that selects the one expression."""
    if not text.strip():
        msg = "the filter is empty; expected an SQL expression, as after WHERE"
        raise PlanError(msg)
    query = f"SELECT ({text}\n)"
    with _lock:
        ((found,),) = _connection().execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    answer = json.loads(found)
    if answer["error"]:
        msg = f"filter {text!r} is not an SQL expression: {answer['error_message']}"
        raise PlanError(msg)
    node = answer["statements"][0]["node"]
    plain = (
        len(answer["statements"]) == 1
        and node["type"] == "SELECT_NODE"
        and len(node.get("select_list", [])) == 1
        and node["from_table"]["type"] == "EMPTY"
    )
    if not plain:
        msg = f"filter {text!r} must be one SQL expression, as after WHERE"
        raise PlanError(msg)
    return answer


def _select(answer: Any) -> Any:
    """Return the tree of the one expression in what :func:`_parse` returns."""
    return answer["statements"][0]["node"]["select_list"][0]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _references(tree: Any) -> Iterator[str]:
    for node in _nodes(tree):
        if node.get("class") == "COLUMN_REF":
            yield node["column_names"][0]


def _check_function(text: str, name: str) -> None:
    functions = _functions()
    if not functions.get(name.lower()):
        stable = [each for each, usable in functions.items() if usable]
        hint = "" if name.lower() in functions else nearest(name, stable)
        msg = (
            f"filter {text!r} calls {name}(), which is no function of one row that always gives "
            f"the same answer{hint}"
        )
        raise PlanError(msg)


def _check_type(text: str, columns: pa.Schema) -> None:
    """Evaluate for a row of nulls: that shows the type, and constants that cannot be."""
    nulls = pa.table([pa.nulls(1, field.type) for field in columns], names=columns.names)
    try:
        kind = _evaluate(text, nulls)[1]
    except duckdb.Error as error:
        msg = f"filter {text!r} does not fit the columns' types: {_first_line(error)}"
        raise PlanError(msg) from error
    if kind != "BOOLEAN":
        msg = f"filter {text!r} gives {kind}, a boolean was expected; compare it with something"
        raise PlanError(msg)


def _evaluate(text: str, table: pa.Table) -> tuple[pa.ChunkedArray, str]:
    """Return the value of the expression for each row, and the name of its type."""
    with _lock:
        connection = _connection()
        connection.register("samples", _without_halves(table))
        try:
            # The text was parsed as one expression before; no name in it reaches anything else.
            relation = connection.sql(f"SELECT ({text}\n) AS verdict FROM samples")  # noqa: S608
            return relation.to_arrow_table()["verdict"], str(relation.types[0])
        finally:
            connection.unregister("samples")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _without_halves(table: pa.Table) -> pa.Table:
    """Return the table with float32 in place of float16, which DuckDB does not take from Arrow."""
    halves = {
        pa.float16(): pa.float32(),
        **{
            field.type: pa.list_(pa.float32(), field.type.list_size)
            for field in table.schema
            if pa.types.is_fixed_size_list(field.type) and field.type.value_type == pa.float16()
        },
    }
    fields = [field.with_type(halves.get(field.type, field.type)) for field in table.schema]
    schema = pa.schema(fields)
    return table if schema.types == table.schema.types else table.cast(schema)
