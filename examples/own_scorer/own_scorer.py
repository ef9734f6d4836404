from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from pixsieve.stages import ImageBatch, Needs, ScoreStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmth(ScoreStage):
    needs = Needs(pixels=64)

    def adds(self) -> pa.Schema:
        metadata = {"scale": "-255 to 255", "unit": "levels of red less those of blue"}
        return pa.schema([pa.field("warmth", pa.float32(), metadata=metadata)])

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        return score


def score(batch: ImageBatch) -> pa.RecordBatch:
    return pa.record_batch({"warmth": [p[..., 0].mean() - p[..., 2].mean() for p in batch.pixels]})
