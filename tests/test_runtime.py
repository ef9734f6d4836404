"""A graph runs the same way everywhere, or the message says why it cannot."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from pixsieve.errors import MissingExtraError, RunError, UsageError
from pixsieve.models import runtime

WEIGHT = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
X = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


@pytest.fixture(params=["onnxruntime", "openvino"])
def kind(request) -> str:
    pytest.importorskip(request.param)
    return request.param


def graph(*, external: str | None = None) -> bytes:
    """Return ``double = 2 * product, product = x @ w``; the weight may be 8 bytes into a file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=WEIGHT.shape)
    if external is None:
        weight.raw_data = WEIGHT.tobytes()
    else:
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", 8), ("length", WEIGHT.nbytes)):
            weight.external_data.add(key=key, value=str(value))
    made = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Add", ["product", "product"], ["double"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2])
            for name in ("double", "product")
        ],
        [weight],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def test_outputs_come_in_the_graphs_order(kind):
    double, product = runtime.load(graph(), runtime=kind).run({"x": X})
    np.testing.assert_allclose(product, X @ WEIGHT, rtol=1e-5)
    np.testing.assert_array_equal(double, 2 * product)


def test_results_stay_what_they_are_when_the_model_runs_again(kind):
    session = runtime.load(graph(), runtime=kind)
    (first, _) = session.run({"x": X})
    before = first.copy()
    session.run({"x": -X})
    np.testing.assert_array_equal(first, before)


def test_weights_may_lie_in_a_file_of_another_folder(kind, tmp_path: Path):
    (tmp_path / "weights").write_bytes(b"8 before" + WEIGHT.tobytes() + b"and after")
    model = graph(external="weights")
    session = runtime.load(model, external_folder=str(tmp_path), runtime=kind)
    np.testing.assert_allclose(session.run({"x": X})[1], X @ WEIGHT, rtol=1e-5)


def test_a_model_file_finds_the_weights_beside_it(kind, tmp_path: Path):
    (tmp_path / "weights").write_bytes(b"8 before" + WEIGHT.tobytes())
    (tmp_path / "model.onnx").write_bytes(graph(external="weights"))
    session = runtime.load(str(tmp_path / "model.onnx"), runtime=kind)
    np.testing.assert_allclose(session.run({"x": X})[1], X @ WEIGHT, rtol=1e-5)


@pytest.mark.parametrize("model", [b"no graph", graph(external="not there")])
def test_a_graph_that_cannot_be_loaded_is_a_usage_error(kind, model, tmp_path: Path):
    with pytest.raises(UsageError, match="the model's graph cannot be loaded by"):
        runtime.load(model, external_folder=str(tmp_path), runtime=kind)


def test_a_file_that_cannot_be_loaded_is_named(kind, tmp_path: Path):
    with pytest.raises(UsageError, match=r"absent\.onnx cannot be loaded by"):
        runtime.load(str(tmp_path / "absent.onnx"), runtime=kind)


def test_an_input_that_does_not_fit_is_told(kind):
    with pytest.raises(RunError, match="the model does not take"):
        runtime.load(graph(), runtime=kind).run({"x": X[:, :2]})


def test_a_model_runs_on_one_thread(kind, tmp_path: Path):
    """All threads together take no more time than passes."""
    size = 1200
    square = [size, size]
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, square)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, square)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    session = runtime.load(str(tmp_path / "model.onnx"), runtime=kind)
    x = np.ones(square, np.float32)
    session.run({"x": x})
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(5):
        session.run({"x": x})
    assert time.process_time() - cpu < 1.2 * (time.perf_counter() - wall)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "tpu"}, r"device='tpu'; expected one of cpu, cuda"),
        ({"runtime": "torch"}, r"runtime='torch'; expected one of onnxruntime, openvino"),
        ({"precision": "int8"}, r"precision='int8'; expected one of float32, bf16"),
        ({"precision": "bf16"}, r"precision='bf16' needs runtime='openvino'"),
        ({"device": "cuda", "runtime": "openvino"}, r"take runtime='onnxruntime'"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        runtime.load(graph(), **settings)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this machine has it"
)
def test_a_device_that_is_not_there_is_no_reason_to_run_elsewhere():
    with pytest.raises(UsageError, match=r"this onnxruntime has .*CPUExecutionProvider"):
        runtime.load(graph(), device="cuda")


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_without_its_package_a_runtime_says_how_to_get_it(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)
    extra = {"onnxruntime": "models", "openvino": "openvino"}[kind]
    with pytest.raises(MissingExtraError, match=rf"needs {kind}: pip install 'pixsieve\[{extra}\]"):
        runtime.load(graph(), runtime=kind)


def test_openvino_computes_in_float32_unless_told_otherwise():
    openvino = pytest.importorskip("openvino")
    exact = runtime.load(graph(), runtime="openvino").run({"x": X})[1]
    np.testing.assert_allclose(exact, X @ WEIGHT, rtol=1e-6, atol=1e-6)
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(UsageError, match="does not compute in bf16"):
            runtime.load(graph(), runtime="openvino", precision="bf16")
    else:
        short = runtime.load(graph(), runtime="openvino", precision="bf16").run({"x": X})[1]
        assert 0 < np.abs(short - exact).max() < 0.1


def test_no_runtime_is_imported_before_a_model_is_loaded():
    code = (
        "import sys, pixsieve.models.runtime; "
        "print([name for name in ('onnxruntime', 'openvino', 'onnx') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
