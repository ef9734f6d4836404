"""A model that turns images into vectors, whichever way it runs.

What is needed before any work (size, length of the vector, digest) is told without loading it.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from pixsieve.errors import MissingExtraError, UsageError
from pixsieve.models import (
    architecture,
    exported,
    folder,
    preprocess,
    runtime,
    torch_backend,
    weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pixsieve.models.folder import ModelFolder
    from pixsieve.models.preprocess import Preprocess
    from pixsieve.models.weights import Tensor

    Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    Vectors = Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]]

Device = Literal["cpu", "cuda"]
RuntimeName = Literal["onnxruntime", "openvino"]
Precision = Literal["float32", "bf16"]

_TRANSFORMERS_AT_ONCE: Final = 8  # on a CPU; 7 to 25 % faster than 1, 16 or 32
_CONVOLUTIONS_AT_ONCE: Final = 1  # on a CPU; 20 to 40 % faster than 8 or 32

_EXTRAS: Final = {"openvino": "openvino", "torch": "torch", "transformers": "torch"}

DEFAULT: Final = "default"
"""The model that comes with the package's extra ``models``: EfficientNet-Lite0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageModel:
    """What is known of a model before it is loaded.

    Attributes:
        name: Name of the model, the same on every machine.
        folder: Its folder; ``None`` for the default model.
        dim: Length of the embedding.
        preprocess: From pixels to what the model looks at.
    """

    name: str
    folder: ModelFolder | None
    dim: int
    preprocess: Preprocess

    @property
    def revision(self) -> str | None:
        """Commit of the model on its hub, if its folder tells."""
        return None if self.folder is None else self.folder.revision

    def digest(self) -> str:
        """Return the SHA-256 over the files that decide the embedding."""
        if self.folder is not None:
            return self.folder.digest()
        from pixsieve.models.lite0 import Lite0  # noqa: PLC0415  # only where it is used

        return Lite0.digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Where a model runs; see :func:`pixsieve.models.runtime.load`."""

    device: Device = "cpu"
    runtime: RuntimeName = "onnxruntime"
    precision: Precision = "float32"
    batch: int = 32

    def step(self, on_cpu: int) -> int:
        """Return how many images to run at once; on one CPU thread large runs are slower."""
        return min(self.batch, on_cpu) if self.device == "cpu" else self.batch


def find(model: str, model_dir: str | None = None, *, exact: bool = False) -> ImageModel:
    """Find a model by name or folder, and read what its files say of it.

    Raises:
        UsageError: where there is none, or its files do not fit together.
    """
    if model == DEFAULT:
        return _default(exact)
    place = folder.find(model, model_dir)
    state = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in place.files())
    return _describe(place, exact, state)


def check(model: ImageModel, settings: Runtime, *also: str) -> None:
    """Raise ``UsageError`` unless the packages, device and precision that are asked for are there.

    No package is imported but where it alone can tell.

    Args:
        model: The model that is to run.
        settings: Where it is to run.
        also: Further packages that are needed.
    """
    if not _by_torch(model):
        need(f"the model {model.name}", settings.runtime, "onnx", *also)
        runtime.check(
            device=settings.device, runtime=settings.runtime, precision=settings.precision
        )
        return
    need(f"the model {model.name}", "torch", "transformers", *also)
    if settings.runtime != "onnxruntime" or settings.precision != "float32":
        msg = (
            f"the model {model.name} runs by torch, in float32; leave runtime and precision out, "
            f"or export it to ONNX"
        )
        raise UsageError(msg)
    torch_backend.check(settings.device)


def need(what: str, *packages: str) -> None:
    """Raise ``MissingExtraError`` unless packages are installed; none is imported."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            extra = _EXTRAS.get(package, "models")
            msg = f"{what} needs {package}: pip install 'pixsieve[{extra}]'"
            raise MissingExtraError(msg)


