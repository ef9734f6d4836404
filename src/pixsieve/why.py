"""Where a sample of a dataset is, or why it is not in it.

Answers come from the dataset's own files: the manifest, the sidecars and ``dropped.parquet``. Of
these only the columns that can match are read, in batches, so that a set of many millions needs
seconds and little memory. Where there is no dataset (a workspace, or the output of a run that was
stopped or left nothing), they come from what the last run decided there.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import operator
import os.path
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import fs

from pixsieve.engine.catalog import find_workspace, read_catalog
from pixsieve.errors import SourceError, SourceNotFoundError, UsageError
from pixsieve.export import dataset
from pixsieve.query import query
from pixsieve.schema import Status
from pixsieve.select.base import FROM_INDEX
from pixsieve.storage import tables
from pixsieve.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LIMIT = 20
"""Answers that are given at most, unless more are asked for."""
NEAREST_ROWS = 5_000
"""Rows in which names like an unknown one are looked for."""

_KEPT = (
    "image_id", "key", "original_path", "original_key", "original_offset",
    "tar_file", "member_name", "member_offset", "member_size", "encoding",
)  # fmt: skip
_DROPPED = (
    "image_id", "original_path", "original_key", "original_offset",
    "status", "stage", "reason", "evidence", "duplicate_of",
)  # fmt: skip
_TYPES = dict.fromkeys(("original_offset", "member_offset", "member_size"), pa.int64())
_FILES_AT_ONCE = 256
"""A dataset of Arrow keeps every footer that it has read, so there is one for so many files."""
_NAMES = ("image_id", "key", "member_name", "original_key", "original_path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one sample.

    Attributes:
        status: ``kept``, ``dropped`` or ``failed``.
        image_id: The sample's id.
        original_path: The file that it lay in, relative to the source's root.
        original_key: Its key there.
        original_offset: The image's first byte in that file.
        key: Its key in the dataset, if it was kept; likewise the fields up to ``encoding``.
        tar_file: Shard.
        member_name: Name of the image in the shard.
        member_offset: The image's first byte in the shard.
        member_size: The image's size in bytes.
        encoding: ``copy``, or how the image was encoded anew.
        stage: Who dropped or failed it, if it was not kept; likewise the fields up to ``twin``.
        reason: Code of the reason.
        evidence: JSON object of what decided.
        duplicate_of: The image_id of the sample that it is a duplicate of.
        twin: What became of that one.
    """

    status: str
    image_id: str
    original_path: str
    original_key: str
    original_offset: int
    key: str | None = None
    tar_file: str | None = None
    member_name: str | None = None
    member_offset: int | None = None
    member_size: int | None = None
    encoding: str | None = None
    stage: str | None = None
    reason: str | None = None
    evidence: str | None = None
    duplicate_of: str | None = None
    twin: Answer | None = None

    def to_text(self) -> str:
        """Return the answer as lines for people."""
        lines = [f"{self.image_id}: {self._verdict()}"]
        lines.append(
            f"  from      {self.original_path}, key {self.original_key!r}, "
            f"byte {self.original_offset:,}"
        )
        if self.tar_file is not None:
            size = f"{self.member_size:,} bytes, {self.encoding}"
            lines.append(f"  image     byte {self.member_offset:,}, {size}")
        lines += [f"  {line}" for line in _evidence_lines(self.evidence)]
        if self.duplicate_of is not None:
            there = _elsewhere(self.evidence)
            where = self.twin._verdict() if self.twin else "not found"  # noqa: SLF001
            where = where if there is None else f"in {there}"
            lines.append(f"  same as   {self.duplicate_of}: {where}")
        return "\n".join(map(printable, lines)) + "\n"

    def _verdict(self) -> str:
        if self.tar_file is not None:
            return f"kept in {self.tar_file} as {self.member_name}"
        if self.status == Status.KEPT:
            return "kept by every stage; it is in no dataset yet"
        return f"{self.status} by {self.stage}: {self.reason}"


