"""LAION's heads over CLIP embeddings, aesthetics and NSFW, as published.

Each takes the L2-normalised image embedding of one of OpenAI's CLIP models, and of no other. They
are small enough for numpy. Sums are taken in float64 and one row at a time, so that a score depends
on neither its neighbours nor the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pixsieve.errors import UsageError
from pixsieve.models import folder, torch_file, weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Values = Mapping[str, NDArray[np.float64]]
    Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]

VIT_L_14: Final = "openai/clip-vit-large-patch14"
VIT_B_32: Final = "openai/clip-vit-base-patch32"
VIT_B_16: Final = "openai/clip-vit-base-patch16"

_LEAST_DEVIATION: Final = 1e-7  # as Keras' Normalization has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A published head.

    Attributes:
        name: Its folder below the folder of models; NeMo Curator's, where that has the head.
        embedding: The model whose embeddings it was trained on.
        low, high: Ends of the scale that its scores mostly have.
        source: Where it was published.
        shapes: Its tensors, from the first layer on. A weight is (what it gives, what it takes).
    """

    name: str
    embedding: str
    low: float
    high: float
    source: str
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def dim(self) -> int:
        """Length of the embeddings."""
        return next(shape[1] for name, shape in self.shapes.items() if name.endswith("weight"))

    def find(self, model_dir: str | None) -> Path:
        """Return where the weights lie.

        Raises:
            UsageError: if they are not there; says what to do.
        """
        root = folder.model_root(model_dir)
        place = None if root is None else root / self.name
        if place is not None and (place / "model.safetensors").is_file():
            return place / "model.safetensors"
        if place is not None and place.is_dir():
            for other in sorted(place.iterdir()):
                if other.suffix in (*torch_file.SUFFIXES, ".zip"):
                    raise weights.refuse_pickle(other, place / "model.safetensors")
        looked = "no model_dir is given" if place is None else f"{place} has no model.safetensors"
        msg = f"there are no weights of {self.name}: {looked}. {folder.ways_to(self.name, root)}"
        raise UsageError(msg)

    def load(self, path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Return the function from embeddings (n, dim) to scores (n,); NaN where one is NaN.

        Raises:
            UsageError: if the file has other tensors than the head.
        """
        found = weights.tensors(path)
        if {name: tensor.shape for name, tensor in found.items()} != self.shapes:
            wrong = next(
                (name for name in self.shapes if name not in found),
                next((n for n in found if found[n].shape != self.shapes.get(n)), ""),
            )
            msg = (
                f"{path} is not {self.name}: its tensor {wrong!r} is "
                f"{found[wrong].shape if wrong in found else 'missing'}, expected "
                f"{self.shapes.get(wrong, 'none')}"
            )
            raise UsageError(msg)
        values = {name: found[name].read().astype(np.float64) for name in self.shapes}
        score = _detector(values) if "norm.mean" in values else _affine(values)

        def scores(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
            return score(embeddings.astype(np.float64)).astype(np.float32)

        return scores


def _layers(prefixes: tuple[str, ...], *widths: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of linear layers, the first of which takes the first width."""
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, width, after in zip(prefixes, widths, widths[1:], strict=False):
        shapes |= {f"{prefix}weight": (after, width), f"{prefix}bias": (after,)}
    return shapes


_V1: Final = {
    name: Head(
        name=f"laion/aesthetic-predictor/{file}",
        embedding=embedding,
        low=0,
        high=10,
        source=f"LAION-AI/aesthetic-predictor, {file}",
        shapes=_layers(("",), dim, 1),
    )
    for name, embedding, file, dim in (
        ("v1", VIT_L_14, "sa_0_4_vit_l_14_linear", 768),
        ("v1-b32", VIT_B_32, "sa_0_4_vit_b_32_linear", 512),
        ("v1-b16", VIT_B_16, "sa_0_4_vit_b_16_linear", 512),
    )
}

AESTHETIC: Final[Mapping[str, Head]] = {
    "v2": Head(
        name="ttj/sac-logos-ava1-l14-linearMSE",
        embedding=VIT_L_14,
        low=1,
        high=10,
        source="improved-aesthetic-predictor, sac+logos+ava1-l14-linearMSE",
        shapes=_layers(tuple(f"layers.{n}." for n in (0, 2, 4, 6, 7)), 768, 1024, 128, 64, 16, 1),
    ),
    **_V1,
}
"""V2: five layers with dropout, but nothing else, between them. V1: one layer."""

NSFW: Final = Head(
    name="laion/clip-autokeras-binary-nsfw",
    embedding=VIT_L_14,
    low=0,
    high=1,
    source="LAION-AI/CLIP-based-NSFW-Detector, clip_autokeras_binary_nsfw",
    shapes={
        "norm.mean": (768,),
        "norm.variance": (768,),
        **_layers(tuple(f"linear_{n}." for n in (1, 2, 3, 4)), 768, 64, 512, 256, 1),
    },
)
"""Standardised inputs, three layers with ReLU, one with a sigmoid.

Five inputs (180, 316, 413, 440, 644) were categories to the tool of its authors, with means up to
1188. As numbers they add next to nothing; they are left as published.
"""

HEADS: Final[Mapping[str, Head]] = {head.name: head for head in (*AESTHETIC.values(), NSFW)}
"""All of them by their folders below the folder of models."""


def _affine(values: Values) -> Score:
    """Return V1's layer, or V2's five: without activations they are one affine map."""
    names = [name for name in values if name.endswith("weight")]
    weight, bias = np.ones(1), 0.0
    for name in reversed(names):  # from the last layer to the first
        bias += float((weight * values[f"{name.removesuffix('weight')}bias"]).sum())
        weight = (weight[:, None] * values[name]).sum(axis=0)
    return lambda rows: np.asarray((rows * weight).sum(axis=1) + bias)


def _detector(values: Values) -> Score:
    """Return the detector's function."""
    deviation = np.maximum(np.sqrt(values["norm.variance"]), _LEAST_DEVIATION)
    layers = [(values[f"linear_{n}.weight"], values[f"linear_{n}.bias"]) for n in (1, 2, 3, 4)]

    def one(row: NDArray[np.float64]) -> float:
        x = (row - values["norm.mean"]) / deviation
        for weight, bias in layers[:-1]:
            x = np.maximum((weight * x).sum(axis=1) + bias, 0)
        weight, bias = layers[-1]
        return float((weight * x).sum() + bias[0])

    def scores(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        logits = np.array([one(row) for row in rows], np.float64)
        return 0.5 * (1 + np.tanh(0.5 * logits))  # the sigmoid, without overflow

    return scores
