"""Runs ONNX graphs in OpenVINO: the only module that knows it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixsieve.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PRECISIONS = {"float32": "f32", "bf16": "bf16"}


def load(
    model: bytes | str, external_folder: str | None, precision: str
) -> tuple[tuple[str, ...], tuple[str, ...], Callable[[Mapping[str, Any]], list[Any]]]:
    """Return the names of inputs and outputs, and the function that runs the graph.

    OpenVINO takes bf16 by itself where the processor has it, so the precision is always set.
    """
    try:
        import openvino  # noqa: PLC0415  # heavy and optional
    except ImportError as error:
        msg = "runtime 'openvino' needs openvino: pip install 'pixsieve[openvino]'"
        raise MissingExtraError(msg) from error
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
    }
    try:
        if isinstance(model, bytes) and external_folder is not None:
            # Weights beside a graph are found by the graph's own place only.
            with tempfile.TemporaryDirectory() as folder:
                for path in Path(external_folder).iterdir():
                    (Path(folder) / path.name).symlink_to(path.resolve())
                graph = Path(folder) / ".graph.onnx"
                graph.write_bytes(model)
                compiled = core.compile_model(core.read_model(graph), "CPU", settings)
        else:
            compiled = core.compile_model(core.read_model(model), "CPU", settings)
    except RuntimeError as error:
        msg = f"OpenVINO cannot load the graph: {str(error).strip().splitlines()[0]}"
        raise UsageError(msg) from error
    inputs = tuple(port.get_any_name() for port in compiled.inputs)
    outputs = tuple(port.get_any_name() for port in compiled.outputs)

    def run(values: Mapping[str, Any]) -> list[Any]:
        found = compiled(dict(values))
        return [found[port] for port in compiled.outputs]

    return inputs, outputs, run
