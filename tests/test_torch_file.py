"""PyTorch's own files are read as PyTorch reads them, and nothing in them is run."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pixsieve.errors import UsageError
from pixsieve.models import torch_file, weights

GOLDEN = Path(__file__).parent / "golden" / "torch"
FILES = ["zip.pth", "legacy.pth", "nested.ckpt", "parameters.pt", "cuda.pth", "cuda_legacy.pth"]


@pytest.mark.parametrize("name", FILES)
def test_tensors_are_those_that_torch_saved(name):
    expected = GOLDEN / "tensors.safetensors"
    # numpy has no bfloat16, so the reference library cannot be asked for that one
    places, made = weights.tensors(expected), torch_file.read(GOLDEN / name)
    assert made.keys() == places.keys()
    for key, (dtype, values) in made.items():
        assert dtype == places[key].dtype
        assert values.shape == places[key].shape
        stored = expected.read_bytes()[places[key].offset :][: places[key].size]
        assert values.tobytes() == stored, key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("whole_module.pth", r"asks for torch\.nn\.modules\.linear\.Linear, and only named"),
        ("with_a_number.pth", "entry 'epoch' is a int, and only tensors are read"),
        (
            "expanded.pth",
            r"tensor expanded of shape \(1000, 1000\), strides \(0, 0\).* its 1 values",
        ),
        ("tensors.safetensors", "is no PyTorch file of tensors"),
        ("absent.pth", "cannot be read"),
    ],
)
def test_what_is_no_file_of_tensors_is_refused_by_name(name, message):
    with pytest.raises(UsageError, match=message):
        torch_file.read(GOLDEN / name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, name):
    data = (GOLDEN / name).read_bytes()
    path = tmp_path / "cut.pth"
    for end in range(0, len(data), 41):
        path.write_bytes(data[:end])
        with pytest.raises(UsageError, match=r"cut\.pth"):
            torch_file.read(path)


# A pickle can be written by hand; these are the ways in which one could reach beyond tensors.

HEAD = b"\x80\x04"
PATHS = {
    "by name": b"cposix\nsystem\n",
    "of builtins": b"cbuiltins\neval\n",
    "of numpy": b"cnumpy\nload\n",
    "of pickle": b"c_pickle\nloads\n",
    "a method of what is known": b"\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93",
    "through what is known": b"\x8c\x0ctorch._utils\x8c\x1e_rebuild_tensor_v2.__globals__\x93",
    "another class of torch": b"ctorch\nload\n",
    "an old instance": b"(iposix\nsystem\n",
}


def archive(pickled: bytes, members: dict[str, bytes] | None = None, **options) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as file:
        file.writestr("a/data.pkl", pickled)
        for name, data in (members or {}).items():
            file.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("code", PATHS.values(), ids=PATHS)
def test_no_name_but_those_of_tensors_is_looked_up(tmp_path: Path, code):
    path = tmp_path / "x.pth"
    path.write_bytes(archive(HEAD + code + b"."))
    with pytest.raises(UsageError, match=r"it asks for \S+, and only named tensors are read"):
        torch_file.read(path)


def tensor(offset: str, shape: str, strides: str, count: int = 4, key: str = "0") -> bytes:
    """Return the pickle of ``{"x": tensor}``, in the text protocol."""
    return (
        f"(dVx\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV{key}\nVcpu\n"
        f"I{count}\ntQ{offset}({shape}t({strides}ttRs."
    ).encode()


def test_a_pickle_by_hand_is_read(tmp_path: Path):
    """So that the refusals below are for what they say."""
    path, values = tmp_path / "x.pth", np.arange(4, dtype=np.float32)
    path.write_bytes(
        archive(tensor("I0\n", "I2\nI2\n", "I1\nI2\n"), {"a/data/0": values.tobytes()})
    )
    found = torch_file.read(path)["x"]
    assert found[0] == "F32"
    np.testing.assert_array_equal(found[1], [[0, 2], [1, 3]])


@pytest.mark.parametrize(
    "pickled",
    [
        tensor("I1\n", "I2\nI2\n", "I2\nI1\n"),  # past the end
        tensor("I0\n", "I2\nI2\n", "I3\nI1\n"),
        tensor("I-1\n", "I2\n", "I1\n"),
        tensor("I3\n", "I4\n", "I-1\n"),
        tensor("I0\n", "I-2\nI-2\n", "I1\nI1\n"),
        tensor("I0\n", "I5\n", "I0\n"),  # more values than there are
        tensor("I0\n", "I2\nI2\n", "I1\n"),
        tensor("I0\n", "F2.0\n", "I1\n"),
        tensor("I0\n", "Vtwo\n", "I1\n"),
        tensor("I0\n", "I2\n", "I1\n", count=3),
        tensor("I0\n", "I2\n", "I1\n", key="../0"),
        tensor("I0\n", "I2\n", "I1\n").replace(b"Vstorage", b"Vmodule_"),
        tensor("I0\n", "I2\n", "I1\n").replace(b"Vx", b"I1"),
        b"(d.",
        b"N.",
        b"\x80\x02r\xff\xff\xff\x7f.",
    ],
)
def test_a_view_beyond_its_values_is_refused(tmp_path: Path, pickled):
    path = tmp_path / "x.pth"
    path.write_bytes(archive(pickled, {"a/data/0": np.arange(4, dtype=np.float32).tobytes()}))
    with pytest.raises(UsageError, match=r"x\.pth (was not converted|is no PyTorch file)"):
        torch_file.read(path)


def test_a_small_file_does_not_become_a_large_one(tmp_path: Path):
    path = tmp_path / "x.pth"
    pickled = tensor("I0\n", "I4\n", "I1\n")
    data = {"a/data/0": np.zeros(4, np.float32).tobytes()}
    path.write_bytes(archive(pickled, data, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UsageError, match="is compressed"):
        torch_file.read(path)


def test_values_of_the_other_byte_order_are_refused(tmp_path: Path):
    path = tmp_path / "x.pth"
    members = {"a/data/0": bytes(16), "a/byteorder": b"big"}
    path.write_bytes(archive(tensor("I0\n", "I4\n", "I1\n"), members))
    with pytest.raises(UsageError, match="big-endian"):
        torch_file.read(path)


def test_an_ordinary_pickle_is_not_one_of_torch(tmp_path: Path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(1) + pickle.dumps(2) + pickle.dumps({}))
    with pytest.raises(UsageError, match="not one that PyTorch wrote"):
        torch_file.read(path)
