"""The bytes of samples, read once each, into memory that is used again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from pixsieve.sources import SourceFiles

GAP = 64 * 1024
"""A sample whose members lie apart by at most so many bytes in all is read in one request."""

Place = tuple[str, str, int, int]
"""Where a member lies: file, version, offset, size."""


class SampleBuffer:
    """Reads the members of one sample at a time."""

    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._buffer = memoryview(bytearray(1024 * 1024))

    def read(self, members: Sequence[Place]) -> list[memoryview]:
        """Return the members' bytes, which are valid until the next call."""
        file, version, start, _ = members[0]
        stop, total, apart = start, 0, False
        for name, _, offset, size in members:
            start, stop = min(start, offset), max(stop, offset + size)
            total += size
            apart = apart or name != file
        if not apart and stop - start <= total + GAP:
            view = self._view(stop - start)
            self._files.open(file, version).read_into([view], start)
            return [view[offset - start : offset - start + size] for _, _, offset, size in members]
        view = self._view(total)
        found, at = [], 0
        for file, version, offset, size in members:
            found.append(view[at : at + size])
            self._files.open(file, version).read_into([found[-1]], offset)
            at += size
        return found

    def _view(self, size: int) -> memoryview:
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        return self._buffer[:size]


def image_places(index: pa.Table) -> list[Place]:
    """Return where the image of each row of an index table lies."""
    names = ("image_file", "image_version", "image_offset", "image_size")
    return list(zip(*(index[name].to_pylist() for name in names), strict=True))


def sibling_places(index: pa.Table) -> list[list[tuple[str, Place]]]:
    """Return for each row the extensions and places of the members beside the image."""
    lists = index["siblings"].combine_chunks()
    members = lists.flatten()
    names = ("file", "version", "offset", "size")
    places = list(zip(*(members.field(name).to_pylist() for name in names), strict=True))
    flat = list(zip(members.field("extension").to_pylist(), places, strict=True))
    found, at = [], 0
    for length in lists.value_lengths().to_pylist():
        found.append(flat[at : at + length])
        at += length
    return found
