"""What a recipe would keep, by which filter, and where its thresholds lie among the scores."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pixsieve.engine import output
from pixsieve.engine.budget import check_budget
from pixsieve.engine.job import RunOptions
from pixsieve.engine.measuring import measure
from pixsieve.engine.notes import ODD_ROWS, odd_filters, unpacked_archives, unread_metadata
from pixsieve.engine.recall import as_inspected, check_workspace, recall, recall_index
from pixsieve.engine.run import counted, decisions, index, note_catalog, opened
from pixsieve.engine.selecting import decided
from pixsieve.errors import FailureBudgetError, PlanError
from pixsieve.schema import Status
from pixsieve.scorers.measure import SCORED
from pixsieve.select import expression
from pixsieve.select.filters import FilterStage
from pixsieve.stage import ScoreStage, SelectStage, blaming
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pixsieve.engine import work
    from pixsieve.engine.job import Job
    from pixsieve.engine.result import Counts
    from pixsieve.engine.run import Decision
    from pixsieve.engine.units import Executor
    from pixsieve.pipeline import Plan
    from pixsieve.select.base import Rows
    from pixsieve.select.expression import Threshold

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 40
"""Bars of a histogram."""
MOVE = 0.05
"""Share of the data by which a threshold is moved each way."""
_TAIL = 0.01
_DIGITS = 4  # of a moved threshold
_FLOAT_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelStep:
    """What a stage took out for one reason: ``came_in`` = ``lost`` + ``left``.

    ``status`` and ``reason`` are empty where it took out nothing.
    """

    stage: str
    status: str
    reason: str
    came_in: int
    lost: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterEffect:
    """What a filter does by itself, of all sound samples.

    Attributes:
        stage: Its label.
        filter: The expression, or the stage as Python would write it.
        drops: Samples that it drops.
        drops_alone: Those of them that all other filters would keep.
        drops_alone_at_most: The same, and those that it drops, that no other filter drops, but that
            some other filter was not asked about, for want of scores.
        not_measured: Samples without the scores that it reads: something before spared them.
    """

    stage: str
    filter: str
    drops: int
    drops_alone: int
    drops_alone_at_most: int
    not_measured: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The values of a numeric column among sound samples.

    Attributes:
        column: Its name, or an expression of columns that a filter compares with a number.
        scale: What the column's metadata say of its scale, unit and better end; else ``""``.
        unit: See ``scale``.
        better: See ``scale``.
        count: How many values there are.
        nulls: Samples that were measured and have none (null or NaN).
        not_measured: Samples that something before the scorer spared.
        minimum: ``None`` where there are no values, as the rest.
        percentiles: Of :data:`PERCENTILES`, by linear interpolation.
        maximum: See ``minimum``.
        histogram: How many values lie in each of :data:`BINS` steps of equal width from the 1st to
            the 99th percentile; empty where these are the same.
    """

    column: str
    scale: str
    unit: str
    better: str
    count: int
    nulls: int
    not_measured: int
    minimum: float | None
    percentiles: tuple[tuple[int, float], ...]
    maximum: float | None
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdMove:
    """Another value of a threshold.

    Attributes:
        value: The new one.
        kept: Samples that all row-local filters keep then.
        kept_at_most: The same, and those that some filter was not asked about, for want of scores.
    """

    value: float
    kept: int
    kept_at_most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdEffect:
    """Where a threshold lies, and what moving it would do.

    Attributes:
        stage: Label of the filter.
        column: What is compared; the name of a distribution.
        value: The number that it is compared with.
        below: Share of the values that are less, 0 to 1.
        above: Share of the values that are more.
        lower: The value 5 % of the data below it, or the least one; ``None`` if none is less.
        higher: The value 5 % of the data above it, or the largest one; ``None`` if none is more.
    """

    stage: str
    column: str
    value: float
    below: float
    above: float
    lower: ThresholdMove | None
    higher: ThresholdMove | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a recipe would keep, and why.

    Attributes:
        name: The pipeline's.
        workspace: Where the scores lie.
        counts: Where the samples went.
        funnel: The same step by step.
        sound: Samples that did not fail: those that the rest is about.
        filters: One for each row-local filter.
        kept_by_filters: Samples that all of these keep, whatever the other stages do.
        kept_by_filters_at_most: The same, and those that some filter was not asked about.
        whole_table: Labels of the other selection stages, whose effect on a moved threshold is not
            worked out.
        distributions: One for what filters compare with a number, and for each numeric score.
        thresholds: One for each such comparison.
        warnings: What is odd.
        notes: What else a run would say at its end.
        decoded: How many images were decoded.
    """

    name: str
    workspace: Path
    counts: Counts
    funnel: tuple[FunnelStep, ...]
    sound: int
    filters: tuple[FilterEffect, ...]
    kept_by_filters: int
    kept_by_filters_at_most: int
    whole_table: tuple[str, ...]
    distributions: tuple[Distribution, ...]
    thresholds: tuple[ThresholdEffect, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    decoded: int


def preview(
    plan: Plan,
    executor: Executor | None = None,
    options: RunOptions | None = None,
    *,
    cached_only: bool,
) -> Preview:
    """Run a plan up to the decision, and look at what its filters do; nothing is exported.

    Args:
        plan: From :meth:`pixsieve.Pipeline.plan`.
        executor: Who runs the units; ``None`` is one worker process per processor.
        options: Workspace and progress. What fails beyond the budget is a warning here.
        cached_only: Take what was measured before, and read no image and no source.

    Raises:
        RunError: scores are missing, with ``cached_only``; the message counts them.
        PixsieveError: as :func:`pixsieve.engine.run.run` does.
    """
    options = options or RunOptions()
    if cached_only:
        check_workspace(output.folders(plan, options.workspace)[1])
    with opened(plan, executor, options, output.visited) as (job, shards):
        indexed = recall_index(job, shards) if cached_only else index(job, shards)
        if cached_only:
            job.plan = as_inspected(job, indexed)
        for done in decisions(job, indexed, recall if cached_only else measure):
            if not cached_only:
                note_catalog(job, done)
        return _looked_at(job, indexed, done)


def _looked_at(job: Job, indexed: Sequence[work.Indexed], done: Decision) -> Preview:
    table = _Table(job, done)
    with job.step("preview", None, "columns") as step:
        filters = _filters(job.plan, table)
        compared = {
            (where.label, number): (name, threshold)
            for where in filters
            for number, threshold in enumerate(where.thresholds)
            if threshold.ordered and (name := table.numeric(threshold.column))
        }
        names = [*(name for name, _ in compared.values()), *_scores(job.plan)]
        distributions = []
        moves: dict[tuple[str, int], _Moves] = {}
        for name in dict.fromkeys(names):
            job.stop.check()
            values, missing = table.values(name)
            nulls = table.sound_count - len(values) - missing
            about = table.about(name)
            distributions.append(_distribution(name, about, values, nulls, missing))
            for key, (column, threshold) in compared.items():
                if column == name and len(values):
                    moves[key] = _moves(values, threshold.value)
            job.progress.advance(1)
        effects = _Effects(filters, moves)
        for batch in table.batches(filters):
            job.stop.check()
            effects.add(batch)
        step.facts = {"columns": len(distributions), "filters": len(filters)}
    thresholds = tuple(
        ThresholdEffect(
            stage=key[0],
            column=name,
            value=threshold.value,
            below=moves[key].below,
            above=moves[key].above,
            lower=effects.moved.get((key, "lower")),
            higher=effects.moved.get((key, "higher")),
        )
        for key, (name, threshold) in compared.items()
        if key in moves
    )
    selected = done.selected
    return Preview(
        name=job.plan.name,
        workspace=job.ledger.root,
        counts=counted(selected),
        funnel=tuple(_funnel(job.plan, selected)),
        sound=table.sound_count,
        filters=effects.told(),
        kept_by_filters=effects.kept,
        kept_by_filters_at_most=effects.kept_at_most,
        whole_table=tuple(
            label
            for each in job.plan.passes
            for label, stage in each.selectors
            if not stage.row_local
        ),
        distributions=tuple(distributions),
        thresholds=thresholds,
        warnings=(
            *job.plan.warnings,
            *odd_filters(job.plan, selected),
            *_odd_thresholds(thresholds, distributions),
            *_over_budget(job, done),
        ),
        notes=(
            *(note for each in indexed for note in each.notes),
            *unread_metadata(job),
            *unpacked_archives(job),
            *job.notes,
        ),
        decoded=job.decoded,
    )


def _funnel(plan: Plan, selected: work.Selected) -> Iterator[FunnelStep]:
    left = selected.indexed
    for stage in ("index", "inspect", *(label for label, _ in _selectors(plan))):
        found = [(r.status, r.reason, r.count) for r in selected.reasons if r.stage == stage]
        for status, reason, lost in found or [("", "", 0)]:
            yield FunnelStep(
                stage=stage,
                status=status,
                reason=reason,
                came_in=left,
                lost=lost,
                left=left - lost,
            )
            left -= lost


def _odd_thresholds(
    thresholds: Sequence[ThresholdEffect], distributions: Sequence[Distribution]
) -> Iterator[str]:
    """Say of each threshold at an end of the data that it is there."""
    known = {each.column: each for each in distributions}
    for each in thresholds:
        about = known[each.column]
        scale = f" ({about.scale})" if about.scale else ""
        fit = "scale" if about.scale else "data"
        value = f"{each.value:,.0f}" if each.value.is_integer() else f"{each.value:g}"
        for side, beyond in (("below", each.below), ("above", each.above)):
            if beyond < _TAIL and about.count >= ODD_ROWS:
                yield (
                    f"{each.stage}: {value} is {side} all but {beyond:.1%} of "
                    f"{each.column}{scale}: does it fit the {fit}?"
                )


def _over_budget(job: Job, done: Decision) -> Iterator[str]:
    try:
        check_budget(job, done.parts, done.selected)
    except FailureBudgetError as error:
        yield str(error)


def _selectors(plan: Plan) -> Iterator[tuple[str, SelectStage]]:
    for each in plan.passes:
        yield from each.selectors


def _scores(plan: Plan) -> Iterator[str]:
    """Yield the names of scores that are numbers with a size, as hashes are not."""
    for scorer in plan.scorers:
        for field in scorer.adds():
            bits = (field.metadata or {}).get(b"scale") == b"bits"
            if _is_number(field.type) and not bits:
                yield field.name


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


# -- the table of all samples -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filter:
    """A row-local stage, the columns that it looks at, and its thresholds."""

    label: str
    stage: SelectStage
    reads: tuple[str, ...]
    thresholds: tuple[Threshold, ...]

    def __str__(self) -> str:
        return self.stage.where if isinstance(self.stage, FilterStage) else str(self.stage)

    def passes(self, columns: pa.Table) -> NDArray[np.bool_]:
        with blaming(self.stage):
            return self.stage.passes(columns)

    def moved(self, number: int, value: float) -> FilterStage:
        """Return the filter with another value in one of its thresholds."""
        assert isinstance(self.stage, FilterStage)  # noqa: S101  # no other stage has thresholds
        return FilterStage(expression.with_threshold(self.stage.where, number, value))


def _filters(plan: Plan, table: _Table) -> list[_Filter]:
    found = []
    for label, stage in _selectors(plan):
        if not stage.row_local:
            continue
        reads: tuple[str, ...] = stage.reads()
        thresholds: tuple[Threshold, ...] = ()
        if isinstance(stage, FilterStage):
            reads = expression.check(stage.where, table.rows.columns)
            thresholds = expression.thresholds(stage.where)
        found.append(_Filter(label=label, stage=stage, reads=reads, thresholds=thresholds))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Neighbouring rows: their columns, which are sound, and which each filter can be asked of."""

    columns: pa.Table
    sound: NDArray[np.bool_]
    measured: tuple[NDArray[np.bool_], ...]


