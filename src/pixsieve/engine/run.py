"""Run a plan: index, inspect and score, select, export, and the manifest as the commit.

Every step turns into units of work that an executor runs in any order; what is done already, by this run or an
earlier one, is taken from the ledger. Results are put in order again before the next step looks at them, so
that no output depends on who finished first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import filecmp
import functools
import hashlib
import itertools
import json
import re
import secrets
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pixsieve import recipe
from pixsieve.engine import work
from pixsieve.engine.claim import claim
from pixsieve.engine.drive import Stop, drive
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.ledger import Result, Workspace
from pixsieve.engine.local import LocalExecutor
from pixsieve.engine.progress import Progress, Quiet
from pixsieve.engine.result import Counts, RunResult, StepTiming
from pixsieve.engine.units import Unit
from pixsieve.errors import (
    FailureBudgetError,
    OutputConflictError,
    PlanError,
    RunError,
    SourceNotFoundError,
    UsageError,
)
from pixsieve.export import dataset
from pixsieve.export.plan import HASH_DIGITS, shard_stem
from pixsieve.export.shard import FileRecord, WrittenShard
from pixsieve.fingerprint import canonical, fingerprint
from pixsieve.schema import Problem, Status
from pixsieve.select.base import Part, failed_rows, sample_schema
from pixsieve.sources import find_shards
from pixsieve.storage import LocalStorage, tables
from pixsieve.storage.local import storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pixsieve.engine.units import Context, Done, Executor, Session
    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.pipeline import Pass, Plan
    from pixsieve.sources.base import SourceShard
    from pixsieve.stage import SelectStage, Stage

T = TypeVar("T", bound=Result)

CONTROL = ".pixsieve"
"""Hidden folder in the output: the claim, what an unfinished run may have written, and the workspace."""
INTENT = "intent.json"
MAX_FAILED = 0.1

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp")
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a plan is run. None of it changes a byte of the result.

    Attributes:
        workspace: Folder of the working state; ``None`` is ``.pixsieve`` in the output. Pipelines that share
            one share their scores.
        max_failed: Share of images that may fail before the run stops with an error, 0 to 1.
        progress: Hears of the steps; ``None`` is silence.
    """

    workspace: str | None = None
    max_failed: float = MAX_FAILED
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_failed <= 1:
            msg = f"max_failed is {self.max_failed}; expected a share from 0 to 1"
            raise UsageError(msg)


def run(plan: Plan, executor: Executor | None = None, options: RunOptions | None = None) -> RunResult:
    """Run a plan to the end, or go on where an earlier run of it stopped.

    Args:
        plan: From :meth:`pixsieve.Pipeline.plan`.
        executor: Who runs the units; ``None`` is one worker process per processor.
        options: Workspace, failure budget and progress.

    Raises:
        UsageError: something is to be changed before anything can be done.
        SourceError: an input is missing or changed.
        StorageError: reading or writing failed.
        RunError: the run cannot go on; what was finished is kept.
    """
    executor = executor or LocalExecutor()
    options = options or RunOptions()
    _check_importable(plan.stages, executor)
    paths = plan.reader.path_or_paths or ""
    root, shards = find_shards(paths, LocalStorage(), plan.reader.index_options)
    _check_apart(plan)
    control, workspace = folders(plan, options.workspace)
    stop = Stop()
    with _prepared(control, workspace), claim(control), stop.listening():
        _clean_temporary(plan, workspace, control)
        try:
            with executor.open() as session:
                job = _Job(
                    plan=plan,
                    options=options,
                    progress=options.progress or Quiet(),
                    session=session,
                    stop=stop,
                    site=work.Site(root=root, workspace=workspace),
                    control=control,
                    neutral=plan.without_places(root),
                )
                return _run(job, shards)
        finally:
            _clean_temporary(plan, workspace, control)


