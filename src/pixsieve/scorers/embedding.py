"""A vector for each image: similar images have similar ones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self, get_args

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError, UsageError
from pixsieve.models import folder, image_model, laion
from pixsieve.models.image_model import Device, Precision, RuntimeName
from pixsieve.schema import RESERVED
from pixsieve.scorers.heads import without_places
from pixsieve.stage import Needs, ScoreStage, check_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pixsieve.models.image_model import ImageModel
    from pixsieve.stage import ImageBatch

TYPES = {"float32": pa.float32(), "float16": pa.float16()}
CHOICES = {
    "dtype": tuple(TYPES),
    "device": get_args(Device),
    "runtime": get_args(RuntimeName),
    "precision": get_args(Precision),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEmbeddingStage(ScoreStage):
    """Adds ``embedding``: an L2-normalised vector of each image.

    Null stands for an image whose vector has no direction (all zeros, or not finite). The vector of
    an image is the same in any batch, and on one thread.

    Args:
        model: A name such as ``"openai/clip-vit-base-patch32"`` below ``model_dir``, or a folder.
            ``"default"`` is EfficientNet-Lite0 (1280 numbers), which comes with
            ``pixsieve[models]``; with a ``model_dir`` it is NeMo Curator's
            ``"openai/clip-vit-large-patch14"`` from there. See ``docs/models.md``.
        model_dir: Folder of models; ``None`` for ``$PIXSIEVE_MODELS``.
        model_inference_batch_size: Images in one run of the model, at most; changes no vector. On a
            CPU no more than 8 are run at once, since larger runs take longer there.
        dtype: ``"float32"`` or ``"float16"``: how the vector is stored.
        column: Name of the column.
        device: ``"cpu"``, or ``"cuda"`` where the runtime has it.
        runtime: ``"onnxruntime"`` or ``"openvino"``.
        precision: ``"float32"``; ``"bf16"`` is two to three times as fast, with OpenVINO on CPUs
            that have it, and less exact (cosine to float32 about 0.999).
        exact: Decode every pixel and follow the reference's preprocessing to the bit. Otherwise a
            large image is decoded at a half, a quarter or an eighth of its size, no smaller than
            twice what the model looks at (cosine to exact 0.998 or more).
        num_gpus_per_worker: Accepted for Curator's scripts and without effect, as are the next two:
            workers are the executor's, and ``device`` says where the model runs.
        remove_image_data: See above; pixels are never passed on.
        verbose: See above.
    """

    version: ClassVar[int] = 1

    model: str = image_model.DEFAULT
    model_dir: str | None = None
    model_inference_batch_size: int = 32
    dtype: Literal["float32", "float16"] = "float32"
    column: str = "embedding"
    device: Device = "cpu"
    runtime: RuntimeName = "onnxruntime"
    precision: Precision = "float32"
    exact: bool = False
    num_gpus_per_worker: float | None = None
    remove_image_data: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        check_choices(self)
        check_fields(self)
        if self.column in RESERVED:
            msg = f"column={self.column!r} is a column that pixsieve itself has; take another name"
            raise PlanError(msg)

    @property
    def needs(self) -> Needs:
        """Twice the pixels that the model looks at, or all with ``exact``."""
        return Needs(pixels=self._model().preprocess.pixels)

    def adds(self) -> pa.Schema:
        model = self._model()
        metadata = {
            "scale": "-1 to 1",
            "unit": "L2-normalised vector",
            "better": "neither",
            "source": "pooled features of the model, divided by their length",
            "model": model.name,
            "revision": model.revision or "",
            "digest": model.digest(),
            "dim": str(model.dim),
        }
        return pa.schema(
            [pa.field(self.column, pa.list_(TYPES[self.dtype], model.dim), metadata=metadata)]
        )

    def check(self, columns: pa.Schema) -> None:
        del columns
        image_model.check(self._model(), runtime_of(self))

    def digests(self) -> tuple[str, ...]:
        return (self._model().digest(),)

    def without_places(self) -> Self:
        """Name the model instead of its folder; its digest says which it is."""
        return without_places(self, model=folder.portable_name(self._named()))

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        vectors = image_model.load(self._model(), runtime_of(self))
        schema = self.adds()

        def score(batch: ImageBatch) -> pa.RecordBatch:
            column = vector_array(vectors(batch.pixels), TYPES[self.dtype])
            return pa.RecordBatch.from_arrays([column], schema=schema)

        return score

    def _named(self) -> str:
        """Return the model that is meant: where a folder of models is given, one of that."""
        curators = self.model == image_model.DEFAULT and self.model_dir
        return laion.VIT_L_14 if curators else self.model

    def _model(self) -> ImageModel:
        try:
            return image_model.find(self._named(), self.model_dir, exact=self.exact)
        except UsageError as error:
            if self._named() == self.model:
                raise
            msg = (
                f"model_dir={self.model_dir!r} without a model stands for that of NeMo Curator. "
                f"{error}. Or name another model, or leave model_dir out for the one that comes "
                f"with pixsieve[models]"
            )
            raise PlanError(msg) from error


def check_choices(stage: ScoreStage) -> None:
    """Raise ``PlanError`` unless the settings that all models share are such that exist."""
    for field in dataclasses.fields(stage):  # type: ignore[arg-type]  # every stage is one
        value = getattr(stage, field.name)
        if field.name in CHOICES and value not in CHOICES[field.name]:
            msg = f"{field.name}={value!r}; expected one of {', '.join(CHOICES[field.name])}"
            raise PlanError(msg)
        if field.name == "model_inference_batch_size" and not (type(value) is int and value > 0):
            msg = f"model_inference_batch_size={value!r}; expected a number of images, 1 or more"
            raise PlanError(msg)


class RunsModel(Protocol):
    """The settings of a stage that runs a model."""

    @property
    def device(self) -> Device: ...
    @property
    def runtime(self) -> RuntimeName: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def model_inference_batch_size(self) -> int: ...


def runtime_of(stage: RunsModel) -> image_model.Runtime:
    """Return where a stage's model runs."""
    return image_model.Runtime(
        device=stage.device,
        runtime=stage.runtime,
        precision=stage.precision,
        batch=stage.model_inference_batch_size,
    )


def vector_array(vectors: NDArray[np.float32], kind: pa.DataType) -> pa.FixedSizeListArray:
    """Return rows as fixed-size lists of a type; a row that is not finite as null."""
    finite = np.asarray(np.isfinite(vectors).all(axis=1), np.bool_)
    values = np.where(finite[:, None], vectors, 0).astype(kind.to_pandas_dtype())
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.reshape(-1), kind), vectors.shape[1], mask=pa.array(~finite)
    )
