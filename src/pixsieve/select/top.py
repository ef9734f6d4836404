"""Keep the best by a score: so many, or such a share."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.errors import PlanError
from pixsieve.select.base import Verdicts
from pixsieve.select.evidence import Values
from pixsieve.select.values import check_number, check_scalar, groups, numbers
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows


@dataclass(frozen=True, slots=True)
class TopStage(SelectStage):
    """Keeps the best of the samples that are kept so far, by a column of numbers.

    Rows without a number (null, NaN) are the worst. Of rows with one number, those with the smaller
    image_id are better. The evidence is the row's number, and the ``threshold``: that of the last
    one that stays (with ``per``, the group instead).

    Args:
        column: The score.
        count: How many to keep.
        share: Which share to keep, above 0 and up to 1, rounded to whole samples; either this or
            ``count``.
        lowest: Whether low numbers are the better ones; ``None`` goes by what the column says of
            itself (``better``), else high ones are.
        per: A column of groups; the best of each are kept. Rows without a value are a group, too.
    """

    column: str
    _: KW_ONLY
    count: int | None = None
    share: float | None = None
    lowest: bool | None = None
    per: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.count is None) == (self.share is None):
            msg = "TopStage: expected either count or share, such as share=0.3 for the best 30%"
            raise PlanError(msg)
        if self.count is not None and self.count < 1:
            msg = f"TopStage: count is {self.count}; expected 1 or more"
            raise PlanError(msg)
        if self.share is not None and not 0 < self.share <= 1:
            msg = f"TopStage: share is {self.share:g}; expected above 0, up to 1 (0.3 is 30%)"
            raise PlanError(msg)

    def reads(self) -> tuple[str, ...]:
        more = (self.per,) if self.per is not None else ()
        return tuple(dict.fromkeys((self.column, "image_id", *more)))

    def check(self, columns: pa.Schema) -> None:
        check_number(columns, self.column, "TopStage")
        if self.per is not None:
            check_scalar(columns, self.per, "TopStage: per")

    def decide(self, rows: Rows) -> Verdicts:
        kept = np.flatnonzero(rows.kept)
        if not len(kept):
            return Verdicts(reason="not_in_top")
        found = [
            numbers(batch.columns[self.column])[batch.kept]
            for batch in rows.batches((self.column,))
        ]
        values = np.concatenate(found)
        keys = np.where(np.isnan(values), np.inf, values if self._is_lowest(rows) else -values)
        codes, counts = np.zeros(len(kept), np.int32), np.array([len(kept)])
        if self.per is not None:
            grouped = groups(rows, self.per)
            codes, counts = grouped.codes, grouped.counts
        if self.share is None:
            quotas = np.minimum(counts, np.int64(self.count or 0))
        else:
            quotas = np.floor(counts * self.share + 0.5).astype(np.int64)
        stays = first(rows, kept, keys, codes, quotas)
        notes = []
        absent = int(np.isnan(values).sum())
        asked = self.share if self.count is None else self.count
        fixed: dict[str, str | int | float] = {"top": asked or 0}
        columns: tuple[str, ...] = (self.column,)
        place = f" in {len(counts):,} groups of {self.per}" if self.per is not None else ""
        notes.append(f"keeps {int(stays.sum()):,} of {len(kept):,}{place}")
        if self.per is None:
            there = values[stays & ~np.isnan(values)] + 0.0  # which makes -0 to 0
            if len(there):
                last = float(there.max() if self._is_lowest(rows) else there.min())
                kind = rows.columns.field(self.column).type
                shown = float(str(np.float32(last))) if kind == pa.float32() else last
                fixed["threshold"] = shown if pa.types.is_floating(kind) else int(last)
                way = "down" if self._is_lowest(rows) else "up"
                notes = [f"{notes[0]}: {self.column} from {fixed['threshold']} {way}"]
            if self.count is not None and self.count > len(kept):
                notes.append(f"asked {self.count:,}, there were {len(kept):,}")
        else:
            columns = tuple(dict.fromkeys((self.column, self.per)))
            short = int((counts < (self.count or 0)).sum())
            if short:
                notes.append(f"{short:,} groups have fewer than {self.count:,}")
        if absent:
            notes.append(f"{absent:,} have no {self.column}, which is worst")
        return Verdicts(
            drop=kept[~stays],
            reason="not_in_top",
            evidence=Values(fixed, columns),
            notes=tuple(notes),
        )

    def _is_lowest(self, rows: Rows) -> bool:
        if self.lowest is not None:
            return self.lowest
        about = rows.columns.field(self.column).metadata or {}
        return bool(about.get(b"better") == b"lower")


def first(
    rows: Rows,
    kept: NDArray[np.int64],
    keys: NDArray[np.float64] | NDArray[np.uint64],
    codes: NDArray[np.int32],
    quotas: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return which of the kept rows are among the first of their group.

    Args:
        rows: All rows.
        kept: Numbers of the kept ones, (n,) ascending.
        keys: What they are ordered by, the smallest first, (n,); equal ones by image_id.
        codes: The group of each, (n,).
        quotas: How many of each group, (g,), at most as many as it has.
    """
    order = np.lexsort((keys, codes)) if len(quotas) > 1 else np.argsort(keys, kind="stable")
    starts = np.searchsorted(codes, np.arange(len(quotas)), sorter=order)
    ends = starts + quotas
    inside = quotas > 0
    last = order[ends[inside] - 1]
    behind = order[np.minimum(ends[inside], len(order) - 1)]
    is_tie = (codes[behind] == codes[last]) & (keys[behind] == keys[last])
    is_tie &= ends[inside] < len(order)
    if is_tie.any():  # only these need their ids: of each, what is equal to the last that stays
        border = np.zeros(len(quotas), keys.dtype)
        border[codes[last]] = keys[last]
        unclear = np.zeros(len(quotas), np.bool_)
        unclear[codes[last[is_tie]]] = True
        equal = np.flatnonzero(unclear[codes] & (keys == border[codes]))
        ids = rows.take(kept[equal], ("image_id",))["image_id"]
        by_id = equal[pc.sort_indices(ids).to_numpy()]
        by_id = by_id[np.argsort(codes[by_id], kind="stable")]
        # They are neighbours in the order, group by group, and change places among themselves.
        places = np.flatnonzero(unclear[codes[order]] & (keys[order] == border[codes[order]]))
        order[places] = by_id
    steps = np.zeros(len(order) + 1, np.int8)
    steps[starts] += 1  # each group starts somewhere else
    steps[ends[inside]] -= 1
    steps[starts[~inside]] -= 1
    stays = np.zeros(len(order), np.bool_)
    stays[order[np.cumsum(steps[:-1], dtype=np.int8) > 0]] = True
    return stays
