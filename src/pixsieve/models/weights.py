"""Weights as safetensors, and the way out of formats that can hold code.

Nothing but safetensors is read where a model is used. :func:`convert` turns what authors ship as
pickles into safetensors without running anything that is in them.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from pixsieve.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle")
"""Endings of files that hold, or may hold, Python pickles."""
MAX_HEADER = 100_000_000
"""Bytes of a safetensors header, as the format's own library bounds it."""

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "<?",
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "<?",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Where a tensor lies: file, type as safetensors names it, shape, first byte and bytes."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int

    def read(self) -> NDArray[np.float32]:
        """Return the values as float32."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        values = np.frombuffer(data, _DTYPES[self.dtype])
        if self.dtype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32).reshape(self.shape)


def tensors(path: Path) -> dict[str, Tensor]:
    """Return the places of a safetensors file's tensors, by name.

    Source of the format: the safetensors README, "Format"; all it asks of a header is checked.

    Raises:
        UsageError: the file holds pickles, or is no whole safetensors file.
    """
    refuse_pickle(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if not 1 < length <= min(MAX_HEADER, size - len(start)):
            raise _broken(path, f"its header would have {length} bytes")
        try:
            header = msgspec.json.decode(file.read(length), type=dict[str, dict[str, Any]])
        except msgspec.MsgspecError as error:
            raise _broken(path, f"its header is no JSON: {error}") from error
    header.pop("__metadata__", None)
    found = {}
    first = 8 + length
    for name, entry in header.items():
        try:
            dtype, shape = entry["dtype"], tuple(map(int, entry["shape"]))
            begin, end = map(int, entry["data_offsets"])
            bytes_each = np.dtype(_DTYPES[dtype]).itemsize
        except (KeyError, TypeError, ValueError) as error:
            raise _broken(path, f"tensor {name!r} is described wrongly ({error!r})") from error
        count = int(np.prod(shape, dtype=object)) if shape else 1
        if min(shape, default=0) < 0 or not 0 <= begin <= end <= size - first:
            raise _broken(path, f"tensor {name!r} lies outside the file")
        if count * bytes_each != end - begin:
            raise _broken(path, f"tensor {name!r} has {end - begin} bytes for the shape {shape}")
        found[name] = Tensor(
            path=path, dtype=dtype, shape=shape, offset=first + begin, size=end - begin
        )
    return found


def read(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return all tensors of a safetensors file as float32."""
    return {name: tensor.read() for name, tensor in tensors(path).items()}


def refuse_pickle(path: Path) -> None:
    """Raise ``UsageError`` if a file holds, or may hold, a pickle, which can run code."""
    with path.open("rb") as file:
        first = file.read(4)
    if path.suffix.lower() in PICKLES or first[:2] == b"\x80\x02" or first == b"PK\x03\x04":
        msg = (
            f"{path} holds pickled Python, which can run code when it is read, and is not read "
            f"here; convert it: pixsieve models convert {path} {path.with_suffix('.safetensors')}"
        )
        raise UsageError(msg)


