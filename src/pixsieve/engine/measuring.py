"""The step that inspects and scores: which parts, and what is missing of each."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixsieve import schema
from pixsieve.engine import work
from pixsieve.engine.units import Unit
from pixsieve.fingerprint import fingerprint
from pixsieve.select.base import Part
from pixsieve.stage import ScoreStage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pixsieve.engine.job import Job
    from pixsieve.pipeline import Pass, Plan
    from pixsieve.stage import SelectStage


Measured = tuple[tuple[Part, ...], list[tuple[int, int]]]
"""Parts with all families so far, and the scorers that could not score some rows: each as the
number of selection stages before it, and the place of its family from the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartKeys:
    """A part of a source, and the fingerprints of what is to be computed of it.

    ``covers`` say of each scorer that it was run on all rows that the filters before it leave.
    """

    source: work.Indexed
    start: int
    stop: int
    inspection: str
    scores: tuple[str, ...]
    covers: tuple[str, ...]


def measure(
    job: Job,
    indexed: Sequence[work.Indexed],
    each: Pass,
    before: Sequence[Part],
    earlier: work.Selected | None,
) -> Measured:
    """Compute what is missing of a pass's column families."""
    keys = list(part_keys(job, indexed, each, earlier))
    families: dict[str, work.Family] = {}
    running: dict[str, int] = {}
    firsts = [0, *itertools.accumulate(part.stop - part.start for part in keys)]
    total = firsts[-1]
    name = "score" if each.scorers else "inspect"
    with job.step(name, total, "samples") as step:

        def units() -> Iterator[Unit]:
            for number, part in enumerate(keys):
                if known(job, part, families):
                    job.progress.advance(part.stop - part.start)
                    continue
                unit = f"{name} {part.source.source or 'files'} part {number}"
                running[unit] = number
                scores = before[number].families[1:] if before else ()
                lack = part_work(job, part, firsts[number], each, scores, earlier, families)
                yield Unit(name=unit, work=functools.partial(work.measure, lack))

        for done in job.drive(units(), step):
            part = keys[running.pop(done.unit.name)]
            for key, family in done.value.families.items():
                job.ledger.commit(key, family)
                families[key] = family
            for cover, key in zip(part.covers, part.scores, strict=True):
                job.ledger.commit(cover, families[key])
            job.decoded += done.value.decoded
            job.progress.advance(part.stop - part.start)
        step.facts = {"samples": total, "decoded": job.decoded}
    return gathered(job, each, keys, families, before)


def gathered(
    job: Job,
    each: Pass,
    keys: Sequence[PartKeys],
    families: Mapping[str, work.Family],
    before: Sequence[Part],
) -> Measured:
    """Put the parts together, whose families of this pass are all there."""
    if not before:
        inspections = [families[part.inspection] for part in keys]
        job.unread = sum(each.unread for each in inspections)
        job.found = frozenset(name for each in inspections for name in each.found)
    parts = tuple(
        Part(
            source=part.source.source,
            index=job.ledger.resolve(part.source.table.path),
            start=part.start,
            stop=part.stop,
            families=(
                job.ledger.resolve(families[part.inspection].table.path),
                *(before[number].families[1:] if before else ()),
                *(job.ledger.resolve(families[key].table.path) for key in part.scores),
            ),
        )
        for number, part in enumerate(keys)
    )
    return parts, list(_failing(each, keys, families))


def _failing(
    each: Pass, keys: Sequence[PartKeys], families: Mapping[str, work.Family]
) -> Iterator[tuple[int, int]]:
    """Yield the scorers that could not score some rows, as :data:`Measured` has them."""
    stages = 0
    family = -len(each.scorers)
    for step in each.steps:
        if not isinstance(step.stage, ScoreStage):
            stages += 1
            continue
        if any(families[part.scores[family]].problems for part in keys):
            yield stages, family
        family += 1


def inspections(plan: Plan, indexed: Sequence[work.Indexed]) -> Iterator[str]:
    """Yield the fingerprint of the inspection of each part."""
    for source in indexed:
        for start, stop in source.parts:
            place = (source.table.sha256, start, stop)
            yield fingerprint("inspect", place, plan.inspect_options, schema.INSPECTION.names)


def part_keys(
    job: Job, indexed: Sequence[work.Indexed], each: Pass, earlier: work.Selected | None
) -> Iterator[PartKeys]:
    """Cut the sources into parts, and fingerprint the work on each."""
    options = job.plan.inspect_options
    read = inspections(job.plan, indexed)
    for source in indexed:
        for start, stop in source.parts:
            place = (source.table.sha256, start, stop)
            inspection = next(read)
            scores: list[str] = []
            covers: list[str] = []
            gates: list[str] = []
            for step in each.steps:
                if isinstance(step.stage, ScoreStage):
                    bounds = (options.first_frame, options.limits)
                    scores.append(fingerprint("score", place, bounds, job.identities[step.key]))
                    kept = earlier.table.sha256 if earlier else None
                    covers.append(fingerprint("cover", scores, inspection, gates, kept))
                elif step.stage.row_local:
                    gates.append(job.identities[step.key])
            yield PartKeys(
                source=source, start=start, stop=stop, inspection=inspection, scores=tuple(scores),
                covers=tuple(covers),
            )  # fmt: skip


def known(job: Job, part: PartKeys, families: dict[str, work.Family]) -> bool:
    """Take from the ledger what there is of a part; return whether that is all."""
    for key in (part.inspection, *part.scores):
        if (family := job.ledger.done(key, work.Family)) is not None:
            families[key] = family
    covered = (job.ledger.done(cover, work.Family) for cover in part.covers)
    return part.inspection in families and all(
        family is not None and family == families.get(key)
        for family, key in zip(covered, part.scores, strict=True)
    )


def part_work(
    job: Job,
    part: PartKeys,
    first: int,
    each: Pass,
    scores: tuple[str, ...],
    earlier: work.Selected | None,
    families: Mapping[str, work.Family],
) -> work.PartWork:
    """Return what is to be computed of a part, and what there is already."""
    fingerprints = iter(part.scores)
    steps: list[work.ScoreWork | SelectStage] = []
    for step in each.steps:
        if isinstance(step.stage, ScoreStage):
            key = next(fingerprints)
            known = families.get(key)
            table = known.table if known else None
            steps.append(work.ScoreWork(fingerprint=key, stage=step.stage, known=table))
        elif step.stage.row_local:
            steps.append(step.stage)
    while steps and not isinstance(steps[-1], work.ScoreWork):
        steps.pop()  # no scorer looks at what is left, and it may read what is only selected later
    inspected = families.get(part.inspection)
    rows = Part(
        source=part.source.source,
        index=job.ledger.resolve(part.source.table.path),
        start=part.start,
        stop=part.stop,
        families=scores,
    )
    return work.PartWork(
        part=rows,
        inspection=(part.inspection, inspected.table if inspected else None),
        steps=tuple(steps),
        options=job.plan.inspect_options,
        kept=(job.ledger.resolve(earlier.table.path), first) if earlier else None,
        site=job.site,
    )
