"""Weights are read from safetensors, and a pickle in their place runs nothing."""

import json
import math
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save, save_file

from pixsieve.errors import UsageError
from pixsieve.models import weights

GOLDEN = Path(__file__).parent / "golden" / "torch"
VALUES = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(*offsets: int, shape: tuple[object, ...] = (2,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


# Reading


def test_places_are_those_that_the_format_says(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    saved = {"x": VALUES, "y": np.arange(5, dtype=np.int64), "none": np.zeros((0, 3), np.float16)}
    save_file(saved, path, metadata={"format": "pt"})
    found = weights.tensors(path)
    assert found.keys() == saved.keys()
    data = path.read_bytes()
    for name, tensor in found.items():
        stored = data[tensor.offset : tensor.offset + tensor.size]
        assert stored == saved[name].tobytes()
        assert tensor.shape == saved[name].shape
    assert {name: each.dtype for name, each in found.items()} == {
        "x": "F32",
        "y": "I64",
        "none": "F16",
    }


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_floats_of_every_width_are_read_as_float32(tmp_path: Path, dtype):
    path = tmp_path / "a.safetensors"
    save_file({"before": VALUES[0], "x": VALUES.astype(dtype)}, path)
    read = weights.tensors(path)["x"].read()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, VALUES.astype(dtype).astype(np.float32))


def test_bf16_is_read_as_the_float32_it_is_cut_from():
    """PyTorch wrote the same three numbers as it computes them: 8 bits of mantissa."""
    (tensor,) = (each for name, each in golden().items() if name == "brain")
    bits = tensor.read().view(np.uint32)
    assert (bits & 0xFFFF == 0).all()
    assert (bits != 0).all()
    stored = np.fromfile(tensor.path, "<u2", 3, offset=tensor.offset)
    np.testing.assert_array_equal(bits >> 16, stored)


def golden() -> dict[str, weights.Tensor]:
    return weights.tensors(GOLDEN / "tensors.safetensors")


def test_integers_are_no_weights():
    with pytest.raises(UsageError, match="is of type I64; expected floats"):
        golden()["scalar"].read()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        raw(b""),
        raw([]),
        raw(b"{not json}"),
        raw({"x": entry(0, 8)}, bytes(8), length=9_000),
        raw({"x": entry(0, 8)}, bytes(8), length=2**63),
        raw(b'{"x":%(e)s,"x":%(e)s}' % {b"e": json.dumps(entry(0, 8)).encode()}, bytes(8)),
        raw({"x": entry(0, 8)}, bytes(7)),
        raw({"x": entry(0, 8)}, bytes(9)),
        raw({"x": entry(4, 12)}, bytes(12)),
        raw({"x": entry(0, 8), "y": entry(4, 12)}, bytes(12)),
        raw({"x": entry(0, 8), "y": entry(12, 20)}, bytes(20)),
        raw({"x": entry(0, 4)}, bytes(4)),
        raw({"x": entry(8, 0)}, bytes(8)),
        raw({"x": entry(-8, 0)}, bytes(8)),
        raw({"x": entry(0, 8, shape=(-2,))}, bytes(8)),
        raw({"x": entry(0, 8, shape=(-1, -2))}, bytes(8)),
        raw({"x": entry(0, 8, shape=(2.0,))}, bytes(8)),
        raw({"x": entry(0, 8, dtype="object")}, bytes(8)),
        raw({"x": entry(0, 8, 9)}, bytes(8)),
        raw({"x": {"dtype": "F32"}}, bytes(8)),
        raw({"x": None}),
    ],
)
def test_a_header_that_says_what_cannot_be_is_refused(tmp_path: Path, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(
        UsageError, match=r"model\.safetensors is no safetensors file, or a damaged"
    ):
        weights.tensors(path)


def test_a_header_longer_than_the_limit_is_not_read(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw(b"{}", length=150_000_000))
    os.truncate(path, 200_000_000)  # a hole on disk
    with pytest.raises(UsageError, match="header of 150000000 bytes is longer"):
        weights.tensors(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"absent\.safetensors cannot be read"):
        weights.tensors(tmp_path / "absent.safetensors")


# Writing


@given(st.dictionaries(st.text(max_size=5).filter(lambda name: name != "__metadata__"),
                       st.tuples(st.sampled_from(["F64", "F32", "F16", "I64", "U8", "BOOL"]),
                                 st.lists(st.integers(0, 3), max_size=3))))  # fmt: skip
def test_what_is_written_is_what_the_reference_reads(described):
    rng = np.random.default_rng(0)
    made = {
        name: (dtype, (rng.normal(size=shape) * 3).astype(weights.DTYPES[dtype]))
        for name, (dtype, shape) in described.items()
    }
    found = load(weights.safetensors(made))
    assert found.keys() == made.keys()
    for name, (_, values) in made.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_the_bytes_do_not_depend_on_the_order_of_names():
    made = {"a": ("F32", VALUES), "b": ("F16", VALUES.astype(np.float16)), "c": ("F32", VALUES[0])}
    assert weights.safetensors(made) == weights.safetensors(dict(reversed(made.items())))


def test_every_tensor_starts_at_a_multiple_of_its_width(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    made = {"x": ("U8", np.zeros(3, np.uint8)), "y": ("F32", VALUES), "z": ("F64", np.zeros(1))}
    path.write_bytes(weights.safetensors(made))
    for tensor in weights.tensors(path).values():
        assert tensor.offset % (tensor.size // math.prod(tensor.shape)) == 0


# Pickles


class Canary:
    """Opening a pickle of this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def malicious(path: Path, canary: Path, kind: str) -> Path:
    """Write a PyTorch file whose opening would make the folder ``canary``."""
    bomb = pickle.dumps({"weight": Canary(canary)}, protocol=2)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", bomb)
            archive.writestr("archive/version", "3\n")
    elif kind == "legacy":
        start = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        keys = pickle.dumps([], protocol=2)
        path.write_bytes(b"".join(pickle.dumps(each, 2) for each in start) + bomb + keys)
    else:
        path.write_bytes(bomb)
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model.safetensors"])
def test_a_malicious_pickle_in_the_place_of_weights_runs_nothing(tmp_path: Path, kind, name):
    canary = tmp_path / "ran"
    path = malicious(tmp_path / name, canary, kind)
    with pytest.raises(UsageError, match=r"is a pickle.*pixsieve models convert .*\.safetensors"):
        weights.tensors(path)
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain"])
def test_a_malicious_pickle_is_not_converted_and_runs_nothing(tmp_path: Path, kind):
    canary = tmp_path / "ran"
    path = malicious(tmp_path / "model.pth", canary, kind)
    with pytest.raises(UsageError, match=r"asks for .*\.mkdir.*Nothing of it was run"):
        weights.convert(path)
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path: Path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "ran")))  # noqa: S301  # this is what is proved
    assert (tmp_path / "ran").exists()


def test_an_offered_conversion_gives_a_file_that_is_read(tmp_path: Path):
    out = tmp_path / "zip.safetensors"
    out.write_bytes(weights.convert(GOLDEN / "zip.pth"))
    expected = golden()
    found = weights.tensors(out)
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["permuted"].read(), expected["permuted"].read())


def test_safetensors_need_no_conversion(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"x": VALUES}))
    with pytest.raises(UsageError, match="is no PyTorch file"):
        weights.convert(path)