def why(output_dir: str | Path, key: str, *, limit: int = LIMIT) -> list[Answer]:
    """Tell what became of the samples that ``key`` may mean.

    Args:
        output_dir: Folder of a finished dataset; or a workspace, or the folder of a run that made
            no dataset, for what the last run there decided.
        key: An image_id, a key or member name in the dataset, an original key or path; or the last
            parts of one of the latter two. A file's extension may be there or not.
        limit: How many answers at most. Where more samples match, exact matches come first, then
            those that are kept, in the order of the dataset.

    Raises:
        UsageError: no sample is called so; the message has the names most like it.
        SourceNotFoundError: there is no such folder.
        SourceError: there is neither, or a file cannot be read.
    """
    sources = _open(Path(output_dir))
    known = _can_be_stored(key)
    for name in dict.fromkeys([key, os.path.splitext(key)[0]]) if known else ():  # noqa: PTH122
        if found := _find(sources, name, limit):
            return _with_evidence(Path(output_dir), _with_twins(sources, found))
    close = _nearest(sources, key) if known else []
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    msg = (
        f"{output_dir} has no sample {key!r}{hint}; "
        "expected an image_id, a key, or an original key or path"
    )
    raise UsageError(msg)


class _Shard(msgspec.Struct, frozen=True):
    sidecar: str


class _Manifest(msgspec.Struct, frozen=True):
    format: str
    shards: list[_Shard]


def _open(folder: Path) -> Sequence[_Rows]:
    """Return the rows of what is kept and of what is not."""
    if not folder.is_dir():
        msg = f"{folder}: there is no such folder; expected a dataset that pixsieve has made"
        raise SourceNotFoundError(msg)
    path = folder / dataset.MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=_Manifest)
    except FileNotFoundError:
        if (workspace := find_workspace(folder)) is not None:
            return (_DecidedRows(workspace),)
        msg = (
            f"{folder} has no manifest.json, so it is no finished dataset; "
            "if a run of pixsieve was stopped, start it again to finish it; "
            "if it had a --workspace, ask that"
        )
        raise SourceError(msg) from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} cannot be read: {error}"
        raise SourceError(msg) from error
    sidecars = [shard.sidecar for shard in manifest.shards]
    strange = [name for name in sidecars if Path(name).name != name]
    if manifest.format != dataset.FORMAT or strange:
        msg = f"{path} is not the manifest of a pixsieve dataset"
        raise SourceError(msg)
    dropped = _DatasetRows(folder, [dataset.DROPPED], _DROPPED)
    return _DatasetRows(folder, sidecars, _KEPT), dropped


