"""How much people would like an image, by LAION's aesthetic predictors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import pyarrow as pa

from pixsieve.errors import PlanError, nearest
from pixsieve.models import folder, laion
from pixsieve.scorers.heads import (
    check_embedding,
    check_threshold,
    score_array,
    vectors,
    without_places,
)
from pixsieve.select.filters import FilterStage
from pixsieve.stage import ScoreStage, check_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.models.laion import Head
    from pixsieve.stage import ImageBatch

_COLUMN = "aesthetic_score"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAestheticFilterStage(ScoreStage):
    """Adds ``aesthetic_score``, and keeps what has ``score_threshold`` or more.

    It is computed from an ``ImageEmbeddingStage`` of the CLIP model that the predictor was trained
    on; any other embedding is refused. An image without an embedding has no score (null), and a
    threshold drops it.

    Args:
        model_dir: Folder of models, as NeMo Curator lays it out; ``None`` for ``$PIXSIEVE_MODELS``.
        score_threshold: ``None`` scores only. V2 goes from 1 to 10, with most photographs between 4
            and 6.5; V1 from 0 to 10, and now and then beyond. The two cannot share a threshold, and
            NeMo Curator's default of 0.5 keeps everything.
        model: ``"v2"``, over CLIP ViT-L/14, or V1 over ViT-L/14 (``"v1"``), ViT-B/32
            (``"v1-b32"``) or ViT-B/16 (``"v1-b16"``).
        embedding: The column of embeddings.
        model_inference_batch_size: Accepted for Curator's scripts and without effect, as are the
            next two: the predictors are so small that neither batch nor GPU would matter.
        num_gpus_per_worker: See above.
        verbose: See above.
    """

    version: ClassVar[int] = 1

    model_dir: str | None = None
    score_threshold: float | None = None
    model: Literal["v2", "v1", "v1-b32", "v1-b16"] = "v2"
    embedding: str = "embedding"
    model_inference_batch_size: int = 32
    num_gpus_per_worker: float | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.model not in laion.AESTHETIC:
            known = ", ".join(laion.AESTHETIC)
            msg = f"model={self.model!r}; expected one of {known}"
            raise PlanError(msg + nearest(str(self.model), laion.AESTHETIC))
        check_fields(self)
        head = self._head()
        what = f"{_COLUMN} of model={self.model!r}"
        check_threshold(self.score_threshold, head.low, head.high, what)

    def reads(self) -> tuple[str, ...]:
        return (self.embedding,)

    def adds(self) -> pa.Schema:
        head = self._head()
        metadata = {
            "scale": f"{head.low:g} to {head.high:g}",
            "unit": "rating by people",
            "better": "higher",
            "source": head.source,
        }
        return pa.schema([pa.field(_COLUMN, pa.float32(), metadata=metadata)])

    def check(self, columns: pa.Schema) -> None:
        head = self._head()
        check_embedding(columns, self.embedding, head, type(self).__name__)
        head.load(head.find(self.model_dir))

    def digests(self) -> tuple[str, ...]:
        return (folder.sha256(self._head().find(self.model_dir)),)

    def selection(self) -> FilterStage | None:
        if self.score_threshold is None:
            return None
        return FilterStage(f"{_COLUMN} >= {float(self.score_threshold)!r}")

    def without_places(self) -> Self:
        """Leave out the folder; the digest says what was in it."""
        return without_places(self)

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        head, schema = self._head(), self.adds()
        scores = head.load(head.find(self.model_dir))

        def score(batch: ImageBatch) -> pa.RecordBatch:
            found = scores(vectors(batch.rows.column(self.embedding), head.dim))
            return pa.RecordBatch.from_arrays([score_array(found)], schema=schema)

        return score

    def _head(self) -> Head:
        return laion.AESTHETIC[self.model]
