"""Which format bytes are, by content alone."""

from __future__ import annotations

import codecs
import contextlib
import re
from typing import Final

FORMATS: Final = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "gif": "gif",
    "bmp": "bmp",
    "tiff": "tif",
    "avif": "avif",
}
"""Every supported format and its canonical file extension."""

_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BMP_HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
_HEIF_BRANDS = frozenset({b"mif1", b"msf1", b"miaf"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})


def sniff(data: bytes | memoryview) -> str | None:
    """Return the supported format that ``data`` starts as, a key of :data:`FORMATS`, or None.

    Goes by content alone and needs the first 32 bytes; more never change the answer for the worse.
    """
    head = bytes(data[:64])
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"RIFF"):
        return "webp" if head[8:12] == b"WEBP" else None
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith(_TIFF_MAGICS):
        return None if head[4:12] == b"\x10\0\0\0CR\x02\0" else "tiff"  # a Canon raw file
    if head.startswith(b"BM"):  # a caption may start so too: the size of the second header tells
        second = int.from_bytes(head[14:18], "little")
        return "bmp" if second in _BMP_HEADER_SIZES else None
    if head[4:8] == b"ftyp":
        major, brands = _brands(head)
        if major in _AVIF_BRANDS or (major in _HEIF_BRANDS and brands & _AVIF_BRANDS):
            return "avif"
    return None


def _brands(head: bytes) -> tuple[bytes, frozenset[bytes]]:
    """Return the major and all brands of an ISO media file (ISO/IEC 14496-12, 4.3)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return head[8:12], frozenset(head[at : at + 4] for at in (8, *range(16, end - 3, 4)))


_LOOKS: Final = (
    (b"%PDF", "PDF"),
    (b"%!PS", "EPS/PostScript"),
    (b"\xc5\xd0\xd3\xc6", "EPS/PostScript"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop document"),
    (b"\0\0\1\0", "Windows icon"),
    (b"qoif", "QOI"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"II*\0", "camera raw"),  # only what sniff() has not taken for TIFF comes here
    (b"PK\3\4", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x93NUMPY", "NumPy array"),
    (b"PAR1", "Parquet"),
)


_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def describe(data: bytes | memoryview) -> str:
    """Say in a word or two what bytes of no supported format look like; always printable."""
    head = bytes(data[:512])
    for magic, name in _LOOKS:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp":
        major, brands = _brands(head)
        return "HEIC" if major in _HEIF_BRANDS or brands & _HEIC_BRANDS else "MP4 or QuickTime"
    if head.startswith(b"RIFF"):
        return {b"WAVE": "WAV", b"AVI ": "AVI"}.get(head[8:12], "RIFF")
    if head and not _CONTROL.search(head):
        with contextlib.suppress(UnicodeDecodeError):
            text, _ = codecs.utf_8_decode(head)  # leaves alone a last character that is cut
            return _describe_text(text)
    return f"unknown bytes {head[:8].hex(' ')}" if head else "no bytes"


def _describe_text(text: str) -> str:
    text = text.lstrip("\ufeff \t\r\n").lower()
    if text.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "HTML"
    if text.startswith("<"):
        return "SVG" if "<svg" in text else "XML"
    if text.startswith(("{", "[")):
        return "JSON"
    return "text"
