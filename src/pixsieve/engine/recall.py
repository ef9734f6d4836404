"""What earlier runs found out, from the ledger alone: no image is read, and no source."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import TYPE_CHECKING

from pixsieve.engine import work
from pixsieve.engine.measuring import gathered, inspections, known, part_keys, part_work
from pixsieve.engine.run import check_indexed, index_key
from pixsieve.engine.units import Context
from pixsieve.errors import RunError
from pixsieve.stage import ScoreStage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixsieve.engine.job import Job
    from pixsieve.engine.ledger import Workspace
    from pixsieve.engine.measuring import Measured, PartKeys
    from pixsieve.pipeline import Pass, Plan
    from pixsieve.select.base import Part
    from pixsieve.sources.base import SourceShard

_WAY_OUT = (
    "measure what is missing: pixsieve select RECIPE without --dry-run (in Python, "
    "cached_only=False), or pixsieve score"
)


def check_workspace(workspace: Workspace) -> None:
    """Raise unless there is a workspace; one that is looked into only is not made.

    Raises:
        RunError: there is none.
    """
    if not (workspace.root / "ledger").is_dir():
        msg = f"{workspace.root} has no scores yet; {_WAY_OUT}"
        raise RunError(msg)


def recall_index(job: Job, shards: Iterator[SourceShard]) -> list[work.Indexed]:
    """Return what :func:`pixsieve.engine.run.index` would, if all is known.

    Raises:
        RunError: sources are new or changed.
    """
    indexed = []
    lacking = 0
    with job.step("look up", None, "sources") as step:
        for shard in shards:
            job.stop.check()
            found = job.ledger.done(index_key(job, shard), work.Indexed)
            lacking += found is None
            if found is not None:
                indexed.append(found)
            job.progress.advance(1)
        step.facts = {"sources": len(indexed) + lacking}
    if lacking:
        msg = (
            f"{lacking:,} of {len(indexed) + lacking:,} sources are new or have changed since "
            f"{job.ledger.root} was written; {_WAY_OUT}"
        )
        raise RunError(msg)
    check_indexed(job, indexed)
    return indexed


def as_inspected(job: Job, indexed: Sequence[work.Indexed]) -> Plan:
    """Return the plan, without its writer where images were only ever measured without one.

    A run with a writer also sees whether each image fits the format that it will have.
    """
    without = dataclasses.replace(job.plan, writer=None)
    for plan in (job.plan, without):
        keys = inspections(plan, indexed)
        if all(job.ledger.done(key, work.Family) for key in keys):
            return plan
    return job.plan


def recall(
    job: Job,
    indexed: Sequence[work.Indexed],
    each: Pass,
    before: Sequence[Part],
    earlier: work.Selected | None,
) -> Measured:
    """Return what :func:`pixsieve.engine.measuring.measure` would, if nothing is to be measured.

    Raises:
        RunError: samples lack scores; the message counts them.
    """
    keys = list(part_keys(job, indexed, each, earlier))
    families: dict[str, work.Family] = {}
    lacking: Counter[str] = Counter()
    rows = 0
    firsts = [0, *itertools.accumulate(part.stop - part.start for part in keys)]
    labels = [step.label for step in each.steps if isinstance(step.stage, ScoreStage)]
    with job.step("look up", firsts[-1], "samples") as step:
        for number, part in enumerate(keys):
            job.stop.check()
            if not known(job, part, families):
                scores = before[number].families[1:] if before else ()
                wanted = part_work(job, part, firsts[number], each, scores, earlier, families)
                found = work.lacking(wanted)
                rows += found.rows
                lacking["the inspection"] += found.inspection
                most: dict[str, int] = {}
                for label, count in zip(labels, found.scores, strict=True):
                    most[label] = max(count, most.get(label, 0))  # what a stage brings along
                lacking.update(most)
                if not found.rows:
                    _complete(job, part, wanted, families)
            job.progress.advance(part.stop - part.start)
        step.facts = {"samples": firsts[-1]}
    if rows:
        msg = f"{rows:,} of {firsts[-1]:,} samples lack what the recipe needs"
        listed = ", ".join(f"{name}: {count:,}" for name, count in lacking.items() if count)
        msg += f" ({listed}) in {job.ledger.root}; {_WAY_OUT}"
        raise RunError(msg)
    return gathered(job, each, keys, families, before)


def _complete(
    job: Job, part: PartKeys, wanted: work.PartWork, families: dict[str, work.Family]
) -> None:
    """Note that nothing is missing of a part; tables that filters leave empty are still made."""
    if not {part.inspection, *part.scores} <= set(families):
        made = work.measure(wanted, Context()).families
        for key, family in made.items():
            job.ledger.commit(key, family)
        families |= made
    for cover, key in zip(part.covers, part.scores, strict=True):
        job.ledger.commit(cover, families[key])
