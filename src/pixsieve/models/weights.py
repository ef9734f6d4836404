"""Weights of models: read from safetensors only, and made into safetensors from what is a pickle.

Format: 8 bytes little-endian length of the header; the header, a JSON object of each tensor's
``dtype``, ``shape`` and ``data_offsets`` (from the header's end); the tensors' bytes, row-major,
little-endian, without gaps. See https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pixsieve.errors import UsageError
from pixsieve.models import saved_model, torch_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    Weights = Mapping[str, tuple[str, NDArray[Any]]]
    """Name to safetensors' name of the type and the values; BF16 are the bits as uint16."""

DTYPES: Final = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
    "F8_E4M3": "|u1", "F8_E5M2": "|u1",
}  # fmt: skip
"""Types of safetensors, and how numpy sees them; it has no BF16 or F8: these are their bits."""
_MAX_HEADER: Final = 100_000_000  # as in the reference implementation
_PICKLES: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Where a tensor lies.

    Attributes:
        path: The file.
        dtype: As safetensors calls it, such as ``F32``.
        shape: Its sides.
        offset: Its first byte, from the start of the file.
        size: Its bytes.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int

    def read(self) -> NDArray[np.float32]:
        """Return the values of a tensor of floats, of ``shape``.

        Raises:
            UsageError: for any other type.
        """
        if self.dtype not in {"F64", "F32", "F16", "BF16"}:
            msg = f"a tensor in {self.path} is of type {self.dtype}; expected floats"
            raise UsageError(msg)
        count = self.size // np.dtype(DTYPES[self.dtype]).itemsize
        found = np.fromfile(self.path, DTYPES[self.dtype], count, offset=self.offset)
        if self.dtype == "BF16":  # the upper half of a float32
            found = (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float32).reshape(self.shape)


def tensors(path: Path) -> dict[str, Tensor]:
    """Return the places of all tensors of a safetensors file; only its header is read.

    Raises:
        UsageError: if the file is anything else, or its header says what cannot be.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            if start[8:] != b"{":
                raise UsageError(_not_safetensors(path, start))
            if length > min(size - 8, _MAX_HEADER):
                raise _bad(path, f"its header of {length} bytes is longer than may be")
            header = start[8:] + file.read(length - 1)
    except OSError as error:
        msg = f"{path} cannot be read: {error}"
        raise UsageError(msg) from error
    try:
        entries = json.loads(header, object_pairs_hook=_once)
    except ValueError as error:
        raise _bad(path, f"its header is no JSON object: {error}") from error
    entries.pop("__metadata__", None)
    found = {name: _tensor(path, name, entry, 8 + length) for name, entry in entries.items()}
    end = 8 + length
    for tensor in sorted(found.values(), key=lambda each: (each.offset, each.size)):
        if tensor.offset != end:
            raise _bad(path, f"its tensors overlap or leave a gap at byte {end}")
        end += tensor.size
    if end != size:
        raise _bad(path, f"it has {size} bytes, but its header says {end}")
    return found


def safetensors(weights: Weights) -> bytes:
    """Return weights as a safetensors file; equal weights give equal bytes."""
    # Wide types first: every tensor then starts at a multiple of its own width.
    names = sorted(weights, key=lambda name: (-weights[name][1].itemsize, name))
    entries, parts, at = {}, [], 0
    for name in names:
        dtype, values = weights[name]
        data = np.ascontiguousarray(values, DTYPES[dtype]).tobytes()
        entries[name] = {
            "dtype": dtype,
            "shape": list(values.shape),
            "data_offsets": [at, at + len(data)],
        }
        parts.append(data)
        at += len(data)
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join([len(header).to_bytes(8, "little"), header, *parts])


def convert(path: Path) -> bytes:
    """Return the tensors of a file that is a pickle, as a safetensors file; runs nothing of it.

    Args:
        path: A PyTorch file (``.pth``, ``.pt``, ``.bin``, ``.ckpt``) that holds named tensors, or
            the zip of a TensorFlow model as LAION publishes its NSFW detector.

    Raises:
        UsageError: if the file is anything else, or asks for anything else when it is opened.
    """
    found = saved_model.read(path) if saved_model.is_one(path) else torch_file.read(path)
    return safetensors(found)


def refuse_pickle(path: Path, out: Path | None = None) -> UsageError:
    """Return the error for a pickle in the place of weights, with the way out.

    Args:
        path: The pickle.
        out: Where its weights belong; ``None`` for beside it.
    """
    out = out or path.with_suffix(".safetensors")
    command = shlex.join([str(path), str(out), *(["--overwrite"] if out == path else [])])
    return UsageError(
        f"{path} is a pickle, and opening one may run any code; pixsieve reads safetensors and "
        f"ONNX only. Convert it, without running it, by: pixsieve models convert {command}"
    )


def _not_safetensors(path: Path, start: bytes) -> str:
    if start.startswith(_PICKLES) or path.suffix in torch_file.SUFFIXES:
        return str(refuse_pickle(path))
    return str(_bad(path, "it does not start with a length and a JSON object"))


def _bad(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} is no safetensors file, or a damaged one: {why}; fetch it again")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "a name stands there twice"
        raise ValueError(msg)
    return found


def _tensor(path: Path, name: str, entry: object, start: int) -> Tensor:
    match entry:
        case {
            "dtype": str(dtype),
            "shape": list(shape),
            "data_offsets": [int(first), int(stop)],
        } if dtype in DTYPES and all(type(side) is int and side >= 0 for side in shape):
            size = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
            if first >= 0 and stop - first == size:
                return Tensor(
                    path=path, dtype=dtype, shape=tuple(shape), offset=start + first, size=size
                )
    raise _bad(path, f"tensor {name} has the entry {str(entry)[:200]}")
