"""LAION's heads over CLIP embeddings: aesthetics and NSFW, as published.

All of them take the L2-normalised image embedding of one OpenAI CLIP model, and of no other. They
are small enough for numpy; sums are taken in float64, so that results do not depend on the machine.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pixsieve.errors import UsageError
from pixsieve.models import folder, weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

VIT_L_14: Final = "openai/clip-vit-large-patch14"
VIT_B_32: Final = "openai/clip-vit-base-patch32"
VIT_B_16: Final = "openai/clip-vit-base-patch16"

_MLP_LAYERS = (0, 2, 4, 6, 7)
_NSFW_LAYERS = ("linear_1", "linear_2", "linear_3", "linear_4")
_ZERO_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A published head.

    Attributes:
        name: Its folder below the folder of models, as NeMo Curator lays it out.
        file: The weights' file in it.
        embedding: The model whose embeddings it was trained on.
        dim: Length of these.
        low, high: Ends of the scale that its scores mostly have.
        source: Where it was published.
    """

    name: str
    file: str
    embedding: str
    dim: int
    low: float
    high: float
    source: str

    def find(self, model_dir: str | None) -> Path:
        """Return where the weights lie.

        Raises:
            UsageError: they are not there, and what to do.
        """
        root = folder.model_root(model_dir)
        places = [] if root is None else [root / self.name / self.file]
        for path in places:
            if path.is_file():
                return path
        for path in (each.parent for each in places):
            for other in sorted(path.glob("*")) if path.is_dir() else ():
                if other.suffix in weights.PICKLES or other.suffix == ".zip":
                    msg = (
                        f"{other} is no safetensors file; convert it: "
                        f"pixsieve models convert {other} {path / self.file}"
                    )
                    raise UsageError(msg)
        looked = f"looked for {places[0]}" if places else "model_dir is not given"
        msg = (
            f"there are no weights of {self.name} ({looked}); fetch them on a connected machine, "
            f"pixsieve models fetch {self.name} --model-dir DIR, or convert the authors' file with "
            "pixsieve models convert, and name the folder as model_dir"
        )
        raise UsageError(msg)

    def load(self, path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Return the function from embeddings (n, dim) to scores (n,), NaN where one is NaN."""
        values = weights.read(path)
        try:
            score = _nsfw(values) if self.name.endswith("nsfw") else _affine(values)
        except KeyError as error:
            msg = f"{path} has no tensor {error}; expected those of {self.name}"
            raise UsageError(msg) from error

        def checked(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
            if embeddings.ndim != 2 or embeddings.shape[1] != self.dim:  # noqa: PLR2004
                msg = f"{self.name} takes embeddings of {self.dim} numbers, not {embeddings.shape}"
                raise UsageError(msg)
            return score(embeddings.astype(np.float64)).astype(np.float32)

        return checked


AESTHETIC_V2 = Head(
    name="ttj/sac-logos-ava1-l14-linearMSE",
    file="model.safetensors",
    embedding=VIT_L_14,
    dim=768,
    low=1,
    high=10,
    source="github.com/christophschuhmann/improved-aesthetic-predictor, sac+logos+ava1-l14",
)
_V1 = "github.com/LAION-AI/aesthetic-predictor"
AESTHETIC_V1 = {
    embedding: Head(
        name=f"laion/aesthetic-predictor/{name}",
        file="model.safetensors",
        embedding=embedding,
        dim=dim,
        low=0,
        high=10,
        source=f"{_V1}, {name}",
    )
    for embedding, name, dim in (
        (VIT_L_14, "sa_0_4_vit_l_14_linear", 768),
        (VIT_B_32, "sa_0_4_vit_b_32_linear", 512),
        (VIT_B_16, "sa_0_4_vit_b_16_linear", 512),
    )
}
NSFW = Head(
    name="laion/clip-autokeras-binary-nsfw",
    file="model.safetensors",
    embedding=VIT_L_14,
    dim=768,
    low=0,
    high=1,
    source="github.com/LAION-AI/CLIP-based-NSFW-Detector, clip_autokeras_binary_nsfw",
)


def _affine(values: Mapping[str, NDArray[np.float32]]) -> Callable[..., NDArray[np.float64]]:
    """Return V1's linear layer, or V2's five ones, between which there is no activation."""
    names = [""] if "weight" in values else [f"layers.{number}." for number in _MLP_LAYERS]
    layers = [
        (values[f"{name}weight"].astype(np.float64), values[f"{name}bias"].astype(np.float64))
        for name in names
    ]
    weight, bias = layers[0]
    for (_, _), (next_weight, next_bias) in itertools.pairwise(layers):
        weight, bias = next_weight @ weight, next_weight @ bias + next_bias

    def score(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((embeddings * weight[0]).sum(axis=1) + bias[0])

    return score


def _nsfw(values: Mapping[str, NDArray[np.float32]]) -> Callable[..., NDArray[np.float64]]:
    """Return the detector: standardised inputs, three layers with ReLU, one with a sigmoid.

    Some inputs were categories to its authors' tool; as numbers they add a constant, as published.
    """
    if "layer_with_weights-1/mean" in values:  # TensorFlow's names; kernels are (inputs, outputs)
        mean, variance = (values[f"layer_with_weights-1/{n}"] for n in ("mean", "variance"))
        layers = [
            (values[f"layer_with_weights-{n}/kernel"], values[f"layer_with_weights-{n}/bias"])
            for n in range(2, 6)
        ]
    else:
        mean, variance = values["norm.mean"], values["norm.variance"]
        layers = [(values[f"{name}.weight"].T, values[f"{name}.bias"]) for name in _NSFW_LAYERS]
    deviation = np.sqrt(np.maximum(variance.astype(np.float64), _ZERO_VARIANCE))
    exact = [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in layers]

    def score(embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
        x = (embeddings - mean) / deviation
        for number, (weight, bias) in enumerate(exact):
            # One row at a time, so that a row's score does not depend on the others.
            x = np.stack([row @ weight for row in x]) + bias if len(x) else np.empty((0, 1))
            if number < len(exact) - 1:
                x = np.maximum(x, 0)
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-x[:, 0])))

    return score
