"""How well a caption fits its image, by a model that knows both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError
from pixsieve.models import caption_model, folder, image_model
from pixsieve.scorers.embedding import check_choices, runtime_of
from pixsieve.scorers.heads import vectors as vector_rows
from pixsieve.scorers.heads import without_places
from pixsieve.select.filters import FilterStage
from pixsieve.stage import Needs, ScoreStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pixsieve.models.folder import ModelFolder
    from pixsieve.models.image_model import ImageModel
    from pixsieve.stage import ImageBatch

_COLUMN = "caption_similarity"
_TYPICAL = (
    "0.28 with CLIP ViT-B/32 (LAION-400M), about 0.26 with CLIP ViT-L/14; "
    "true pairs of SigLIP lie near 0.1"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSimilarityStage(ScoreStage):
    """Adds ``caption_similarity``: the cosine of the image's and the caption's embedding.

    Known as CLIP score. Null where there is no caption, or only white space, or no embedding; with
    a threshold such rows are dropped. Scales differ from model to model: a usual threshold is 0.28
    for CLIP ViT-B/32 and about 0.26 for ViT-L/14, and far less for SigLIP.

    Args:
        model: A CLIP, OpenCLIP or SigLIP model: a name below ``model_dir``, or a folder.
        model_dir: Folder of models; ``None`` for ``$PIXSIEVE_MODELS``.
        score_threshold: Keep what has at least this similarity; ``None`` to score only.
        embedding: Column in which an earlier ``ImageEmbeddingStage`` has put the same model's
            vectors; ``None`` to look at the images again.
        model_inference_batch_size: Images or captions in one run, at most; changes no score.
        device: As ``ImageEmbeddingStage``, and so are ``runtime``, ``precision`` and ``exact``.
        runtime: See there.
        precision: See there.
        exact: See there; for ``embedding=None``.
    """

    version: ClassVar[int] = 2

    model: str = "openai/clip-vit-large-patch14"
    model_dir: str | None = None
    score_threshold: float | None = None
    embedding: str | None = "embedding"
    model_inference_batch_size: int = 32
    device: image_model.Device = "cpu"
    runtime: image_model.RuntimeName = "onnxruntime"
    precision: image_model.Precision = "float32"
    exact: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        if self.model == image_model.DEFAULT:
            msg = (
                "model='default' has no text side; expected a CLIP, OpenCLIP or SigLIP model, such "
                "as 'openai/clip-vit-base-patch32'"
            )
            raise PlanError(msg)
        if self.score_threshold is not None and not -1 <= self.score_threshold <= 1:
            msg = (
                f"score_threshold={self.score_threshold!r}: a cosine is from -1 to 1; "
                f"usual thresholds: {_TYPICAL}"
            )
            raise PlanError(msg)

    @property
    def needs(self) -> Needs:
        """Pixels only where no earlier embedding is used."""
        return Needs(pixels=None if self.embedding else self._model().preprocess.pixels)

    def reads(self) -> tuple[str, ...]:
        return ("caption", self.embedding) if self.embedding else ("caption",)

    def adds(self) -> pa.Schema:
        model = self._model()
        metadata = {
            "scale": "-1 to 1",
            "unit": "cosine",
            "better": "higher",
            "source": "CLIP score (Hessel et al. 2021, arXiv:2104.08718), not multiplied",
            "cutoffs": _TYPICAL,
            "model": model.name,
            "revision": model.revision or "",
            "digest": self._digest(),
        }
        return pa.schema([pa.field(_COLUMN, pa.float32(), metadata=metadata)])

    def digests(self) -> tuple[str, ...]:
        return (self._digest(),)

    def check(self, columns: pa.Schema) -> None:
        model = self._model()
        caption_model.check(self._folder())
        image_model.check(model, runtime_of(self), "tokenizers")
        if not self.embedding:
            return
        way_out = (
            f"put ImageEmbeddingStage(model={self.model!r}, ...) before this stage, or give "
            f"embedding=None to look at the images again"
        )
        if self.embedding not in columns.names:
            msg = f"there is no column {self.embedding!r} before CaptionSimilarityStage; {way_out}"
            raise PlanError(msg)
        field = columns.field(self.embedding)
        metadata = field.metadata or {}
        if metadata.get(b"digest", b"").decode() != model.digest():
            found = metadata.get(b"model", b"").decode() or f"no model ({field.type})"
            other = "another copy of " if found == model.name else ""
            msg = (
                f"column {self.embedding!r} is of {other}{found}, the captions would be of "
                f"{model.name}: vectors of two models cannot be compared; {way_out}"
            )
            raise PlanError(msg)

    def selection(self) -> FilterStage | None:
        if self.score_threshold is None:
            return None
        return FilterStage(f"{_COLUMN} >= {float(self.score_threshold)!r}")

    def without_places(self) -> Self:
        """Name the model instead of its folder; its digest says which it is."""
        return without_places(self, model=folder.portable_name(self.model))

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        model, settings, schema = self._model(), runtime_of(self), self.adds()
        captions_to_vectors = caption_model.load(self._folder(), settings)
        images_to_vectors = None if self.embedding else image_model.load(model, settings)

        def score(batch: ImageBatch) -> pa.RecordBatch:
            captions = batch.rows.column("caption").to_pylist()
            there = np.array([bool(text and text.strip()) for text in captions], np.bool_)
            vectors: NDArray[np.float32]
            if images_to_vectors is None:
                vectors = vector_rows(batch.rows.column(str(self.embedding)), model.dim)
                there &= ~np.isnan(vectors[:, 0])
                vectors = vectors[there]
            else:
                vectors = images_to_vectors(
                    [each for each, use in zip(batch.pixels, there, strict=True) if use]
                )
            texts = captions_to_vectors(
                [text for text, use in zip(captions, there, strict=True) if use]
            )
            cosines = np.zeros(len(captions), np.float32)
            cosines[there] = _cosines(vectors, texts)
            there[there] = np.isfinite(cosines[there])
            return pa.RecordBatch.from_arrays([pa.array(cosines, mask=~there)], schema=schema)

        return score

    def _model(self) -> ImageModel:
        return image_model.find(self.model, self.model_dir, exact=self.exact)

    def _digest(self) -> str:
        """Return the digest of the images' files and of those that decide the captions' vectors."""
        return self._folder().digest(*caption_model.FILES)

    def _folder(self) -> ModelFolder:
        place = self._model().folder
        assert place is not None  # noqa: S101  # only the default model has none
        return place


def _cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines of rows that have length 1, or 16-bit copies of such rows."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    length = np.sqrt(np.sum(a * a, axis=1) * np.sum(b * b, axis=1))
    with np.errstate(all="ignore"):
        return np.asarray(np.clip(np.sum(a * b, axis=1) / length, -1, 1), np.float64)
