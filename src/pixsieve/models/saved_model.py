"""Reads the layers of a TensorFlow model without TensorFlow: LAION's NSFW detector is one.

It is a zip of a SavedModel. ``variables.index`` is a sorted string table in LevelDB's format: its
values are small protobuf messages that say where in ``variables.data-00000-of-00001`` a tensor
lies. See ``tensorflow/core/protobuf/tensor_bundle.proto`` and LevelDB's ``table_format.md``.
"""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pixsieve.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_INDEX: Final = "/variables/variables.index"
_DATA: Final = "/variables/variables.data-00000-of-00001"
_MAGIC: Final = bytes.fromhex("57fb808b247547db")
_FOOTER: Final = 48
_FLOAT: Final = 1  # tensorflow.DataType.DT_FLOAT
_MAX_BYTES: Final = 256 * 1024 * 1024
_VARIABLE: Final = re.compile(rb"layer_with_weights-(\d+)/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE")


def is_one(path: Path) -> bool:
    """Tell whether a file is the zip of a SavedModel."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(_INDEX) for name in archive.namelist())


def read(path: Path) -> dict[str, tuple[str, NDArray[Any]]]:
    """Return the layers of a normalisation followed by dense layers.

    Returns:
        ``norm.mean`` and ``norm.variance`` (n,), and for each dense layer, counted from 1,
        ``linear_1.weight`` (out, in) and ``linear_1.bias`` (out,), each with its type ``F32``.

    Raises:
        UsageError: if there is anything else in it, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            index, data = (_member(archive, end) for end in (_INDEX, _DATA))
        return {name: ("F32", values) for name, values in _layers(index, data)}
    except Exception as error:
        msg = f"{path} is no TensorFlow model of dense layers, or a damaged one: {error}"
        raise UsageError(msg) from error


def _member(archive: zipfile.ZipFile, end: str) -> bytes:
    (info,) = [each for each in archive.infolist() if each.filename.endswith(end)]
    if info.file_size > _MAX_BYTES:
        msg = f"{info.filename} has {info.file_size} bytes, at most {_MAX_BYTES}"
        raise ValueError(msg)
    return archive.read(info)


def _layers(index: bytes, data: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the tensors under the names of our heads; layers come in the order of their numbers."""
    variables: dict[int, dict[str, NDArray[Any]]] = {}
    for key, value in _entries(index):
        if (match := _VARIABLE.fullmatch(key)) and match[2] in {
            b"mean", b"variance", b"kernel", b"bias",
        }:  # fmt: skip
            variables.setdefault(int(match[1]), {})[match[2].decode()] = _tensor(value, data)
    dense = 0
    for _, layer in sorted(variables.items()):
        if layer.keys() == {"mean", "variance"} and not dense:
            yield from ((f"norm.{name}", values) for name, values in layer.items())
        elif layer.keys() == {"kernel", "bias"}:
            dense += 1
            yield f"linear_{dense}.weight", np.ascontiguousarray(layer["kernel"].T)
            yield f"linear_{dense}.bias", layer["bias"]
        else:
            msg = f"it has a layer of {sorted(layer)}"
            raise ValueError(msg)
    if not dense:
        msg = "it has no dense layer"
        raise ValueError(msg)


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a sorted string table."""
    footer = table[-_FOOTER:]
    if footer[-len(_MAGIC) :] != _MAGIC:
        msg = "its index is no string table"
        raise ValueError(msg)
    _, at = _varint(footer, 0)  # where the meta index lies, and its length: not needed
    _, at = _varint(footer, at)
    for _, place in _block(table, footer, at):
        yield from _block(table, place, 0)


def _block(table: bytes, place: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of the block whose offset and length stand in ``place``."""
    offset, at = _varint(place, at)
    length, _ = _varint(place, at)
    if table[offset + length] != 0:
        msg = "its index is compressed"
        raise ValueError(msg)
    block = table[offset : offset + length]
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")  # restart points follow
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        size, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + size]
        at += size


def _tensor(entry: bytes, data: bytes) -> NDArray[Any]:
    """Return the tensor that a ``BundleEntryProto`` describes."""
    fields = dict(_fields(entry))
    # A TensorShapeProto is a list of messages, and the first field of each is a side.
    shape = [dict(_fields(dim)).get(1, 0) for _, dim in _fields(fields.get(2, b""))]
    offset, size = fields.get(4, 0), fields.get(5, 0)
    if fields.get(1) != _FLOAT or fields.get(3, 0) != 0:
        msg = f"it has a tensor of type {fields.get(1)} in file {fields.get(3, 0)}"
        raise ValueError(msg)
    return np.frombuffer(data[offset : offset + size], "<f4").reshape(shape)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the numbers and values of a protobuf message's fields."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: Any
        match tag & 7:
            case 0:
                value, at = _varint(message, at)
            case 2:
                size, at = _varint(message, at)
                value, at = message[at : at + size], at + size
            case 5:
                value, at = message[at : at + 4], at + 4
            case kind:
                msg = f"its index has a field of kind {kind}"
                raise ValueError(msg)
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