def load(model: ImageModel, settings: Runtime) -> Vectors:
    """Load a model; return the function from images of any size to their L2-normalised vectors.

    Each image's vector is the same whatever the batch around it.
    """
    embed = _embed(model, settings)
    step = settings.step(_CONVOLUTIONS_AT_ONCE if model.folder is None else _TRANSFORMERS_AT_ONCE)

    def vectors(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        found = np.empty((len(images), model.dim), np.float32)
        for start in range(0, len(images), step):
            rows = model.preprocess(images[start : start + step])
            embedded = embed(rows)
            if embedded.shape != (len(rows), model.dim):
                msg = (
                    f"{model.name} gave an array {embedded.shape} for {len(rows)} images; expected "
                    f"vectors of {model.dim}, as its folder says"
                )
                raise UsageError(msg)
            found[start : start + len(rows)] = embedded
        return normalised(found)

    return vectors


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of length 1; a row without a direction (all zero, or not finite) becomes NaN."""
    exact = vectors.astype(np.float64)
    with np.errstate(all="ignore"):
        length = np.sqrt(np.sum(exact * exact, axis=1, keepdims=True))
        return np.where(np.isfinite(length) & (length > 0), exact / length, np.nan).astype(
            np.float32
        )


def read_tensors(place: ModelFolder) -> dict[str, Tensor]:
    """Return the places of all tensors of a folder's weight files."""
    found: dict[str, Tensor] = {}
    for path in place.weights:
        found |= weights.tensors(path)
    return found


@functools.lru_cache(maxsize=2)
def _default(exact: bool) -> ImageModel:  # noqa: FBT001  # a cache's key
    from pixsieve.models.lite0 import Lite0  # noqa: PLC0415  # only where it is used

    size = (Lite0.size, Lite0.size)
    prepare = preprocess.Preprocess(resize=size, crop=size, exact=exact)
    return ImageModel(name="efficientnet-lite0", folder=None, dim=Lite0.dim, preprocess=prepare)


@functools.lru_cache(maxsize=16)
def _describe(
    place: ModelFolder,
    exact: bool,  # noqa: FBT001  # a cache's key
    _state: tuple[tuple[Path, int, int], ...],
) -> ImageModel:
    if place.kind == "onnx":
        described = exported.read(place)
        dim, prepare = described.dim, described.preprocess
    elif (kind := architecture.model_type(place)) in architecture.NATIVE:
        tensors = read_tensors(place)
        tower = architecture.vision(place, tensors)
        dim, prepare = tower.dim, _processor(place, kind)
        architecture.check_size(tower, tensors, prepare.crop)
    else:
        found = torch_backend.dimension(place.config())
        if found is None:
            msg = (
                f"{place.path}: {kind} models are not known, and config.json does not say how "
                f"long the embedding is; export the model to ONNX"
            )
            raise UsageError(msg)
        dim, prepare = found, _processor(place, kind)
    return ImageModel(
        name=place.name, folder=place, dim=dim, preprocess=replace(prepare, exact=exact)
    )


def _processor(place: ModelFolder, kind: str) -> Preprocess:
    if kind == "open_clip":
        where = str(place.path / "open_clip_config.json")
        model, given = place.config().get("model_cfg"), place.config().get("preprocess_cfg")
        tower = model.get("vision_cfg") if isinstance(model, dict) else None
        size = tower.get("image_size", 224) if isinstance(tower, dict) else 224
        return preprocess.from_open_clip(given if isinstance(given, dict) else {}, size, where)
    for name in folder.PROCESSORS:
        config = place.read_json(name)
        inner = config.get("image_processor", config)
        if config and isinstance(inner, dict):
            return preprocess.from_processor(inner, kind.partition("_")[0], str(place.path / name))
    msg = (
        f"{place.path} has no preprocessor_config.json, which says how images are prepared; "
        f"fetch it from where the model came from"
    )
    raise UsageError(msg)


def _by_torch(model: ImageModel) -> bool:
    """Tell whether a model runs through transformers, not as a graph."""
    place = model.folder
    if place is None or place.kind == "onnx":
        return False
    return architecture.model_type(place) not in architecture.NATIVE


def _embed(model: ImageModel, settings: Runtime) -> Embed:
    place = model.folder
    if place is None:
        from pixsieve.models.lite0 import Lite0  # noqa: PLC0415  # as above

        return Lite0(
            device=settings.device, runtime=settings.runtime, precision=settings.precision
        ).embed
    if _by_torch(model):
        return torch_backend.load(place, model.preprocess, settings.device)
    if place.kind == "onnx":
        return _exported(place, settings)
    from pixsieve.models import vision  # noqa: PLC0415  # as above

    tensors = read_tensors(place)
    graph = vision.build(architecture.vision(place, tensors), tensors, model.preprocess)
    session = runtime.load(
        graph,
        device=settings.device,
        external_folder=str(place.weights[0].resolve().parent),
        runtime=settings.runtime,
        precision=settings.precision,
    )
    return lambda batch: session.run({"pixels": batch})[0]


def _exported(place: ModelFolder, settings: Runtime) -> Embed:
    described = exported.read(place)
    ports = exported.ports(place, described)
    session = runtime.load(
        str(place.path / "model.onnx"),
        device=settings.device,
        external_folder=str(place.path),
        runtime=settings.runtime,
        precision=settings.precision,
    )

    def embed(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = described.normalise(batch)
        step = ports.batch or len(values)
        found = [
            session.run({ports.input: values[start : start + step]})[ports.output]
            for start in range(0, len(values), step)
        ]
        return np.asarray(np.concatenate(found), np.float32)

    return embed