def save(values: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return float32 tensors as a safetensors file's bytes, the same for equal ones."""
    header: dict[str, object] = {}
    at = 0
    for name in sorted(values):
        size = values[name].size * 4
        header[name] = {
            "dtype": "F32",
            "shape": list(values[name].shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = [np.ascontiguousarray(values[name], "<f4").tobytes() for name in sorted(values)]
    return b"".join([struct.pack("<Q", len(text)), text, *data])


def convert(path: Path) -> bytes:
    """Return the weights of a PyTorch file, or a zipped TensorFlow model, as safetensors bytes.

    Nothing in the file is run: of a pickle only containers and tensors are understood.

    Raises:
        UsageError: the file is neither, or holds anything but tensors.
    """
    try:
        return save(decode(path.read_bytes()))
    except UsageError as error:
        msg = f"{path} cannot be converted: {error}"
        raise UsageError(msg) from error


def decode(data: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a PyTorch file or a zipped TensorFlow model; see :func:`convert`."""
    try:
        if data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                index = [n for n in archive.namelist() if n.endswith("variables.index")]
                found = _read_savedmodel(archive, index[0]) if index else _read_zip(archive)
        else:
            found = _read_legacy(io.BytesIO(data))
    except UsageError:
        raise
    except Exception as error:  # hostile files fail in any way
        msg = f"it is not the state of a PyTorch model, nor a TensorFlow one ({error})"
        raise UsageError(msg) from error
    if not found:
        msg = "it holds no tensors"
        raise UsageError(msg)
    return found


def _broken(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} is no whole safetensors file: {what}; fetch it again")


# -- PyTorch's pickles ------------------------------------------------------------------------


@dataclass(slots=True)
class _Storage:
    """A run of numbers, filled in when its bytes are reached."""

    dtype: str
    count: int
    values: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self) -> NDArray[np.float32]:
        values = self.storage.values
        assert values is not None  # noqa: S101  # all storages are filled before
        last = self.offset + sum(
            (n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)
        )
        if min((*self.shape, *self.strides, self.offset), default=0) < 0 or last >= len(values):
            msg = "a tensor reaches beyond its numbers"
            raise UsageError(msg)
        strides = tuple(step * values.itemsize for step in self.strides)
        view = np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, strides, writeable=False
        )
        return np.ascontiguousarray(view, np.float32)


def _rebuild(storage: _Storage, offset: int, shape: Any, strides: Any, *_: object) -> _View:
    return _View(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _parameter(view: _View, *_: object) -> _View:
    return view


_ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Understands containers and tensors; any other name in the pickle is refused."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            msg = f"it names {module}.{name}, which is no tensor, so it is not read"
            raise UsageError(msg)
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count, *_ = pid
        if dtype not in _STORAGES.values():
            msg = f"it has numbers of a kind that is not known: {dtype!r}"
            raise UsageError(msg)
        return self.storages.setdefault(str(key), _Storage(dtype, int(count)))


def _read_zip(archive: zipfile.ZipFile) -> dict[str, NDArray[np.float32]]:
    """Read the format that PyTorch writes since 1.6: ``data.pkl`` and a file for each storage."""
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        msg = "it is no archive of PyTorch's"
        raise UsageError(msg)
    reader = _Unpickler(io.BytesIO(archive.read(names[0])))
    state = reader.load()
    folder = names[0].removesuffix("data.pkl")
    for key, storage in reader.storages.items():
        storage.values = np.frombuffer(archive.read(f"{folder}data/{key}"), storage.dtype)
    return _tensors_of(state)


def _read_legacy(file: io.BytesIO) -> dict[str, NDArray[np.float32]]:
    """Read the format before that: five pickles, then for each storage its length and numbers."""
    for _ in range(3):  # magic number, version, properties of the machine
        _Unpickler(file).load()
    reader = _Unpickler(file)
    state = reader.load()
    keys = _Unpickler(file).load()
    for key in keys:
        storage = reader.storages[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        data = file.read(count * np.dtype(storage.dtype).itemsize)
        storage.values = np.frombuffer(data, storage.dtype)
    return _tensors_of(state)


def _tensors_of(state: Any, prefix: str = "") -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    items = state.items() if isinstance(state, dict) else ()
    for name, value in items:
        if isinstance(value, _View):
            found[f"{prefix}{name}"] = value.read()
        elif isinstance(value, dict):
            found |= _tensors_of(value, f"{prefix}{name}.")
    return found


# -- TensorFlow's checkpoints -----------------------------------------------------------------


def _read_savedmodel(archive: zipfile.ZipFile, index: str) -> dict[str, NDArray[np.float32]]:
    """Read the float variables of a SavedModel, by name.

    Source of the format: TensorFlow's tensor_bundle.proto and table_format.txt (a sorted string
    table whose values are BundleEntryProto messages).
    """
    table = archive.read(index)
    shards = sorted(name for name in archive.namelist() if ".data-" in name)
    data = archive.read(shards[0])
    found = {}
    for key, value in _sstable(table):
        entry = _message(value)
        if entry.get(1, [1])[0] != 1:  # DT_FLOAT
            continue
        shape = tuple(
            int(_message(dim).get(1, [0])[0]) for dim in _message(entry.get(2, [b""])[0]).get(2, [])
        )
        offset, size = int(entry.get(4, [0])[0]), int(entry.get(5, [0])[0])
        name = key.decode("utf-8", "replace").removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
        if name and size:
            values = np.frombuffer(data[offset : offset + size], "<f4").reshape(shape)
            found[name] = values.astype(np.float32)
    return found


def _sstable(table: bytes) -> list[tuple[bytes, bytes]]:
    """Return the entries of an uncompressed sorted string table."""
    footer = table[-48:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, _ = _varint(footer, at)
    entries = []
    for _, handle in _block(table[offset : offset + size]):
        start, at = _varint(handle, 0)
        length, _ = _varint(handle, at)
        entries.extend(_block(table[start : start + length]))
    return entries


def _block(data: bytes) -> list[tuple[bytes, bytes]]:
    (restarts,) = struct.unpack("<I", data[-4:])
    end = len(data) - 4 - 4 * restarts
    entries, at, key = [], 0, b""
    while at < end:
        shared, at = _varint(data, at)
        fresh, at = _varint(data, at)
        length, at = _varint(data, at)
        key = key[:shared] + data[at : at + fresh]
        at += fresh
        entries.append((key, data[at : at + length]))
        at += length
    return entries


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  # the last byte has no upper bit
            return value, at
        shift += 7


def _message(data: bytes) -> dict[int, list[Any]]:
    """Return a protocol buffer's fields by number: varints as numbers, the rest as bytes."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        value: Any
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:  # noqa: PLR2004  # length-delimited
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            width = 8 if kind == 1 else 4
            value, at = data[at : at + width], at + width
        fields.setdefault(tag >> 3, []).append(value)
    return fields
