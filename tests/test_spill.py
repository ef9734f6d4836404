"""Arrays come back as they were, whatever their lengths, mapped and not read."""

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.errors import StorageError
from pixsieve.select import spill


def test_arrays_of_any_length_and_width_come_back(tmp_path):
    path = str(tmp_path / "arrays")
    given = {
        "row": np.arange(5),
        "none": np.empty(0, np.float64),
        "half": np.arange(12, dtype=np.float16).reshape(4, 3),
        "wide": np.empty((0, 7), np.float32),
        "pixels": np.full((2, 4), 255, np.uint8),
        "yes": np.array([True, False]),
    }
    spill.write(path, given)
    found = spill.read(path)
    assert list(found) == list(given)
    for name, values in given.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values)
        assert found[name].shape == values.shape
    assert not found["row"].flags.writeable


def test_equal_arrays_are_equal_bytes(tmp_path):
    for name in ("one", "two"):
        spill.write(str(tmp_path / name), {"a": np.arange(100), "text": pa.array(["x", None])})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert spill.read_arrow(str(tmp_path / "one"))["text"].to_pylist() == ["x", None]


def test_what_is_missing_or_damaged_is_named(tmp_path):
    path = tmp_path / "arrays"
    with pytest.raises(StorageError, match="arrays"):
        spill.read(str(path))
    spill.write(str(path), {"a": np.arange(100)})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StorageError, match="arrays"):
        spill.read(str(path))
