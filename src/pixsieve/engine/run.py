"""Run a plan: index, inspect and score, select, export, and the manifest as the commit.

Every step turns into units of work that an executor runs in any order; what is done already, by
this run or an earlier one, is taken from the ledger. Results are put in order again before the next
step looks at them, so that no output depends on who finished first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixsieve.engine import extras, output, work
from pixsieve.engine.budget import check_budget, check_lost
from pixsieve.engine.catalog import write_catalog
from pixsieve.engine.drive import Stop
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import Job, RunOptions
from pixsieve.engine.local import LocalExecutor
from pixsieve.engine.measuring import measure
from pixsieve.engine.notes import odd_filters, unpacked_archives, unread_metadata
from pixsieve.engine.progress import Quiet
from pixsieve.engine.result import Counts, RunResult
from pixsieve.engine.selecting import parts_key, select
from pixsieve.engine.units import Unit, peak_memory
from pixsieve.errors import (
    PixsieveError,
    PlanError,
    RunError,
    SourceNotFoundError,
)
from pixsieve.export import dataset, finished
from pixsieve.export.files import FileRecord
from pixsieve.export.formats import FORMATS
from pixsieve.export.plan import shard_stem
from pixsieve.export.transform import privacy
from pixsieve.export.uniformity import complaints
from pixsieve.fingerprint import fingerprint
from pixsieve.schema import Status
from pixsieve.sources import find_shards
from pixsieve.stage import ScoreStage, blaming, source_digest
from pixsieve.storage import LocalStorage, tables
from pixsieve.storage.local import storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pixsieve.engine.ledger import Workspace
    from pixsieve.engine.measuring import Measured
    from pixsieve.engine.result import ReasonCount
    from pixsieve.engine.units import Done, Executor
    from pixsieve.export.shard import WrittenShard
    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.pipeline import Pass, Plan
    from pixsieve.select.base import Part
    from pixsieve.sources.base import SourceShard
    from pixsieve.stage import Stage


def run(
    plan: Plan, executor: Executor | None = None, options: RunOptions | None = None
) -> RunResult:
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
    options = options or RunOptions()
    for name in plan.writer.formats if plan.writer else ():
        FORMATS[name].check()

    @contextlib.contextmanager
    def held(control: Path, workspace: Workspace) -> Iterator[None]:
        with output.held(control, workspace):
            output.clean_temporary(plan, workspace, control)
            try:
                yield
            finally:
                output.clean_temporary(plan, workspace, control)

    with opened(plan, executor, options, held) as (job, shards):
        return _run(job, shards)


@contextlib.contextmanager
def opened(
    plan: Plan,
    executor: Executor | None,
    options: RunOptions,
    held: Callable[[Path, Workspace], AbstractContextManager[None]],
) -> Iterator[tuple[Job, Iterator[SourceShard]]]:
    """Yield what all steps share, and the source's shards, which are found one by one.

    Args:
        plan: What to do.
        executor: As for :func:`run`.
        options: As for :func:`run`.
        held: Makes the control folder and the workspace, and holds them meanwhile.
    """
    executor = executor or LocalExecutor()
    _check_importable(plan.stages, executor)
    paths = plan.reader.path_or_paths or ""
    written = plan.writer.output_dir if plan.writer else None
    root, shards = find_shards(paths, LocalStorage(), plan.reader.index_options, written)
    control, workspace = output.folders(plan, options.workspace)
    identities = _identities(plan)
    neutral = plan.without_places(root)
    bare = dataclasses.replace(neutral, writer=neutral.writer and neutral.writer.bare())
    recipe = output.Recipe(
        plan=neutral, sha256=fingerprint(bare, plan.reader.version, list(identities.values()))
    )
    stop = Stop()
    with (
        held(control, workspace),
        stop.listening(),
        _named_errors(control),
        executor.open() as session,
    ):
        job = Job(
            plan=plan,
            options=options,
            progress=options.progress or Quiet(),
            session=session,
            stop=stop,
            site=work.Site(root=root, workspace=workspace),
            control=control,
            recipe=recipe,
            identities=identities,
        )
        yield job, shards


def _identities(plan: Plan) -> dict[tuple[str, str], str]:
    """Return what identifies each step: its stage, and what makes the columns that it reads."""
    reader = plan.reader
    origins: dict[str, str] = {"caption": fingerprint("caption", reader.caption_field)}
    origins |= {name: fingerprint("json", kind) for name, kind in reader.json_fields.items()}
    identities = {}
    for step in itertools.chain.from_iterable(each.steps for each in plan.passes):
        inputs = [origins.get(name) for name in step.stage.reads()]
        identity = fingerprint(_identity(step.stage), inputs)
        origins |= dict.fromkeys(step.stage.adds().names, identity)
        identities[step.key] = identity
    return identities


def _identity(stage: Stage) -> str:
    """Return the fingerprint of what a stage does, whatever machine it runs on."""
    doing = stage.alone() if isinstance(stage, ScoreStage) else stage
    with blaming(stage, PlanError):
        digests = stage.digests()
    return fingerprint(
        doing.without_places(), type(stage).version, source_digest(type(stage)), digests
    )


def _run(job: Job, shards: Iterator[SourceShard]) -> RunResult:
    writer = job.plan.writer
    manifest = output.check_output(writer, job.control, job.recipe) if writer else None
    for warning in job.plan.warnings:  # while there is time to think again
        job.progress.log(f"warning: {warning}")
    indexed = index(job, shards)
    for done in decisions(job, indexed, measure):
        note_catalog(job, done)
        check_budget(job, done.parts, done.selected)
    parts, selected = done.parts, done.selected
    result = functools.partial(
        RunResult,
        workspace=job.ledger.root,
        counts=counted(selected),
        reasons=selected.reasons,
        notes=(
            *(note for each in indexed for note in each.notes),
            *unread_metadata(job),
            *unpacked_archives(job),
            *job.plan.warnings,
            *job.notes,
            *odd_filters(job.plan, selected),
        ),
    )
    if writer is None:
        return result(
            output_dir=None, shards=(), timings=tuple(job.timings), decoded=job.decoded,
            peak_memory=max(job.peak, peak_memory()), did_nothing=False, offers_images=False,
        )  # fmt: skip
    if not selected.kept:
        raise RunError(_says_empty(selected))
    planned = _plan(job, parts, selected)
    told = (
        *(planned.uniform.notes if planned.uniform else ()),
        *complaints(planned.contents, writer.indexes),
    )
    for warning in told:
        job.progress.log(f"warning: {warning}")
    name_hash = output.name_hash(writer, planned, job.recipe, job.control, manifest)
    replaced = [
        f"{file} was not as it was written; a copy of it is kept: "
        f"{job.control / output.REPLACED / file}"
        for file in output.take_over(writer, planned, job.recipe, name_hash, job.control, manifest)
    ]
    exported = _export(job, planned, name_hash, manifest)
    shards_done = tuple(done.shard for done in exported)
    account = _account(job, parts, selected, manifest)
    made = _finished(job, selected, planned, name_hash, shards_done, account)
    more = [
        *((extras.write_indexes(job, made, writer.indexes),) if writer.indexes else ()),
        *((extras.write_formats(job, made, writer.formats),) if writer.formats else ()),
    ]
    wrote = _commit(job, made, account, more, manifest) or any(each.written for each in more)
    return result(
        notes=(*result.keywords["notes"], *told, *replaced),
        output_dir=Path(writer.output_dir),
        shards=tuple(shard.tar.name for shard in shards_done),
        timings=tuple(job.timings),
        decoded=job.decoded,
        peak_memory=max(job.peak, peak_memory()),
        did_nothing=not wrote and not any(done.written for done in exported),
        offers_images=not writer.remove_image_data,
        indexes=tuple(writer.indexes),
        formats=tuple(writer.formats),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is known and decided after a pass: all rows with their columns, and where they ended."""

    each: Pass
    parts: tuple[Part, ...]
    selected: work.Selected


