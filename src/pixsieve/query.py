"""SQL over everything that is known of the samples of a dataset or a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import msgspec

from pixsieve import schema
from pixsieve.engine.catalog import Catalog
from pixsieve.engine.output import CONTROL
from pixsieve.errors import PixsieveError, SourceError, SourceNotFoundError, UsageError
from pixsieve.export import dataset
from pixsieve.select.base import FROM_INDEX

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

_PROBLEMS = ("problem", "problem_detail")  # of the index, else of the inspection


def query(path: str | Path, sql: str) -> pa.Table:
    """Return the rows that an SQL query gives, in DuckDB's dialect.

    Args:
        path: A dataset, with the tables ``samples`` (its sidecars) and ``dropped``; or a workspace,
            with the table ``samples``: every sample that the last run there indexed, with its
            columns, scores and where it ended.
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
    for place in (folder, folder / CONTROL):
        if (place / Catalog.FILE).is_file():
            return place
    msg = f"{folder} holds neither a dataset nor a workspace; name one that pixsieve has written"
    raise SourceNotFoundError(msg)


def _dataset_tables(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    manifest = msgspec.json.decode((folder / dataset.MANIFEST).read_bytes())
    sidecars = [str(folder / shard["sidecar"]) for shard in manifest["shards"]]
    connection.read_parquet(sidecars).create_view("samples")
    connection.read_parquet(str(folder / dataset.DROPPED)).create_view("dropped")


def _workspace_tables(connection: duckdb.DuckDBPyConnection, workspace: Path) -> None:
    """Put the column families of a workspace side by side.

    All have the same rows in the same order.
    """
    catalog = msgspec.json.decode((workspace / Catalog.FILE).read_bytes(), type=Catalog)
    families = [[str(workspace / name) for name in files] for files in catalog.families]
    located = ", ".join(f"i.{source} AS {name}" for name, source in FROM_INDEX.items())
    read = ", ".join(f"f0.{name}" for name in schema.INSPECTION.names if name not in _PROBLEMS)
    problems = ", ".join(f"coalesce(i.{n}, f0.{n}) AS {n}" for n in _PROBLEMS)
    scores = "".join(f', f{number}."{name}"' for number, name in catalog.columns)
    joins = "".join(
        f" POSITIONAL JOIN {_parquet(files)} f{number}" for number, files in enumerate(families)
    )
    index = _parquet([str(workspace / name) for name in catalog.index])
    selection = _parquet([str(workspace / catalog.selection)])
    decided = "s.status, s.stage, s.reason, s.evidence, s.duplicate_of, s.rank"
    connection.sql(
        f"SELECT {located}, {read}, {problems}{scores}, {decided} "  # noqa: S608  # names of our own
        f"FROM {index} i{joins} POSITIONAL JOIN {selection} s"
    ).create_view("samples")


def _parquet(files: Sequence[str]) -> str:
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
    return f"read_parquet([{names}])"
