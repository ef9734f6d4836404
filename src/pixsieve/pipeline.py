"""The pipeline that users build, and the checked plan that the engine runs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from pixsieve import image, schema
from pixsieve.errors import PlanError, nearest
from pixsieve.export.plan import plan_schema
from pixsieve.export.transform import ImageTransformStage, decoded_formats
from pixsieve.export.writer import ImageWriterStage
from pixsieve.fingerprint import canonical
from pixsieve.scorers.inspection import InspectOptions
from pixsieve.select import groups
from pixsieve.select.base import sample_schema
from pixsieve.select.buckets import BucketStage
from pixsieve.select.exact import ExactDeduplicationStage
from pixsieve.select.perceptual import PerceptualDeduplicationStage
from pixsieve.select.semantic import SemanticDeduplicationStage
from pixsieve.select.shuffle import ShuffleStage
from pixsieve.select.sort import SortStage
from pixsieve.select.split import SplitStage
from pixsieve.sources.reader import FilePartitioningStage, ImageReaderStage
from pixsieve.stage import Needs, ScoreStage, SelectStage, Stage, blaming

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pixsieve.engine.job import RunOptions
    from pixsieve.engine.result import RunResult
    from pixsieve.engine.units import Executor

_RESERVED = (*schema.RESERVED, *plan_schema(pa.schema([])).names)
"""Columns that no stage may add."""

_GIVEN_ONCE: tuple[tuple[tuple[type[Stage], ...], str], ...] = (
    ((SplitStage,), "split"),
    ((BucketStage,), "bucket"),
    ((ShuffleStage, SortStage), "place in the order"),
)
"""Stages of which a later one would undo an earlier one."""
_DEDUPLICATIONS = (
    ExactDeduplicationStage,
    PerceptualDeduplicationStage,
    SemanticDeduplicationStage,
)
"""Stages that can collect what the images that they drop have, with ``merge``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stage in its place.

    Attributes:
        label: Names the stage in reasons and reports; no other step of the plan has it.
        stage: What to do.
        derived: It follows from the stage before it, as a threshold's filter or flags do, and
            stands in no recipe.
    """

    label: str
    stage: ScoreStage | SelectStage
    derived: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What no other step has: the kind tells apart what comes along with a stage."""
        kind = type(self.stage)
        return self.label, f"{kind.__module__}.{kind.__qualname__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Steps that need one read and one decode of each image, up to a decision over the whole table.

    Row-local selection stages may stand between scorers: what they drop is not scored.
    """

    steps: tuple[Step, ...]

    @property
    def scorers(self) -> tuple[ScoreStage, ...]:
        return tuple(step.stage for step in self.steps if isinstance(step.stage, ScoreStage))

    @property
    def selectors(self) -> tuple[tuple[str, SelectStage], ...]:
        """Labels and stages of all selection, in order."""
        return tuple(
            (step.label, step.stage) for step in self.steps if isinstance(step.stage, SelectStage)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked pipeline: what it reads, in which passes it decides, and what it writes.

    Attributes:
        name: The pipeline's name.
        seed: Of all seeded stages that have none of their own.
        reader: The input.
        passes: At least one.
        writer: The output; ``None`` for a pipeline that only scores and selects.
        transform: What becomes of images on their way to it; ``None``: they are copied where the
            writer's format allows it.
    """

    name: str
    seed: int
    reader: ImageReaderStage
    passes: tuple[Pass, ...]
    writer: ImageWriterStage | None
    transform: ImageTransformStage | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the plan without being wrong."""
        columns = sample_schema([self.added])
        selectors = [selector for each in self.passes for selector in each.selectors]
        odd = [
            f"{label}: {warning}"
            for label, stage in selectors
            for warning in stage.warnings(columns)
        ]
        return (*odd, *_lost_merges(selectors))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages in order."""
        steps = [step for each in self.passes for step in each.steps]
        middle = [step.stage for step in steps if not step.derived]
        last = (stage for stage in (self.transform, self.writer) if stage is not None)
        return (self.reader, *middle, *last)

    @property
    def scorers(self) -> tuple[ScoreStage, ...]:
        return tuple(stage for each in self.passes for stage in each.scorers)

    @property
    def added(self) -> pa.Schema:
        """Columns beyond those that every pipeline has: json fields, scores, what is selected."""
        stages = (self.reader, *self.scorers)
        fields = [field for stage in stages for field in stage.adds()]
        return pa.schema([*fields, *self.selected])

    @property
    def selected(self) -> pa.Schema:
        """Columns that selection stages add, each once."""
        stages = [stage for each in self.passes for _, stage in each.selectors]
        return pa.schema({field.name: field for stage in stages for field in stage.adds()}.values())

    def without_places(self, root: str) -> Plan:
        """Return the plan as it reads on any machine: inputs relative to ``root``, output ``"."``.

        What only decides what the user sees (``verbose``, ``remove_image_data``) is left out, too,
        and so is the order in which inputs were named: shards of a source have an order of their
        own.
        """
        named = self.reader.path_or_paths or ""
        paths = [named] if isinstance(named, str) else named
        relative = tuple(sorted({os.path.relpath(path, root) for path in paths}))
        reader = dataclasses.replace(
            self.reader, path_or_paths=relative[0] if len(relative) == 1 else relative
        )
        writer = self.writer and dataclasses.replace(
            self.writer, output_dir=".", verbose=False, remove_image_data=False
        )
        passes = tuple(
            Pass(
                steps=tuple(
                    dataclasses.replace(step, stage=step.stage.without_places())
                    for step in each.steps
                )
            )
            for each in self.passes
        )
        return dataclasses.replace(self, reader=reader, passes=passes, writer=writer)

    @property
    def inspect_options(self) -> InspectOptions:
        """How samples are inspected for this plan."""
        encoded = decoded_formats(self.writer, self.transform) if self.writer else frozenset()
        most_pixels = self.reader.max_pixels
        bounded = self.transform is not None and self.transform.bounds_sides
        if self.transform:  # whatever it does may need the image to be encoded anew
            most_pixels = min(most_pixels, image.DEFAULT_LIMITS.max_pixels)
        seen = any(stage.needs.pixels is not None for stage in self.scorers)
        full = self.reader.decode_check == "full" or seen
        return InspectOptions(
            decode=frozenset(image.FORMATS) if full else encoded,
            first_frame=self.reader.animated == "first_frame",
            caption_field=self.reader.caption_field,
            json_fields=tuple(self.reader.json_fields.items()),
            limits=image.ImageLimits(max_bytes=self.reader.max_image_bytes, max_pixels=most_pixels),
            encode=self.writer.target_format if self.writer and not bounded else None,
            decode_turned=self.transform is not None and self.transform.orientation == "upright",
        )


