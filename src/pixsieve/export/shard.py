"""Write one output shard from its plan table: the tar, then its sidecar."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pixsieve import image, schema
from pixsieve.export.files import FileRecord, record_of
from pixsieve.export.imaging import Made, Source, make
from pixsieve.export.members import Sibling
from pixsieve.export.stream import TarStream
from pixsieve.export.uniform import beside
from pixsieve.storage import tables
from pixsieve.storage.portable import convert, portable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pixsieve.export.transform import ImageTransformStage
    from pixsieve.export.uniform import Uniform
    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.scorers.guard import Guard
    from pixsieve.sources import SourceFiles
    from pixsieve.storage import Storage

SIDECAR_VERSION = 1
_CHANGED = tuple(name for name in Made._fields if name != "data")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenShard:
    """What a shard came out as."""

    tar: FileRecord
    sidecar: FileRecord
    samples: int
    encoded: int


def write_shard(
    plan: pa.Table,
    added: Iterable[str],
    stem: str,
    writer: ImageWriterStage,
    files: SourceFiles,
    storage: Storage,
    guard: Guard,
    uniform: Uniform | None = None,
    transform: ImageTransformStage | None = None,
) -> tuple[FileRecord, int]:
    """Write ``stem.tar`` and ``stem.parquet`` into the output.

    Args:
        plan: The shard's plan table.
        added: Names of the plan's columns that the sidecar takes over: json fields, scores, and
            what selection stages added.
        stem: File name without extension.
        writer: How images are written.
        files: Opens the source's files.
        storage: Where the output lies.
        guard: Watches over the encoding of each row.
        uniform: What every sample has beside its image; ``None``: what is found is copied.
        transform: What becomes of images.

    Returns:
        The record of the sidecar, and how many images were changed.

    Raises:
        SourceChangedError: a source is not what it was when it was indexed.
        RunError: an image that was chosen cannot be encoded.
        StorageError: reading or writing failed. Nothing stands under a final name then.
    """
    output = Path(writer.output_dir)
    offsets: list[int] = []
    members: list[list[tuple[str, int]]] = []
    made: dict[int, Made] = {}
    originals: list[dict[str, str]] = []
    paths = [str(output / f"{stem}.tar"), str(output / f"{stem}.parquet")]
    with storage.create_together(paths) as (sink, sidecar_sink):
        stream = TarStream(sink, files)
        for number, row in enumerate(_rows(plan)):
            source = row.source
            anew = make(number, source, writer, transform, files, guard)
            extension = image.FORMATS[anew.format if anew else source.format]
            name = f"{row.key}.{extension}"
            if anew is None:
                size = source.size
                offset = stream.copy(name, source.file, source.version, source.offset, size)
            else:
                size = len(anew.data)
                offset = stream.add(name, anew.data)
                made[number] = anew._replace(data=b"")
            offsets.append(offset)
            members.append([(name, size)])
            others = beside(row.siblings, extension, row.caption, uniform, files)
            originals.append(others.originals)
            for free, other in others.members:
                name = f"{row.key}.{free}"
                if isinstance(other, bytes):
                    stream.add(name, other)
                    members[-1].append((name, len(other)))
                else:
                    stream.copy(name, other.file, other.version, other.offset, other.size)
                    members[-1].append((name, other.size))
        stream.finish()
        kept = {
            name: [row.get(name) for row in originals]
            for name in (uniform.originals if uniform else ())
        }
        sidecar = _sidecar(plan, added, f"{stem}.tar", offsets, members, made, kept)
        data = tables.table_bytes(sidecar, tables.DATASET)
        sidecar_sink.write(data)
        files.check_unchanged()
    return record_of(f"{stem}.parquet", data), len(made)


class _Row(NamedTuple):
    key: str
    source: Source
    siblings: list[Sibling]
    caption: str | None


def _rows(plan: pa.Table) -> Iterable[_Row]:
    lists = plan["siblings"].combine_chunks()
    members = lists.flatten()
    parts = (members.field(name).to_pylist() for name in Sibling._fields)
    flat = list(itertools.starmap(Sibling, zip(*parts, strict=True)))
    ends = np.cumsum(lists.value_lengths().to_numpy()).tolist()
    siblings = [flat[start:end] for start, end in itertools.pairwise([0, *ends])]
    columns = (
        "image_file", "image_version", "image_offset", "image_size", "sha256", "format", "width",
        "height", "exif_orientation",
    )  # fmt: skip
    values = (plan[name].to_pylist() for name in columns)
    sources = itertools.starmap(Source, zip(*values, strict=True))
    return map(_Row, plan["new_key"].to_pylist(), sources, siblings, plan["caption"].to_pylist())


def _sidecar(
    plan: pa.Table,
    added: Iterable[str],
    tar_file: str,
    offsets: list[int],
    members: list[list[tuple[str, int]]],
    made: dict[int, Made],
    originals: dict[str, list[str | None]],
) -> pa.Table:
    columns: dict[str, object] = {
        "image_id": plan["image_id"],
        "tar_file": [tar_file] * len(plan),
        "member_name": [of_row[0][0] for of_row in members],
        "key": plan["new_key"],
        "member_offset": offsets,
        "member_size": plan["image_size"],
        "sha256": plan["sha256"],
        "width": plan["width"],
        "height": plan["height"],
        "format": plan["format"],
        "mode": plan["mode"],
        "caption": plan["caption"],
        "class_name": plan["class_name"],
        "members": [[name for name, _ in of_row] for of_row in members],
        "member_sizes": [[size for _, size in of_row] for of_row in members],
        "original_path": plan["image_file"],
        "original_key": plan["key"],
        "original_offset": plan["image_offset"],
        "original_sha256": plan["sha256"],
        "original_format": plan["format"],
        "exif_orientation": plan["exif_orientation"],
        "encoding": pa.chunked_array([["copy"] * len(plan)]),
        "split": plan["split"],
        "bucket": plan["bucket"],
        "metadata_problem": plan["metadata_problem"],
    }
    if made:
        columns |= {name: _replaced(columns[name], name, made) for name in _CHANGED}
    columns |= originals | {name: plan[name] for name in added}
    fields = [
        *schema.SIDECAR,
        *(schema.ORIGINALS.field(name) for name in originals),
        *(portable(plan.schema.field(name)) for name in added),
    ]
    arrays = [
        convert(column, field.type)
        if isinstance(column := columns[field.name], pa.ChunkedArray)
        else pa.array(column, field.type)
        for field in fields
    ]
    metadata = {"pixsieve": json.dumps({"format_version": SIDECAR_VERSION})}
    return pa.table(arrays, schema=pa.schema(fields, metadata=metadata))


def _replaced(column: pa.ChunkedArray, name: str, made: dict[int, Made]) -> list[object]:
    values: list[object] = column.to_pylist()
    for number, row in made.items():
        values[number] = getattr(row, name)
    return values
