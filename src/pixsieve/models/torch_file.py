"""Reads the tensors of a PyTorch file without PyTorch, and without running anything in it.

Such a file is a pickle: a program that may call any function. The unpickler here knows the few
names that tensors need, and stops at any other.

Two formats: a zip of ``data.pkl`` and ``data/KEY`` (PyTorch 1.6 and later), and five things one
after the other before that: magic number, version, facts of the system, the pickle, the keys in
order; then for each key a 64-bit count and the values. See ``torch/serialization.py``.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib.stride_tricks import as_strided

from pixsieve.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIXES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAGIC: Final = 0x1950A86A20F9469CFC6C
_VERSION: Final = 1001
_MAX_PICKLE: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Type:
    """A class of storages: its type in safetensors, and what numpy reads it as."""

    dtype: str
    numpy: str


@dataclass(frozen=True, slots=True)
class _Storage:
    type: _Type
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: a view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_STORAGES: Final = {
    "DoubleStorage": _Type("F64", "<f8"),
    "FloatStorage": _Type("F32", "<f4"),
    "HalfStorage": _Type("F16", "<f2"),
    "BFloat16Storage": _Type("BF16", "<u2"),
    "LongStorage": _Type("I64", "<i8"),
    "IntStorage": _Type("I32", "<i4"),
    "ShortStorage": _Type("I16", "<i2"),
    "CharStorage": _Type("I8", "|i1"),
    "ByteStorage": _Type("U8", "|u1"),
    "BoolStorage": _Type("BOOL", "|b1"),
}


def read(path: Path) -> dict[str, tuple[str, NDArray[Any]]]:
    """Return the tensors of a file that holds named tensors, or them as its ``state_dict``.

    The device that they were on does not matter.

    Returns:
        Name to safetensors' name of the type, and the values in rows; BF16 as their bits.

    Raises:
        UsageError: if the file is anything else, or asks for anything else when it is opened.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found, load = _zip(archive)
                return _arrays(found, load)
        with path.open("rb") as file:
            return _arrays(*_legacy(file))
    except _RefusedError as error:
        msg = f"{path} was not converted: {error}. Nothing of it was run"
        raise UsageError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error}"
        raise UsageError(msg) from error
    except Exception as error:
        msg = f"{path} is no PyTorch file of tensors, or a damaged one: {error!r}"
        raise UsageError(msg) from error


class _RefusedError(Exception):
    """The file holds what is not read; says what."""


class _Unpickler(pickle.Unpickler):
    """Knows tensors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        msg = f"it asks for {module}.{name}, and only named tensors are read"
        raise _RefusedError(msg)

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _device, count, *view = pid
        if kind != "storage" or not isinstance(storage_type, _Type) or any(view):
            msg = f"it has a storage of a kind that is not read: {str(pid)[:200]}"
            raise _RefusedError(msg)
        return _Storage(storage_type, str(key), int(count))


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(view: _View, *_: object) -> _View:
    return view


def _zip(archive: zipfile.ZipFile) -> tuple[Any, Callable[[_Storage], bytes]]:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        msg = f"it is a zip with {len(names)} members named data.pkl, where PyTorch has one"
        raise _RefusedError(msg)
    root = names[0].removesuffix("data.pkl")
    order = root + "byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        msg = "its values are big-endian"
        raise _RefusedError(msg)

    def load(storage: _Storage) -> bytes:
        return _stored(archive, f"{root}data/{storage.key}")

    return _Unpickler(io.BytesIO(_stored(archive, names[0], _MAX_PICKLE))).load(), load


def _stored(archive: zipfile.ZipFile, name: str, limit: int | None = None) -> bytes:
    info = archive.getinfo(name)
    # PyTorch never compresses; what is stored as it is cannot be larger than the file.
    if info.compress_type != zipfile.ZIP_STORED or (limit is not None and info.file_size > limit):
        msg = f"its member {name} is compressed, or of {info.file_size} bytes"
        raise _RefusedError(msg)
    return archive.read(info)


def _legacy(file: io.BufferedReader) -> tuple[Any, Callable[[_Storage], bytes]]:
    magic, version, system = (_Unpickler(file).load() for _ in range(3))
    if magic != _MAGIC or version != _VERSION or system.get("little_endian") is not True:
        msg = "it is a pickle, but not one that PyTorch wrote on a little-endian machine"
        raise _RefusedError(msg)
    found = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    types = {view.storage.key: view.storage.type for view in _named(found).values()}
    data: dict[str, bytes] = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        if key not in types:
            msg = f"it has values of a storage {key}, but no tensor in it"
            raise _RefusedError(msg)
        data[key] = file.read(count * np.dtype(types[key].numpy).itemsize)
    return found, lambda storage: data[storage.key]


def _named(found: Any) -> Mapping[str, _View]:
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found:
        msg = f"it holds a {type(found).__name__}, not tensors by their names"
        raise _RefusedError(msg)
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, _View):
            msg = f"its entry {name!r} is a {type(value).__name__}, and only tensors are read"
            raise _RefusedError(msg)
    return found


def _arrays(found: Any, load: Callable[[_Storage], bytes]) -> dict[str, tuple[str, NDArray[Any]]]:
    return {
        name: (view.storage.type.dtype, _array(name, view, load(view.storage)))
        for name, view in _named(found).items()
    }


def _array(name: str, view: _View, data: bytes) -> NDArray[Any]:
    """Return a tensor's values in rows, whatever order they are stored in."""
    values = np.frombuffer(data, view.storage.type.numpy)
    shape, strides = view.shape, view.strides
    numbers = (view.offset, *shape, *strides)
    last = view.offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if (
        len(values) != view.storage.count
        or not all(type(number) is int and number >= 0 for number in numbers)
        or np.prod(shape, dtype=object) > len(values)  # an expanded view has no end
        or (0 not in shape and last >= len(values))
    ):
        msg = (
            f"its tensor {name} of shape {shape}, strides {strides}, offset {view.offset} does not "
            f"fit its {len(values)} values (expected {view.storage.count})"
        )
        raise _RefusedError(msg)
    steps = [step * values.itemsize for step in strides]
    return as_strided(values[view.offset :], shape, steps, writeable=False).copy(order="C")
