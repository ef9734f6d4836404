"""Keep the rows for which an SQL expression is true."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.select import expression
from pixsieve.select.base import Verdicts
from pixsieve.stage import SelectStage

if TYPE_CHECKING:
    from pixsieve.select.base import Rows


@dataclass(frozen=True, slots=True)
class FilterStage(SelectStage):
    """Keeps samples for which ``where`` is true; false and null drop.

    Args:
        where: SQL expression over the columns of a row, such as
            ``"least(width, height) >= 256 and caption is not null"``. DuckDB's dialect.

    The evidence of a dropped sample is the expression and the values of the columns that it names.
    """

    where: str

    def check(self, columns: pa.Schema) -> None:
        expression.check(self.where, columns)

    def decide(self, rows: Rows) -> Verdicts:
        columns = expression.check(self.where, rows.columns)
        dropped, evidence = [], []
        for batch in rows.batches(columns or ("image_id",)):
            passes = expression.evaluate(self.where, batch.columns)
            true = pc.fill_null(passes, False).to_numpy(zero_copy_only=False)  # noqa: FBT003
            drop = np.flatnonzero(batch.kept & ~true)
            dropped.append(drop + batch.first)
            values = batch.columns.take(pa.array(drop)).to_pylist()
            evidence.extend(
                json.dumps({"where": self.where, **{name: row[name] for name in columns}}, default=str)
                for row in values
            )
        return Verdicts(
            drop=np.concatenate(dropped) if dropped else np.empty(0, np.int64),
            reason="filter",
            evidence=pa.array(evidence, pa.string()),
        )
