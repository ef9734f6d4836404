"""The units of work of each step: module-level functions that run in a worker process.

Each writes its tables into the workspace, whole or not at all, and returns a small frozen value.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pixsieve import schema
from pixsieve.engine.ledger import TableRecord, Workspace
from pixsieve.engine.result import ReasonCount
from pixsieve.errors import PlanError
from pixsieve.export.contents import Contents  # noqa: TC001  # the ledger looks at the types
from pixsieve.export.files import record, seal, stands
from pixsieve.export.plan import Groups, plan_export
from pixsieve.export.shard import WrittenShard, write_shard
from pixsieve.export.uniform import Uniform  # noqa: TC001  # likewise
from pixsieve.fingerprint import fingerprint
from pixsieve.scorers.measure import PROBLEM, PROBLEM_DETAIL, Scorer, measure_part, missing_rows
from pixsieve.select import evidence
from pixsieve.select.base import Part, collected, read_parts
from pixsieve.select.decide import decide
from pixsieve.sources import SourceFiles, index_shard
from pixsieve.stage import blaming
from pixsieve.storage import LocalStorage, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from pixsieve.engine.units import Context
    from pixsieve.export.transform import ImageTransformStage
    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.scorers.inspection import InspectOptions
    from pixsieve.select.base import Scope, Task
    from pixsieve.sources.base import IndexOptions, SourceShard
    from pixsieve.stage import ImageBatch, ScoreStage, SelectStage

PART_ROWS = 1000
PART_BYTES = 16 * 1024 * 1024
PART_LEAST_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a run reads and keeps things: the source's root, and the workspace."""

    root: str
    workspace: Workspace

    def files(self) -> SourceFiles:
        return SourceFiles(self.root, LocalStorage(), self.workspace.spool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """A source shard whose samples are located.

    ``parts`` are (first row, row behind the last) of what is measured together; ``lost`` are bytes,
    of ``size``, that could not be read.
    """

    source: str
    table: TableRecord
    rows: int
    parts: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]
    ignored: int
    size: int = 0
    lost: int = 0

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        return (self.table,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One column family of a part.

    ``unread`` counts the rows of an inspection with a caption or json that could not be had,
    ``found`` are its json fields that some row has a value of,
    ``problems`` those that a scorer could not score.
    """

    table: TableRecord
    unread: int = 0
    found: tuple[str, ...] = ()
    problems: int = 0

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        return (self.table,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The families that were missing, by fingerprint, and how many images were decoded for them."""

    families: dict[str, Family]
    decoded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """Where the samples ended, and the table that says it for each."""

    table: TableRecord
    indexed: int
    kept: int
    reasons: tuple[ReasonCount, ...]
    splits: tuple[str, ...]
    buckets: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        return (self.table,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The one file that a piece of work left."""

    table: TableRecord

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        return (self.table,)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """One output shard to be: how many samples, from which plan table."""

    split: str | None
    bucket: str | None
    index: int
    samples: int
    table: TableRecord
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The export to be."""

    digest: str
    shards: tuple[ShardPlan, ...]
    contents: Contents
    uniform: Uniform | None

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        return tuple(shard.table for shard in self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A shard that stands in the output.

    ``written`` is false where it stood there already, whole.
    """

    shard: WrittenShard
    written: bool

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRecord:
    """What a source held: how many samples, and a digest over their keys and contents in order."""

    path: str
    samples: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounted:
    """``dropped.parquet``, still in the workspace, and the digests of the inputs."""

    table: TableRecord
    rows: int
    inputs: tuple[InputRecord, ...]

    @property
    def tables(self) -> tuple[TableRecord, ...]:
        return (self.table,)


def index(
    shard: SourceShard, options: IndexOptions, site: Site, key: str, context: Context
) -> Indexed:
    """Locate the samples of a source shard."""
    del context
    found = index_shard(shard, options, LocalStorage(), site.workspace.spool)
    return Indexed(
        source=shard.id if shard.kind == "tar" else "",
        table=_keep(site.workspace, key, found.table),
        rows=len(found.table),
        parts=_parts(found.table),
        notes=tuple(f"{shard.id}: {note}" for note in found.notes),
        ignored=found.ignored,
        size=found.size,
        lost=found.size - found.read_to,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreWork:
    """A scorer's work on a part: under which fingerprint, and the table that there is already."""

    fingerprint: str
    stage: ScoreStage
    known: TableRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartWork:
    """What is to be computed of a part, and what there is of it already.

    Attributes:
        part: The rows, with the score tables of earlier passes.
        inspection: Its fingerprint, and the record of its table if there is one.
        steps: Scorers, and the row-local selection between them.
        options: How to inspect.
        kept: The selection table of the pass before, and the part's first row in it.
        site: Where to read and to write.
    """

    part: Part
    inspection: tuple[str, TableRecord | None]
    steps: Sequence[ScoreWork | SelectStage]
    options: InspectOptions
    kept: tuple[str, int] | None
    site: Site

    def index(self) -> pa.Table:
        table = tables.read_table(self.part.index)
        return table.slice(self.part.start, self.part.rows).combine_chunks()

    def inspected(self) -> pa.Table | None:
        return self.table(self.inspection[1])

    def table(self, record: TableRecord | None) -> pa.Table | None:
        """Return a table that was computed before, if there is one."""
        return (
            None if record is None else tables.read_table(self.site.workspace.resolve(record.path))
        )

    def earlier(self) -> tuple[list[pa.Table], NDArray[np.bool_] | None]:
        """Return the columns of earlier passes, and which rows these kept; ``None`` for all."""
        earlier = [tables.read_table(path) for path in self.part.families]
        if self.kept is None:
            return earlier, None
        selection, first = self.kept
        decided = tables.read_rows(selection, first, first + self.part.rows)
        earlier.append(decided.drop_columns(schema.SELECTION.names))
        return earlier, np.asarray(decided["rank"].is_valid().to_numpy(), np.bool_)


def measure(wanted: PartWork, context: Context) -> Measured:
    """Compute what is missing of a part's column families."""
    workspace, options = wanted.site.workspace, wanted.options
    key, record = wanted.inspection
    loaded = [
        Scorer(stage=step.stage, score=_loaded(step.stage, context), known=wanted.table(step.known))
        if isinstance(step, ScoreWork)
        else step
        for step in wanted.steps
    ]
    earlier, kept = wanted.earlier()
    with wanted.site.files() as files:
        found = measure_part(
            wanted.index(), wanted.inspected(), loaded, options, files, context.guard, earlier, kept
        )
    families = {}
    if record is None:
        unread = found.inspection["metadata_problem"]
        families[key] = Family(
            table=_keep(workspace, key, found.inspection),
            unread=len(unread) - unread.null_count,
            found=tuple(
                name
                for name, _ in options.json_fields
                if found.inspection[name].null_count < len(unread)
            ),
        )
    scorers = [step for step in wanted.steps if isinstance(step, ScoreWork)]
    for step, scores in zip(scorers, found.scores, strict=True):
        families[step.fingerprint] = Family(
            table=_keep(workspace, step.fingerprint, scores, varies=True),
            problems=len(scores) - scores[PROBLEM].null_count,
        )
    return Measured(families=families, decoded=found.decoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """How many rows of a part must still be inspected, scored by each scorer, and any of these."""

    inspection: int
    scores: tuple[int, ...]
    rows: int


def lacking(wanted: PartWork) -> Lacking:
    """Count what :func:`measure` would have to look at, by the tables that there are."""
    index, inspected = wanted.index(), wanted.inspected()
    steps = [
        (step.stage, wanted.table(step.known)) if isinstance(step, ScoreWork) else step
        for step in wanted.steps
    ]
    needs = missing_rows(index, inspected, steps, *wanted.earlier())
    unread = index["problem"].null_count if inspected is None else 0
    scored = int(np.any(needs, axis=0).sum()) if needs else 0
    return Lacking(
        inspection=unread,
        scores=tuple(int(need.sum()) for need in needs),
        rows=max(unread, scored),
    )


def _loaded(stage: ScoreStage, context: Context) -> Callable[[ImageBatch], pa.RecordBatch]:
    key = fingerprint(stage)
    if key not in context.cache:
        with blaming(stage):
            found = stage.load()
        if not callable(found):
            msg = f"{type(stage).__name__}: load() is a {type(found).__name__}, expected a function"  # type: ignore[unreachable]  # types bind no user
            raise PlanError(msg)
        context.cache[key] = found
    loaded: Callable[[ImageBatch], pa.RecordBatch] = context.cache[key]
    return loaded


def collect(
    parts: Sequence[Part], columns: pa.Schema, site: Site, key: str, context: Context
) -> Written:
    """Put the narrow columns of parts into one table."""
    del context
    return Written(table=_keep(site.workspace, key, collected(parts, columns)))


def run_task(task: Task, site: Site, key: str, context: Context) -> Written:
    """Do a piece of a selection stage's own work."""
    del context
    path = site.workspace.table_path(key)
    task.work(site.workspace.resolve(path))
    return Written(table=_recorded(site.workspace, path))


def select(
    scope: Scope,
    stages: Sequence[tuple[str, SelectStage]],
    failing: Sequence[tuple[int, int]],
    found: Sequence[str],
    site: Site,
    key: str,
    context: Context,
) -> Selected:
    """Apply selection stages.

    ``failing`` are the column families of the pass with rows that could not be scored, each by its
    place from the end, behind the number of stages before it: what these drop, it does not fail.
    ``found`` is what the first stage's own tasks left.
    """
    del context
    workspace, done = site.workspace, 0
    notes: list[str] = []
    for before, family in failing:
        path = workspace.resolve(workspace.table_path(fingerprint(key, family, "failed")))
        rows = scope.rows(found if done == 0 else ())
        unscored = functools.partial(_unscored, rows.parts, family)
        decided = decide(rows, stages[done:before], path, unscored)
        notes += decided.notes
        done, scope = before, dataclasses.replace(scope, selection=path)
    path = workspace.table_path(key)
    rows = scope.rows(found if done == 0 else ())
    decided = decide(rows, stages[done:], workspace.resolve(path))
    return Selected(
        table=_recorded(workspace, path),
        indexed=decided.indexed,
        kept=decided.kept,
        reasons=tuple(
            ReasonCount(stage=stage, status=status, reason=reason, count=count)
            for (stage, status, reason), count in sorted(decided.reasons.items())
        ),
        splits=decided.splits,
        buckets=decided.buckets,
        notes=(*notes, *decided.notes),
    )


def _unscored(parts: Sequence[Part], family: int) -> Iterator[pa.Table]:
    """Yield of each part why its rows could not be scored."""
    for part in parts:
        read = tables.read_table(part.families[family], [PROBLEM, PROBLEM_DETAIL])
        names = {PROBLEM: "problem", PROBLEM_DETAIL: "problem_detail"}
        yield read.rename_columns([names[name] for name in read.column_names])


def plan(
    parts: Sequence[Part],
    selected: Selected,
    writer: ImageWriterStage,
    transform: ImageTransformStage | None,
    added: pa.Schema,
    site: Site,
    key: str,
    context: Context,
) -> Planned:
    """Write the plan tables of an export."""
    del context
    selection = site.workspace.resolve(selected.table.path)
    groups = {
        name: Groups.of(names, tables.read_table(selection, [name])[name])
        for name, names in (("split", selected.splits), ("bucket", selected.buckets))
        if names
    }
    told = [
        name for name in tables.schema_of(selection).names if name not in schema.SELECTION.names
    ]
    extra = tables.runs_of_rows(selection, [part.rows for part in parts], told) if told else None
    rank = tables.read_table(selection, ["rank"])["rank"].fill_null(-1).to_numpy()
    kept = np.flatnonzero(rank >= 0)
    order = kept[np.argsort(rank[kept], kind="stable")]
    folder = Path(site.workspace.resolve(f"plans/{key}"))
    found = plan_export(
        parts,
        order,
        writer,
        added,
        folder,
        splits=groups.get("split"),
        buckets=groups.get("bucket"),
        extra=extra,
        transform=transform,
    )
    shards = tuple(
        ShardPlan(
            split=shard.split,
            bucket=shard.bucket,
            index=shard.index,
            samples=shard.samples,
            table=_recorded(site.workspace, f"plans/{key}/{shard.table.name}"),
            digest=shard.digest,
        )
        for shard in found.shards
    )
    return Planned(
        digest=found.digest, shards=shards, contents=found.contents, uniform=found.uniform
    )


def export(
    shard: ShardPlan,
    stem: str,
    writer: ImageWriterStage,
    transform: ImageTransformStage | None,
    added: Sequence[str],
    expected: WrittenShard | None,
    uniform: Uniform | None,
    site: Site,
    context: Context,
) -> Exported:
    """Write a shard, unless the one that stands in the output is whole."""
    output = Path(writer.output_dir)
    if expected is not None and all(
        stands(output, file) for file in (expected.tar, expected.sidecar)
    ):
        return Exported(shard=expected, written=False)
    table = tables.read_table(site.workspace.resolve(shard.table.path))
    with site.files() as files:
        sidecar, encoded = write_shard(
            table, added, stem, writer, files, LocalStorage(), context.guard, uniform, transform
        )
    with context.timed("seal"):
        tar = record(output, f"{stem}.tar")
    written = WrittenShard(tar=tar, sidecar=sidecar, samples=len(table), encoded=encoded)
    return Exported(shard=written, written=True)


def account(
    parts: Sequence[Part], selection: str, site: Site, key: str, context: Context
) -> Accounted:
    """Write the table of all that is not in the export, and take the inputs' digests."""
    del context
    path = site.workspace.table_path(key)
    digests: dict[str, tuple[int, hashlib._Hash]] = {}
    lost: list[pa.Table] = []
    rows = 0
    with tables.table_writer(
        LocalStorage(), site.workspace.resolve(path), schema.DROPPED, tables.DATASET
    ) as writer:
        values = evidence.from_metadata(tables.schema_of(selection))
        columns = [name for name in schema.DROPPED.names if name in schema.SAMPLE.names]
        columns += [name for each in values.values() for name in each.columns]
        columns = list(dict.fromkeys(columns))
        added = [name for name in tables.schema_of(selection).names if name in columns]
        stored = [name for name in columns if name not in added]
        runs = tables.runs_of_rows(selection, [part.rows for part in parts])
        for part, read, verdicts in zip(parts, read_parts(parts, stored), runs, strict=True):
            _digest(digests, part)
            for name in verdicts.column_names:
                read = read.append_column(name, verdicts[name])  # noqa: PLW2901  # one table, growing
            gone = read.filter(verdicts["rank"].is_null())
            told = evidence.spelled(values, gone)
            gone = gone.set_column(gone.column_names.index("evidence"), "evidence", told)
            lost.append(gone.select(schema.DROPPED.names).cast(schema.DROPPED))
            rows += len(lost[-1])
            if sum(map(len, lost)) >= tables.ROW_GROUP:  # not a row group for each part
                writer.write_table(pa.concat_tables(lost))
                lost.clear()
        writer.write_table(pa.concat_tables([schema.DROPPED.empty_table(), *lost]))
    return Accounted(
        table=_recorded(site.workspace, path),
        rows=rows,
        inputs=tuple(
            InputRecord(path=source or "files", samples=samples, sha256=digest.hexdigest())
            for source, (samples, digest) in digests.items()
        ),
    )


def _digest(digests: dict[str, tuple[int, hashlib._Hash]], part: Part) -> None:
    index_names = ["key", "occurrence", "problem"]
    located = tables.read_table(part.index, index_names).slice(part.start, part.rows)
    read = tables.read_table(part.families[0], ["sha256", "siblings_sha256", "problem"])
    lines = zip(*(c.to_pylist() for c in (*located.columns, *read.columns)), strict=True)
    text = "".join("\0".join(map(str, line)) + "\n" for line in lines)
    samples, digest = digests.get(part.source, (0, hashlib.sha256()))
    digest.update(text.encode())
    digests[part.source] = (samples + part.rows, digest)


def _parts(table: pa.Table) -> tuple[tuple[int, int], ...]:
    """Cut an index table into runs of rows that are measured together."""
    sizes = table["image_size"].to_pylist()
    parts, start, held = [], 0, 0
    for row, size in enumerate(sizes):
        count = row - start
        if count >= PART_ROWS or (held >= PART_BYTES and count >= PART_LEAST_ROWS):
            parts.append((start, row))
            start, held = row, 0
        held += size
    if sizes:
        parts.append((start, len(sizes)))
    return tuple(parts)


def _keep(workspace: Workspace, key: str, table: pa.Table, *, varies: bool = False) -> TableRecord:
    """Write a table that fits in memory.

    ``varies``: runs with other filters make other tables under this key, maybe at this moment.
    """
    data = tables.table_bytes(table)
    sha256 = hashlib.sha256(data).hexdigest()
    path = workspace.table_path(f"{key}-{sha256[:16]}" if varies else key)
    with LocalStorage().create(workspace.resolve(path), durable=False) as sink:
        sink.write(data)
    return TableRecord(path=path, size=len(data), sha256=sha256)


def _recorded(workspace: Workspace, path: str) -> TableRecord:
    full = Path(workspace.resolve(path))
    return TableRecord(path=path, size=full.stat().st_size, sha256=seal(full))