@dataclass(slots=True, kw_only=True)
class _Job:
    """What all steps of a run share, and the times that they took."""

    plan: Plan
    options: RunOptions
    progress: Progress
    session: Session
    stop: Stop
    site: work.Site
    control: Path
    neutral: Plan
    timings: list[StepTiming] = field(default_factory=list)
    decoded: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def ledger(self) -> Workspace:
        return self.site.workspace

    @property
    def recipe_sha256(self) -> str:
        return fingerprint(self.neutral, [type(stage).version for stage in self.plan.stages])

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe as it stands in the manifest."""
        stages = [canonical(stage) for stage in self.neutral.stages]
        return {"name": self.plan.name, "seed": self.plan.seed, "stages": stages}

    @contextlib.contextmanager
    def step(self, name: str, total: int | None, unit: str) -> Iterator[_Step]:
        """Time a step and tell of it."""
        self.progress.start(name, total, unit)
        wall, cpu = time.perf_counter(), time.process_time()
        step = _Step()
        yield step
        own = time.process_time() - cpu
        self.timings.append(
            StepTiming(
                step=name,
                wall=time.perf_counter() - wall - sum(w for w, _ in step.apart.values()),
                cpu=own + (0.0 if self.session.in_process else step.cpu) - sum(c for _, c in step.apart.values()),
            )
        )
        self.timings.extend(StepTiming(step=k, wall=w, cpu=c) for k, (w, c) in step.apart.items())
        self.progress.finish(step.facts)

    def drive(self, units: Iterator[Unit], step: _Step) -> Iterator[Done]:
        """Run units, and add their times to the step's."""
        for done in drive(units, self.session, self.stop, self.progress):
            step.cpu += done.cpu
            for name, (wall, cpu) in done.seconds.items():
                before = step.apart.get(name, (0.0, 0.0))
                step.apart[name] = (before[0] + wall, before[1] + cpu)
            yield done


@dataclass(slots=True)
class _Step:
    cpu: float = 0.0
    apart: dict[str, tuple[float, float]] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)


def _run(job: _Job, shards: Iterator[SourceShard]) -> RunResult:
    writer = job.plan.writer
    manifest = _check_output(job) if writer else None
    indexed = _index(job, shards)
    selected: work.Selected | None = None
    parts: tuple[Part, ...] = ()
    scorers: list[Stage] = []
    for number, each in enumerate(job.plan.passes):
        parts = _measure(job, indexed, each, parts)
        if not number:
            _check_budget(job, indexed, parts)
        scorers.extend(each.scorers)
        selected = _select(job, parts, number, scorers, selected)
    assert selected is not None  # noqa: S101  # a plan has at least one pass
    result = functools.partial(
        RunResult,
        workspace=job.ledger.root,
        counts=_counts(selected),
        reasons=selected.reasons,
        notes=tuple(note for each in indexed for note in each.notes),
    )
    if writer is None:
        return result(
            output_dir=None, shards=(), timings=tuple(job.timings), decoded=job.decoded,
            did_nothing=False, offers_images=False,
        )  # fmt: skip
    if not selected.kept:
        raise RunError(_says_empty(selected))
    planned = _plan(job, parts, selected)
    name_hash = _name_hash(job, planned, manifest)
    _take_over(job, planned, name_hash, manifest)
    exported = _export(job, planned, name_hash, manifest)
    shards_done = tuple(done.shard for done in exported)
    wrote = _commit(job, parts, selected, planned, name_hash, shards_done)
    return result(
        output_dir=Path(writer.output_dir),
        shards=tuple(shard.tar.name for shard in shards_done),
        timings=tuple(job.timings),
        decoded=job.decoded,
        did_nothing=not wrote and not any(done.written for done in exported),
        offers_images=not writer.remove_image_data,
    )


def _index(job: _Job, shards: Iterator[SourceShard]) -> list[work.Indexed]:
    """Locate the samples of every source shard."""
    found: dict[int, work.Indexed] = {}
    with job.step("index", None, "sources") as step:

        def units() -> Iterator[Unit]:
            for number, shard in enumerate(shards):
                options = job.plan.reader.index_options
                key = fingerprint("index", dataclasses.replace(shard, root=""), options)
                done = job.ledger.done(key, work.Indexed)
                if done is not None:
                    found[number] = done
                    job.progress.advance(1)
                    continue
                bound = functools.partial(work.index, shard, options, job.site, key)
                numbers[f"index {shard.id}"] = (number, key)
                yield Unit(name=f"index {shard.id}", work=bound)

        numbers: dict[str, tuple[int, str]] = {}
        for done in job.drive(units(), step):
            number, key = numbers.pop(done.unit.name)
            job.ledger.commit(key, done.value)
            found[number] = done.value
            job.progress.advance(1)
        rows = sum(each.rows for each in found.values())
        ignored = sum(each.ignored for each in found.values())
        step.facts = {"samples": rows, "sources": len(found)} | ({"files ignored": ignored} if ignored else {})
    if not rows:
        msg = (
            f"{job.plan.reader.path_or_paths!r}: no samples were found; expected images or tars with images"
        )
        raise SourceNotFoundError(msg)
    return [found[number] for number in sorted(found)]


