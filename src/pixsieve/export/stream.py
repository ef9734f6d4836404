"""Moves bytes from source files into a tar through one small buffer.

Measured: one reused buffer of 512 KiB, which the second-level cache holds, costs least CPU. Reads
of neighbouring members are one system call, in which what lies between them is read into a scrap
area.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.export import tar

if TYPE_CHECKING:
    from pixsieve.sources import SourceFiles
    from pixsieve.storage import Sink

BUFFER = 512 * 1024
GAP = 8 * 1024
"""Neighbours that lie at most so far apart are read together."""


class TarStream:
    """Appends members to a tar that is being written."""

    def __init__(self, sink: Sink, files: SourceFiles) -> None:
        self._sink = sink
        self._files = files
        self._buffer = memoryview(bytearray(BUFFER))
        self._scrap = memoryview(bytearray(GAP))
        self._fill = 0
        self._written = 0
        self._padding = 0
        self._reads: list[tuple[str, str, int, int, int]] = []  # file, version, offset, start, stop

    @property
    def offset(self) -> int:
        """Where the next byte will stand in the tar."""
        return self._written + self._fill

    def copy(self, name: str, file: str, version: str, offset: int, size: int) -> int:
        """Append a member from a source file; return the offset of its first data byte."""
        start = self._fill + self._padding + tar.BLOCK
        if start + size < BUFFER:  # the common case, in which nothing is cut in two
            head = bytes(self._padding) + tar.header(name, size)
            self._buffer[self._fill : start] = head
            self._reads.append((file, version, offset, start, start + size))
            self._fill = start + size
            self._padding = tar.padding(size)
            return self._written + start
        first = self._begin(name, size)
        left = size
        while left:
            part = min(left, BUFFER - self._fill)
            self._reads.append((file, version, offset, self._fill, self._fill + part))
            offset, left = offset + part, left - part
            self._advance(part)
        return first

    def add(self, name: str, data: bytes) -> int:
        """Append a member with the bytes given; return the offset of its first data byte."""
        first = self._begin(name, len(data))
        self._put(data)
        return first

    def finish(self) -> int:
        """Append the end of the tar; return its size."""
        self._put(bytes(self._padding))
        self._put(bytes(tar.trailer(self.offset)))
        self._flush()
        return self._written

    def _begin(self, name: str, size: int) -> int:
        """Append the padding of the member before, and a header."""
        self._put(bytes(self._padding) + tar.header(name, size))
        self._padding = tar.padding(size)
        return self.offset

    def _put(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            part = min(len(data) - at, BUFFER - self._fill)
            self._buffer[self._fill : self._fill + part] = data[at : at + part]
            at += part
            self._advance(part)

    def _advance(self, count: int) -> None:
        self._fill += count
        if self._fill == BUFFER:
            self._flush()

    def _flush(self) -> None:
        views: list[memoryview] = []
        begin = end = 0
        current = ("", "")
        for file, version, offset, start, stop in self._reads:
            gap = offset - end
            if views and ((file, version) != current or not 0 <= gap <= GAP):
                self._files.open(*current).read_into(views, begin)
                views = []
            if views and gap:
                views.append(self._scrap[:gap])
            if not views:
                current, begin = (file, version), offset
            views.append(self._buffer[start:stop])
            end = offset + stop - start
        if views:
            self._files.open(*current).read_into(views, begin)
        self._reads.clear()
        self._sink.write(self._buffer[: self._fill])
        self._written += self._fill
        self._fill = 0
