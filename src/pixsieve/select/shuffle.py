"""Put the samples of the export in a random order that a seed fixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixsieve.select.base import Verdicts
from pixsieve.stage import SelectStage

if TYPE_CHECKING:
    from pixsieve.select.base import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleStage(SelectStage):
    """Shuffles all kept samples over all shards.

    The order is that of a uniform 64-bit number made of the sample's id and the seed, so it is the
    same on every machine, and samples that come or go leave the others' relative order as it was.

    Args:
        seed: Seed of this stage; ``None`` takes the pipeline's.
    """

    seed: int | None = None

    def reads(self) -> tuple[str, ...]:
        return ("image_id",)

    def decide(self, rows: Rows) -> Verdicts:
        seed = rows.seed if self.seed is None else self.seed
        return Verdicts(order=rows.uniform(seed))