def _measure(
    job: _Job, indexed: Sequence[work.Indexed], each: Pass, before: Sequence[Part]
) -> tuple[Part, ...]:
    """Compute the column families of a pass that are not there yet; return the parts with all of them."""
    ranges = [(source, start, stop) for source in indexed for start, stop in source.parts]
    options = job.plan.inspect_options
    inspecting = not before
    done: dict[str, work.Family] = {}
    wanted: list[tuple[str, ...]] = []
    total = sum(stop - start for _, start, stop in ranges)
    name = "inspect" if inspecting and not each.scorers else "score"
    with job.step(name, total, "samples") as step:
        for source, start, stop in ranges:
            place = (source.table.sha256, start, stop)
            inspection = fingerprint("inspect", place, options)
            scores = [fingerprint("score", place, options, stage, type(stage).version) for stage in each.scorers]
            wanted.append((inspection, *scores))

        def units() -> Iterator[Unit]:
            for number, ((source, start, stop), keys) in enumerate(zip(ranges, wanted, strict=True)):
                kinds = dict(zip(keys, (None, *each.scorers), strict=True))
                for key in keys:
                    if (family := job.ledger.done(key, work.Family)) is not None:
                        done[key] = family
                missing = {key: stage for key, stage in kinds.items() if key not in done}
                if not missing:
                    job.progress.advance(stop - start)
                    continue
                known = done.get(keys[0])
                part = Part(
                    source=source.source, index=job.ledger.resolve(source.table.path), start=start,
                    stop=stop, families=(),
                )  # fmt: skip
                bound = functools.partial(
                    work.measure, part, job.ledger.resolve(known.table.path) if known else None, missing,
                    options, job.site,
                )  # fmt: skip
                yield Unit(name=f"{name} {source.source or 'files'} part {number}", work=bound)

        for outcome in job.drive(units(), step):
            for key, family in outcome.value.families.items():
                job.ledger.commit(key, family)
                done[key] = family
            job.decoded += outcome.value.decoded
            job.progress.advance(next(iter(outcome.value.families.values())).rows)
        step.facts = {"samples": total}
    if inspecting:
        for keys in wanted:
            job.problems.update(done[keys[0]].problems)
    earlier = [part.families[1:] for part in before] or [()] * len(ranges)
    return tuple(
        Part(
            source=source.source,
            index=job.ledger.resolve(source.table.path),
            start=start,
            stop=stop,
            families=(
                job.ledger.resolve(done[keys[0]].table.path),
                *families,
                *(job.ledger.resolve(done[key].table.path) for key in keys[1:]),
            ),
        )
        for (source, start, stop), keys, families in zip(ranges, wanted, earlier, strict=True)
    )


def _check_budget(job: _Job, indexed: Sequence[work.Indexed], parts: Sequence[Part]) -> None:
    """Stop where more images failed than the run allows. What has no image at all does not count."""
    failed = job.problems.copy()
    for each in indexed:
        failed.update(each.problems)
    images = sum(each.rows for each in indexed) - failed.pop(Problem.MISSING_IMAGE, 0)
    count = failed.total()
    if count <= job.options.max_failed * images:
        return
    listed = "; ".join(
        f"{number} {problem} (such as {_example(parts, problem)})"
        for problem, number in sorted(failed.items(), key=lambda item: (-item[1], item[0]))[:_EXAMPLES]
    )
    msg = (
        f"{count} of {images} images failed, at most {job.options.max_failed:.0%} may: {listed}. "
        "Mend the source, or allow more with max_failed (--max-failed)"
    )
    raise FailureBudgetError(msg)


