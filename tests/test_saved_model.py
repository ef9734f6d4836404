"""TensorFlow's layers are read as they were saved."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pixsieve.errors import UsageError
from pixsieve.models import saved_model

RNG = np.random.default_rng(0)
LAYERS = {
    "layer_with_weights-1/mean": RNG.normal(size=4).astype(np.float32),
    "layer_with_weights-1/variance": RNG.random(4, np.float32),
    "layer_with_weights-2/bias": RNG.normal(size=300).astype(np.float32),
    "layer_with_weights-2/kernel": RNG.normal(size=(4, 300)).astype(np.float32),
    "layer_with_weights-10/bias": RNG.normal(size=1).astype(np.float32),
    "layer_with_weights-10/kernel": RNG.normal(size=(300, 1)).astype(np.float32),
}


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return a block whose keys share their starts, as LevelDB writes it, without its check."""
    out, before = b"", b""
    for key, value in entries:
        shared = len(os.path.commonprefix([before, key]))  # noqa: RUF071  # no paths
        own = key[shared:]
        out += varint(shared) + varint(len(own)) + varint(len(value)) + own + value
        before = key
    return out + bytes(4) + (1).to_bytes(4, "little")


def table(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return a table of two blocks of entries, and its index."""
    out, places = b"", []
    half = len(entries) // 2
    for part in (entries[:half], entries[half:]):
        data = block(part)
        places.append((part[-1][0], varint(len(out)) + varint(len(data))))
        out += data + bytes(5)
    index = block(places)
    footer = varint(0) + varint(0) + varint(len(out)) + varint(len(index))
    out += index + bytes(5)
    return out + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def saved(path: Path, layers: dict[str, np.ndarray], dtype: int = 1) -> Path:
    data = b""
    entries = [(b"", field(1, 1)), (b"_CHECKPOINTABLE_OBJECT_GRAPH", field(1, 7) + field(5, 3))]
    for name, values in layers.items():
        dims = b"".join(field(2, field(1, side)) for side in values.shape)
        entry = field(1, dtype) + field(2, dims) + field(4, len(data)) + field(5, values.nbytes)
        entry += varint(6 << 3 | 5) + bytes(4)
        entries.append((f"{name}/.ATTRIBUTES/VARIABLE_VALUE".encode(), entry))
        data += values.tobytes()
    entries.append((b"layer_with_weights-1/count/.ATTRIBUTES/VARIABLE_VALUE", field(1, 9)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/saved_model.pb", b"")
        archive.writestr("m/variables/variables.index", table(sorted(entries)))
        archive.writestr("m/variables/variables.data-00000-of-00001", data)
    return path


def test_layers_are_named_in_their_order_and_laid_out_as_torch_has_them(tmp_path: Path):
    path = saved(tmp_path / "m.zip", LAYERS)
    assert saved_model.is_one(path)
    found = saved_model.read(path)
    assert {dtype for dtype, _ in found.values()} == {"F32"}
    expected = {
        "norm.mean": LAYERS["layer_with_weights-1/mean"],
        "norm.variance": LAYERS["layer_with_weights-1/variance"],
        "linear_1.weight": LAYERS["layer_with_weights-2/kernel"].T,
        "linear_1.bias": LAYERS["layer_with_weights-2/bias"],
        "linear_2.weight": LAYERS["layer_with_weights-10/kernel"].T,
        "linear_2.bias": LAYERS["layer_with_weights-10/bias"],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name][1], values)


@pytest.mark.parametrize(
    ("layers", "dtype", "message"),
    [
        ({"layer_with_weights-1/mean": np.zeros(4, np.float32)}, 1, r"has a layer of \['mean'\]"),
        ({}, 1, "has no dense layer"),
        (LAYERS, 2, "has a tensor of type 2"),
    ],
)
def test_other_layers_are_refused(tmp_path: Path, layers, dtype, message):
    path = saved(tmp_path / "m.zip", layers, dtype)
    with pytest.raises(UsageError, match=rf"m\.zip is no TensorFlow model of dense.*{message}"):
        saved_model.read(path)


def test_a_damaged_index_is_refused(tmp_path: Path):
    source = zipfile.ZipFile(saved(tmp_path / "m.zip", LAYERS))
    with source:
        members = {each.filename: source.read(each) for each in source.infolist()}
    index = "m/variables/variables.index"
    for damaged in (members[index][:-1], b"", members[index][:60] + members[index][-48:]):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in (members | {index: damaged}).items():
                archive.writestr(name, data)
        (tmp_path / "bad.zip").write_bytes(out.getvalue())
        with pytest.raises(UsageError, match=r"bad\.zip is no TensorFlow model"):
            saved_model.read(tmp_path / "bad.zip")


def test_other_zips_are_none(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/data.pkl", b"")
    (tmp_path / "no.zip").write_bytes(b"text")
    assert not saved_model.is_one(tmp_path / "x.zip")
    assert not saved_model.is_one(tmp_path / "no.zip")
