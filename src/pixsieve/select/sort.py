"""Put the samples of the export in the order of a column."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.select.base import Verdicts
from pixsieve.select.values import check_scalar
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from pixsieve.select.base import Rows


@dataclass(frozen=True, slots=True)
class SortStage(SelectStage):
    """Sorts all kept samples over all shards by a column.

    Rows without a value (null, NaN) come last, in either direction. Rows of one value stay in the
    order of the index, which is that of the sources. Text is sorted by its bytes. The whole column
    is held while it is sorted.

    Args:
        column: Name of a column of single values.
        descending: Whether the largest value comes first.
    """

    column: str
    _: KW_ONLY
    descending: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    def check(self, columns: pa.Schema) -> None:
        check_scalar(columns, self.column, "SortStage")

    def decide(self, rows: Rows) -> Verdicts:
        kind = rows.columns.field(self.column).type
        chunks = [
            _sortable(chunk)
            for batch in rows.batches((self.column,))
            for chunk in batch.columns[self.column].chunks
        ]
        if not chunks or pa.types.is_null(kind):
            return Verdicts(order=np.zeros(len(rows), np.uint64))
        direction = "descending" if self.descending else "ascending"
        ranks = pc.rank(
            pa.chunked_array(chunks), sort_keys=[("", direction, "at_end")], tiebreaker="dense"
        )
        return Verdicts(order=ranks.to_numpy().astype(np.uint64))


def _sortable(array: pa.Array) -> pa.Array:
    """Return values of a type that can be sorted, with null for NaN."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
    return array
