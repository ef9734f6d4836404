"""How much people would like an image, by LAION's aesthetic predictors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import pyarrow as pa

from pixsieve.models import folder, laion
from pixsieve.scorers.heads import check_embedding, check_threshold, vectors
from pixsieve.select.filters import FilterStage
from pixsieve.stage import ScoreStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.models.laion import Head
    from pixsieve.stage import ImageBatch, SelectStage


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAestheticFilterStage(ScoreStage):
    """Adds ``aesthetic_score``, and keeps what reaches ``score_threshold``.

    Reads the embeddings of the model that the predictor was trained on, and refuses any other.

    Args:
        score_threshold: Images with a lower score are dropped; ``None`` scores only. Scales differ:
            V2 gives about 1 to 10 with most photographs between 4 and 6.5; V1 about 0 to 10, and
            now and then beyond.
        model_dir: Folder of models, laid out as NeMo Curator does; ``None`` for
            ``$PIXSIEVE_MODELS``.
        predictor: ``"v2"``, the multi-layer one over CLIP ViT-L/14; ``"v1"``, the linear ones over
            ViT-L/14, B/32 and B/16.
        clip_model: The model whose embeddings are read, for ``"v1"``.
        embedding: Name of their column.
    """

    score_threshold: float | None = None
    model_dir: str | None = None
    predictor: Literal["v1", "v2"] = "v2"
    clip_model: str = laion.VIT_L_14
    embedding: str = "embedding"

    @property
    def _head(self) -> Head:
        return laion.AESTHETIC_V2 if self.predictor == "v2" else laion.AESTHETIC_V1[self.clip_model]

    def reads(self) -> tuple[str, ...]:
        return (self.embedding,)

    def adds(self) -> pa.Schema:
        head = self._head
        metadata = {
            "scale": f"{head.low:g} to {head.high:g}",
            "better": "higher",
            "source": head.source,
        }
        return pa.schema([pa.field("aesthetic_score", pa.float32(), metadata=metadata)])

    def check(self, columns: pa.Schema) -> None:
        head = self._head
        check_threshold(self.score_threshold, head.low, head.high, "aesthetic_score")
        check_embedding(columns, self.embedding, head, type(self).__name__)
        head.find(self.model_dir)

    def digests(self) -> tuple[str, ...]:
        return (folder.sha256(self._head.find(self.model_dir)),)

    def without_places(self) -> Self:
        return dataclasses.replace(self, model_dir=None)

    def selection(self) -> SelectStage | None:
        if self.score_threshold is None:
            return None
        return FilterStage(f"aesthetic_score >= {self.score_threshold!r}")

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        head = self._head
        score = head.load(head.find(self.model_dir))
        schema = self.adds()

        def scores(batch: ImageBatch) -> pa.RecordBatch:
            rows = vectors(batch.rows[self.embedding], head.dim)
            found = pa.array(score(rows), pa.float32(), from_pandas=True)  # NaN is null
            return pa.RecordBatch.from_arrays([found], schema=schema)

        return scores
