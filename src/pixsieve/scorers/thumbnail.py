"""Small grey pictures, for comparing images without reading them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from PIL import Image

from pixsieve.errors import PlanError
from pixsieve.stage import Needs, ScoreStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.stage import ImageBatch

_LEAST, _MOST = 8, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbnailStage(ScoreStage):
    """Adds ``thumbnail``: ``size`` x ``size`` grey pixels, row by row, one byte each.

    Args:
        size: Width and height in pixels, to which the image is squashed.
    """

    size: int = 96

    def __post_init__(self) -> None:
        if not _LEAST <= self.size <= _MOST:
            msg = f"size is {self.size}; expected {_LEAST} to {_MOST} pixels"
            raise PlanError(msg)

    @property
    def needs(self) -> Needs:
        return Needs(pixels=2 * self.size, gray=True)

    def adds(self) -> pa.Schema:
        metadata = {
            "scale": "0 to 255",
            "unit": f"{self.size} x {self.size} pixels, row by row",
            "better": "neither",
            "source": "BT.601 luma",
        }
        return pa.schema(
            [pa.field("thumbnail", pa.binary(self.size * self.size), metadata=metadata)]
        )

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema = self.adds()
        size = (self.size, self.size)

        def score(batch: ImageBatch) -> pa.RecordBatch:
            found = [
                Image.fromarray(pixels)
                .resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
                .tobytes()
                for pixels in batch.pixels
            ]
            return pa.RecordBatch.from_arrays([pa.array(found, schema[0].type)], schema=schema)

        return score