def decisions(
    job: Job, indexed: Sequence[work.Indexed], measuring: Callable[..., Measured]
) -> Iterator[Decision]:
    """Measure and decide, pass by pass.

    Args:
        job: What all steps share.
        indexed: The sources.
        measuring: :func:`pixsieve.engine.measuring.measure`, or what takes its place.
    """
    parts: tuple[Part, ...] = ()
    selected: work.Selected | None = None
    for each in job.plan.passes:
        parts, failing = measuring(job, indexed, each, parts, selected)
        selected = select(job, parts, each, selected, failing)
        ordered = _in_order(job.plan, selected.reasons)
        yield Decision(
            each=each, parts=parts, selected=dataclasses.replace(selected, reasons=ordered)
        )


def note_catalog(job: Job, done: Decision) -> None:
    """Note in the workspace what is known after a pass."""
    fields = job.plan.reader.adds()
    read = fingerprint([(field.name, str(field.type)) for field in fields])
    added = [(read, fields.names), *_scores(job, len(done.parts[0].families) - 1)]
    write_catalog(job.ledger, job.site.root, done.parts, added, done.selected.table.path)


def _scores(job: Job, count: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the identity and the columns of each of the first scorers."""
    steps = itertools.chain.from_iterable(each.steps for each in job.plan.passes)
    scorers = (step for step in steps if isinstance(step.stage, ScoreStage))
    for step in itertools.islice(scorers, count):
        yield job.identities[step.key], step.stage.adds().names


def _in_order(plan: Plan, reasons: Sequence[ReasonCount]) -> tuple[ReasonCount, ...]:
    """Return reasons in the order of the steps and stages that they come from."""
    labels = ["index", "inspect", *(label for each in plan.passes for label, _ in each.selectors)]
    return tuple(sorted(reasons, key=lambda each: (labels.index(each.stage), each.reason)))


def index(job: Job, shards: Iterator[SourceShard]) -> list[work.Indexed]:
    """Locate the samples of every source shard."""
    found: dict[int, work.Indexed] = {}
    with job.step("index", None, "sources") as step:

        def units() -> Iterator[Unit]:
            for number, shard in enumerate(shards):
                key = index_key(job, shard)
                done = job.ledger.done(key, work.Indexed)
                if done is not None:
                    found[number] = done
                    job.progress.advance(1)
                    continue
                options = job.plan.reader.index_options
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
        step.facts = {"samples": rows, "sources": len(found)}
        if ignored:
            step.facts["ignored members"] = ignored
    indexed = [found[number] for number in sorted(found)]
    check_indexed(job, indexed)
    return indexed


def index_key(job: Job, shard: SourceShard) -> str:
    """Return the fingerprint of locating a shard's samples."""
    return fingerprint("index", dataclasses.replace(shard, root=""), job.plan.reader.index_options)


def check_indexed(job: Job, indexed: Sequence[work.Indexed]) -> None:
    """Raise if there is no sample, or if too much of a source could not be read."""
    if not any(each.rows for each in indexed):
        msg = (
            f"{job.plan.reader.path_or_paths!r}: no samples were found; "
            "expected images or tars with images"
        )
        raise SourceNotFoundError(msg)
    check_lost(job, indexed)


def _plan(job: Job, parts: tuple[Part, ...], selected: work.Selected) -> work.Planned:
    """Write the plan tables of the export, as one unit."""
    writer, transform, added = _writer(job), job.plan.transform, job.plan.added
    key = fingerprint(
        "plan", selected.table.sha256, parts_key(parts), writer.bare(), transform, str(added)
    )
    with job.step("plan", None, "shards") as step:
        bound = functools.partial(
            work.plan, parts, selected, writer, transform, added, job.site, key
        )
        planned = job.single(step, "plan", key, work.Planned, bound)
        step.facts = {"shards": len(planned.shards)}
    return planned


def _export(
    job: Job, planned: work.Planned, name_hash: str, manifest: Mapping[str, Any] | None
) -> list[work.Exported]:
    """Write every shard that does not stand in the output yet, whole."""
    writer = _writer(job)
    known = output.known_shards(manifest)
    found: dict[str, work.Exported] = {}
    stems = [
        shard_stem(writer, name_hash, shard.split, shard.index, shard.bucket)
        for shard in planned.shards
    ]
    total = sum(shard.samples for shard in planned.shards)
    with job.step("export", total, "samples") as step:

        def units() -> Iterator[Unit]:
            for shard, stem in zip(planned.shards, stems, strict=True):
                before = job.ledger.done(fingerprint("export", shard.digest, stem), work.Exported)
                expected = before.shard if before else known.get(stem)
                bound = functools.partial(
                    work.export, shard, stem, writer, job.plan.transform, job.plan.added.names,
                    expected, planned.uniform, job.site,
                )  # fmt: skip
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
        f"{shard.tar.name}: {shard.samples} samples, {shard.encoded} changed, "
        f"{shard.tar.size:,} bytes, {rate:,.0f} samples/s, {what}, {since:.1f} s in"
    )


