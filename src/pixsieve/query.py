"""SQL over everything that is known of the samples of a dataset or a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import msgspec

from pixsieve import schema
from pixsieve.engine.catalog import find_workspace, read_catalog
from pixsieve.errors import PixsieveError, SourceError, SourceNotFoundError, UsageError
from pixsieve.export import dataset
from pixsieve.select import evidence
from pixsieve.select.base import FROM_INDEX
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from pixsieve.engine.catalog import Source

_PROBLEMS = ("problem", "problem_detail")  # of the index, else of the inspection


def query(path: str | Path, sql: str) -> pa.Table:
    """Return the rows that an SQL query gives, in DuckDB's dialect.

    Args:
        path: A dataset, with the tables ``samples`` (its sidecars) and ``dropped``; or a workspace,
            with the table ``samples``: every sample that runs there have indexed, with its columns
            and scores, and where it ended if the last run had it.
        sql: The query.

    Raises:
        SourceNotFoundError: there is neither a dataset nor a workspace at ``path``.
        SourceError: the tables of the dataset or workspace are damaged or gone.
        UsageError: DuckDB refuses the query, or it is more than one that selects.
    """
    folder = Path(path)
    connection = duckdb.connect(":memory:")
    try:
        if (folder / dataset.MANIFEST).is_file():
            _dataset_tables(connection, folder)
        else:
            _workspace_tables(connection, _workspace(folder))
    except (duckdb.Error, OSError, msgspec.MsgspecError, LookupError, TypeError) as error:
        if isinstance(error, PixsieveError):
            raise
        msg = f"{folder} cannot be read: {_line(error)}; verify the dataset, or run it again"
        raise SourceError(msg) from error
    try:
        kinds = [statement.type for statement in connection.extract_statements(sql)]
        if kinds != [duckdb.StatementType.SELECT]:
            msg = f"{sql!r} is no single query; expected one that selects, and changes nothing"
            raise UsageError(msg)
        return connection.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        msg = f"{sql!r} cannot be answered: {_line(error)}"
        raise UsageError(msg) from error


def _line(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _workspace(folder: Path) -> Path:
    found = find_workspace(folder)
    if found is None:
        msg = (
            f"{folder} holds neither a dataset nor a workspace; name one that pixsieve has written"
        )
        raise SourceNotFoundError(msg)
    return found


def _dataset_tables(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    manifest = msgspec.json.decode((folder / dataset.MANIFEST).read_bytes())
    sidecars = [str(folder / shard["sidecar"]) for shard in manifest["shards"]]
    connection.read_parquet(sidecars).create_view("samples")
    connection.read_parquet(str(folder / dataset.DROPPED)).create_view("dropped")


def _workspace_tables(connection: duckdb.DuckDBPyConnection, workspace: Path) -> None:
    """Put together what the runs of a workspace know of its sources."""
    catalog = read_catalog(workspace)
    groups: dict[object, list[tuple[Source, int | None]]] = {}
    row = 0
    for number, source in enumerate(catalog.sources):
        first = row if number < catalog.decided else None
        shape = (first is None, [(family.identity, family.names) for family in source.families])
        groups.setdefault(repr(shape), []).append((source, first))
        row += source.rows
    table = str(workspace / catalog.selection)
    selection = _parquet([table], "file_row_number = true")
    parts = [_side_by_side(workspace, group, selection) for group in groups.values()]
    samples = connection.sql(" UNION ALL BY NAME ".join(parts))
    samples.create_view("pixsieve_samples")
    cases = _evidence(samples, tables.schema_of(table))
    replaced = f" REPLACE (CASE {cases} ELSE evidence END AS evidence)" if cases else ""
    connection.sql(f"SELECT *{replaced} FROM pixsieve_samples").create_view("samples")  # noqa: S608


def _evidence(samples: duckdb.DuckDBPyRelation, selection: pa.Schema) -> str:
    """Return the cases of an expression that spells out what the selection table only refers to."""
    known = evidence.from_metadata(selection)
    schema = samples.limit(0).to_arrow_table().schema
    return " ".join(
        f"WHEN evidence IS NULL AND stage = '{label.replace(chr(39), 2 * chr(39))}' "
        f"THEN {values.sql(schema)}"
        for label, values in known.items()
    )


def _side_by_side(
    workspace: Path, group: Sequence[tuple[Source, int | None]], selection: str
) -> str:
    """Return the query for sources with the same column families.

    All tables have the same rows in the same order. With each source comes its first row in the
    selection, if the last run decided about it.
    """
    sources = [source for source, _ in group]
    index = _parquet([str(workspace / name) for source in sources for name in source.index])
    located = ", ".join(f"i.{source} AS {name}" for name, source in FROM_INDEX.items())
    read = ", ".join(f"f0.{name}" for name in schema.INSPECTION.names if name not in _PROBLEMS)
    problems = ", ".join(f"coalesce(i.{n}, f0.{n}) AS {n}" for n in _PROBLEMS)
    scores, joins = "", ""
    for number, family in enumerate(sources[0].families):
        tables = [str(workspace / t) for s in sources for t in s.families[number].tables]
        joins += f" POSITIONAL JOIN {_parquet(tables)} f{number}"
        quoted = (name.replace('"', '""') for name in family.names)
        scores += "".join(f', f{number}."{name}"' for name in quoted)
    decided = ""
    if group[0][1] is not None:
        decided = ", s.*"
        runs = [(first, first + source.rows - 1) for source, first in group if first is not None]
        where = " OR ".join(f"file_row_number BETWEEN {a} AND {b}" for a, b in _joined(runs))
        chosen = f"SELECT * EXCLUDE (file_row_number) FROM {selection} WHERE {where}"  # noqa: S608
        joins += f" POSITIONAL JOIN ({chosen}) s"
    return f"SELECT {located}, {read}, {problems}{scores}{decided} FROM {index} i{joins}"  # noqa: S608  # names of our own


def _joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return runs of rows with neighbours as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in runs:
        if joined and start == joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def _parquet(files: Sequence[str], *options: str) -> str:
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
    told = "".join(f", {option}" for option in ("hive_partitioning = false", *options))
    return f"read_parquet([{names}]{told})"
