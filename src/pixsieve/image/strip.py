"""Metadata taken out of an image's bytes, and nothing else: no pixel is decoded.

What stays is what decides how the image looks: pixels, colour profile, colour and density chunks,
animation. EXIF, GPS, XMP, IPTC, comments, thumbnails, further pictures and whatever stands behind
the end of the image go, and so does what nobody knows: it may be anything.
"""
# ruff: noqa: PLR2004 - the numbers are the formats' own

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from pixsieve.image.containers import GIF_EXTENSION, gif_blocks, png_chunks, riff_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIF: Final = b"Exif\0\0"
XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
ICC: Final = b"ICC_PROFILE\0"
_APP_NAMES: Final = (
    (0xE0, b"JFXX", "thumbnail"),
    (0xE1, EXIF[:4], "exif"),
    (0xE1, b"http://ns.adobe.com/x", "xmp"),  # and /xmp/extension/
    (0xE2, b"MPF", "mpf"),
    (0xE2, b"FPXR", "flashpix"),
    (0xED, b"Photoshop 3.0", "iptc"),
    (0xFE, b"", "comment"),
)
_SOI, _EOI, _SOS, _APP0, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE2, 0xEE
_CODING: Final = frozenset({0x01, *range(0xC0, 0xE0)})
"""Markers of frames, tables, scans and restarts (ITU-T T.81, table B.1)."""
_BARE: Final = frozenset({0x01, *range(0xD0, 0xDA)})
_MARKER = re.compile(rb"\xff[^\x00]", re.DOTALL)
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)
_FILL = re.compile(rb"\xff*")


class Stripped(NamedTuple):
    """Bytes without metadata, and what was left out, such as ``("exif", "xmp")``."""

    data: bytes
    dropped: tuple[str, ...]


def can_strip(format: str) -> bool:  # noqa: A002 - as in Pillow
    """Return whether metadata can be taken out of a format without decoding it."""
    return format in _STRIPPERS


def strip(data: bytes, format: str, *, orientation: int = 1) -> Stripped:  # noqa: A002
    """Return an image's bytes without metadata.

    Damaged pixels are passed on as they are; metadata that ends behind the file goes.

    Args:
        data: an image that :func:`pixsieve.image.probe` accepts.
        format: one that :func:`can_strip`.
        orientation: if not 1, an EXIF block that says this and nothing else takes the place of
            those that were there.

    Returns:
        The bytes; ``data`` itself, and no names, where there is nothing to leave out.
    """
    exif = exif_of(orientation) if orientation != 1 else b""
    kept, dropped = _STRIPPERS[format](data, exif)
    stripped = b"".join(kept)
    if stripped == data:
        return Stripped(data, ())
    return Stripped(stripped, tuple(dict.fromkeys(dropped)))