def _example(parts: Sequence[Part], problem: str) -> str:
    for part in parts:
        problems = failed_rows(part)
        for row, found in enumerate(problems["problem"].to_pylist()):
            if found == problem:
                key = tables.read_table(part.index, ["key"])["key"][part.start + row].as_py()
                return f"{key!r}: {problems['problem_detail'][row].as_py()}"
    return "none"


def _select(
    job: _Job,
    parts: tuple[Part, ...],
    number: int,
    scorers: Sequence[Stage],
    earlier: work.Selected | None,
) -> work.Selected:
    """Apply a pass's selection stages, as one unit."""
    stages = _labelled(job.plan)[number]
    columns = sample_schema([stage.adds() for stage in (job.plan.reader, *scorers)])
    key = fingerprint(
        "select",
        _key(parts),
        [(label, stage, type(stage).version) for label, stage in stages],
        job.plan.seed,
        earlier.table.sha256 if earlier else None,
    )
    with job.step("select", None, "stages") as step:
        before = job.ledger.resolve(earlier.table.path) if earlier else None
        bound = functools.partial(work.select, parts, columns, stages, job.plan.seed, before, job.site, key)
        selected = _single(job, step, "select", key, work.Selected, bound)
        step.facts = {"kept": selected.kept, "not kept": selected.indexed - selected.kept}
    return selected


def _single(
    job: _Job, step: _Step, name: str, key: str, kind: type[T], bound: Callable[[Context], T]
) -> T:
    """Run one unit, unless the ledger has its result."""
    found = job.ledger.done(key, kind)
    if found is None:
        for done in job.drive(iter([Unit(name=name, work=bound)]), step):
            found = done.value
        assert found is not None  # noqa: S101  # drive() yields it or raises
        job.ledger.commit(key, found)
    return found


def _plan(job: _Job, parts: tuple[Part, ...], selected: work.Selected) -> work.Planned:
    """Write the plan tables of the export, as one unit."""
    writer, added = _writer(job), job.plan.added
    key = fingerprint("plan", selected.table.sha256, _key(parts), job.neutral.writer, str(added))
    with job.step("plan", None, "shards") as step:
        selection = job.ledger.resolve(selected.table.path)
        bound = functools.partial(work.plan, parts, selection, writer, added, job.site, key)
        planned = _single(job, step, "plan", key, work.Planned, bound)
        step.facts = {"shards": len(planned.shards)}
    return planned


def _export(
    job: _Job, planned: work.Planned, name_hash: str, manifest: Mapping[str, Any] | None
) -> list[work.Exported]:
    """Write every shard that does not stand in the output yet, whole."""
    writer = _writer(job)
    known = _known_shards(manifest)
    found: dict[str, work.Exported] = {}
    stems = [shard_stem(writer, name_hash, shard.split, shard.index) for shard in planned.shards]
    total = sum(shard.samples for shard in planned.shards)
    with job.step("export", total, "samples") as step:

        def units() -> Iterator[Unit]:
            for shard, stem in zip(planned.shards, stems, strict=True):
                before = job.ledger.done(fingerprint("export", shard.digest, stem), work.Exported)
                expected = before.shard if before else known.get(stem)
                bound = functools.partial(
                    work.export, shard, stem, writer, job.plan.added.names, expected, job.site
                )
                yield Unit(name=f"export {stem}", work=bound)

        began = time.perf_counter()
        digests = {stem: shard.digest for shard, stem in zip(planned.shards, stems, strict=True)}
        for done in job.drive(units(), step):
            stem = done.value.shard.tar.name.removesuffix(".tar")
            job.ledger.commit(fingerprint("export", digests[stem], stem), done.value)
            found[stem] = done.value
            job.progress.advance(done.value.shard.samples)
            if writer.verbose:
                job.progress.log(_says_shard(done, time.perf_counter() - began))
        size = sum(done.shard.tar.size for done in found.values())
        step.facts = {"samples": total, "shards": len(stems), "bytes": size}
    return [found[stem] for stem in stems]


def _says_shard(done: Done, since: float) -> str:
    shard: WrittenShard = done.value.shard
    rate = shard.samples / max(done.wall, 1e-9)
    what = "written" if done.value.written else "stood there already"
    return (
        f"{shard.tar.name}: {shard.samples} samples, {shard.encoded} encoded anew, {shard.tar.size:,} bytes, "
        f"{rate:,.0f} samples/s, {what}, {since:.1f} s in"
    )


