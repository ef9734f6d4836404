"""MosaicML's MDS, written by its own library, ``mosaicml-streaming``."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pixsieve.export.formats.base import Format
from pixsieve.export.formats.columns import IMAGE, check_sizes, pieces_of, plain
from pixsieve.export.formats.folder import check_library, put, scratch
from pixsieve.storage import LocalStorage
from pixsieve.storage.portable import original

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixsieve.export.finished import About, Dataset, Shard

PIECE = 128 * 1024 * 1024
"""Image bytes of an MDS shard, at most: its library holds a shard in memory, three times.

The format's own limit is 4 GiB, as offsets are 32 bits.
"""


class MdsFormat(Format):
    """One MDS shard for each tar, more where a tar is large; a folder with an index for each split.

    Columns that cannot be null have MDS' types; others are ``json``, which reads as the value or
    ``None``. Of the two that are not, null is no bytes, and a vector of NaN.
    """

    name = "mds"
    own = r"([^/]+/)?(index\.json|shard\.[0-9]{5,}(\.[0-9]+)?\.mds)"

    def check(self) -> None:
        check_library(self.name, "mosaicml-streaming", "streaming")

    def write_shard(self, about: About, shard: Shard, folder: Path) -> list[str]:
        from streaming import MDSWriter  # noqa: PLC0415  # heavy

        check_sizes(about, shard)
        encodings = _encodings(about.columns)
        vectors = {
            name: (np.dtype(encoding.split(":")[1]), [np.nan] * int(encoding.split(":")[2]))
            for name, encoding in encodings.items()
            if encoding.startswith("ndarray")
        }
        blobs = [name for name, encoding in encodings.items() if encoding == "bytes"]
        names = []
        with scratch(folder, f"{shard.number:05d}") as made:
            moved = {}
            for piece, rows in enumerate(pieces_of(about, shard, PIECE)):
                place = made / str(piece)
                writer = MDSWriter(columns=encodings, out=str(place), size_limit=None)
                for row, image in rows:
                    row[IMAGE] = image
                    for name in blobs:
                        row[name] = row[name] or b""
                    for name, (dtype, nothing) in vectors.items():
                        row[name] = np.array(row[name] or nothing, dtype)
                    writer.write(row)
                writer.finish()
                part = f".{piece}" if piece else ""
                names.append(f"{shard.split or ''}/shard.{shard.split_number:05d}{part}.mds")
                moved[place / "shard.00000.mds"] = folder / names[-1].lstrip("/")
            put(moved)
        return [name.lstrip("/") for name in names]

    def finish(self, dataset: Dataset, written: Sequence[Sequence[str]], folder: Path) -> list[str]:
        indexes = []
        for split, shards in dataset.splits.items():
            names = [name for shard in shards for name in written[shard.number]]
            entries = [_entry(folder / name) for name in names]
            text = json.dumps({"shards": entries, "version": 2}, sort_keys=True)
            indexes.append(str(Path(split or "") / "index.json"))
            with LocalStorage().create(str(folder / indexes[-1])) as sink:
                sink.write(text.encode())
        return indexes


def _encodings(columns: pa.Schema) -> dict[str, str]:
    """Return MDS' type of each column that it can hold."""
    found = {IMAGE: "bytes"}
    for name, (other, kind) in plain(columns).items():
        field = original(columns.field(name))
        if kind.word == "bytes" and not kind.list:
            found[other] = "bytes"
        elif kind.word == "float" and kind.length:
            found[other] = f"ndarray:{_numpy(field.type.value_type)}:{kind.length}"
        elif field.type == pa.uint64() and not field.nullable:
            found[other] = "uint64"
        elif kind.list or field.nullable or kind.word == "bool":
            found[other] = "json"
        else:
            known = {"text": "str", "int": "int"}
            found[other] = known.get(kind.word) or _numpy(field.type)
    return found


def _numpy(kind: pa.DataType) -> str:
    return str(np.dtype(kind.to_pandas_dtype()))


def _entry(path: Path) -> dict[str, Any]:
    """Return a shard's entry in the index, as its library writes it.

    A shard starts with the count n, n + 1 offsets (all uint32), and what is described here as JSON.
    """
    with path.open("rb") as file:
        (samples,) = struct.unpack("<I", file.read(4))
        (first,) = struct.unpack("<I", file.read(4))
        file.seek(4 * (samples + 2))
        config = json.loads(file.read(first - file.tell()))
    data = {"basename": path.name, "bytes": path.stat().st_size, "hashes": {}}
    return {**config, "raw_data": data, "samples": samples, "zip_data": None}
