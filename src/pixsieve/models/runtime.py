"""Runs ONNX graphs: the only module that knows ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pixsieve.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True, slots=True)
class Session:
    """A loaded graph.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs, in the order of what :meth:`run` returns.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    _run: Any

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return all outputs for these inputs."""
        return [np.asarray(found) for found in self._run(dict(inputs))]


def load(
    model: bytes | str,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    external_folder: str | None = None,
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime",
    precision: Literal["float32", "bf16"] = "float32",
) -> Session:
    """Load a graph onto one thread: worker processes are the parallelism.

    Args:
        model: The graph's bytes, or the path of its file.
        device: Where it runs.
        external_folder: Where files lie that the graph's weights are in.
        runtime: ``openvino`` is an optional accelerator for CPUs.
        precision: ``bf16`` only in ``openvino``; it halves the time and changes results a little.

    Raises:
        MissingExtraError: the runtime is not installed.
        UsageError: it cannot do what is asked for, or cannot read the graph.
    """
    if runtime == "openvino":
        from pixsieve.models import openvino  # noqa: PLC0415  # only where it is asked for

        if device != "cpu":
            msg = f"OpenVINO runs on the CPU here, not on {device!r}; use runtime='onnxruntime'"
            raise UsageError(msg)
        return Session(*openvino.load(model, external_folder, precision))
    if precision != "float32":
        msg = f"ONNX Runtime computes in float32, not in {precision}; use runtime='openvino'"
        raise UsageError(msg)
    try:
        import onnxruntime  # noqa: PLC0415  # heavy: only where a model is loaded
    except ImportError as error:
        msg = "models need onnxruntime: pip install 'pixsieve[models]'"
        raise MissingExtraError(msg) from error
    provider = _PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        there = ", ".join(onnxruntime.get_available_providers())
        msg = f"device {device!r} is not to be had: ONNX Runtime offers {there}"
        raise UsageError(msg)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    if external_folder is not None:
        options.add_session_config_entry(_FOLDER_OF_WEIGHTS, external_folder)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:
        named = model if isinstance(model, str) else "the graph"
        msg = f"ONNX Runtime cannot load {named}: {str(error).strip().splitlines()[0]}"
        raise UsageError(msg) from error
    return Session(
        tuple(each.name for each in session.get_inputs()),
        tuple(each.name for each in session.get_outputs()),
        lambda inputs: session.run(None, inputs),
    )