def _commit(
    job: _Job,
    parts: tuple[Part, ...],
    selected: work.Selected,
    planned: work.Planned,
    name_hash: str,
    shards: Sequence[WrittenShard],
) -> bool:
    """Write what describes the dataset as a whole, the manifest last; return whether anything was written."""
    output = Path(_writer(job).output_dir)
    with job.step("commit", None, "files") as step:
        key = fingerprint("account", selected.table.sha256, _key(parts))
        selection = job.ledger.resolve(selected.table.path)
        bound = functools.partial(work.account, parts, selection, job.site, key)
        account = _single(job, step, "account", key, work.Accounted, bound)
        if account.rows != selected.indexed - selected.kept:
            msg = (
                f"{account.rows} samples are accounted for as not exported, "
                f"{selected.indexed - selected.kept} were expected; this is an error in pixsieve"
            )
            raise AssertionError(msg)
        text = recipe.dumps(job.plan.name, job.plan.seed, job.neutral.stages).encode()
        wrote = _place(output / dataset.DROPPED, Path(job.ledger.resolve(account.table.path)))
        wrote |= _put(output / dataset.RECIPE, text)
        files = [file for shard in shards for file in (shard.tar, shard.sidecar)]
        files.append(FileRecord(name=dataset.DROPPED, size=account.table.size, sha256=account.table.sha256))
        digest = hashlib.sha256(text).hexdigest()
        files.append(FileRecord(name=dataset.RECIPE, size=len(text), sha256=digest))
        manifest = dataset.Manifest(
            name=job.plan.name,
            hash=name_hash,
            seed=job.plan.seed,
            recipe=job.recipe,
            recipe_sha256=job.recipe_sha256,
            plan_sha256=planned.digest,
            counts=dataclasses.asdict(_counts(selected)),
            reasons=[dataclasses.asdict(reason) for reason in selected.reasons],
            inputs=[dataclasses.asdict(record) for record in account.inputs],
            shards=[
                dataset.ShardEntry(
                    tar=shard.tar.name, sidecar=shard.sidecar.name, split=planned_shard.split,
                    samples=shard.samples,
                )
                for shard, planned_shard in zip(shards, planned.shards, strict=True)
            ],
            files=sorted(files, key=lambda file: file.name),
            versions=dataset.versions(),
        )  # fmt: skip
        standing = dataset.read_manifest(output)
        if standing is None or wrote or not manifest.says_the_same_as(standing):
            wrote |= _put(output / dataset.MANIFEST, manifest.to_bytes())
        (job.control / INTENT).unlink(missing_ok=True)
        step.facts = {"files": len(files) + 1}
    return wrote


def _put(path: Path, data: bytes) -> bool:
    """Write a small file, unless it has these bytes; return whether it was written."""
    try:
        if path.read_bytes() == data:
            return False
    except FileNotFoundError:
        pass
    except OSError as error:
        raise storage_error("cannot read", path, error) from error
    with LocalStorage().create(str(path)) as sink:
        sink.write(data)
    return True


def _place(path: Path, made: Path) -> bool:
    """Copy a table from the workspace into the output, unless it stands there; return whether it was copied."""
    if path.exists() and filecmp.cmp(path, made, shallow=False):
        return False
    with LocalStorage().create(str(path)) as sink, made.open("rb") as source:
        shutil.copyfileobj(source, sink, 1024 * 1024)  # type: ignore[misc]
    return True


def folders(plan: Plan, workspace: str | None) -> tuple[Path, Workspace]:
    """Return the control folder and the workspace of a plan.

    Raises:
        UsageError: the plan writes nothing, and no workspace is named.
    """
    if plan.writer is None and workspace is None:
        msg = "a pipeline without a writer needs a workspace for its scores; name one"
        raise UsageError(msg)
    if plan.writer is None:
        control = Path(workspace or "").resolve()
    else:
        control = Path(plan.writer.output_dir).resolve() / CONTROL
    return control, Workspace(Path(workspace).resolve() if workspace else control)


