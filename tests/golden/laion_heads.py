"""Seed-made heads of LAION's shapes, and embeddings: the inputs of ``laion.json``."""

import numpy as np

WIDTHS = {
    "v2": (768, 1024, 128, 64, 16, 1),
    "v1": (768, 1),
    "v1-b32": (512, 1),
    "v1-b16": (512, 1),
    "nsfw": (768, 64, 512, 256, 1),
}
PREFIXES = {
    "v2": ["layers.0.", "layers.2.", "layers.4.", "layers.6.", "layers.7."],
    "v1": [""],
    "v1-b32": [""],
    "v1-b16": [""],
    "nsfw": ["linear_1.", "linear_2.", "linear_3.", "linear_4."],
}


def head(name: str) -> dict[str, np.ndarray]:
    """Return the tensors of a head; scores over :func:`embeddings` spread over their scale."""
    rng = np.random.default_rng([20, *name.encode()])
    widths, tensors = WIDTHS[name], {}
    for prefix, width, after in zip(PREFIXES[name], widths, widths[1:], strict=False):
        gain = 4 if name != "nsfw" and prefix == PREFIXES[name][-1] else 1.5
        weight = rng.normal(size=(after, width)) * gain / width**0.5
        if width == widths[0] and name != "nsfw":
            weight *= width**0.5  # embeddings have length 1, not 1 a number
        tensors[f"{prefix}weight"] = weight.astype(np.float32)
        tensors[f"{prefix}bias"] = rng.normal(size=after).astype(np.float32) / 4
    if name == "nsfw":
        mean, variance = rng.normal(size=768) / 30, rng.random(768) / 700 + 1e-4
        for column in (180, 316, 413, 440, 644):  # as in the published one
            mean[column], variance[column] = 1000 + column, 2e6
        tensors["norm.mean"] = mean.astype(np.float32)
        tensors["norm.variance"] = variance.astype(np.float32)
    return tensors


def embeddings(dim: int) -> np.ndarray:
    """Return (12, dim) float32 rows of length 1."""
    rows = np.random.default_rng(dim).normal(size=(12, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