class Pipeline:
    """Stages in order: a reader, then scorers and selectors, then a transform and a writer.

    ``add_stage`` only notes; everything is checked by :meth:`plan`, before any work.
    """

    def __init__(self, name: str = "pixsieve", *, seed: int = 0) -> None:
        self.name = name
        self.seed = seed
        self._stages: list[Stage] = []
        self._places: list[str] = []

    def __eq__(self, other: object) -> bool:
        """Tell whether the other is a pipeline of the same name, seed and stages."""
        if not isinstance(other, Pipeline):
            return NotImplemented
        return (self.name, self.seed, self.stages) == (other.name, other.seed, other.stages)

    __hash__ = None  # type: ignore[assignment]  # it grows

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(self._stages)

    @property
    def places(self) -> tuple[str, ...]:
        """Where each stage was written, such as ``recipe.yaml:3``; ``""`` where nothing says it."""
        return tuple(self._places)

    def add_stage(self, stage: Stage, *, place: str = "") -> Self:
        """Append a stage and return the pipeline.

        Args:
            stage: From :mod:`pixsieve.stages`, or your own.
            place: Where it was written; what is wrong with the stage is told with it.
        """
        if not isinstance(stage, Stage):
            msg = f"{stage!r} is a {type(stage).__name__}, expected a stage from pixsieve.stages"  # type: ignore[unreachable]  # types bind no script
            raise PlanError(msg)
        self._stages.append(stage)
        self._places.append(place)
        return self

    def plan(self) -> Plan:
        """Check the pipeline and return it as a plan.

        Raises:
            PlanError: which stage does not fit, and why.
        """
        first = int(bool(self._stages) and isinstance(self._stages[0], FilePartitioningStage))
        with self._placed(first):
            reader = _reader(self._stages[: first + 1])
        rest = self._stages[first + 1 :]
        writer, transform = None, None
        if rest and isinstance(rest[-1], ImageWriterStage):
            writer = rest[-1]
            rest = rest[:-1]
            if rest and isinstance(rest[-1], ImageTransformStage):
                transform = rest[-1]
                rest = rest[:-1]
        for number, stage in enumerate(rest, first + 1):
            with self._placed(number):
                if isinstance(stage, ImageTransformStage):
                    msg = (
                        "ImageTransformStage stands right before the ImageWriterStage, once: it is "
                        "what is exported that it changes"
                    )
                    raise PlanError(msg)
                if not isinstance(stage, (ScoreStage, SelectStage)):
                    msg = (
                        f"{type(stage).__name__} stands in the middle of pipeline {self.name!r}; "
                        "expected a reader first, then scorers and selectors, then at most one "
                        "writer, last"
                    )
                    raise PlanError(msg)
        added: list[pa.Schema] = []
        selected: dict[str, str] = {}
        for number, stage in enumerate(self._stages):
            with self._placed(number):
                for each in _with_companions([stage]):
                    _check_plain(each)
                    _check_answers(each)
                _check_columns(stage, added, selected)
                _check_undone(stage, self._stages[:number])
                if isinstance(stage, ScoreStage):
                    _check_lasting(stage, selected)
                elif isinstance(stage, SelectStage):
                    selected |= dict.fromkeys(stage.adds().names, type(stage).__name__)
        return Plan(
            name=self.name,
            seed=self.seed,
            reader=reader,
            passes=tuple(_passes(_steps(rest))),
            writer=writer,
            transform=transform,
        )

    @contextlib.contextmanager
    def _placed(self, number: int) -> Iterator[None]:
        """Put a stage's place before what is wrong with it."""
        try:
            yield
        except PlanError as error:
            place = self._places[number] if number < len(self._places) else ""
            if not place:
                raise
            msg = f"{place}: {error}"
            raise PlanError(msg) from error

    def describe(self) -> str:
        """Return the plan as a tree, with the columns that each stage reads and adds."""
        return describe(self.plan())

    def run(self, executor: Executor | None = None, options: RunOptions | None = None) -> RunResult:
        """Run the pipeline; see :func:`pixsieve.engine.run.run`.

        A writer that is ``verbose`` has its lines on standard error, unless ``options`` say who
        hears of the progress.
        """
        # the builder must not import the engine
        from pixsieve.engine.job import RunOptions  # noqa: PLC0415
        from pixsieve.engine.progress import Lines  # noqa: PLC0415
        from pixsieve.engine.run import run  # noqa: PLC0415

        plan, options = self.plan(), options or RunOptions()
        if plan.writer and plan.writer.verbose and options.progress is None:
            options = dataclasses.replace(options, progress=Lines())
        return run(plan, executor, options)


