"""Drop images that are byte for byte the same as one that stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.select import groups
from pixsieve.select.keys import hex_digits
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows, Verdicts

_DECIDING = ("sha256", "caption", "original_path", "original_key", "image_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactDeduplicationStage(SelectStage):
    """Keeps one of all images with the same bytes.

    The copy with the longest caption stays (in characters; a missing one has -1); of those with
    captions of one length, the one whose (original_path, original_key, image_id) is smallest. So
    the choice depends neither on the order in which sources are listed nor on workers.
    ``duplicate_of`` names the copy that stays; the evidence is the SHA-256 of the bytes.

    Args:
        merge: Columns of text of which the copy that stays takes over what the others have, as
            ``merged_caption`` for ``caption``.
    """

    merge: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*_DECIDING, *self.merge)))

    def adds(self) -> pa.Schema:
        return pa.schema(groups.merged_fields(self.merge))

    def check(self, columns: pa.Schema) -> None:
        groups.check_merge(type(self).__name__, self.merge, columns)

    def decide(self, rows: Rows) -> Verdicts:
        numbers = _candidates(rows)
        table = rows.take(numbers, _DECIDING).append_column("row", pa.array(numbers))
        length = pc.fill_null(pc.utf8_length(table["caption"]), -1)
        order = table.append_column("length", length).sort_by(
            [
                ("sha256", "ascending"),
                ("length", "descending"),
                ("original_path", "ascending"),
                ("original_key", "ascending"),
                ("image_id", "ascending"),
            ]
        )
        row = order["row"].to_numpy()
        digest = order["sha256"].to_numpy()
        first = np.append(True, digest[1:] != digest[:-1])[: len(row)]
        place = np.arange(len(row))
        stays = np.maximum.accumulate(np.where(first, place, 0))
        gone = np.flatnonzero(~first)
        gone = gone[np.argsort(row[gone])]
        leaders = groups.Leaders(dropped=row[gone], keeper=row[stays[gone]], rank=gone)
        evidence = ({"sha256": each} for each in digest[gone].tolist())
        return groups.verdicts(rows, leaders, "exact_duplicate", evidence, self.merge)


def _candidates(rows: Rows) -> NDArray[np.int64]:
    """Return the kept rows that share 64 bits of their digest with another kept row.

    Takes 16 bytes a row, so that whole rows are held for duplicates only.
    """
    prefixes = [
        hex_digits(pc.fill_null(batch.columns["sha256"], "0" * 64), 0)
        for batch in rows.batches(("sha256",))
    ]
    kept = np.flatnonzero(rows.kept)
    if not len(kept):
        return kept
    values = np.concatenate(prefixes)[kept]
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    member = np.zeros(len(kept), np.bool_)
    member[order[1:][same]] = True
    member[order[:-1][same]] = True
    return kept[member]
