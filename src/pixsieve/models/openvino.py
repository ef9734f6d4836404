"""Runs ONNX graphs by OpenVINO: an accelerator for processors, never needed.

The only module that knows OpenVINO; it is imported when a model is loaded, not before.
"""

from __future__ import annotations

from contextlib import chdir, nullcontext
from typing import TYPE_CHECKING, Any

from pixsieve.errors import MissingExtraError, RunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_HINTS = {"float32": "f32", "bf16": "bf16"}


def load(model: bytes | str, *, external_folder: str | None, precision: str) -> _OpenVino:
    """Load a graph; see :func:`pixsieve.models.runtime.load`.

    The precision is always stated: left alone, OpenVINO takes bf16 wherever the processor has it.
    """
    core = _core()
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": 1,  # processes share the work, never threads
        "NUM_STREAMS": 1,
    }
    # A graph in memory has its weights in the working folder, and nowhere else.
    folder = nullcontext() if external_folder is None else chdir(external_folder)
    try:
        with folder:
            graph = core.read_model(model)
        compiled = core.compile_model(graph, "CPU", settings)
    except Exception as error:
        what = model if isinstance(model, str) else "the model's graph"
        msg = f"{what} cannot be loaded by OpenVINO: {error}"
        raise UsageError(msg) from error
    shapes = {name: port.partial_shape for port in compiled.inputs for name in port.names}
    return _OpenVino(compiled, shapes)


def check_bf16() -> None:
    """Raise ``UsageError`` unless the processor computes in bf16."""
    if "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        msg = "precision='bf16': this processor does not compute in bf16; take 'float32'"
        raise UsageError(msg)


def _core() -> Any:
    try:
        import openvino  # noqa: PLC0415  # heavy: only where a model is loaded
    except ImportError as error:
        msg = "runtime='openvino' needs openvino: pip install 'pixsieve[openvino]'"
        raise MissingExtraError(msg) from error
    return openvino.Core()


class _OpenVino:
    def __init__(self, compiled: Any, shapes: Mapping[str, Any]) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = range(len(compiled.outputs))
        self._shapes = shapes

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        for name, array in inputs.items():  # OpenVINO itself would compute something
            shape = self._shapes[name]
            if not shape.compatible(type(shape)(list(array.shape))):
                msg = f"the model does not take {name} {list(array.shape)}; expected {shape}"
                raise RunError(msg)
        found = self._request.infer(dict(inputs))
        return [found[number] for number in self._outputs]