def describe(plan: Plan) -> str:
    """Return a plan as a tree, with the columns that each stage reads and adds."""
    decode = plan.inspect_options.decode
    if decode == frozenset(image.FORMATS):
        check = "decodes every image"
    else:
        some = decode or plan.inspect_options.decode_turned
        check = "reads image headers" + ("; decodes what will be encoded anew" if some else "")
    adds = ", ".join(name for name in schema.INSPECTION.names if not name.startswith("problem"))
    nodes = [
        _node("index", [plan.reader], "locates every sample; reads headers only"),
        [f"inspect: reads each sample once, {check}; adds {adds}"],
    ]
    for each in plan.passes:
        stages = [step.stage for step in each.steps if not step.derived]
        if each.scorers:
            nodes.append(_node("score and select", stages, "one read and decode of each image"))
        elif stages:
            nodes.append(_node("select", stages, "table operations, no pixels"))
    if plan.writer:
        last = [stage for stage in (plan.transform, plan.writer) if stage is not None]
        nodes.append(_node("export", last, "one unit per shard, then the manifest"))
    lines = [f"{plan.name} (seed {plan.seed})", *(f"! {warning}" for warning in plan.warnings)]
    for node in nodes:
        first, rest = ("└─ ", "   ") if node is nodes[-1] else ("├─ ", "│  ")
        lines += [first + node[0], *(rest + line for line in node[1:])]
    return "\n".join(lines)