class _Table:
    """All rows with all columns, and what was measured of which; a few bytes per row."""

    def __init__(self, job: Job, done: Decision) -> None:
        scope = decided(job, done.parts, done.each, done.selected)
        self.rows: Rows = scope.rows()
        self._selection = job.ledger.resolve(done.selected.table.path)
        self.sound = ~self._has("status", Status.FAILED)
        self.sound_count = int(self.sound.sum())
        self._origins: dict[str, int] = {}  # family behind the inspection, if filters spared rows
        self._added: dict[str, int] = {}  # place of the selection stage that added it
        self._labels = [label for label, _ in _selectors(job.plan)]
        self._marks: dict[int, NDArray[np.bool_]] = {}
        scorers = selectors = 0
        for step in (step for each in job.plan.passes for step in each.steps):
            names = step.stage.adds().names
            if isinstance(step.stage, ScoreStage):
                scorers += 1
                self._origins |= dict.fromkeys(names, scorers) if selectors else {}
            else:
                self._added |= dict.fromkeys(names, selectors)
                selectors += 1

    def numeric(self, compared: str) -> str | None:
        """Return the name of a column or expression if its values are numbers, else ``None``."""
        names = {name.lower(): name for name in self.rows.columns.names}
        name = names.get(compared.lower(), compared)
        reads = self._reads(name)
        if reads is None:
            return None
        fields = [self.rows.columns.field(each) for each in reads]
        nulls = pa.table([pa.nulls(1, field.type) for field in fields], names=reads)
        kind = fields[0].type if name in reads else expression.project(name, nulls).type
        return name if _is_number(kind) else None

    def about(self, name: str) -> Mapping[bytes, bytes]:
        """Return the metadata of a column."""
        columns = self.rows.columns
        return (columns.field(name).metadata or {}) if name in columns.names else {}

    def values(self, name: str) -> tuple[NDArray[np.floating], int]:
        """Return the finite values of sound samples, ascending, and how many were not measured."""
        reads = self._reads(name) or ()
        found = [np.empty(0, np.float32)]
        missing = 0
        for batch in self.rows.batches(reads):
            part = slice(batch.first, batch.first + len(batch.columns))
            sound, measured = self.sound[part], self._measured(reads, part)
            column = (
                batch.columns[name] if name in reads else expression.project(name, batch.columns)
            )
            narrow = pa.types.is_floating(column.type) and column.type.bit_width <= _FLOAT_BITS
            kind = pa.float32() if narrow else pa.float64()
            numbers = column.cast(kind).to_numpy()
            found.append(numbers[sound & measured & np.isfinite(numbers)])
            missing += int((sound & ~measured).sum())
        values = np.concatenate(found)
        values.sort()
        return values, missing

    def batches(self, filters: Sequence[_Filter]) -> Iterator[_Batch]:
        """Yield the rows with the columns that the filters look at."""
        wanted = dict.fromkeys(name for each in filters for name in each.reads)
        for batch in self.rows.batches(tuple(wanted) or ("image_id",)):
            part = slice(batch.first, batch.first + len(batch.columns))
            yield _Batch(
                columns=batch.columns,
                sound=self.sound[part],
                measured=tuple(self._measured(each.reads, part) for each in filters),
            )

    def _reads(self, name: str) -> tuple[str, ...] | None:
        """Return the columns of a column's name or an expression; ``None`` if there are others."""
        if name in self.rows.columns.names:
            return (name,)
        try:
            return expression.check(f"({name}) IS NOT NULL", self.rows.columns)
        except PlanError:  # a parameter of a lambda
            return None

    def _measured(self, names: Sequence[str], part: slice) -> NDArray[np.bool_]:
        """Tell for some rows whether these columns were all measured."""
        found = np.ones(part.stop - part.start, np.bool_)
        for name in names:
            if name in self._origins:
                found &= self._scored(self._origins[name])[part]
            elif name in self._added:
                found &= self._ended[part] >= self._added[name]
        return found

    def _scored(self, family: int) -> NDArray[np.bool_]:
        if family not in self._marks:
            marks = [
                tables.read_table(part.families[family], [SCORED])[SCORED].to_numpy()
                for part in self.rows.parts
            ]
            self._marks[family] = np.concatenate(marks)
        return self._marks[family]

    @functools.cached_property
    def _ended(self) -> NDArray[np.int16]:
        """For each row the place of the selection stage that dropped it, or one behind the last."""
        ended = np.full(len(self.rows), len(self._labels), np.int16)
        for number, label in enumerate(self._labels):
            ended[self._has("stage", label)] = number
        return ended

    def _has(self, name: str, word: str) -> NDArray[np.bool_]:
        """Tell for each row whether a column of the selection has this word."""
        column = tables.read_table(self._selection, [name])[name]
        found = column.unify_dictionaries().combine_chunks()
        words = found.dictionary.to_pylist()
        if word not in words:
            return np.zeros(len(found), np.bool_)
        same = found.indices.fill_null(-1).to_numpy() == words.index(word)
        return np.asarray(same, np.bool_)