def clean(output_dir: str, workspace: str | None = None) -> tuple[str, ...]:
    """Remove the working state of a dataset, never the dataset.

    Args:
        output_dir: The dataset's folder.
        workspace: A workspace of the user's choice; its tables, plans, records and unpacked archives go too.

    Returns:
        The folders that were removed.

    Raises:
        BusyError: a run works on the output.
    """
    control = Path(output_dir).resolve() / CONTROL
    removed = []
    if control.is_dir():
        with claim(control):
            pass
        shutil.rmtree(control)
        removed.append(str(control))
    if workspace is not None:
        for name in Workspace.FOLDERS:
            folder = Path(workspace).resolve() / name
            if folder.is_dir():
                shutil.rmtree(folder)
                removed.append(str(folder))
    return tuple(removed)


@contextlib.contextmanager
def _prepared(control: Path, workspace: Workspace) -> Iterator[None]:
    """Make the folders; what was made in vain is removed again."""
    try:
        control.mkdir(parents=True, exist_ok=True)
        workspace.prepare()
    except OSError as error:
        raise storage_error("cannot make", error.filename or control, error) from error
    yield


def _check_apart(plan: Plan) -> None:
    """Refuse an output inside its own source: the next run would read what this one wrote."""
    if plan.writer is None:
        return
    output = Path(plan.writer.output_dir).resolve()
    named = plan.reader.path_or_paths or ""
    for path in [named] if isinstance(named, str) else named:
        source = Path(path).resolve()
        if source.is_dir() and (output == source or source in output.parents):
            msg = (
                f"the output {output} lies inside the source {source}, so the next run would read it; "
                "choose a folder beside it"
            )
            raise UsageError(msg)


def _check_importable(stages: Sequence[Stage], executor: Executor) -> None:
    if isinstance(executor, InlineExecutor):
        return
    for stage in stages:
        if type(stage).__module__ == "__main__":
            msg = (
                f"{type(stage).__name__} is defined in the script itself, where worker processes cannot import "
                "it; move it into a module, or run with InlineExecutor()"
            )
            raise PlanError(msg)


def _check_output(job: _Job) -> dict[str, Any] | None:
    """Return the manifest that stands in the output, if it is of this very recipe.

    Raises:
        OutputConflictError: the folder holds another recipe's dataset, or tars of unknown origin.
    """
    output = Path(_writer(job).output_dir)
    manifest = dataset.read_manifest(output)
    if manifest is None:
        ours = _intended(job.control)
        foreign = sorted(
            path.name for path in output.glob("*.tar") if not (ours and ours.fullmatch(path.name))
        )
        if foreign:
            msg = (
                f"{output} holds {len(foreign)} tars that pixsieve did not write, such as {foreign[0]}; "
                "choose an empty folder"
            )
            raise OutputConflictError(msg)
        return None
    if manifest.get("recipe_sha256") != job.recipe_sha256:
        msg = (
            f"{output} holds the dataset of another recipe ({_difference(manifest, job.recipe)}); "
            "choose another output folder, or delete this one"
        )
        raise OutputConflictError(msg)
    return manifest


