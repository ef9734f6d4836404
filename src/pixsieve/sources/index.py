"""Locating the samples of one shard: from a source's bytes to an index table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixsieve.schema import Problem
from pixsieve.sources.files import class_name, find_files, open_unchanged
from pixsieve.sources.group import group, index_table
from pixsieve.sources.spool import is_compressed, spool_path, unpack, unpacked_version
from pixsieve.sources.tar import Walk, walk, walk_on
from pixsieve.storage.base import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from pixsieve.sources.base import IndexOptions, SourceShard
    from pixsieve.storage.base import Reader, Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexResult:
    """What a shard holds.

    Attributes:
        table: One row per sample, :data:`pixsieve.schema.INDEX`; one more where a source could not
            be read on.
        notes: What is odd about the source without being a fault of any sample.
        ignored: Members that are no samples: folders, global headers and volume labels.
        size: Bytes of the source.
        read_to: Up to which of them everything is accounted for; about, if it is compressed.
    """

    table: pa.Table
    notes: tuple[str, ...] = ()
    ignored: int = 0
    size: int
    read_to: int


def index_shard(
    shard: SourceShard, options: IndexOptions, storage: Storage, spool_dir: str
) -> IndexResult:
    """Locate the samples of a shard.

    Compressed tars are unpacked into ``spool_dir``; their rows have offsets in what was unpacked
    and a version that says so, for :class:`pixsieve.sources.SourceFiles`.

    Raises:
        SourceChangedError: the source is not any more what it was when it was listed, or changed
        meanwhile. StorageError: it cannot be read, or there is no room to unpack it.
    """
    if shard.kind == "files":
        samples = find_files(shard, options, storage)
        classes = [class_name(sample) for sample in samples]
        table = index_table(samples, image_member=options.image_member, class_names=classes)
        size = sum(info.size for info in shard.files)
        return IndexResult(table=table, size=size, read_to=size)
    (info,) = shard.files
    with open_unchanged(storage, shard.root, info) as reader:
        if is_compressed(reader.read(0, min(info.size, 4))):
            result = _index_compressed(reader, info, options, storage, spool_dir)
        else:
            found = _walk(reader, info.path, info.version, options)
            result = _result(found, info, options)
        reader.check_unchanged()
    return result


def _index_compressed(
    packed: Reader, info: ObjectInfo, options: IndexOptions, storage: Storage, spool_dir: str
) -> IndexResult:
    path = spool_path(spool_dir, info.path, info.version)
    spool = unpack(packed, storage, path)
    version = unpacked_version(info.version, spool.size)
    found = Walk()
    read_to = 0
    if spool.kept:
        with storage.open(path) as reader:
            found = _walk(reader, info.path, version, options)
            read_to = spool.packed * found.read_to // max(1, spool.size)
    if spool.fault:
        found.faults.append(spool.fault)
    result = _result(found, ObjectInfo(info.path, spool.size, version), options)
    return replace(result, size=info.size, read_to=read_to)


def _walk(reader: Reader, file: str, version: str, options: IndexOptions) -> Walk:
    if options.salvage:
        return walk_on(reader, file=file, version=version)
    return walk(reader, file=file, version=version)


def _result(found: Walk, info: ObjectInfo, options: IndexOptions) -> IndexResult:
    samples = group(
        found.members, last=options.key_split == "last", image_member=options.image_member
    )
    table = index_table(
        samples,
        image_member=options.image_member,
        faults=[(info.path, info.version, fault) for fault in found.faults],
    )
    return IndexResult(
        table=table,
        notes=(*found.notes, *_lost(found)),
        ignored=found.ignored,
        size=info.size,
        read_to=found.read_to,
    )


def _lost(found: Walk) -> Iterator[str]:
    """Say what one row cannot: that an unknown number of samples is behind it."""
    for fault in found.faults:
        if fault.problem in (Problem.SOURCE_DAMAGED, Problem.SOURCE_TRUNCATED):
            what = "what lies there" if fault.read_on else "what follows"
            how = "damaged at" if fault.read_on else "not read on from"
            yield f"{how} byte {fault.offset}, {what} is lost: {fault.detail}"
