"""Runs ONNX graphs: on one thread, and the same result for the same input every time.

The only module that knows ONNX Runtime; it is imported when a model is loaded, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pixsieve.errors import MissingExtraError, RunError, UsageError
from pixsieve.models import openvino

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DEVICES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
RUNTIMES = ("onnxruntime", "openvino")
PRECISIONS = ("float32", "bf16")


class Session(Protocol):
    """A graph that is ready to run."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the graph's outputs, in its order, for an array for each of its inputs."""
        ...


def load(
    model: bytes | str,
    *,
    device: str = "cpu",
    external_folder: str | None = None,
    runtime: str = "onnxruntime",
    precision: str = "float32",
) -> Session:
    """Load a graph.

    Args:
        model: The graph itself, or the path of its file.
        device: ``"cpu"``, or ``"cuda"`` where ONNX Runtime has it.
        external_folder: Folder of the files that hold the weights of a graph given as bytes.
        runtime: ``"onnxruntime"`` or ``"openvino"``.
        precision: ``"float32"``; with OpenVINO also ``"bf16"``, where the processor has it.

    Raises:
        MissingExtraError: if the runtime is not installed.
        UsageError: for a device or precision that there is not, or a graph that cannot be loaded.
    """
    check(device=device, runtime=runtime, precision=precision)
    if runtime == "openvino":
        return openvino.load(model, external_folder=external_folder, precision=precision)
    return _load(model, DEVICES[device], external_folder)


def check(*, device: str = "cpu", runtime: str = "onnxruntime", precision: str = "float32") -> None:
    """Raise unless there is such a device and precision.

    A runtime is imported only where it alone can tell.

    Raises:
        MissingExtraError: if it must tell, and is not installed.
        UsageError: if there is not.
    """
    for name, value, known in (
        ("device", device, tuple(DEVICES)),
        ("runtime", runtime, RUNTIMES),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            msg = f"{name}={value!r}; expected one of {', '.join(known)}"
            raise UsageError(msg)
    if runtime == "openvino" and device != "cpu":
        msg = f"OpenVINO runs on the CPU here, device={device!r}; take runtime='onnxruntime'"
        raise UsageError(msg)
    if precision != "float32":
        if runtime != "openvino":
            msg = (
                f"precision={precision!r} needs runtime='openvino'; ONNX Runtime computes in "
                f"float32"
            )
            raise UsageError(msg)
        openvino.check_bf16()
    if device != "cpu":
        available = _onnxruntime().get_available_providers()
        if DEVICES[device] not in available:
            raise UsageError(_no_device(f"this onnxruntime has {', '.join(available)}"))


def _onnxruntime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415  # heavy: only where a model is loaded
    except ImportError as error:
        msg = "running a model needs onnxruntime: pip install 'pixsieve[models]'"
        raise MissingExtraError(msg) from error
    return onnxruntime


def _load(model: bytes | str, provider: str, external_folder: str | None) -> Session:
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # processes share the work, never threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # what fails is raised; the rest concerns nobody
    if external_folder is not None and isinstance(model, bytes):
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, external_folder)
    # TF32 has 10 bits of mantissa: float32 in name only.
    settings = {"use_tf32": "0"} if provider == DEVICES["cuda"] else {}
    try:
        session = ort.InferenceSession(model, options, providers=[(provider, settings)])
    except Exception as error:
        raise UsageError(_not_loaded(model, error)) from error
    if provider not in session.get_providers():  # it falls back without a word
        raise UsageError(_no_device("its libraries could not be loaded"))
    return _OnnxRuntime(session)


class _OnnxRuntime:
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            return list(self._session.run(None, dict(inputs)))
        except Exception as error:
            msg = f"the model does not take {_shapes(inputs)}: {error}"
            raise RunError(msg) from error


def _shapes(inputs: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {each.dtype}{list(each.shape)}" for name, each in inputs.items())


def _no_device(why: str) -> str:
    return (
        f"device='cuda' cannot be used: {why}. Install onnxruntime-gpu and the CUDA libraries that "
        f"it names, or take device='cpu'"
    )


def _not_loaded(model: bytes | str, error: Exception) -> str:
    what = model if isinstance(model, str) else "the model's graph"
    return f"{what} cannot be loaded by ONNX Runtime: {error}"
