"""What a recipe would keep, by which filter, and where its thresholds lie among the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pixsieve.engine import output
from pixsieve.engine.budget import check_budget
from pixsieve.engine.job import RunOptions
from pixsieve.engine.measuring import measure
from pixsieve.engine.notes import ODD_ROWS, odd_filters, unpacked_archives, unread_metadata
from pixsieve.engine.recall import as_inspected, check_workspace, recall, recall_index
from pixsieve.engine.run import counted, decisions, index, note_catalog, opened
from pixsieve.engine.scored import Scored, is_number
from pixsieve.errors import FailureBudgetError
from pixsieve.export.plan import contents_of
from pixsieve.export.uniformity import foretold
from pixsieve.select import expression
from pixsieve.select.filters import FilterStage
from pixsieve.stage import SelectStage, blaming
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from pixsieve.engine import work
    from pixsieve.engine.job import Job
    from pixsieve.engine.result import Counts
    from pixsieve.engine.run import Decision
    from pixsieve.engine.scored import Batch
    from pixsieve.engine.units import Executor
    from pixsieve.pipeline import Plan
    from pixsieve.select.expression import Threshold

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 40
"""Bars of a histogram."""
MOVE = 0.05
"""Share of the data by which a threshold is moved each way."""
_TAIL = 0.01
_DIGITS = 4  # of a moved threshold


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
    table = Scored(job, done)
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
        for batch in table.batches([each.reads for each in filters]):
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
            *_loaders(job, done),
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
                share = f"{beyond:.1%}" if beyond else "none"
                yield (
                    f"{each.stage}: {share} of the values of {each.column}{scale} lie {side} "
                    f"{value}: does it fit the {fit}?"
                )


def _over_budget(job: Job, done: Decision) -> Iterator[str]:
    try:
        check_budget(job, done.parts, done.selected)
    except FailureBudgetError as error:
        yield str(error)


def _loaders(job: Job, done: Decision) -> tuple[str, ...]:
    """Return what an export would tell of loaders that stumble over what is kept."""
    writer = job.plan.writer
    if writer is None or not done.selected.kept:
        return ()
    selection = job.ledger.resolve(done.selected.table.path)
    rank = tables.read_table(selection, ["rank"])["rank"].fill_null(-1).to_numpy()
    return foretold(contents_of(done.parts, rank, writer, job.plan.transform), writer)


def _selectors(plan: Plan) -> Iterator[tuple[str, SelectStage]]:
    for each in plan.passes:
        yield from each.selectors


def _scores(plan: Plan) -> Iterator[str]:
    """Yield the names of scores that are numbers with a size, as hashes are not."""
    for scorer in plan.scorers:
        for field in scorer.adds():
            bits = (field.metadata or {}).get(b"scale") == b"bits"
            if is_number(field.type) and not bits:
                yield field.name


# -- filters ----------------------------------------------------------------------------------


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


def _filters(plan: Plan, table: Scored) -> list[_Filter]:
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
        percentiles = [_percentile(values, percent) for percent in PERCENTILES]
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


def _percentile(values: NDArray[np.floating], percent: int) -> float:
    """Return a percentile of ascending values, by linear interpolation between two of them."""
    at, weight = divmod(percent / 100 * (len(values) - 1), 1)
    low, high = float(values[int(at)]), float(values[min(int(at) + 1, len(values) - 1)])
    return low + weight * (high - low)


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

    def add(self, batch: Batch) -> None:
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