def exif_of(orientation: int) -> bytes:
    """Return an EXIF block, as TIFF, that holds the orientation and nothing else."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


class Segment(NamedTuple):
    """A marker segment of a JPEG: its marker, and where it, its contents and the next one start."""

    marker: int
    start: int
    body: int
    end: int


def jpeg_segments(data: bytes) -> Iterator[Segment]:
    """Yield the marker segments of a JPEG, each scan with its entropy-coded data, up to EOI.

    Stray bytes before a marker, and fill bytes, belong to no segment (ITU-T T.81, B.1.1). One that
    ends behind the file is not yielded, and is the end.
    """
    pos = 2
    while found := _next_marker(_MARKER, data, pos):
        start, pos = found[1] - 1, found[1] + 1
        marker = data[pos - 1]
        if marker in _BARE:
            yield Segment(marker, start, pos, pos)
            if marker == _EOI:
                return
            continue
        size = int.from_bytes(data[pos : pos + 2], "big")
        body, end = pos + 2, pos + size
        if size < 2 or end > len(data):
            return
        if marker == _SOS:
            behind = _next_marker(_AFTER_SCAN, data, end)
            end = behind[0] if behind else len(data)
        yield Segment(marker, start, body, end)
        pos = end


def _next_marker(kind: re.Pattern[bytes], data: bytes, pos: int) -> tuple[int, int] | None:
    """Return where the next marker starts, with its fill bytes, and where its code stands.

    In time that grows with the bytes, however many of them are 0xFF.
    """
    while found := kind.search(data, pos):
        start, code = found.start(), found.end() - 1
        if data[code] == 0xFF:
            code += len(_FILL.match(data, code)[0])  # type: ignore[index]  # it matches nothing, too
            if code == len(data):
                return None
            if not kind.match(data, code - 1):  # a stuffed byte behind fill bytes
                pos = code + 1
                continue
        return start, code
    return None


_Parts = tuple[list[bytes], list[str]]
"""What stays, to be joined, and the names of what does not."""


def _strip_jpeg(data: bytes, exif: bytes) -> _Parts:
    kept, dropped = [data[:2]], []
    at, marker = 2, _SOI
    for marker, start, body, end in jpeg_segments(data):
        if start > at:
            dropped.append("stray")
        at = end
        if marker == _APP0 and data[body : body + 5] == b"JFIF\0" and end - body >= 14:
            if end - body > 14:
                dropped.append("thumbnail")
            kept.append(b"\xff\xe0\0\x10" + data[body : body + 12] + b"\0\0")
        elif marker not in _CODING and not _shows(marker, data[body : body + 12]):
            dropped.append(_app_name(marker, data[body : body + 28]))
        else:
            kept.append(data[start:end])
    if at < len(data):
        dropped.append("trailer" if marker == _EOI else "broken")
    if exif:
        first = 2 if kept[1:] and kept[1].startswith(b"\xff\xe0") else 1  # JFIF asks to be first
        kept.insert(first, b"\xff\xe1" + struct.pack(">H", 8 + len(exif)) + EXIF + exif)
    return kept, dropped


def _shows(marker: int, head: bytes) -> bool:
    """Return whether an application segment decides how the image looks."""
    return (marker == _APP2 and head == ICC) or (marker == _APP14 and head.startswith(b"Adobe"))


def _app_name(marker: int, head: bytes) -> str:
    names = (name for kind, magic, name in _APP_NAMES if kind == marker and head.startswith(magic))
    return next(names, f"app{marker - 0xE0}" if 0xE0 <= marker <= 0xEF else "segment")


_PNG_KEPT: Final = frozenset(
    b"tRNS gAMA cHRM sRGB iCCP cICP mDCV mDCv cLLI cLLi sBIT bKGD hIST pHYs sPLT".split()
    + b"acTL fcTL fdAT".split()
)
"""Ancillary chunks that decide how a PNG looks (3rd edition, 11.3)."""
_PNG_NAMES: Final = {b"eXIf": "exif", b"tIME": "time"} | dict.fromkeys(
    (b"tEXt", b"zTXt", b"iTXt"), "text"
)


def _strip_png(data: bytes, exif: bytes) -> _Parts:
    kept, dropped = [data[:8]], []
    at, kind = 8, b""
    for kind, start, end in png_chunks(data):
        at = end + 4
        if kind[0] & 0x20 and kind not in _PNG_KEPT:
            xmp = kind == b"iTXt" and data[start:].startswith(b"XML:com.adobe.xmp\0")
            dropped.append("xmp" if xmp else _PNG_NAMES.get(kind, "chunk"))
            continue
        kept.append(data[start - 8 : at])
        if kind == b"IHDR" and exif:
            kept.append(struct.pack(">I", len(exif)) + b"eXIf" + exif)
            kept.append(struct.pack(">I", zlib.crc32(b"eXIf" + exif)))
    if kind != b"IEND" and data[at + 4 : at + 5].isupper():  # pixels that are cut
        kept.append(data[at:])
    elif at < len(data):
        dropped.append("trailer")
    return kept, dropped


_WEBP_KEPT: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})
_WEBP_NAMES: Final = {b"EXIF": "exif", b"XMP ": "xmp"}
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04


def _strip_webp(data: bytes, exif: bytes) -> _Parts:
    kept, dropped, extended = [], [], False
    at = 12
    for kind, start, end in riff_chunks(data):
        at = end + (end - start) % 2
        part = data[start - 8 : at]
        if kind not in _WEBP_KEPT:
            dropped.append(_WEBP_NAMES.get(kind, "chunk"))
            continue
        if kind == b"VP8X":
            extended = True
            flags = part[8] & ~(_WEBP_EXIF | _WEBP_XMP) | (_WEBP_EXIF if exif else 0)
            part = part[:8] + bytes([flags]) + part[9:]
        kept.append(part)
    if data[at : at + 4] in _WEBP_KEPT:  # pixels that are cut
        kept.append(data[at:])
    elif at < len(data):
        dropped.append("trailer")
    if exif and extended:
        kept.append(b"EXIF" + struct.pack("<I", len(exif)) + exif)
    size = 4 + sum(map(len, kept))
    return [b"RIFF" + struct.pack("<I", size) + b"WEBP", *kept], dropped


_GIF_KEPT: Final = frozenset({b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012"})
_GIF_COMMENT, _GIF_APPLICATION = 0xFE, 0xFF


def _strip_gif(data: bytes, exif: bytes) -> _Parts:
    del exif  # a GIF has no orientation
    blocks = list(gif_blocks(data))
    kept, dropped = [data[: blocks[0][1]] if blocks else data], []
    at = len(kept[0])
    for kind, start, end in blocks:
        if start > at:
            dropped.append("stray")
        at = end
        label = data[start + 1] if kind == GIF_EXTENSION else 0
        name = data[start + 3 : start + 14]
        if label == _GIF_COMMENT:
            dropped.append("comment")
        elif label == _GIF_APPLICATION and name not in _GIF_KEPT:
            dropped.append("xmp" if name == b"XMP DataXMP" else "application")
        else:
            kept.append(data[start:end])
    if at < len(data):
        dropped.append("trailer")
    return kept, dropped


def _strip_bmp(data: bytes, exif: bytes) -> _Parts:
    del exif
    return [data], []  # it has room for pixels and a profile alone


_STRIPPERS: Final[dict[str, Callable[[bytes, bytes], _Parts]]] = {
    "jpeg": _strip_jpeg,
    "png": _strip_png,
    "webp": _strip_webp,
    "gif": _strip_gif,
    "bmp": _strip_bmp,
}
