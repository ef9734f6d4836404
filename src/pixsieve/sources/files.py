"""Loose files in folders: cut into shards by their names, and read as samples."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from zlib import crc32

from pixsieve.errors import SourceChangedError, SourceNotFoundError
from pixsieve.schema import Problem
from pixsieve.sources.base import SourceShard
from pixsieve.sources.group import group, split_name
from pixsieve.sources.tar import HEAD, Fault, Member

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.sources.base import IndexOptions
    from pixsieve.sources.group import Sample
    from pixsieve.storage.base import ObjectInfo, Reader, Storage

TEXT_EXTENSIONS = frozenset(
    "caption cls csv htm html json jsonl md npy npz parquet tsv txt xml yaml yml".split()  # noqa: SIM905 - read by people
)
"""Files so named are no images, and are not opened to see whether they are."""

_MIN_SAMPLES, _MAX_SAMPLES = 64, 1024
_CUT_ONE_IN = 256


@dataclass(slots=True)
class LooseFiles:
    """Cuts a stream of files, in the order of their paths' parts, into shards.

    A shard ends before a sample that its own key names as a border (one key in 256, by its CRC-32,
    once the shard has 64 samples) or when it is full (1,024 samples). So a new file moves the
    borders near it only, and a sample is never cut. Nothing is held but the shard at hand and the
    samples that may still grow: in path order, ``a.mask.png`` stands between ``a.jpg`` and
    ``a.txt``.
    """

    root: str
    options: IndexOptions
    _open: list[_OpenSample] = field(default_factory=list)
    _shard: list[ObjectInfo] = field(default_factory=list)
    _samples: int = 0
    _first: str = ""
    _beside: str = ""

    def add(self, info: ObjectInfo) -> Iterator[SourceShard]:
        """Take the next file, and yield the shards that are complete now."""
        yield from self._close(info.path)
        key, _ = split_name(info.path, last=self.options.key_split != "first")
        if not (self._open and self._open[-1].key == key):
            self._open.append(_OpenSample(key))
        self._open[-1].files.append(info)

    def pass_tar(self, info: ObjectInfo) -> Iterator[SourceShard]:
        """Note a tar: files that go with it (``a.parquet``, ``a_stats.json``) are no samples."""
        yield from self._close(info.path)
        self._beside = split_name(info.path, last=False)[0]

    def finish(self) -> Iterator[SourceShard]:
        """Yield what is left."""
        yield from self._close(None)
        if self._shard:
            yield self._cut()

    def _close(self, path: str | None) -> Iterator[SourceShard]:
        """End the samples that no file from ``path`` on can belong to."""
        while self._open and (path is None or self._open[-1].ends_before(path)):
            sample = self._open.pop()
            if self._goes_with_tar(sample):
                continue
            border = crc32(sample.key.encode()) % _CUT_ONE_IN == 0 and self._samples >= _MIN_SAMPLES
            if border or self._samples >= _MAX_SAMPLES:
                yield self._cut()
            self._first = self._first or sample.files[0].path
            self._shard += sample.files
            self._samples += 1

    def _goes_with_tar(self, sample: _OpenSample) -> bool:
        if not (self._beside and sample.key.startswith(self._beside)):
            return False
        if sample.key[len(self._beside) :][:1] not in ("", ".", "_", "-"):
            return False
        names = (split_name(file.path, last=True)[1] for file in sample.files)
        return all(extension in TEXT_EXTENSIONS for extension in names)

    def _cut(self) -> SourceShard:
        files = tuple(sorted(self._shard, key=_path_order))
        shard = SourceShard(kind="files", id=self._first, root=self.root, files=files)
        self._shard, self._samples, self._first = [], 0, ""
        return shard


@dataclass(slots=True)
class _OpenSample:
    key: str
    files: list[ObjectInfo] = field(default_factory=list)

    def ends_before(self, path: str) -> bool:
        """Tell whether ``path`` is past all names that start with the key and a dot."""
        folder, slash, stem = self.key.rpartition("/")
        if not path.startswith(folder + slash):
            return True
        part = path[len(folder) + len(slash) :].partition("/")[0]
        return part > stem + "." and not part.startswith(stem + ".")


def find_files(shard: SourceShard, options: IndexOptions, storage: Storage) -> list[Sample]:
    """Read the first bytes of a shard's files and return its samples, in the order of their keys.

    Raises:
        SourceChangedError: a file is not any more what it was when it was listed.
    """
    last = options.key_split != "first"
    members = [_member(shard.root, info, storage) for info in shard.files]
    # By key, since a.mask.png stands between a.jpg and a.txt.
    members.sort(key=lambda member: (split_name(member.name, last=last)[0].split("/"), member.name))
    return group(members, last=last, image_member=options.image_member)


def class_name(sample: Sample) -> str | None:
    """Return the first sub-folder on the way to a sample's files."""
    folder, slash, _ = sample.key.partition("/")
    return folder if slash else None


def open_unchanged(storage: Storage, root: str, info: ObjectInfo) -> Reader:
    """Open a source's file; ``SourceChangedError`` unless it is as it was when it was listed."""
    path = posixpath.join(root, info.path)
    try:
        reader = storage.open(path)
    except SourceNotFoundError as error:
        msg = f"{path} vanished after it was listed; restore it and run again"
        raise SourceChangedError(msg) from error
    if reader.info.version != info.version:
        now = reader.info.version
        reader.close()
        msg = (
            f"{path} changed after it was listed (version {info.version} became {now}); "
            "run again when nothing writes to it"
        )
        raise SourceChangedError(msg)
    return reader


def _path_order(info: ObjectInfo) -> list[str]:
    return info.path.split("/")


def _member(root: str, info: ObjectInfo, storage: Storage) -> Member:
    path, version = info.path, info.version
    unsafe, _, kind = version.partition(":")
    if unsafe == "unsafe":
        fault = Fault(0, Problem.UNSAFE_MEMBER, f"{path!r} is a {kind}")
        return Member(path, path, version, 0, 0, b"", fault)
    head = b""
    if info.size and split_name(path, last=True)[1] not in TEXT_EXTENSIONS:
        with open_unchanged(storage, root, info) as reader:
            head = reader.read(0, min(info.size, HEAD))
            reader.check_unchanged()
    return Member(path, path, version, 0, info.size, head, None)
