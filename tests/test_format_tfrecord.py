"""TFRecord, read by a parser that shares nothing with the writer, and by TensorFlow."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.errors import MissingExtraError
from pixsieve.export.formats import folder as folder_module
from pixsieve.export.formats.tfrecord import SPEC, TfrecordFormat
from pixsieve.testing.format_suite import FormatTests, Found, ReadingTests

TENSORFLOW = os.environ.get("PIXSIEVE_TENSORFLOW", sys.executable)
"""A Python that has TensorFlow, which does not run beside every other loader."""
PROGRAM = """
import json, pickle, sys
import numpy as np
import tensorflow as tf

spec = json.load(open(sys.argv[1]))
kinds = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}
found = []
for raw in tf.data.TFRecordDataset(sys.argv[2:]):
    wanted = {}
    for name, each in spec.items():
        kind, shape = kinds[each["dtype"]], each["shape"]
        if each["optional"] or shape == [None]:
            wanted[name] = tf.io.VarLenFeature(kind)
        else:
            wanted[name] = tf.io.FixedLenFeature(shape, kind)
    row = tf.io.parse_single_example(raw, wanted)
    row = {
        name: (tf.sparse.to_dense(value) if isinstance(value, tf.SparseTensor) else value)
        for name, value in row.items()
    }
    found.append({name: np.reshape(value.numpy(), -1).tolist() for name, value in row.items()})
pickle.dump(found, open(1, "wb"))
"""


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data, *, checked):
    at = 0
    while at < len(data):
        length, check = struct.unpack_from("<QI", data, at)
        assert check == masked(data[at : at + 8])
        payload = data[at + 12 : at + 12 + length]
        if checked:
            (check,) = struct.unpack_from("<I", data, at + 12 + length)
            assert check == masked(payload)
        yield payload
        at += 16 + length


def number(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        tag, at = number(data, at)
        assert tag & 7 == 2
        length, at = number(data, at)
        yield tag >> 3, data[at : at + length]
        at += length


def example(payload):
    ((_, features),) = fields(payload)
    found = {}
    for _, entry in fields(features):
        (_, name), (_, feature) = fields(entry)
        ((kind, values),) = fields(feature)
        values = [value for _, value in fields(values)]
        if kind == 2:
            values = np.frombuffer(b"".join(values), "<f4").tolist()
        elif kind == 3:
            packed, values, at = b"".join(values), [], 0
            while at < len(packed):
                value, at = number(packed, at)
                values.append(value - 2**64 * (value >> 63))
        found[name.decode()] = values
    return found


def as_rows(found, folder):
    """Give lists as columns, as the spec beside the records tells."""
    spec = json.loads((folder / SPEC).read_bytes())
    for each in found:
        row = {}
        for name, fact in spec.items():
            values = each.get(name, [])
            if fact["text"]:
                values = [value.decode() for value in values]
            missing = not values and fact["optional"] and fact["shape"] != [None]
            row[name] = (
                None if missing else values if fact["shape"] else values[0] if values else None
            )
        yield Found(row.pop("image"), row)


class Held(ReadingTests):
    format = TfrecordFormat()

    def held(self, name, value, field):
        if isinstance(value, bool):
            return int(value)
        if name == "tags":  # of many values, none and no list are the same
            return value or []
        if pa.types.is_float64(field.type):
            return float(np.float32(value))
        return value


class TestTfrecord(Held, FormatTests):
    def read(self, folder, split):
        for path in sorted(folder.glob(f"{split or 'train'}-*.tfrecord")):
            whole = records(path.read_bytes(), checked=path.name.startswith("val"))
            yield from as_rows(map(example, whole), folder)

    def test_without_its_library_it_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setattr(folder_module.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(MissingExtraError, match=r"pip install 'pixsieve\[tfrecord\]'"):
            self.format.check()


@pytest.mark.loaders
class TestTensorflow(Held):
    def read(self, folder, split):
        known = [TENSORFLOW, "-c", "import tensorflow"]
        if subprocess.run(known, capture_output=True, check=False).returncode:
            pytest.skip("no TensorFlow; PIXSIEVE_TENSORFLOW can name a Python that has it")
        files = sorted(map(str, folder.glob(f"{split or 'train'}-*.tfrecord")))
        done = subprocess.run(
            [TENSORFLOW, "-c", PROGRAM, str(folder / SPEC), *files], capture_output=True, check=True
        )
        return as_rows(pickle.loads(done.stdout), folder)  # noqa: S301  # our own program's
