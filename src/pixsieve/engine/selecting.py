"""The step that decides: narrow columns in long tables, the stages' own tasks, the verdicts."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from pixsieve.engine import work
from pixsieve.fingerprint import fingerprint
from pixsieve.select.base import Chunk, Part, Scope, listing_bytes, sample_schema
from pixsieve.stage import SelectStage, blaming
from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from pixsieve.engine.job import Job
    from pixsieve.pipeline import Pass, Step
    from pixsieve.select.base import Task
    from pixsieve.stage import Rounds

CHUNK_ROWS = 65_536
"""Rows of a table of narrow columns, at least: few files are read when many rows are decided."""


def select(
    job: Job,
    parts: Sequence[Part],
    each: Pass,
    earlier: work.Selected | None,
    failing: Sequence[tuple[int, int]],
) -> work.Selected:
    """Apply a pass's selection stages.

    A run of stages is one unit; a stage that has tasks of its own starts a new one.

    Args:
        job: What all steps share.
        parts: All rows, with the families of this pass.
        each: The pass.
        earlier: What the pass before decided.
        failing: As :func:`pixsieve.engine.measuring.measure` returns it.
    """
    steps = [step for step in each.steps if isinstance(step.stage, SelectStage)]
    columns = _columns(job, each)
    listing, table = _listing(job, parts)
    borders = [0, *(at for at, step in enumerate(steps) if _has_rounds(step)), len(steps)]
    selected = earlier
    for start, stop in itertools.pairwise(borders):
        here = [
            (count - start, family)
            for count, family in failing
            if start < count <= stop or count == start == 0
        ]
        if start == stop < len(steps) and not here and selected is not None:
            continue
        before = selected.table if selected else None
        scope = Scope(
            listing=listing,
            columns=columns,
            selection=job.ledger.resolve(before.path) if before else None,
            seed=job.plan.seed,
        )
        place = (table, before.sha256 if before else None, job.plan.seed)
        names = [(step.label, job.identities[step.key]) for step in steps[start:stop]]
        key = fingerprint("select", place, here, names)
        own = start < stop and _has_rounds(steps[start])
        new = own and job.ledger.done(key, work.Selected) is None
        found = _rounds(job, steps[start], scope, place) if new else []
        stages = each.selectors[start:stop]
        paths = [job.ledger.resolve(each.table.path) for each in found]
        with job.step("select", None, "stages") as underway:
            bound = functools.partial(work.select, scope, stages, here, paths, job.site, key)
            selected = job.single(underway, "select", key, work.Selected, bound)
            underway.facts = {
                "kept": selected.kept,
                "not kept": selected.indexed - selected.kept,
            }
        job.notes += selected.notes
    assert selected is not None  # noqa: S101  # the last run of stages is never left out
    return selected


def decided(job: Job, parts: Sequence[Part], each: Pass, selected: work.Selected) -> Scope:
    """Return all rows with their columns after a pass, and what it decided."""
    listing, _ = _listing(job, parts)
    return Scope(
        listing=listing,
        columns=_columns(job, each),
        selection=job.ledger.resolve(selected.table.path),
        seed=job.plan.seed,
    )


def parts_key(parts: Sequence[Part]) -> list[object]:
    """Return what identifies the rows and columns of parts, without the folder that they lie in."""
    return [
        (Path(part.index).name, part.start, part.stop, [Path(path).name for path in part.families])
        for part in parts
    ]


def _has_rounds(step: Step) -> bool:
    kind = type(step.stage)
    return issubclass(kind, SelectStage) and kind.rounds is not SelectStage.rounds


def _columns(job: Job, each: Pass) -> pa.Schema:
    """Return the columns that the pass's stages can ask for."""
    added = [job.plan.reader.adds()]
    for one in job.plan.passes:
        added += [stage.adds() for stage in one.scorers]
        added += [stage.adds() for _, stage in one.selectors]
        if one is each:
            break
    return sample_schema(added)


def _listing(job: Job, parts: Sequence[Part]) -> tuple[str, str]:
    """Write down all parts, and their narrow columns in long tables; return path and key."""
    scored = len(parts[0].families) - 1
    columns = sample_schema(
        [job.plan.reader.adds(), *(stage.adds() for stage in job.plan.scorers[:scored])]
    )
    runs = list(_runs(parts))
    keys = [fingerprint("collect", parts_key(run), str(columns)) for run in runs]
    with job.step("collect", len(runs), "tables") as step:
        units = [
            (key, f"collect {number}", functools.partial(work.collect, run, columns, job.site, key))
            for number, (key, run) in enumerate(zip(keys, runs, strict=True))
        ]
        written = job.all(step, work.Written, units)
        step.facts = {"tables": len(runs)}
    chunks = [
        Chunk(
            path=job.ledger.resolve(each.table.path),
            rows=sum(part.rows for part in run),
        )
        for each, run in zip(written, runs, strict=True)
    ]
    key = fingerprint("listing", keys)
    path = job.ledger.resolve(f"plans/{key}.json")
    with LocalStorage().create(path, durable=False) as sink:
        sink.write(listing_bytes(parts, chunks))
    return path, key


def _runs(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Yield neighbouring parts that have :data:`CHUNK_ROWS` rows together."""
    run: list[Part] = []
    rows = 0
    for part in parts:
        run.append(part)
        rows += part.rows
        if rows >= CHUNK_ROWS:
            yield run
            run, rows = [], 0
    if run:
        yield run


def _rounds(job: Job, step: Step, scope: Scope, place: object) -> list[work.Written]:
    """Run the tasks of a stage, round by round; return what the last round wrote."""
    stage = step.stage
    assert isinstance(stage, SelectStage)  # noqa: S101  # no other has rounds
    rounds = stage.rounds(scope)
    written: list[work.Written] = []
    number = 0
    while True:
        paths = [job.ledger.resolve(each.table.path) for each in written]
        with blaming(stage):
            tasks = _next(rounds, paths if number else None)
        if tasks is None:
            return written
        name = tasks[0].name.split()[0] if tasks else step.label
        with job.step(name, len(tasks), "tasks") as underway:
            units = []
            for at, task in enumerate(tasks):
                key = fingerprint("round", place, job.identities[step.key], number, at)
                bound = functools.partial(work.run_task, task, job.site, key)
                units.append((key, f"{step.label}: {task.name}", bound))
            written = job.all(underway, work.Written, units)
            underway.facts = {"tasks": len(tasks)}
        number += 1


def _next(rounds: Rounds, paths: Sequence[str] | None) -> Sequence[Task] | None:
    """Return a stage's next tasks, if there are more; the first ones need no paths."""
    try:
        return next(rounds) if paths is None else rounds.send(paths)
    except StopIteration:
        return None
