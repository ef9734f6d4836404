"""The text tower of a model folder as an ONNX graph: token ids in, embedding out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pixsieve.models.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixsieve.models.architecture import Text
    from pixsieve.models.weights import Tensor


def build(tower: Text, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the graph: ``ids`` (n, tokens) and ``pooled`` (n,) int64 in, ``embedding`` out.

    ``pooled`` is, for each text, the row of the (n * tokens) tokens whose vector is taken.
    """
    graph = Graph(tensors)
    size = tower.width // tower.heads
    shape = graph.node("Shape", "ids")
    length = graph.node("Shape", "ids", start=1, end=2)
    zero, axis = graph.constant([0]), graph.constant([0])
    flat = graph.constant([-1, tower.width])
    heads = graph.node("Concat", shape, graph.constant([tower.heads, size]), axis=0)
    x = graph.node("Gather", graph.weight(tower.tokens), "ids", axis=0)
    positions = graph.node("Slice", graph.weight(tower.positions), zero, length, axis)
    x = graph.node("Reshape", graph.node("Add", x, positions), flat)
    mask = None
    if tower.causal:
        above = np.triu(np.full((tower.context, tower.context), -np.inf, np.float32), k=1)
        both = graph.node("Concat", length, length, axis=0)
        mask = graph.node(
            "Slice", graph.constant(above), graph.constant([0, 0]), both, graph.constant([0, 1])
        )
    for block in tower.blocks:
        x = graph.block(
            x,
            block,
            heads=heads,
            flat=flat,
            scale=size**-0.5,
            eps=tower.eps,
            activation=tower.activation,
            mask=mask,
        )
    x = graph.norm(graph.node("Gather", x, "pooled", axis=0), tower.post_norm, tower.eps)
    if tower.projection is not None:
        x = graph.linear(x, tower.projection)
    return graph.model({"ids": ("int64", ["n", "tokens"]), "pooled": ("int64", ["n"])}, x)
