"""JPEG turned upright by its coefficients, so that no pixel changes.

It is libjpeg-turbo that turns, through the system's ``libturbojpeg`` and its C interface of version
1.2 (2011), which all later ones have.
"""
# ruff: noqa: PLR2004 - the numbers are the formats' own

from __future__ import annotations

import contextlib
import ctypes
import functools
import re
import struct
import sys
from typing import TYPE_CHECKING, Final

from pixsieve.image.header import probe
from pixsieve.image.strip import EXIF, XMP, Stripped, jpeg_segments

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES: Final = (
    ("libturbojpeg.dylib", "/opt/homebrew/opt/jpeg-turbo/lib/libturbojpeg.dylib")
    if sys.platform == "darwin"
    else ("libturbojpeg.so.0", "libturbojpeg.so")
)
_HFLIP, _VFLIP, _TRANSPOSE, _TRANSVERSE, _ROT90, _ROT180, _ROT270 = range(1, 8)
_OPERATIONS: Final[Mapping[int, int]] = {
    2: _HFLIP,
    3: _ROT180,
    4: _VFLIP,
    5: _TRANSPOSE,
    6: _ROT90,
    7: _TRANSVERSE,
    8: _ROT270,
}
"""What turns an image of each EXIF orientation upright."""
_PERFECT, _PROGRESSIVE = 1, 32
_STOP_ON_WARNING = 8192


class _Transform(ctypes.Structure):
    """``tjtransform`` of turbojpeg.h."""

    _fields_ = (
        ("x", ctypes.c_int),
        ("y", ctypes.c_int),
        ("w", ctypes.c_int),
        ("h", ctypes.c_int),
        ("op", ctypes.c_int),
        ("options", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("custom_filter", ctypes.c_void_p),
    )


def is_available() -> bool:
    """Return whether the library is there."""
    return _library() is not None


@functools.cache
def _library() -> ctypes.CDLL | None:
    for name in _NAMES:
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(name)
            library.tjInitTransform.restype = ctypes.c_void_p
            library.tjInitTransform.argtypes = ()
            library.tjTransform.argtypes = (
                ctypes.c_void_p,
                ctypes.c_char_p,
                ctypes.c_ulong,
                ctypes.c_int,
                ctypes.POINTER(ctypes.c_void_p),
                ctypes.POINTER(ctypes.c_ulong),
                ctypes.POINTER(_Transform),
                ctypes.c_int,
            )
            library.tjFree.restype = None
            library.tjFree.argtypes = (ctypes.c_void_p,)
            library.tjDestroy.argtypes = (ctypes.c_void_p,)
            return library
    return None


def turned_upright(data: bytes, orientation: int) -> Stripped | None:
    """Turn a JPEG by its coefficients; ``None`` where that cannot be done exactly.

    It cannot if a side whose end would come to the front has a part of a block at its end. It is
    not done if libjpeg finds a flaw in the file, or the EXIF block is too broken to be changed.
    Progressive files stay progressive. Metadata stays, but says that the image is upright now; an
    EXIF thumbnail, which is not turned, and further pictures go.

    Args:
        data: a JPEG.
        orientation: its EXIF orientation, 2 to 8.
    """
    library = _library()
    if library is None:
        msg = "libturbojpeg is not there; see is_available()"
        raise RuntimeError(msg)
    ready, dropped, progressive = _upright_metadata(data, swapped=orientation >= 5)
    transform = _Transform(
        op=_OPERATIONS[orientation], options=_PERFECT | (_PROGRESSIVE if progressive else 0)
    )
    out, size = ctypes.c_void_p(), ctypes.c_ulong()
    handle = library.tjInitTransform()
    try:
        failed = library.tjTransform(
            handle,
            ready,
            len(ready),
            1,
            ctypes.byref(out),
            ctypes.byref(size),
            ctypes.byref(transform),
            _STOP_ON_WARNING,
        )
        turned = None if failed else ctypes.string_at(out, size.value)
    finally:
        library.tjFree(out)
        library.tjDestroy(handle)
    # A block that is cut behind the tag still says how the image was turned before.
    if turned is None or probe(turned).exif_orientation != 1:
        return None
    return Stripped(turned, dropped)


_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]")


def _upright_metadata(data: bytes, *, swapped: bool) -> tuple[bytes, tuple[str, ...], bool]:
    """Return a JPEG whose metadata fits its pixels once they are turned.

    Also what is left out for that, and whether it is progressive.
    """
    parts, dropped, progressive, end = [data[:2]], [], False, 2
    for marker, start, body, end in jpeg_segments(data):
        part = data[start:end]
        if marker == 0xE1 and part[4:10] == EXIF:
            block, thumbnail = _upright_exif(part[10:], swapped=swapped)
            part = part[:10] + block
            dropped += ["thumbnail"] * thumbnail
        elif marker == 0xE1 and part[4:].startswith(XMP):
            part = _XMP_ORIENTATION.sub(rb"\g<1>1", part)
        elif marker == 0xE2 and data[body : body + 3] == b"MPF":
            dropped.append("mpf")
            continue
        progressive |= marker in {0xC2, 0xC6, 0xCA}
        parts.append(part)
    dropped += ["trailer"] * (end < len(data))
    return b"".join(parts), tuple(dict.fromkeys(dropped)), progressive


def _upright_exif(tiff: bytes, *, swapped: bool) -> tuple[bytes, bool]:
    """Set the orientation to 1, swap the sides that are stated, and unlink a thumbnail."""
    block, thumbnail = bytearray(tiff), False
    order = "<" if block[:2] == b"II" else ">"
    with contextlib.suppress(struct.error):  # a damaged block stays as it is from there on
        (first,) = struct.unpack_from(order + "I", block, 4)
        entries, end = _entries(block, order, first)
        if 0x0112 in entries:
            struct.pack_into(order + "HHIHH", block, entries[0x0112], 0x0112, 3, 1, 1, 0)
        thumbnail = any(struct.unpack_from(order + "I", block, end))
        struct.pack_into(order + "I", block, end, 0)
        if swapped and 0x8769 in entries:
            (place,) = struct.unpack_from(order + "I", block, entries[0x8769] + 8)
            inner, _ = _entries(block, order, place)
            sides = [inner[tag] for tag in (0xA002, 0xA003) if tag in inner]
            if len(sides) == 2:
                one, other = (struct.unpack_from("10s", block, at + 2) for at in sides)
                struct.pack_into("10s", block, sides[0] + 2, *other)
                struct.pack_into("10s", block, sides[1] + 2, *one)
    return bytes(block), thumbnail


def _entries(block: bytearray, order: str, place: int) -> tuple[dict[int, int], int]:
    """Return where a directory's entries stand, by tag, and where the next one's place does."""
    (count,) = struct.unpack_from(order + "H", block, place)
    at = place + 2
    entries = {}
    for entry in range(at, at + 12 * count, 12):
        entries[struct.unpack_from(order + "H", block, entry)[0]] = entry
    return entries, at + 12 * count
