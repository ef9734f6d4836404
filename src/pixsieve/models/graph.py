"""Builds ONNX graphs over a model folder's own weight files.

A graph holds the arithmetic only, some 100 kB; its weights are "external data": places in the
folder's safetensors files, which the runtime maps into memory. Weights of 16 bits are cast to
32-bit floats when the graph is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pixsieve.errors import MissingExtraError, UsageError

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:  # pragma: no cover  # tested in an environment without it
    msg = "models from folders need onnx: pip install 'pixsieve[models]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pixsieve.models.architecture import AttentionPool, Block, Linear
    from pixsieve.models.weights import Tensor

OPSET: Final = 20  # the first with Gelu
IR_VERSION: Final = 10

_TYPES: Final = {
    "F32": TensorProto.FLOAT,
    "F16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
}


class Graph:
    """A graph in the making. Every method appends to it and returns the name of what it made.

    Activations are kept as (images * tokens, width): linear layers are then one ``Gemm`` each, with
    weight and bias as they lie in the file.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._weights: dict[tuple[str, int | None], str] = {}
        self._count = 0

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append an operator with one output."""
        self._count += 1
        output = f"v{self._count}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, value: NDArray[np.generic] | Sequence[int] | float) -> str:
        """Add a small array: numbers become float32, lists of integers int64."""
        array = (
            value
            if isinstance(value, np.ndarray)
            else np.array(value, np.float32 if isinstance(value, float) else np.int64)
        )
        name = f"c{len(self._initializers)}"
        self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, third: int | None = None) -> str:
        """Add a tensor of the weight files as float32, or a third of its rows."""
        if (name, third) in self._weights:
            return self._weights[name, third]
        tensor = self._tensors.get(name)
        if tensor is None or tensor.dtype not in _TYPES:
            msg = (
                f"the weights have no tensor {name}"
                if tensor is None
                else f"tensor {name} in {tensor.path} is of type {tensor.dtype}"
            )
            raise UsageError(f"{msg}; expected one of 32- or 16-bit floats")
        shape, offset, size = tensor.shape, tensor.offset, tensor.size
        if third is not None:
            shape, size = (shape[0] // 3, *shape[1:]), size // 3
            offset += third * size
        label = name if third is None else f"{name}:{third}"
        proto = TensorProto(name=label, data_type=_TYPES[tensor.dtype], dims=shape)
        proto.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", tensor.path.resolve().name),
            ("offset", offset),
            ("length", size),
        ):
            entry = proto.external_data.add()
            entry.key, entry.value = key, str(value)
        self._initializers[label] = proto
        if tensor.dtype != "F32":
            label = self.node("Cast", label, to=TensorProto.FLOAT)
        self._weights[name, third] = label
        return label

    def linear(self, x: str, layer: Linear) -> str:
        """Apply a linear layer to (rows, in)."""
        inputs = [x, self.weight(layer.weight, layer.third)]
        if layer.bias is not None:
            inputs.append(self.weight(layer.bias, layer.third))
        return self.node("Gemm", *inputs, transB=0 if layer.transposed else 1)

    def norm(self, x: str, name: str, eps: float) -> str:
        """Apply layer normalisation over the last axis."""
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("LayerNormalization", x, weight, bias, epsilon=eps)

    def activate(self, x: str, kind: str) -> str:
        """Apply an activation: ``gelu``, ``gelu_tanh`` or ``quick_gelu``."""
        if kind == "quick_gelu":
            return self.node(
                "Mul", x, self.node("Sigmoid", self.node("Mul", x, self.constant(1.702)))
            )
        return self.node("Gelu", x, approximate="tanh" if kind == "gelu_tanh" else "none")

    def attend(
        self, query: str, key: str, value: str, scale: float, mask: str | None = None
    ) -> str:
        """Return ``softmax(scale * query @ key + mask) @ value``: (n, tokens, heads, size).

        Args:
            query: (n, heads, tokens, size).
            key: (n, heads, size, tokens).
            value: (n, heads, tokens, size).
            scale: Of the products.
            mask: Added to the products.
        """
        found = self.node("MatMul", self.node("Mul", query, self.constant(scale)), key)
        if mask is not None:
            found = self.node("Add", found, mask)
        found = self.node("MatMul", self.node("Softmax", found, axis=-1), value)
        return self.node("Transpose", found, perm=[0, 2, 1, 3])

    def block(
        self,
        x: str,
        block: Block,
        *,
        heads: str,
        flat: str,
        scale: float,
        eps: float,
        activation: str,
        mask: str | None = None,
    ) -> str:
        """Apply a transformer layer to (images * tokens, width).

        Args:
            x: The tokens.
            block: The layer's tensors.
            heads: The shape (n, tokens, heads, size).
            flat: The shape (n * tokens, width).
            scale: Of the products of queries and keys.
            eps: Of the norms.
            activation: Of the MLP.
            mask: Added to the products.
        """
        normed = self.norm(x, block.norm1, eps)
        query, key, value = (
            self.node(
                "Transpose",
                self.node("Reshape", self.linear(normed, layer), heads),
                perm=[0, 2, 3, 1] if layer is block.key else [0, 2, 1, 3],
            )
            for layer in (block.query, block.key, block.value)
        )
        attended = self.node("Reshape", self.attend(query, key, value, scale, mask), flat)
        x = self.node("Add", x, self._scaled(self.linear(attended, block.out), block.scale1))
        hidden = self.linear(self.norm(x, block.norm2, eps), block.up)
        if block.gated:
            half = self._tensors[block.up.weight].shape[0] // 2
            gate = self._columns(hidden, 0, half)
            gate = self.node("Mul", gate, self.node("Sigmoid", gate))
            hidden = self.node("Mul", gate, self._columns(hidden, half, 2 * half))
        else:
            hidden = self.activate(hidden, activation)
        return self.node("Add", x, self._scaled(self.linear(hidden, block.down), block.scale2))

    def pool(
        self,
        x: str,
        head: AttentionPool,
        *,
        heads: int,
        width: int,
        tokens: int,
        eps: float,
        activation: str,
    ) -> str:
        """Apply SigLIP's attention pool to (images * tokens, width); returns (images, width)."""
        size = width // heads
        probe = self.node("Reshape", self.weight(head.probe), self.constant([1, width]))
        query = self.node(
            "Reshape", self.linear(probe, head.query), self.constant([1, heads, 1, size])
        )
        shape = self.constant([-1, tokens, heads, size])
        key, value = (
            self.node(
                "Transpose",
                self.node("Reshape", self.linear(x, layer), shape),
                perm=[0, 2, 3, 1] if layer is head.key else [0, 2, 1, 3],
            )
            for layer in (head.key, head.value)
        )
        found = self.attend(query, key, value, size**-0.5)
        found = self.linear(self.node("Reshape", found, self.constant([-1, width])), head.out)
        hidden = self.activate(self.linear(self.norm(found, head.norm, eps), head.up), activation)
        return self.node("Add", found, self.linear(hidden, head.down))

    def model(self, inputs: Mapping[str, tuple[str, Sequence[int | str]]], output: str) -> bytes:
        """Return the graph as bytes.

        Args:
            inputs: Name to type (``uint8`` or ``int64``) and shape.
            output: What to call ``embedding``; a float32 matrix.
        """
        types = {"uint8": TensorProto.UINT8, "int64": TensorProto.INT64}
        self._nodes.append(helper.make_node("Identity", [output], ["embedding"]))
        graph = helper.make_graph(
            self._nodes,
            "model",
            [
                helper.make_tensor_value_info(name, types[kind], list(shape))
                for name, (kind, shape) in inputs.items()
            ],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", "dim"])],
            list(self._initializers.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        found = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        return bytes(found.SerializeToString())

    def _scaled(self, x: str, scale: str | None) -> str:
        return x if scale is None else self.node("Mul", x, self.weight(scale))

    def _columns(self, x: str, start: int, stop: int) -> str:
        return self.node(
            "Slice", x, self.constant([start]), self.constant([stop]), self.constant([1])
        )
