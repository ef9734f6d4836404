"""Write one output shard from its plan table: the tar, then its sidecar."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pixsieve import image, schema
from pixsieve.errors import RunError, SourceChangedError
from pixsieve.export.stream import TarStream
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.scorers.guard import Guard
    from pixsieve.sources import SourceFiles
    from pixsieve.storage import Storage

SIDECAR_VERSION = 1
_EXTENSION = 40  # characters; with an id of at most 57 a name stays below a header's 100 bytes
_UNSAFE = re.compile(r"[^a-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file of the dataset: its name, its size in bytes, and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenShard:
    """What a shard came out as."""

    tar: FileRecord
    sidecar: FileRecord
    samples: int
    encoded: int


class _Made(NamedTuple):
    """An image that was encoded anew, in the columns of the sidecar that this changes."""

    sha256: str
    width: int
    height: int
    format: str
    mode: str
    exif_orientation: int
    encoding: str
    member_size: int


def write_shard(
    plan: pa.Table,
    added: Iterable[str],
    stem: str,
    writer: ImageWriterStage,
    files: SourceFiles,
    storage: Storage,
    guard: Guard,
) -> tuple[int, FileRecord, int]:
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

    Returns:
        The size of the tar, the record of the sidecar, and how many images were encoded anew.

    Raises:
        SourceChangedError: a source is not what it was when it was indexed.
        RunError: an image that was chosen cannot be encoded.
        StorageError: reading or writing failed. Nothing stands under a final name then.
    """
    output = Path(writer.output_dir)
    offsets: list[int] = []
    names: list[list[str]] = []
    made: dict[int, _Made] = {}
    paths = [str(output / f"{stem}.tar"), str(output / f"{stem}.parquet")]
    with storage.create_together(paths) as (sink, sidecar_sink):
        stream = TarStream(sink, files)
        for number, row in enumerate(_rows(plan)):
            target = writer.target_format or row.format
            image_name = f"{row.key}.{image.FORMATS[target]}"
            if target == row.format:
                offset = stream.copy(image_name, row.file, row.version, row.offset, row.size)
            else:
                encoded = _encode(number, row, target, writer, files, guard)
                offset = stream.add(image_name, encoded.data)
                made[number] = _made(encoded, target)
            offsets.append(offset)
            names.append([image_name, *_copy_siblings(stream, row, image.FORMATS[target])])
        size = stream.finish()
        sidecar = _sidecar(plan, added, f"{stem}.tar", offsets, names, made)
        data = tables.table_bytes(sidecar, tables.DATASET)
        sidecar_sink.write(data)
        files.check_unchanged()
    record = FileRecord(
        name=f"{stem}.parquet", size=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    return size, record, len(made)


def seal(path: Path) -> str:
    """Return the SHA-256 of a file as it can be read back."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Row(NamedTuple):
    key: str
    file: str
    version: str
    offset: int
    size: int
    sha256: str
    format: str
    siblings: list[tuple[str, str, str, int, int]]  # extension, file, version, offset, size


def _rows(plan: pa.Table) -> Iterable[_Row]:
    lists = plan["siblings"].combine_chunks()
    members = lists.flatten()
    parts = (
        members.field(n).to_pylist() for n in ("extension", "file", "version", "offset", "size")
    )
    flat = list(zip(*parts, strict=True))
    ends = np.cumsum(lists.value_lengths().to_numpy()).tolist()
    siblings = [flat[start:end] for start, end in itertools.pairwise([0, *ends])]
    columns = (
        "new_key", "image_file", "image_version", "image_offset", "image_size", "sha256", "format",
    )  # fmt: skip
    values = (plan[name].to_pylist() for name in columns)
    return [_Row(*row) for row in zip(*values, siblings, strict=True)]


def _copy_siblings(stream: TarStream, row: _Row, taken: str) -> Iterable[str]:
    """Copy the members beside the image, whose extension is ``taken``; return their names."""
    extensions = {taken}
    names = []
    for original, file, version, offset, size in row.siblings:
        free = _free_extension(original, extensions)
        extensions.add(free)
        names.append(f"{row.key}.{free}")
        stream.copy(names[-1], file, version, offset, size)
    return names


def _made(encoded: image.Encoded, target: str) -> _Made:
    return _Made(
        sha256=hashlib.sha256(encoded.data).hexdigest(),
        width=encoded.width,
        height=encoded.height,
        format=target,
        mode=encoded.mode,
        exif_orientation=1,
        encoding=encoded.encoding,
        member_size=len(encoded.data),
    )


def _encode(
    number: int,
    row: _Row,
    target: str,
    writer: ImageWriterStage,
    files: SourceFiles,
    guard: Guard,
) -> image.Encoded:
    place = f"{row.file} at byte {row.offset}"
    data = files.open(row.file, row.version).read(row.offset, row.size)
    if hashlib.sha256(data).hexdigest() != row.sha256:
        msg = (
            f"{place}: the image is not what it was when it was "
            "inspected, though the file's size and time are; check the disk and run again"
        )
        raise SourceChangedError(msg)
    way_out = f"leave it out with a filter, such as sha256 <> '{row.sha256}'"
    if (ended := guard.avoid.get(number)) is not None:
        msg = f"{place}: encoding the image as {target} ended its worker ({ended}); {way_out}"
        raise RunError(msg)
    try:
        with guard.watch(number):
            return image.encode(data, image.probe(data), writer.encode_options(target))
    except image.ImageProblemError as problem:
        msg = (
            f"{place}: an image that was chosen cannot be encoded as {target}: "
            f"{problem.detail}; {way_out}"
        )
        raise RunError(msg) from problem


def _free_extension(original: str, taken: set[str]) -> str:
    """Return a safe extension for a member, which no other member of the sample has."""
    safe = _safe_extension(original)
    free, number = safe, 2
    while free in taken:
        mark = f"_{number}"
        free, number = safe[: _EXTENSION - len(mark)] + mark, number + 1
    return free


@functools.lru_cache(maxsize=1024)
def _safe_extension(original: str) -> str:
    return _UNSAFE.sub("-", original.lower())[:_EXTENSION] or "data"


def _sidecar(
    plan: pa.Table,
    added: Iterable[str],
    tar_file: str,
    offsets: list[int],
    names: list[list[str]],
    made: dict[int, _Made],
) -> pa.Table:
    columns: dict[str, object] = {
        "image_id": plan["image_id"],
        "tar_file": [tar_file] * len(plan),
        "member_name": [members[0] for members in names],
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
        "members": names,
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
        columns |= {name: _replaced(columns[name], name, made) for name in _Made._fields}
    columns |= {name: plan[name] for name in added}
    fields = [*schema.SIDECAR, *(plan.schema.field(name) for name in added)]
    arrays = [
        column.cast(field.type)
        if isinstance(column := columns[field.name], pa.ChunkedArray)
        else pa.array(column, field.type)
        for field in fields
    ]
    metadata = {"pixsieve": json.dumps({"format_version": SIDECAR_VERSION})}
    return pa.table(arrays, schema=pa.schema(fields, metadata=metadata))


def _replaced(column: pa.ChunkedArray, name: str, made: dict[int, _Made]) -> list[object]:
    values: list[object] = column.to_pylist()
    for number, row in made.items():
        values[number] = getattr(row, name)
    return values
