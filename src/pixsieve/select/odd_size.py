"""Drop images whose size is far from that of most others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError
from pixsieve.select.base import Verdicts
from pixsieve.stage import SelectStage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

_COLUMNS = ("width", "height")


@dataclass(frozen=True, slots=True, kw_only=True)
class OddSizeStage(SelectStage):
    """Drops images of an odd size, as CleanVision 0.3.7 finds them.

    A size is ``sqrt(width * height)``, in pixels. With the quartiles q1 and q3 of all images that
    are kept so far, those outside of ``q1 - f * (q3 - q1)`` to ``q3 + f * (q3 - q1)`` are dropped.
    Where both quartiles are one size, every other size is odd. The evidence is the size and both
    bounds.

    Args:
        iqr_factor: f, at least 0. Smaller numbers drop more.
    """

    iqr_factor: float = 3.0

    def reads(self) -> tuple[str, ...]:
        return _COLUMNS

    def check(self, columns: pa.Schema) -> None:  # noqa: ARG002
        if not 0 <= self.iqr_factor < float("inf"):
            msg = f"iqr_factor is {self.iqr_factor:g}; choose a finite number from 0 up, such as 3"
            raise PlanError(msg)

    def decide(self, rows: Rows) -> Verdicts:
        sizes = _sizes(rows)
        kept = np.flatnonzero(rows.kept)
        if not len(kept):
            return Verdicts(reason="odd_size")
        first, third = np.percentile(sizes[kept], (25, 75))
        low = float(first - self.iqr_factor * (third - first))
        high = float(third + self.iqr_factor * (third - first))
        drop = kept[(sizes[kept] < low) | (sizes[kept] > high)]
        evidence = [
            json.dumps({"size": round(size, 2), "low": round(low, 2), "high": round(high, 2)})
            for size in sizes[drop].tolist()
        ]
        return Verdicts(drop=drop, reason="odd_size", evidence=pa.array(evidence, pa.string()))


def _sizes(rows: Rows) -> NDArray[np.float64]:
    """Return every row's size; 0 where an image could not be read."""
    found = [np.empty(0)]
    for batch in rows.batches(_COLUMNS):
        width, height = (
            batch.columns[name].fill_null(0).to_numpy().astype(np.float64) for name in _COLUMNS
        )
        found.append(np.sqrt(width * height))
    return np.concatenate(found)
