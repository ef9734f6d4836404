"""How files are built around their pixels: boxes, chunks, blocks, directories."""
# ruff: noqa: PLR2004 - the numbers are the formats' own

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pixsieve.image.problem import ImageProblemError, bad_header, check_whole
from pixsieve.schema import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_boxes(data: bytes) -> None:
    """Check that the boxes of an ISO media file are whole (ISO/IEC 14496-12, 4.2)."""
    pos = 0
    while pos + 16 <= len(data):
        size, kind, large = struct.unpack_from(">I4sQ", data, pos)
        if kind not in _BOXES:  # or what stands behind the last box
            break
        pos += max(large if size == 1 else size or len(data) - pos, 8)
        check_whole(data, f"box {kind.decode()}", pos)


_BOXES = frozenset({b"ftyp", b"meta", b"moov", b"mdat", b"free", b"skip", b"uuid"})


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the contents of each whole chunk (PNG 3rd edition, 5.3)."""
    pos = 8
    while pos + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, pos)
        start, pos = pos + 8, pos + 12 + size
        if pos > len(data):
            return
        yield kind, start, start + size
        if kind == b"IEND":
            return


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the contents of each whole chunk of a WebP (RFC 9649, 2.3 ff.).

    Chunks are padded to an even size.
    """
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    pos = 12
    while pos + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, pos)
        start, pos = pos + 8, pos + 8 + size + size % 2
        if start + size > end:
            return
        yield kind, start, start + size


def gif_frames(data: bytes, limit: int) -> tuple[int, bool]:
    """Return the frames, at most ``limit + 1``, and whether the end mark is there (GIF89a)."""
    frames = 0
    for kind, _, end in gif_blocks(data):
        if kind == GIF_TRAILER:
            return frames, True
        frames += kind == GIF_FRAME
        if end > len(data):
            break
        if frames > limit:
            return frames, True
    return frames, False


GIF_TRAILER, GIF_FRAME, GIF_EXTENSION = 0x3B, 0x2C, 0x21


def gif_blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and end of each block behind the header and its palette (GIF89a, 12 ff.).

    Stray bytes belong to none. The last one has an end behind the file's if it is cut.
    """
    pos = 13 + _gif_palette(data[10]) if len(data) > 10 else len(data)
    while pos < len(data):
        start, kind = pos, data[pos]
        pos += 1
        if kind == GIF_TRAILER:
            yield kind, start, pos
            return
        if kind not in (GIF_EXTENSION, GIF_FRAME):
            continue
        try:
            # an extension has a label, a frame its descriptor, palette and code size
            pos += 1 if kind == GIF_EXTENSION else 10 + _gif_palette(data[pos + 8])
            while data[pos]:
                pos += 1 + data[pos]
            pos += 1
        except IndexError:
            pos = len(data) + 1
        yield kind, start, pos


def _gif_palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_TIFF_NEEDED = frozenset({258, 273, 279, 320, 324, 325, 339, 347})
"""Tags with several values that the pixels need: depths, places and sizes, palette, tables."""


def tiff_pages(data: bytes, limit: int) -> int:
    """Count pages that are no thumbnail and no mask, in ``limit + 1`` directories or fewer.

    Raises:
        ImageProblemError: TRUNCATED_IMAGE if the first directory, or a value in it that the pixels
            need, lies behind the end; UNSUPPORTED_FORMAT for a camera's raw file, whose first page
            is its thumbnail; BAD_HEADER if directories overlap, as a small file could take long.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    first, count_of, word, entry_size = (8, "Q", "Q", 20) if big else (4, "H", "I", 12)
    inline = struct.calcsize(word)  # a value of no more bytes stands in the entry
    pages, seen, read = 0, set[int](), 0
    (pos,) = struct.unpack_from(order + word, data, first)
    check_whole(data, "its directory", pos + struct.calcsize(count_of))
    while 0 < pos < len(data) and pos not in seen and len(seen) <= limit:
        seen.add(pos)
        try:
            (count,) = struct.unpack_from(order + count_of, data, pos)
            entries = pos + struct.calcsize(count_of)
            subfile = 0
            if len(seen) == 1:
                check_whole(data, "its directory", entries + count * entry_size)
            elif entries + count * entry_size > len(data):
                break
            read += count
            if read > len(data) // entry_size:
                bad_header("its directories overlap")
            for at in range(entries, entries + count * entry_size, entry_size):
                tag, kind, values = struct.unpack_from(order + "HH" + word, data, at)
                value = at + entry_size - inline
                if tag == 0x00FE:  # NewSubfileType; a LONG
                    (subfile,) = struct.unpack_from(order + "I", data, value)
                size = values * _TIFF_SIZES.get(kind, 0)
                if len(seen) == 1 and tag in _TIFF_NEEDED and size > inline:
                    (value,) = struct.unpack_from(order + word, data, value)
                    check_whole(data, f"tag {tag}", value + size)
                if len(seen) == 1 and (tag == 0xC612 or subfile & 1):  # DNGVersion
                    raise ImageProblemError(Problem.UNSUPPORTED_FORMAT, "camera raw")
            pages += not subfile & 5
            (pos,) = struct.unpack_from(order + word, data, entries + count * entry_size)
        except struct.error:
            break
    return pages