class _Rows(Protocol):
    """Rows that can be searched."""

    @property
    def columns(self) -> Sequence[str]: ...

    def __call__(
        self, test: pc.Expression | None, columns: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows that pass, in order."""
        ...


@dataclass(frozen=True, slots=True)
class _DatasetRows:
    """The named columns of some Parquet files of a dataset, one after the other."""

    folder: Path
    files: Sequence[str]
    columns: Sequence[str]

    def __call__(
        self, test: pc.Expression | None, columns: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows that pass, in the dataset's order."""
        schema = pa.schema([(name, _TYPES.get(name, pa.string())) for name in self.columns])
        try:
            for start in range(0, len(self.files), _FILES_AT_ONCE):
                files = self.files[start : start + _FILES_AT_ONCE]
                dataset = ds.dataset(
                    [str((self.folder / name).resolve()) for name in files],
                    schema=schema,
                    format="parquet",
                    filesystem=fs.LocalFileSystem(),
                )
                for batch in dataset.to_batches(filter=test, columns=columns):
                    yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            msg = (
                f"{self.folder} is damaged: {error}; "
                f"to see all that is wrong: pixsieve verify {self.folder}"
            )
            raise SourceError(msg) from error


@dataclass(frozen=True, slots=True)
class _DecidedRows:
    """Where the last run in a workspace decided that each sample ends."""

    workspace: Path
    columns: Sequence[str] = _DROPPED

    def __call__(
        self, test: pc.Expression | None, columns: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows that pass, in the order of the source."""
        for table in self._tables():
            found = table if test is None else table.filter(test)
            yield from found.select(columns or self.columns).to_pylist()

    def _tables(self) -> Iterator[pa.Table]:
        """Yield the index beside the selection, which has the same rows in the same order."""
        located = [name for name in self.columns if name in FROM_INDEX]
        decided = [name for name in self.columns if name not in FROM_INDEX]
        try:
            catalog = read_catalog(self.workspace)
            selection = str(self.workspace / catalog.selection)
            sources = catalog.sources[: catalog.decided]
            paths = [str(self.workspace / name) for source in sources for name in source.index]
            names = [FROM_INDEX[column] for column in located]
            indexes = [tables.read_table(path, names).select(names) for path in paths]
            runs = tables.runs_of_rows(selection, map(len, indexes), decided)
            for index, ends in zip(indexes, runs, strict=True):
                part = index.rename_columns(located)
                yield pa.table({**_columns(part), **_columns(ends)})
        except (OSError, msgspec.MsgspecError, pa.ArrowException) as error:
            msg = f"the workspace {self.workspace} cannot be read: {error}; run the recipe again"
            raise SourceError(msg) from error


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _can_be_stored(text: str) -> bool:
    """Tell whether a text is valid Unicode; no other is in any table."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find(sources: Sequence[_Rows], name: str, limit: int) -> list[Answer]:
    exact: list[Answer] = []
    loose: list[Answer] = []
    for rows in sources:
        columns = [column for column in _NAMES if column in rows.columns]
        tests = [pc.field(column) == name for column in columns]
        tests += [
            pc.ends_with(pc.field(column), pattern=f"/{name}")
            for column in ("original_key", "original_path")
        ]
        for row in rows(functools.reduce(operator.or_, tests)):
            found = exact if any(row[column] == name for column in columns) else loose
            if len(found) < limit:
                found.append(_answer(row))
            elif len(exact) >= limit:
                return exact
    return [*exact, *loose][:limit]


def _answer(row: dict[str, Any]) -> Answer:
    return Answer(**{"status": "kept", **row})


def _with_twins(sources: Sequence[_Rows], found: list[Answer]) -> list[Answer]:
    """Add what became of the samples here that these are duplicates of."""
    copies = [each for each in found if _elsewhere(each.evidence) is None]
    wanted = pa.array({each.duplicate_of for each in copies if each.duplicate_of is not None})
    if not len(wanted):
        return found
    test = pc.field("image_id").isin(wanted.cast(pa.string()))
    twins = {row["image_id"]: _answer(row) for rows in sources for row in rows(test)}
    return [
        replace(each, twin=twins.get(each.duplicate_of or "")) if each in copies else each
        for each in found
    ]


def _with_evidence(folder: Path, found: list[Answer]) -> list[Answer]:
    """Add the evidence that a workspace's selection table only refers to."""
    answers = [*found, *(answer.twin for answer in found if answer.twin is not None)]
    wanted = [a.image_id for a in answers if a.status == Status.DROPPED and a.evidence is None]
    if not wanted or (folder / dataset.MANIFEST).is_file():
        return found
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in wanted)
    told = query(folder, f"SELECT image_id, evidence FROM samples WHERE image_id IN ({names})")  # noqa: S608
    known = dict(zip(*told.to_pydict().values(), strict=True))

    def filled(answer: Answer) -> Answer:
        twin = answer.twin and filled(answer.twin)
        return replace(answer, evidence=answer.evidence or known.get(answer.image_id), twin=twin)

    return [filled(answer) for answer in found]


def _nearest(sources: Sequence[_Rows], key: str) -> list[str]:
    """Return names like ``key``, among those that begin like it and those at the beginning."""
    start = key[: max(2, len(key) // 2)]
    alike = functools.reduce(
        operator.or_,
        [
            pc.starts_with(pc.field("image_id"), pattern=start),
            pc.starts_with(pc.field("original_key"), pattern=start),
            pc.match_substring(pc.field("original_key"), pattern=f"/{start}"),
        ],
    )
    names: dict[str, None] = {}
    for rows in sources:
        for test in (alike, None):
            found = rows(test, columns=["image_id", "original_key"])
            for row in itertools.islice(found, NEAREST_ROWS):
                original = row["original_key"]
                names |= {row["image_id"]: None, original: None, original.rpartition("/")[2]: None}
    return difflib.get_close_matches(key, names, n=3)


def _elsewhere(evidence: str | None) -> str | None:
    """Return the name of the other dataset that a sample is a duplicate of one of, if so."""
    try:
        found = json.loads(evidence or "null")
    except ValueError:
        return None
    return found.get("against") if isinstance(found, dict) else None


def _evidence_lines(evidence: str | None) -> Iterable[str]:
    if evidence is None:
        return
    try:
        found = json.loads(evidence)
    except ValueError:
        found = evidence
    if not isinstance(found, dict):
        found = {"": found}
    for name, value in found.items():
        shown = value if isinstance(value, str) else json.dumps(value)
        yield f"evidence  {name}: {shown}" if name else f"evidence  {shown}"
