"""Drop images that are byte for byte the same as one that stays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.select.base import Verdicts
from pixsieve.select.keys import hex_digits
from pixsieve.stage import SelectStage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactDeduplicationStage(SelectStage):
    """Keeps one of all images with the same bytes.

    The copy with the longest caption stays (in characters; a missing one has -1); of those with
    captions of one length, the one whose (original_path, original_key, image_id) is smallest. So
    the choice depends neither on the order in which sources are listed nor on workers.
    ``duplicate_of`` names the copy that stays; the evidence is the SHA-256 of the bytes.
    """

    def reads(self) -> tuple[str, ...]:
        return ("sha256", "caption", "original_path", "original_key", "image_id")

    def decide(self, rows: Rows) -> Verdicts:
        numbers = _candidates(rows)
        table = rows.take(numbers, self.reads()).append_column("row", pa.array(numbers))
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
        dropped: list[tuple[int, str, str]] = []
        stays, digest = "", None
        for row, sha256, image_id in zip(
            order["row"].to_pylist(),
            order["sha256"].to_pylist(),
            order["image_id"].to_pylist(),
            strict=True,
        ):
            if sha256 == digest:
                dropped.append((row, sha256, stays))
            else:
                stays, digest = image_id, sha256
        dropped.sort()
        return Verdicts(
            drop=np.array([row for row, _, _ in dropped], np.int64),
            reason="exact_duplicate",
            evidence=pa.array([json.dumps({"sha256": sha}) for _, sha, _ in dropped], pa.string()),
            duplicate_of=pa.array([stays for _, _, stays in dropped], pa.string()),
        )


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
