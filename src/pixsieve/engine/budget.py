"""How much of the input may fail before a run stops."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from pixsieve.errors import FailureBudgetError
from pixsieve.schema import Problem, Status
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixsieve.engine import work
    from pixsieve.engine.job import Job
    from pixsieve.select.base import Part


_EXAMPLES = 3


def check_lost(job: Job, indexed: Sequence[work.Indexed]) -> None:
    """Stop where more of the sources could not be read than the run allows.

    How many images that are, nobody knows: a damaged tar counts as one that failed.
    """
    lost, size = sum(each.lost for each in indexed), sum(each.size for each in indexed)
    if lost <= job.options.max_failed * size:
        return
    notes = [note for each in indexed if each.lost for note in each.notes]
    msg = (
        f"{lost:,} of {size:,} bytes of the sources cannot be read, at most "
        f"{job.options.max_failed:.0%} may: {'; '.join(notes[:_EXAMPLES])}. "
        "Mend the source, or allow more with max_failed (--max-failed)"
    )
    raise FailureBudgetError(msg)


def check_budget(job: Job, parts: Sequence[Part], selected: work.Selected) -> None:
    """Stop where more images failed than the run allows.

    What has no image at all does not count.
    """
    failed: Counter[str] = Counter()
    for each in selected.reasons:
        if each.status == Status.FAILED:
            failed[each.reason] += each.count
    images = selected.indexed - failed.pop(Problem.MISSING_IMAGE, 0)
    count = failed.total()
    if count <= job.options.max_failed * images:
        return
    listed = "; ".join(
        f"{number} {problem} (such as {_example(job, parts, selected, problem)})"
        for problem, number in sorted(failed.items(), key=lambda item: (-item[1], item[0]))[
            :_EXAMPLES
        ]
    )
    msg = (
        f"{count} of {images} images failed, at most {job.options.max_failed:.0%} may: {listed}. "
        "Mend the source, or allow more with max_failed (--max-failed)"
    )
    raise FailureBudgetError(msg)


def _example(job: Job, parts: Sequence[Part], selected: work.Selected, problem: str) -> str:
    path = job.ledger.resolve(selected.table.path)
    runs = tables.runs_of_rows(
        path, [part.rows for part in parts], ["status", "reason", "evidence"]
    )
    for part, run in zip(parts, runs, strict=True):
        for row, found in enumerate(run.to_pylist()):
            if (found["status"], found["reason"]) == (Status.FAILED, problem):
                key = tables.read_table(part.index, ["key"])["key"][part.start + row].as_py()
                return f"{key!r}: {json.loads(found['evidence'])['detail']}"
    return "none"
