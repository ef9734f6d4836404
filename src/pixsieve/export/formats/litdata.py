"""LitData's chunks, written by its own library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixsieve.export.formats.base import Format
from pixsieve.export.formats.columns import IMAGE, Kind, check_sizes, pieces_of, plain
from pixsieve.export.formats.folder import check_library, put, scratch
from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from pixsieve.export.finished import About, Dataset, Shard

PIECE = 64 * 1024 * 1024
"""Image bytes of a chunk, at most, as is the library's way: it holds a chunk in memory eight times.

The format's own limit is 4 GiB, as offsets are 32 bits.
"""
_SAMPLES = {"text": "", "bytes": b"", "int": 0, "float": 0.0, "bool": False}


class LitdataFormat(Format):
    """One chunk for each tar, more where a tar is large; a folder with an index for each split.

    Rows are dicts of the sidecar's columns and ``image``; null is ``None``. ``updated_at`` of the
    index, under which readers cache, is the digest of the plan instead of a time.
    """

    name = "litdata"
    own = r"([^/]+/)?(index\.json|chunk-[0-9]+-[0-9]+\.bin)"

    def check(self) -> None:
        check_library(self.name, "litdata", "litdata")

    def write_shard(self, about: About, shard: Shard, folder: Path) -> list[str]:
        check_sizes(about, shard)
        split = Path(shard.split or "")
        names = []
        with scratch(folder, f"{shard.number:05d}") as made:
            moved = {}
            for piece, rows in enumerate(pieces_of(about, shard, PIECE)):
                writer = _writer(made / str(piece))
                for number, (row, image) in enumerate(rows):
                    writer.add_item(number, {IMAGE: image, **row})
                (chunk,) = writer.done()
                names.append(str(split / f"chunk-{shard.split_number}-{piece}.bin"))
                moved[Path(chunk)] = folder / names[-1]
            put(moved)
        return names

    def finish(self, dataset: Dataset, written: Sequence[Sequence[str]], folder: Path) -> list[str]:
        config = _config(dataset.columns, folder)
        indexes = []
        for split, shards in dataset.splits.items():
            names = [name for shard in shards for name in written[shard.number]]
            index = {
                "chunks": [_entry(folder / name) for name in names],
                "config": config,
                "updated_at": dataset.plan_sha256[:16],
            }
            indexes.append(str(Path(split or "") / "index.json"))
            with LocalStorage().create(str(folder / indexes[-1])) as sink:
                sink.write(json.dumps(index, sort_keys=True).encode())
        return indexes


def _writer(folder: Path) -> Any:
    """Return the library's writer of one chunk.

    By itself it takes a text that is a file's name for that file.
    """
    from litdata.streaming.serializers import StringSerializer  # noqa: PLC0415  # heavy
    from litdata.streaming.writer import BinaryWriter  # noqa: PLC0415

    class Text(StringSerializer):  # type: ignore[misc]  # untyped
        def can_serialize(self, data: object) -> bool:
            return isinstance(data, str)

    return BinaryWriter(str(folder), chunk_bytes=2**62, serializers={"str": Text()})


def _config(columns: pa.Schema, folder: Path) -> dict[str, Any]:
    """Return what the library says of such rows, whatever the first one of a chunk is like."""
    kinds = plain(columns)
    row = {other: _sample(kind) for other, kind in kinds.values()}
    nulls = {other: None for name, (other, _) in kinds.items() if columns.field(name).nullable}
    with scratch(folder, "config") as made:
        writer = _writer(made)
        writer.add_item(0, {IMAGE: b"", **row})
        writer.add_item(1, {IMAGE: b"", **row, **nulls})
        found: dict[str, Any] = writer.get_config()
    return {**found, "chunk_bytes": PIECE}


def _sample(kind: Kind) -> object:
    value = _SAMPLES[kind.word]
    return [value] if kind.list else value


def _entry(path: Path) -> dict[str, Any]:
    """Return a chunk's entry in the index; it starts with the number of rows, uint32."""
    with path.open("rb") as file:
        rows = int.from_bytes(file.read(4), "little")
    size = path.stat().st_size
    return {"chunk_bytes": size, "chunk_size": rows, "dim": None, "filename": path.name}