def _account(
    job: Job,
    parts: tuple[Part, ...],
    selected: work.Selected,
    standing: Mapping[str, Any] | None,
) -> work.Accounted:
    """Account for all that is not in the export, and for the inputs."""
    with job.step("account", None, "tables") as step:
        key = fingerprint("account", selected.table.sha256, parts_key(parts))
        selection = job.ledger.resolve(selected.table.path)
        bound = functools.partial(work.account, parts, selection, job.site, key)
        account = job.single(step, "account", key, work.Accounted, bound)
        if account.rows != selected.indexed - selected.kept:
            msg = (
                f"{account.rows} samples are accounted for as not exported, "
                f"{selected.indexed - selected.kept} were expected; this is an error in pixsieve"
            )
            raise AssertionError(msg)
        inputs = [dataclasses.asdict(record) for record in account.inputs]
        output.check_inputs(Path(_writer(job).output_dir), standing, inputs)
        step.facts = {"not exported": account.rows}
    return account


def _finished(
    job: Job,
    selected: work.Selected,
    planned: work.Planned,
    name_hash: str,
    shards: Sequence[WrittenShard],
    account: work.Accounted,
) -> finished.Dataset:
    """Return the export as it stands: all shards, but nothing yet that describes them."""
    writer = _writer(job)
    of_split = Counter(shard.split for shard in planned.shards)
    before = Counter[str | None]()
    found = []
    for number, (shard, of_plan) in enumerate(zip(shards, planned.shards, strict=True)):
        found.append(
            finished.Shard(
                tar=shard.tar,
                sidecar=shard.sidecar,
                split=of_plan.split,
                bucket=of_plan.bucket,
                samples=shard.samples,
                number=number,
                split_number=before[of_plan.split],
                split_shards=of_split[of_plan.split],
            )
        )
        before[of_plan.split] += 1
    folder = Path(writer.output_dir)
    return finished.Dataset(
        folder=folder,
        name=job.plan.name,
        prefix=writer.prefix,
        hash=name_hash,
        plan_sha256=planned.digest,
        samples=selected.kept,
        columns=tables.schema_of(str(folder / shards[0].sidecar.name)),
        contents=planned.contents,
        counts=dataclasses.asdict(counted(selected)),
        reasons=[dataclasses.asdict(reason) for reason in selected.reasons],
        inputs=[dataclasses.asdict(record) for record in account.inputs],
        recipe=job.recipe.to_yaml(),
        card=writer.card,
        privacy=privacy(job.plan.transform),
        shards=tuple(found),
    )


