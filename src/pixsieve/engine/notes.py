"""What a run says at its end that no row says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pixsieve.schema import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.engine import work
    from pixsieve.engine.job import Job
    from pixsieve.pipeline import Plan


ODD_ROWS = 100
"""Of fewer samples nothing is odd."""
_ODD_SHARE = 0.001


def unread_metadata(job: Job) -> Iterator[str]:
    """Say what of captions and json did not come to columns."""
    for name, kind in job.plan.reader.json_fields.items():
        if name not in job.found:
            yield f"no json has a field {name!r} of the type {kind}: its column is null"
    if job.unread:
        writer = job.plan.writer
        travel = "the files themselves travel unchanged"
        if writer is not None and writer.members == "uniform":
            travel = "the sidecar has the files themselves"
        yield (
            f"the caption or json of {job.unread} samples could not be read into columns; "
            f"metadata_problem says why, {travel}"
        )


def unpacked_archives(job: Job) -> Iterator[str]:
    """Say what room the unpacked form of compressed tars takes."""
    size = sum(path.stat().st_size for path in Path(job.ledger.spool).glob("*"))
    if size:
        yield (
            f"unpacked archives take {size:,} bytes in {job.ledger.spool}, for further runs; "
            "pixsieve clean removes them"
        )


def odd_filters(plan: Plan, selected: work.Selected) -> Iterator[str]:
    """Say of each filter that drops almost nothing, or almost everything, that it does."""
    left = selected.indexed - sum(r.count for r in selected.reasons if r.status == Status.FAILED)
    for label, stage in (selector for each in plan.passes for selector in each.selectors):
        dropped = sum(r.count for r in selected.reasons if r.stage == label)
        if stage.row_local and left >= ODD_ROWS:
            if dropped < _ODD_SHARE * left:
                yield f"{label} drops {dropped} of {left} samples, almost nothing: {stage}"
            elif left - dropped < _ODD_SHARE * left:
                yield f"{label} drops {dropped} of {left} samples, almost everything: {stage}"
        left -= dropped
