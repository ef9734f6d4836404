"""TFRecord files of ``tf.train.Example``, written without TensorFlow.

Source of the format: TensorFlow's ``core/lib/io/record_writer.h`` (uint64 length, masked CRC-32C of
it, payload, masked CRC-32C of that; all little endian) and ``core/example/feature.proto``; the
encoding of messages is Protocol Buffers'.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from pixsieve.export.formats.base import Format
from pixsieve.export.formats.columns import (
    IMAGE,
    Kind,
    check_sizes,
    check_splits,
    file_name,
    plain,
    rows_of,
)
from pixsieve.export.formats.folder import check_library
from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pyarrow as pa

    from pixsieve.export.finished import About, Dataset, Shard

SPEC = "feature_spec.json"
"""What the features are, since the records do not tell."""
_LISTS = {"bytes": 1, "float": 2, "int64": 3}  # fields of Feature
_DTYPES = {"text": "bytes", "bytes": "bytes", "int": "int64", "bool": "int64", "float": "float"}
_MASK = 0xA282EAD8
_WORD = 2**32 - 1


class TfrecordFormat(Format):
    """One file for each shard, of records with the sidecar's columns and ``image`` as features.

    A null is a feature that is left out, a boolean is 0 or 1, and floats have 32 bits, as examples
    have no others; ``feature_spec.json`` tells how to parse.
    """

    name = "tfrecord"
    own = r"feature_spec\.json|.+-[0-9]{5,}-of-[0-9]{5,}\.tfrecord"

    def check(self) -> None:
        check_library(self.name, "google-crc32c", "google_crc32c")

    def write_shard(self, about: About, shard: Shard, folder: Path) -> list[str]:
        from google_crc32c import value as crc32c  # noqa: PLC0415  # an extra

        check_sizes(about, shard)
        kinds = {IMAGE: Kind("bytes"), **dict(plain(about.columns).values())}
        order = sorted((name.encode(), name, _DTYPES[kind.word]) for name, kind in kinds.items())
        heads = [(name, dtype, _field(1, encoded)) for encoded, name, dtype in order]
        name = file_name(shard, ".tfrecord")
        with LocalStorage().create(str(folder / name)) as sink:
            for row, image in rows_of(about, shard):
                row[IMAGE] = image
                sink.write(record(_example(row, heads), crc32c))
        return [name]

    def finish(self, dataset: Dataset, written: Sequence[Sequence[str]], folder: Path) -> list[str]:
        del written
        check_splits(dataset)
        text = json.dumps(_spec(dataset.columns), indent=1, ensure_ascii=False)
        with LocalStorage().create(str(folder / SPEC)) as sink:
            sink.write(f"{text}\n".encode())
        return [SPEC]


def record(payload: bytes, crc32c: Callable[[bytes], int]) -> bytes:
    """Return a record: the payload between its length and checksums."""
    length = struct.pack("<Q", len(payload))
    sums = [struct.pack("<I", _masked(crc32c(each))) for each in (length, payload)]
    return b"".join((length, sums[0], payload, sums[1]))


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK) & _WORD


def _example(row: dict[str, Any], heads: Sequence[tuple[str, str, bytes]]) -> bytes:
    """Return a row as an Example: its features in the order of their names, so always the same."""
    entries = []
    for name, dtype, head in heads:
        value = row[name]
        if value is not None:
            many = value if isinstance(value, list) else [value]
            values = [each for each in many if each is not None]
            entries.append(_field(1, head + _field(2, _feature(dtype, values))))
    return _field(1, b"".join(entries))


def _feature(dtype: str, values: Sequence[Any]) -> bytes:
    if dtype == "bytes":
        texts = (value.encode() if isinstance(value, str) else value for value in values)
        inner = b"".join(_field(1, text) for text in texts)
    elif dtype == "float":
        with np.errstate(over="ignore"):  # what 32 bits cannot hold is infinite
            inner = _field(1, np.array(values, "<f4").tobytes()) if values else b""
    else:
        numbers = b"".join(_varint(int(value) % 2**64) for value in values)
        inner = _field(1, numbers) if values else b""
    return _field(_LISTS[dtype], inner)


def _field(number: int, data: bytes) -> bytes:
    """Return a field of a message that has a length: text, bytes, a message, packed numbers."""
    return b"".join((_varint(number << 3 | 2), _varint(len(data)), data))


def _varint(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first, all but the last one marked."""
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _spec(columns: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return for each feature its ``dtype``, its shape, whether it is text, and can be absent.

    ``shape`` is ``[]`` of a single value, ``[n]`` of n values, ``[null]`` of any number of them.
    """
    found = {IMAGE: {"dtype": "bytes", "shape": [], "text": False, "optional": False}}
    for name, (other, kind) in plain(columns).items():
        found[other] = {
            "dtype": _DTYPES[kind.word],
            "shape": [kind.length] if kind.list else [],
            "text": kind.word == "text",
            "optional": columns.field(name).nullable,
        }
    return found