def _node(step: str, stages: Sequence[Stage], note: str) -> list[str]:
    lines = [f"{step}: {note}"]
    for stage in stages:
        values = [
            f"{field.name}={getattr(stage, field.name)!r}"
            for field in dataclasses.fields(stage)  # type: ignore[arg-type]  # checked by plan()
            if getattr(stage, field.name) != _default(field)
        ]
        reads = f"; reads {', '.join(stage.reads())}" if stage.reads() else ""
        names = [name for each in _with_companions([stage]) for name in each.adds().names]
        adds = f"; adds {', '.join(names)}" if names else ""
        lines.append(f"· {type(stage).__name__}({', '.join(values)}){reads}{adds}")
    return lines


def _default(field: dataclasses.Field[object]) -> object:
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _reader(stages: Sequence[Stage]) -> ImageReaderStage:
    """Return the reader that the first stages make, with its input."""
    partitioning, reader = (None, None, *stages)[-2:]
    if not isinstance(reader, ImageReaderStage):
        msg = "a pipeline starts with an ImageReaderStage(path_or_paths); add one first"
        raise PlanError(msg)
    paths = reader.path_or_paths
    if isinstance(partitioning, FilePartitioningStage):
        if paths:
            msg = (
                "FilePartitioningStage and ImageReaderStage both name an input; "
                "leave path_or_paths out, or the partitioning"
            )
            raise PlanError(msg)
        paths = partitioning.file_paths
    if not paths:
        msg = (
            "ImageReaderStage has no path_or_paths; "
            "expected a folder, tars, a glob, or a list of these"
        )
        raise PlanError(msg)
    return dataclasses.replace(reader, path_or_paths=paths)


def _check_plain(stage: Stage) -> None:
    """Refuse a stage whose content cannot be told, as plans and results are known by it."""
    try:
        canonical(stage)
    except TypeError as error:
        msg = (
            f"{type(stage).__name__} cannot be written down: {error}; expected a frozen dataclass "
            "whose fields are numbers, text, booleans, None, and tuples or dicts of these"
        )
        raise PlanError(msg) from error


def _check_answers(stage: Stage) -> None:
    """Refuse a stage whose methods give other things than they are declared to."""
    with blaming(stage, PlanError):
        answers = [("reads()", stage.reads(), tuple), ("adds()", stage.adds(), pa.Schema)]
        if isinstance(stage, ScoreStage):
            answers.append(("needs", stage.needs, Needs))
    for name, found, kind in answers:
        if not isinstance(found, kind):
            msg = (
                f"{type(stage).__name__}: {name} is a {type(found).__name__}, "
                f"expected a {kind.__name__}"
            )
            raise PlanError(msg)


def _check_columns(stage: Stage, added: list[pa.Schema], selected: Mapping[str, str]) -> None:
    """Follow the columns through a stage: it must find what it reads, and add what is new.

    Names that differ in case only count as one, as they do in SQL. ``added`` are the columns of the
    stages before, and get those of this one. Only what selection stages merge (``selected`` are
    their columns) may be added again: the later stage takes it over.
    """
    for each in _with_companions([stage]):
        columns = sample_schema(added)
        taken = {name.lower() for name in (*_RESERVED, *columns.names)}
        name = type(each).__name__
        for column in each.reads():
            if column not in columns.names:
                msg = (
                    f"{name} reads the column {column!r}, which no stage before it "
                    f"adds{nearest(column, columns.names)}; "
                    f"the columns are: {', '.join(columns.names)}"
                )
                raise PlanError(msg)
        with blaming(each, PlanError):
            each.check(columns)
        if isinstance(each, SelectStage):
            taken -= {
                field.name.lower()
                for field in each.adds()
                if field.name in selected and groups.takes_over(columns.field(field.name), field)
            }
        for column in each.adds().names:
            if column.lower() in taken:
                msg = (
                    f"{name} adds the column {column!r}, which there is already; "
                    "give it another name"
                )
                raise PlanError(msg)
            taken.add(column.lower())
        added.append(each.adds())


