"""The image tower of a model folder as an ONNX graph: uint8 pixels in, embedding out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pixsieve.models import architecture
from pixsieve.models.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pixsieve.models.architecture import Vision
    from pixsieve.models.preprocess import Preprocess
    from pixsieve.models.weights import Tensor


def build(tower: Vision, tensors: Mapping[str, Tensor], preprocess: Preprocess) -> bytes:
    """Return the graph: input ``pixels`` (n, height, width, 3) uint8, output ``embedding``.

    The normalisation of the pixels is part of it. The embedding, (n, dim) float32, is what the
    reference implementation gives, not normalised.

    Raises:
        UsageError: if the model was not made for images of that size.
    """
    graph = Graph(tensors)
    architecture.check_size(tower, tensors, preprocess.crop)
    height, width = (side // tower.patch for side in preprocess.crop)
    positions = _positions(tower, tensors, (height, width))
    x = _patches(graph, tower, preprocess, height * width)
    first = 0
    if tower.class_token is None:
        x = graph.node("Add", x, graph.constant(positions))
    else:
        lead = [tensors[tower.class_token].read().reshape(1, 1, -1) + positions[:, :1]]
        if tower.registers is not None:
            lead.append(tensors[tower.registers].read().reshape(1, -1, tower.width))
        leading = np.concatenate(lead, axis=1)
        first = leading.shape[1]
        x = graph.node("Add", x, graph.constant(positions[:, 1:]))
        count = graph.node("Shape", "pixels", start=0, end=1)
        shape = graph.node("Concat", count, graph.constant([first, tower.width]), axis=0)
        x = graph.node("Concat", graph.node("Expand", graph.constant(leading), shape), x, axis=1)
    tokens = first + height * width
    size = tower.width // tower.heads
    flat = graph.constant([-1, tower.width])
    heads = graph.constant([-1, tokens, tower.heads, size])
    x = graph.node("Reshape", x, flat)
    if tower.pre_norm is not None:
        x = graph.norm(x, tower.pre_norm, tower.eps)
    for block in tower.blocks:
        x = graph.block(
            x,
            block,
            heads=heads,
            flat=flat,
            scale=size**-0.5,
            eps=tower.eps,
            activation=tower.activation,
        )
    if tower.head is not None:
        x = graph.pool(
            graph.norm(x, tower.post_norm, tower.eps),
            tower.head,
            heads=tower.heads,
            width=tower.width,
            tokens=tokens,
            eps=tower.eps,
            activation=tower.activation,
        )
    else:
        x = graph.node("Reshape", x, graph.constant([-1, tokens, tower.width]))
        x = graph.node("Gather", x, graph.constant(np.array(0)), axis=1)
        x = graph.norm(x, tower.post_norm, tower.eps)
    if tower.projection is not None:
        x = graph.linear(x, tower.projection)
    return graph.model({"pixels": ("uint8", ["n", *preprocess.crop, 3])}, x)


def _patches(graph: Graph, tower: Vision, preprocess: Preprocess, patches: int) -> str:
    """Normalise the pixels and project each patch: (n, patches, width)."""
    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    x = graph.node("Cast", "pixels", to=1)
    x = graph.node("Mul", x, graph.constant((1 / (255 * std)).astype(np.float32)))
    x = graph.node("Sub", x, graph.constant((mean / std).astype(np.float32)))
    x = graph.node("Transpose", x, perm=[0, 3, 1, 2])
    weights = [graph.weight(tower.patches.weight)]
    if tower.patches.bias is not None:
        weights.append(graph.weight(tower.patches.bias))
    x = graph.node("Conv", x, *weights, strides=[tower.patch, tower.patch])
    x = graph.node("Reshape", x, graph.constant([0, tower.width, patches]))
    return graph.node("Transpose", x, perm=[0, 2, 1])


def _positions(
    tower: Vision, tensors: Mapping[str, Tensor], grid: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the positions of the class token, if any, and of a grid: (1, tokens, width)."""
    table = tensors[tower.positions].read().reshape(-1, tower.width)
    first = 0 if tower.class_token is None else 1
    count = grid[0] * grid[1]
    side = round((len(table) - first) ** 0.5)
    if grid == (side, side) and len(table) == first + count:
        return table[np.newaxis]
    square = table[first:].reshape(side, side, tower.width).astype(np.float64)
    rows, columns = (_bicubic(side, target, antialias=tower.antialias) for target in grid)
    resized = np.einsum("ai,bj,ijw->abw", rows, columns, square, optimize=True)
    found = np.concatenate([table[:first], resized.reshape(count, tower.width)])
    return np.asarray(found[np.newaxis], np.float32)


def _bicubic(source: int, target: int, *, antialias: bool) -> NDArray[np.float64]:
    """Return the (target, source) matrix of torch's bicubic interpolation, corners not aligned."""
    stretch = max(source / target, 1.0) if antialias else 1.0
    sharp = -0.5 if antialias else -0.75
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    matrix = np.zeros((target, source))
    reach = int(np.ceil(2 * stretch)) + 1
    for row, centre in enumerate(centres):
        for column in range(int(np.floor(centre)) - reach, int(np.floor(centre)) + reach + 1):
            weight = _cubic(abs(column - centre) / stretch, sharp)
            if antialias and not 0 <= column < source:
                continue  # weights beyond the edge are left out, the others sum to one
            matrix[row, min(max(column, 0), source - 1)] += weight
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def _cubic(x: float, a: float) -> float:
    """Return Keys' cubic convolution kernel at distance ``x``."""
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0  # noqa: PLR2004  # its support
