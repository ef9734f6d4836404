"""A graph that a user exported runs by what model.json says of it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from pixsieve.errors import UsageError
from pixsieve.models import image_model
from pixsieve.scorers.embedding import ImageEmbeddingStage

IMAGE = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
SETTINGS = {"size": 8, "dim": 3, "mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}


def write(
    path: Path, batch: int | str = "n", axes: tuple[int, int] = (2, 3), **more: object
) -> Path:
    """Write a graph whose second output is the mean of each channel."""
    path.mkdir(exist_ok=True)
    shape = [batch, 3, 8, 8] if axes == (2, 3) else [batch, 8, 8, 3]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
            helper.make_node("Neg", ["mean"], ["negative"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3])
            for name in ("negative", "mean")
        ],
        [numpy_helper.from_array(np.array(axes), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path / "model.onnx")
    (path / "model.json").write_text(json.dumps(SETTINGS | more))
    return path


def embed(path: Path, images: list[np.ndarray]) -> np.ndarray:
    model = image_model.find(str(path), exact=True)
    return image_model.load(model, image_model.Runtime(batch=4))(images)


def expected(path: Path) -> np.ndarray:
    model = image_model.find(str(path), exact=True)
    pixels = model.preprocess([IMAGE])[0].astype(np.float64) / 255
    values = ((pixels - SETTINGS["mean"]) / SETTINGS["std"]).mean(axis=(0, 1))
    return values / np.linalg.norm(values)


@pytest.mark.parametrize(
    ("axes", "more"),
    [
        ((2, 3), {"output": "mean"}),
        ((2, 3), {"output": "mean", "input": "x", "layout": "NCHW"}),
        ((1, 2), {"output": "mean", "layout": "NHWC", "resize": "squash"}),
    ],
)
def test_the_graph_sees_normalised_pixels_in_its_layout(tmp_path, axes, more):
    write(tmp_path / "m", axes=axes, **more)
    np.testing.assert_allclose(
        embed(tmp_path / "m", [IMAGE])[0], expected(tmp_path / "m"), atol=1e-6
    )


def test_without_a_name_the_first_output_is_taken(tmp_path):
    write(tmp_path / "m")
    np.testing.assert_allclose(
        embed(tmp_path / "m", [IMAGE])[0], -expected(tmp_path / "m"), atol=1e-6
    )


def test_a_graph_for_one_image_at_a_time_is_given_one_at_a_time(tmp_path):
    write(tmp_path / "m", batch=1, output="mean")
    found = embed(tmp_path / "m", [IMAGE] * 6)
    np.testing.assert_allclose(found, np.tile(expected(tmp_path / "m"), (6, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"layout": "CHW"}, "layout is 'CHW'"),
        ({"sise": 8}, "'sise' is not known"),
        ({"mean": 0.5}, "expected three numbers"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, settings, message):
    write(tmp_path / "m", **settings)
    with pytest.raises(UsageError, match=message):
        image_model.find(str(tmp_path / "m"))


@pytest.mark.parametrize("name", ["size", "dim", "mean", "std"])
def test_what_cannot_be_known_must_be_given(tmp_path, name):
    write(tmp_path / "m")
    rest = {key: value for key, value in SETTINGS.items() if key != name}
    (tmp_path / "m" / "model.json").write_text(json.dumps(rest))
    with pytest.raises(UsageError, match=f"lacks '{name}'"):
        image_model.find(str(tmp_path / "m"))


def test_a_graph_that_gives_another_length_is_refused(tmp_path):
    write(tmp_path / "m", dim=5)
    with pytest.raises(UsageError, match="expected vectors of 5"):
        embed(tmp_path / "m", [IMAGE])


def test_a_file_that_is_no_graph_is_told_so(tmp_path):
    write(tmp_path / "m")
    (tmp_path / "m" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UsageError, match=r"model\.onnx"):
        embed(tmp_path / "m", [IMAGE])


@pytest.mark.parametrize("settings", [{"input": "y"}, {"output": "y"}])
def test_a_port_that_is_not_there_is_named(tmp_path, settings):
    write(tmp_path / "m", **settings)
    with pytest.raises(UsageError, match=r"model\.json"):
        embed(tmp_path / "m", [IMAGE])


def with_weights_beside(path: Path, location: str) -> Path:
    """Replace the graph by one that scales the mean of each channel by weights in another file."""
    write(path, output="mean")
    model = onnx.load(path / "model.onnx")
    weight = numpy_helper.from_array(np.full(3, 2, np.float32), "weight")
    (path / location).write_bytes(weight.raw_data)
    set_external_data(weight, location)
    weight.ClearField("raw_data")
    model.graph.initializer.append(weight)
    model.graph.node.append(helper.make_node("Mul", ["mean", "weight"], ["scaled"]))
    model.graph.output.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["n", 3]))
    (path / "model.onnx").write_bytes(model.SerializeToString())
    (path / "model.json").write_text(json.dumps(SETTINGS | {"output": "scaled"}))
    return path


def test_weights_beside_the_graph_are_read_and_part_of_the_digest(tmp_path):
    path = with_weights_beside(tmp_path / "m", "model.onnx_data")
    np.testing.assert_allclose(embed(path, [IMAGE])[0], expected(path), atol=1e-6)
    stage = ImageEmbeddingStage(model=str(path))
    before = stage.digests()
    data = path / "model.onnx_data"
    data.write_bytes(data.read_bytes()[::-1])
    assert stage.digests() != before


def test_weights_that_the_digest_would_miss_are_refused(tmp_path):
    path = with_weights_beside(tmp_path / "m", "elsewhere.bin")
    with pytest.raises(UsageError, match="no part of the model's digest"):
        embed(path, [IMAGE])


def test_the_stage_takes_the_folder_and_its_digest_covers_graph_and_settings(tmp_path):
    write(tmp_path / "m", output="mean")
    stage = ImageEmbeddingStage(model=str(tmp_path / "m"))
    first = stage.digests()
    assert stage.adds().field("embedding").type.list_size == 3
    write(tmp_path / "m", output="negative")
    assert stage.digests() != first