def _commit(
    job: Job,
    made: finished.Dataset,
    account: work.Accounted,
    more: Sequence[extras.Files],
    standing: Mapping[str, Any] | None,
) -> bool:
    """Write what describes the dataset as a whole, the manifest last.

    Return whether anything was written.
    """
    folder = made.folder
    with job.step("commit", None, "files") as step:
        text = made.recipe.encode()
        (folder / dataset.DROPPED).parent.mkdir(exist_ok=True)
        wrote = output.place(folder / dataset.DROPPED, Path(job.ledger.resolve(account.table.path)))
        wrote |= output.put(folder / dataset.RECIPE, text)
        files = [file for shard in made.shards for file in (shard.tar, shard.sidecar)]
        files += [file for each in more for file in each.files]
        files.append(
            FileRecord(name=dataset.DROPPED, size=account.table.size, sha256=account.table.sha256)
        )
        digest = hashlib.sha256(text).hexdigest()
        files.append(FileRecord(name=dataset.RECIPE, size=len(text), sha256=digest))
        manifest = dataset.Manifest(
            name=made.name,
            hash=made.hash,
            seed=job.plan.seed,
            recipe=job.recipe.to_dict(),
            recipe_sha256=job.recipe.sha256,
            plan_sha256=made.plan_sha256,
            counts=dict(made.counts),
            reasons=[dict(reason) for reason in made.reasons],
            inputs=[dict(source) for source in made.inputs],
            shards=[
                dataset.ShardEntry(
                    tar=shard.tar.name, sidecar=shard.sidecar.name, split=shard.split,
                    bucket=shard.bucket, samples=shard.samples,
                )
                for shard in made.shards
            ],
            files=sorted(files, key=lambda file: file.name),
            versions=dataset.versions(),
            privacy=made.privacy,
        )  # fmt: skip
        if standing is None or wrote or not manifest.says_the_same_as(standing):
            wrote |= output.put(folder / dataset.MANIFEST, manifest.to_bytes())
        output.finish(folder, job.control)
        step.facts = {"files": len(files) + 1}
    return wrote


@contextlib.contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the system that nobody has named yet into one of pixsieve's."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PixsieveError):
            raise
        raise storage_error("cannot use", error.filename or folder, error) from error


def _check_importable(stages: Sequence[Stage], executor: Executor) -> None:
    if isinstance(executor, InlineExecutor):
        return
    for stage in stages:
        if type(stage).__module__ == "__main__":
            msg = (
                f"{type(stage).__name__} is defined in the script itself, where worker processes "
                "cannot import it; move it into a module, or run with InlineExecutor()"
            )
            raise PlanError(msg)


def counted(selected: work.Selected) -> Counts:
    """Return where the samples went."""
    dropped = sum(r.count for r in selected.reasons if r.status == Status.DROPPED)
    failed = sum(r.count for r in selected.reasons if r.status == Status.FAILED)
    return Counts(indexed=selected.indexed, kept=selected.kept, dropped=dropped, failed=failed)


def _says_empty(selected: work.Selected) -> str:
    listed = ", ".join(f"{r.count} by {r.stage} ({r.reason})" for r in selected.reasons)
    dropped = any(r.status == Status.DROPPED for r in selected.reasons)
    way_out = "loosen the recipe" if dropped else "mend the source"
    return f"nothing is left of {selected.indexed} samples: {listed}; {way_out}"


def _writer(job: Job) -> ImageWriterStage:
    assert job.plan.writer is not None  # noqa: S101  # only called where there is one
    return job.plan.writer