def _check_undone(stage: Stage, before: Sequence[Stage]) -> None:
    """Refuse a stage that would undo what one before it decided, without a word."""
    for kinds, thing in _GIVEN_ONCE:
        earlier = [type(each).__name__ for each in before if isinstance(each, kinds)]
        if earlier and isinstance(stage, kinds):
            msg = (
                f"{type(stage).__name__} would undo {earlier[0]} before it: a sample has one "
                f"{thing}; leave one of them out"
            )
            raise PlanError(msg)


def _lost_merges(selectors: Iterable[tuple[str, SelectStage]]) -> Iterator[str]:
    """Say of each deduplication that it drops what an earlier one has collected."""
    collected: dict[str, str] = {}
    for label, stage in selectors:
        if isinstance(stage, _DEDUPLICATIONS):
            mine = {field.name: label for field in stage.adds() if groups.is_merged(field)}
            lost = [name for name in collected if name not in mine]
            if lost and getattr(stage, "action", "drop") == "drop":
                yield (
                    f"{label}: what it drops takes {', '.join(lost)} of {collected[lost[0]]} with "
                    "it; name the same columns in its merge, too"
                )
            collected |= mine


def _check_lasting(stage: ScoreStage, selected: Mapping[str, str]) -> None:
    """Refuse a scorer that reads what selection adds: scores are kept, selections change."""
    for each in _with_companions([stage]):
        for column in each.reads():
            if column in selected:
                msg = (
                    f"{type(each).__name__} reads the column {column!r}, which {selected[column]} "
                    "decides over all rows; a scorer can read what belongs to its own row only"
                )
                raise PlanError(msg)


def _brought(stage: ScoreStage) -> list[ScoreStage | SelectStage]:
    """Return what comes along with a scorer: its companion, and the selection that it implies."""
    with blaming(stage, PlanError):
        companion, selection = stage.companion(), stage.selection()
    brought: list[ScoreStage | SelectStage] = []
    for name, found, kind in (
        ("companion()", companion, ScoreStage),
        ("selection()", selection, SelectStage),
    ):
        if isinstance(found, kind):
            brought.append(found)
        elif found is not None:
            msg = (
                f"{type(stage).__name__}: {name} is a {type(found).__name__}, "
                f"expected a {kind.__name__} or None"
            )
            raise PlanError(msg)
    return brought


def _with_companions(stages: Sequence[Stage]) -> Iterator[Stage]:
    for stage in stages:
        yield stage
        if isinstance(stage, ScoreStage):
            yield from (each for each in _brought(stage) if isinstance(each, ScoreStage))


def _steps(stages: Sequence[Stage]) -> list[Step]:
    """Return the stages in their places, each followed by what it brings along."""
    found: list[tuple[str, ScoreStage | SelectStage, bool]] = []
    for stage in stages:
        name = type(stage).__name__
        if isinstance(stage, SelectStage):
            found.append((name, stage, False))
        elif isinstance(stage, ScoreStage):
            found.append((name, stage, False))
            found += [(name, derived, True) for derived in _brought(stage)]
    times = Counter(name for name, _, derived in found if not derived)
    seen: Counter[str] = Counter()
    steps = []
    for name, stage, derived in found:
        seen[name] += not derived
        label = f"{name} {seen[name]}" if times[name] > 1 else name
        steps.append(Step(label=label, stage=stage, derived=derived))
    return steps


def _passes(steps: Iterable[Step]) -> Iterable[Pass]:
    current: list[Step] = []
    for step in steps:
        whole = any(isinstance(s.stage, SelectStage) and not s.stage.row_local for s in current)
        if whole and isinstance(step.stage, ScoreStage):
            yield Pass(steps=tuple(current))
            current = []
        current.append(step)
    yield Pass(steps=tuple(current))