def _difference(manifest: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Say in a few words in what two recipes differ."""
    theirs = manifest.get("recipe") or {}
    for name in ("name", "seed"):
        if theirs.get(name) != mine[name]:
            return f"{name} {theirs.get(name)!r} there, {mine[name]!r} here"
    for there, here in itertools.zip_longest(theirs.get("stages", []), mine["stages"]):
        if there != here:
            return f"{json.dumps(there)} there, {json.dumps(here)} here"
    return f"written by pixsieve {manifest.get('versions', {}).get('pixsieve')}"


def _name_hash(job: _Job, planned: work.Planned, manifest: Mapping[str, Any] | None) -> str:
    """Return the part of file names that all shards of this export have in common."""
    if _writer(job).deterministic_name:
        return planned.digest[:HASH_DIGITS]
    if manifest is not None:
        return str(manifest["hash"])
    return _read_intent(job.control).get("random") or secrets.token_hex(HASH_DIGITS // 2)


def _take_over(
    job: _Job, planned: work.Planned, name_hash: str, manifest: Mapping[str, Any] | None
) -> None:
    """Note which files this run may write, and remove those of an unfinished run that it will not finish.

    Raises:
        OutputConflictError: the folder holds a finished dataset of other inputs.
    """
    writer = _writer(job)
    output = Path(writer.output_dir)
    if manifest is not None and manifest.get("plan_sha256") != planned.digest:
        msg = (
            f"{output} holds the dataset that this recipe made of other inputs; they have changed since. "
            "Choose another output folder, or delete this one"
        )
        raise OutputConflictError(msg)
    names = {
        f"{shard_stem(writer, name_hash, shard.split, shard.index)}.{kind}"
        for shard in planned.shards
        for kind in ("tar", "parquet")
    }
    before = _intended(job.control)
    if manifest is None:
        for path in sorted(output.iterdir()):
            ours = before is not None and before.fullmatch(path.name) is not None
            if path.name in names and not ours:
                msg = f"{path} is in the way, and pixsieve did not write it; choose another output folder"
                raise OutputConflictError(msg)
            if ours and path.name not in names:
                path.unlink()
    intent = {"prefix": writer.prefix, "hash": name_hash}
    if not writer.deterministic_name:
        intent["random"] = name_hash
    _put(job.control / INTENT, json.dumps(intent).encode())


def _read_intent(control: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode((control / INTENT).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return {}


def _intended(control: Path) -> re.Pattern[str] | None:
    """Return what names the files have that an unfinished run may have written."""
    intent = _read_intent(control)
    if "hash" not in intent:
        return None
    stem = f"{re.escape(intent['prefix'])}(-[A-Za-z0-9_]+)?-{re.escape(intent['hash'])}-[0-9]{{6,}}"
    return re.compile(rf"{stem}\.(tar|parquet)|dropped\.parquet|recipe\.yaml")


def _clean_temporary(plan: Plan, workspace: Workspace, control: Path) -> None:
    """Remove what killed writers left behind: only files of the form that pixsieve's own have."""
    places = [control]
    if workspace.root == control:
        places += [control / name for name in Workspace.FOLDERS]
    if plan.writer:
        places.append(Path(plan.writer.output_dir))
    for place in places:
        for path in place.glob(".*.tmp"):
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _known_shards(manifest: Mapping[str, Any] | None) -> dict[str, WrittenShard]:
    """Return the shards of a finished dataset, by stem, so that a lost ledger costs a check only."""
    if manifest is None:
        return {}
    files = {entry["name"]: FileRecord(**entry) for entry in manifest["files"]}
    return {
        shard["tar"].removesuffix(".tar"): WrittenShard(
            tar=files[shard["tar"]], sidecar=files[shard["sidecar"]], samples=shard["samples"], encoded=0
        )
        for shard in manifest["shards"]
    }


def _labelled(plan: Plan) -> list[list[tuple[str, SelectStage]]]:
    """Return each pass's selection stages with a label that no other stage of the plan has."""
    names = [type(stage).__name__ for each in plan.passes for stage in each.selectors]
    seen: Counter[str] = Counter()
    labelled: list[list[tuple[str, SelectStage]]] = []
    for each in plan.passes:
        labelled.append([])
        for stage in each.selectors:
            name = type(stage).__name__
            seen[name] += 1
            label = f"{name} {seen[name]}" if names.count(name) > 1 else name
            labelled[-1].append((label, stage))
    return labelled


def _counts(selected: work.Selected) -> Counts:
    dropped = sum(r.count for r in selected.reasons if r.status == Status.DROPPED)
    failed = sum(r.count for r in selected.reasons if r.status == Status.FAILED)
    return Counts(indexed=selected.indexed, kept=selected.kept, dropped=dropped, failed=failed)


def _says_empty(selected: work.Selected) -> str:
    listed = ", ".join(f"{r.count} by {r.stage} ({r.reason})" for r in selected.reasons)
    return f"nothing is left of {selected.indexed} samples: {listed}; loosen the recipe"


def _key(parts: Sequence[Part]) -> list[object]:
    """Return what identifies the rows and columns of parts, without the folder that they lie in."""
    return [
        (Path(part.index).name, part.start, part.stop, [Path(path).name for path in part.families])
        for part in parts
    ]


def _writer(job: _Job) -> ImageWriterStage:
    assert job.plan.writer is not None  # noqa: S101  # only called where there is one
    return job.plan.writer
