"""Keep the rows for which an SQL expression is true."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow.compute as pc

from pixsieve.select import expression
from pixsieve.select.base import Verdicts
from pixsieve.select.evidence import Values
from pixsieve.stage import SelectStage

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

_SCALE = re.compile(r"(-?[0-9.]+) to (-?[0-9.]+)\b")


@dataclass(frozen=True, slots=True)
class FilterStage(SelectStage):
    """Keeps samples for which ``where`` is true; false and null drop.

    Args:
        where: SQL expression over the columns of a row, such as
            ``"least(width, height) >= 256 and caption is not null"``. DuckDB's dialect.

    The evidence of a dropped sample is the expression and the values of the columns that it names.
    """

    where: str

    row_local: ClassVar[bool] = True

    def check(self, columns: pa.Schema) -> None:
        expression.check(self.where, columns)

    def warnings(self, columns: pa.Schema) -> tuple[str, ...]:
        found = []
        thresholds = expression.thresholds(self.where)
        for name, value, keeps, _ in thresholds:
            if name not in columns.names:
                continue
            about = columns.field(name).metadata or {}
            scale, better = _scale(about), about.get(b"better", b"").decode()
            if scale is not None and not scale[0] <= value <= scale[1]:
                found.append(
                    f"{self.where!r} compares {name} with {value:g}, but its scale is "
                    f"{scale[0]:g} to {scale[1]:g}"
                )
            ends = {other.keeps for other in thresholds if other.column == name}
            if {keeps, better} == {"higher", "lower"} and better not in ends:
                found.append(f"{self.where!r} keeps {keeps} {name}, of which {better} is better")
        return tuple(found)

    def passes(self, columns: pa.Table) -> NDArray[np.bool_]:
        verdicts = pc.fill_null(expression.evaluate(self.where, columns), False)  # noqa: FBT003
        return np.asarray(verdicts.to_numpy(zero_copy_only=False), np.bool_)

    def decide(self, rows: Rows) -> Verdicts:
        columns = expression.check(self.where, rows.columns)
        dropped = [np.empty(0, np.int64)]
        for batch in rows.batches(columns or ("image_id",)):
            drop = np.flatnonzero(batch.kept & ~self.passes(batch.columns))
            dropped.append(drop + batch.first)
        return Verdicts(
            drop=np.concatenate(dropped),
            reason="filter",
            evidence=Values({"where": self.where}, columns),
        )


def _scale(about: Mapping[bytes, bytes]) -> tuple[float, float] | None:
    """Return the ends of the scale that a column's metadata states as ``LOW to HIGH``."""
    text = about.get(b"scale", b"").decode()
    found = _SCALE.match(text)
    return (float(found[1]), float(found[2])) if found else None