# -- numbers ----------------------------------------------------------------------------------


def _distribution(
    name: str,
    about: Mapping[bytes, bytes],
    values: NDArray[np.floating],
    nulls: int,
    not_measured: int,
) -> Distribution:
    """Describe ascending values."""
    percentiles: list[float] = []
    histogram: list[int] = []
    if len(values):
        percentiles = np.percentile(values.astype(np.float64), PERCENTILES).tolist()
        low, high = percentiles[0], percentiles[-1]
        if low < high:
            edges = np.searchsorted(values, np.linspace(low, high, BINS + 1))
            edges[-1] = np.searchsorted(values, high, side="right")
            histogram = np.diff(edges).tolist()
    return Distribution(
        column=name,
        scale=about.get(b"scale", b"").decode(),
        unit=about.get(b"unit", b"").decode(),
        better=about.get(b"better", b"").decode(),
        count=len(values),
        nulls=nulls,
        not_measured=not_measured,
        minimum=float(values[0]) if len(values) else None,
        percentiles=tuple(zip(PERCENTILES, percentiles, strict=False)),
        maximum=float(values[-1]) if len(values) else None,
        histogram=tuple(histogram),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moves:
    """Where a threshold lies, and the values 5 % of the data to each side of it, if there are."""

    below: float
    above: float
    lower: float | None
    higher: float | None


def _moves(values: NDArray[np.floating], threshold: float) -> _Moves:
    """Look at a threshold among ascending values.

    A moved one is a value of the data, with at most :data:`_DIGITS` digits: what is told of it
    holds for the number that is shown.
    """
    count = len(values)
    below = int(np.searchsorted(values, threshold, side="left"))
    not_above = int(np.searchsorted(values, threshold, side="right"))
    step = max(round(MOVE * count), 1)
    lower = _short(values[max(below - step, 0)]) if below else None
    higher = _short(values[min(not_above + step, count - 1)]) if not_above < count else None
    return _Moves(
        below=below / count,
        above=1 - not_above / count,
        lower=lower if lower is not None and lower < threshold else None,
        higher=higher if higher is not None and higher > threshold else None,
    )


def _short(value: np.floating) -> float:
    """Return a whole number as such, another with a few digits."""
    number = float(value)
    if number.is_integer():
        return int(number)
    return float(f"{number:.{_DIGITS}g}")


class _Effects:
    """Counts what filters do, as they are and with each threshold moved; nothing per row."""

    def __init__(self, filters: Sequence[_Filter], moves: Mapping[tuple[str, int], _Moves]) -> None:
        self.kept = self.kept_at_most = 0
        self._filters = filters
        self._drops = [0] * len(filters)
        self._alone = [0] * len(filters)
        self._alone_at_most = [0] * len(filters)
        self._not_measured = [0] * len(filters)
        self._moves: list[_Move] = []
        for at, each in enumerate(filters):
            for number in range(len(each.thresholds)):
                found = moves.get((each.label, number))
                for side in ("lower", "higher") if found else ():
                    value = getattr(found, side)
                    if value is not None:
                        stage = each.moved(number, value)
                        self._moves.append(
                            _Move(
                                key=((each.label, number), side),
                                filter=at,
                                stage=stage,
                                value=value,
                            )
                        )

    @property
    def moved(self) -> dict[tuple[tuple[str, int], str], ThresholdMove]:
        return {
            move.key: ThresholdMove(value=move.value, kept=move.kept, kept_at_most=move.at_most)
            for move in self._moves
        }

    def told(self) -> tuple[FilterEffect, ...]:
        return tuple(
            FilterEffect(
                stage=each.label,
                filter=str(each),
                drops=self._drops[at],
                drops_alone=self._alone[at],
                drops_alone_at_most=self._alone_at_most[at],
                not_measured=self._not_measured[at],
            )
            for at, each in enumerate(self._filters)
        )

    def add(self, batch: _Batch) -> None:
        count = len(batch.columns)
        sound = batch.sound
        fails, unknown = [], []
        against = np.zeros(count, np.int16)  # how many filters drop the row
        silent = np.zeros(count, np.int16)  # how many cannot be asked
        for at, each in enumerate(self._filters):
            measured = batch.measured[at]
            fail = sound & measured & ~each.passes(batch.columns)
            fails.append(fail)
            unknown.append(~measured)
            against += fail
            silent += ~measured
            self._drops[at] += int(fail.sum())
            self._not_measured[at] += int((sound & ~measured).sum())
        for at, fail in enumerate(fails):
            alone = fail & (against == 1)
            self._alone_at_most[at] += int(alone.sum())
            self._alone[at] += int((alone & (silent == 0)).sum())
        self.kept += int((sound & (against == 0) & (silent == 0)).sum())
        self.kept_at_most += int((sound & (against == 0)).sum())
        for move in self._moves:
            others = sound & (against - fails[move.filter] == 0)
            passes = move.stage.passes(batch.columns) | unknown[move.filter]
            at_most = others & passes
            move.at_most += int(at_most.sum())
            move.kept += int((at_most & (silent == 0)).sum())


@dataclass(slots=True, kw_only=True)
class _Move:
    """A filter with a threshold moved, and what all filters keep then."""

    key: tuple[tuple[str, int], str]
    filter: int
    stage: FilterStage
    value: float
    kept: int = 0
    at_most: int = 0
