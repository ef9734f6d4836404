"""Bytes to facts, pixels or a problem: all that pixsieve knows about image formats.

=================  ==========================================================================
:func:`sniff`      which supported format the first bytes are, if any
:func:`describe`   what bytes that are none of them look like, for messages
:func:`probe`      the header's facts, under limits; no pixel is decoded
:func:`check_decode`  the whole bit stream decodes, or a problem
:func:`decode`     upright 8-bit pixels for scorers
:func:`encode`     upright bytes in another format, and a text that says how they were made
=================  ==========================================================================

The bytes are hostile until they have been decoded: whatever a decoder raises on them becomes an
:class:`ImageProblemError`. A decoder that hangs or crashes is the caller's to fence, by a time-out
and a process. Only the first frame of an animation or a multi-page file is ever decoded.
"""
# ruff: noqa: PLR2004 - the numbers are the formats' own

from __future__ import annotations

import codecs
import contextlib
import ctypes
import io
import logging
import math
import re
import struct
import warnings
import zlib
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NoReturn

import numpy as np
import simplejpeg
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from pixsieve.errors import UsageError
from pixsieve.schema import Problem
from pixsieve.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Pillow logs flaws of files as errors, which Python prints where nobody has set up logging.
logging.getLogger("PIL").addHandler(logging.NullHandler())

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


class ImageProblemError(Exception):
    """An image cannot be used. It never leaves a step: the caller makes a row of it.

    Attributes:
        problem: the code for the ``reason`` column.
        detail: one printable line, the decoder's own words where it has any.
    """

    def __init__(self, problem: Problem, detail: str) -> None:
        """Say what is wrong with an image, and why."""
        super().__init__(problem, detail)
        self.problem = problem
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What one image may cost; checked from its header, before any pixel is decoded.

    Attributes:
        max_bytes: encoded size, in bytes.
        max_pixels: width times height of the first frame, in pixels. The default is where Pillow
            itself refuses, so a higher figure holds for JPEG alone.
        max_metadata_bytes: all segments before a JPEG's first scan, in bytes. (Pillow bounds the
            text and profiles of a PNG at 64 MiB; the other formats cannot hold more than
            ``max_bytes``.)
        max_frames: frames of an animation, or pages.
    """

    max_bytes: int = 512 << 20
    max_pixels: int = 178_956_970
    max_metadata_bytes: int = 16 << 20
    max_frames: int = 65_536


DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What an image says of itself.

    Attributes:
        format: a key of :data:`FORMATS`.
        width: in pixels, upright: after ``exif_orientation``.
        height: in pixels, upright.
        mode: Pillow's name for the pixels as they are stored: ``RGB``, ``L``, ``CMYK``, ``P``,
            ``I;16``, ...
        exif_orientation: 1 to 8; 1 if there is no tag, or none that can be read. For AVIF the
            file's own rotation, which stands above the tag.
        frames: frames of an animation, or full pages of a TIFF (thumbnails and masks do not count);
            1 for a JPEG, whatever previews a camera has put behind it.
    """

    format: str
    width: int
    height: int
    mode: str
    exif_orientation: int
    frames: int

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the pixels as they are stored, before they are turned upright."""
        turned = self.exif_orientation >= 5  # 5 to 8 swap the sides
        return (self.height, self.width) if turned else (self.width, self.height)


# -------------------------------------------------------------------------------------------------
# What is it?

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
        return None if head[8:10] == b"CR" else "tiff"  # CR: a Canon raw file
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


# -------------------------------------------------------------------------------------------------
# Header


def probe(data: bytes | memoryview, limits: ImageLimits = DEFAULT_LIMITS) -> ImageHeader:
    """Read an image's header, and no pixel of it.

    Raises:
        ImageProblemError: EMPTY_IMAGE, TOO_MANY_BYTES, UNSUPPORTED_FORMAT, TOO_MANY_PIXELS,
            ANIMATED (more frames than ``limits`` allow), TRUNCATED_IMAGE (ends inside its header)
            or BAD_HEADER.
    """
    if not len(data):
        raise ImageProblemError(Problem.EMPTY_IMAGE, "no bytes")
    if len(data) > limits.max_bytes:
        raise ImageProblemError(
            Problem.TOO_MANY_BYTES, f"{len(data)} bytes; the limit is {limits.max_bytes}"
        )
    kind = sniff(data)
    if kind is None:
        raise ImageProblemError(Problem.UNSUPPORTED_FORMAT, describe(data))
    if kind == "jpeg":
        header = _probe_jpeg(data, limits)
    else:
        with _guarded(Problem.BAD_HEADER):
            header = _probe_other(bytes(data), kind, limits)
    if header.width * header.height > limits.max_pixels:
        raise ImageProblemError(
            Problem.TOO_MANY_PIXELS,
            f"{header.width} x {header.height}; the limit is {limits.max_pixels} pixels",
        )
    if header.frames > limits.max_frames:
        raise ImageProblemError(
            Problem.ANIMATED, f"{header.frames} frames or more; the limit is {limits.max_frames}"
        )
    return header


_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_SOF_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_HIERARCHICAL_MARKERS = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE})
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_EXIF = b"Exif\0\0"


def _probe_jpeg(data: bytes | memoryview, limits: ImageLimits) -> ImageHeader:
    """Walk the markers up to the first scan (ITU-T T.81, annex B); skip bytes between them."""
    end = len(data)
    pos, last = 2, min(end, limits.max_metadata_bytes)
    orientation, frame = 0, None
    while pos + 4 <= last:
        if data[pos] != 0xFF:
            # In steps, so that many short runs do not cost a copy of the rest each.
            stray = bytes(data[pos : pos + 4096]).find(b"\xff")
            pos += stray if stray >= 0 else 4096
            continue
        marker = data[pos + 1]
        if marker == 0xFF:  # fill byte
            pos += 1
            continue
        if marker == 0 or marker in _BARE_MARKERS:
            pos += 2
            continue
        if marker in {0xD8, 0xD9}:
            _bad_header(f"marker 0x{marker:02x} before the first scan")
        size = data[pos + 2] << 8 | data[pos + 3]
        if size < 2:
            _bad_header(f"segment 0x{marker:02x} says that it has {size} bytes")
        if pos + 2 + size > end:
            break
        if marker == 0xDA:
            if frame is None:
                _bad_header("a scan before the frame header")
            width, height, mode = frame
            if orientation >= 5:
                width, height = height, width
            return ImageHeader(
                format="jpeg",
                width=width,
                height=height,
                mode=mode,
                exif_orientation=orientation or 1,
                frames=1,
            )
        if marker == 0xE1:
            if not orientation and data[pos + 4 : pos + 10] == _EXIF:
                orientation = _orientation(data[pos + 10 : pos + 2 + size])
        elif marker in _HIERARCHICAL_MARKERS:
            raise ImageProblemError(Problem.UNSUPPORTED_FORMAT, "hierarchical JPEG")
        elif marker in _SOF_MARKERS:
            if frame is not None:
                _bad_header("two frame headers")
            frame = _frame_header(data[pos + 4 : pos + 2 + size])
        pos += 2 + size
    if last < end and pos + 4 > last:
        _bad_header(f"more than {limits.max_metadata_bytes} bytes before the first scan")
    raise ImageProblemError(Problem.TRUNCATED_IMAGE, f"ends in its header, at byte {end}")


def _frame_header(segment: bytes | memoryview) -> tuple[int, int, str]:
    if len(segment) < 6:
        _bad_header(f"the frame header has {len(segment)} bytes")
    bits, height, width, components = struct.unpack_from(">BHHB", segment)
    if bits != 8:
        raise ImageProblemError(Problem.UNSUPPORTED_FORMAT, f"{bits}-bit JPEG")
    if not width or not height:  # a height of 0 may follow the scan (DNL); no decoder reads that
        _bad_header(f"{width} x {height} pixels")
    if components not in _JPEG_MODES:
        _bad_header(f"{components} colour components")
    return width, height, _JPEG_MODES[components]


def _bad_header(detail: str) -> NoReturn:
    raise ImageProblemError(Problem.BAD_HEADER, detail)


_UINT = {order: {1: f"{order}B", 3: f"{order}H", 4: f"{order}I"} for order in "<>"}


def _orientation(tiff: bytes | memoryview) -> int:
    """Return the orientation tag in an EXIF block's first directory, or 1 (EXIF 2.32, 4.6.4)."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None:
        return 1
    try:
        (ifd,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, ifd)
        for entry in range(ifd + 2, ifd + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(_UINT[order][kind], tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except (struct.error, KeyError):
        pass  # a damaged tag is no reason to lose the image
    return 1


def _probe_other(data: bytes, kind: str, limits: ImageLimits) -> ImageHeader:
    if kind == "webp":
        _whole(data, "the RIFF chunk", int.from_bytes(data[4:8], "little") + 8)
    elif kind == "avif":
        _check_boxes(data)
    orientation, frames = 1, 1
    if kind == "tiff":  # first, as Pillow would not say what is wrong with the directories
        frames = _tiff_pages(data, limits.max_frames)
    image = _open(data, kind)
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        found = image.tag_v2.get(0x0112)
        if isinstance(found, int) and 1 <= found <= 8:
            orientation = found  # Pillow's size is upright already
    elif kind == "gif":
        frames, _ = _gif_frames(data, limits.max_frames)
    elif kind == "png":
        orientation, frames = _png_extras(data)
    else:
        orientation = _orientation(image.info.get("exif", b"").removeprefix(_EXIF))
        frames = getattr(image, "n_frames", 1)
    if orientation >= 5 and kind != "tiff":
        width, height = height, width
    return ImageHeader(
        format=kind,
        width=width,
        height=height,
        mode=image.mode,
        exif_orientation=orientation,
        frames=max(frames, 1),
    )


def _whole(data: bytes | memoryview, part: str, end: int) -> None:
    """Raise ImageProblemError (TRUNCATED_IMAGE) if a part ends behind the file."""
    if end > len(data):
        raise ImageProblemError(
            Problem.TRUNCATED_IMAGE, f"{len(data)} bytes; {part} ends at byte {end}"
        )


def _check_boxes(data: bytes) -> None:
    """Check that the boxes of an ISO media file are whole (ISO/IEC 14496-12, 4.2)."""
    pos = 0
    while pos + 16 <= len(data):
        size, kind, large = struct.unpack_from(">I4sQ", data, pos)
        if kind not in _BOXES:  # or what stands behind the last box
            break
        pos += max(large if size == 1 else size or len(data) - pos, 8)
        _whole(data, f"box {kind.decode()}", pos)


_BOXES = frozenset({b"ftyp", b"meta", b"moov", b"mdat", b"free", b"skip", b"uuid"})


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
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


def _png_extras(data: bytes) -> tuple[int, int]:
    """Return orientation and frames; the EXIF chunk may stand behind the pixels."""
    orientation, frames, pixels = 1, 1, False
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            orientation = _orientation(data[start:end].removeprefix(_EXIF))
        elif kind == b"acTL" and not pixels and end - start >= 4:
            frames = int.from_bytes(data[start : start + 4], "big")
        pixels |= kind == b"IDAT"
    return orientation, frames


def _gif_frames(data: bytes, limit: int) -> tuple[int, bool]:
    """Return the frames, at most ``limit + 1``, and whether the end mark is there (GIF89a)."""
    frames = 0
    try:
        pos = 13 + _gif_palette(data[10])
        while frames <= limit:
            block = data[pos]
            if block == 0x3B:
                return frames, True
            if block == 0x21:  # extension: label, then sub-blocks
                pos += 2
            elif block == 0x2C:  # frame: descriptor, palette, code size, then sub-blocks
                frames += 1
                pos += 11 + _gif_palette(data[pos + 9])
            else:  # stray byte
                pos += 1
                continue
            while data[pos]:
                pos += 1 + data[pos]
            pos += 1
    except IndexError:
        return frames, False
    return frames, True


def _gif_palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_TIFF_NEEDED = frozenset({258, 273, 279, 320, 324, 325, 339, 347})
"""Tags with several values that the pixels need: depths, places and sizes, palette, tables."""


def _tiff_pages(data: bytes, limit: int) -> int:
    """Count pages that are no thumbnail and no mask, in ``limit + 1`` directories or fewer.

    Raises:
        ImageProblemError: TRUNCATED_IMAGE if the first directory, or a value in it that the pixels
            need, lies behind the end; UNSUPPORTED_FORMAT for a camera's raw file, whose first page
            is its thumbnail.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    first, count_of, word, entry_size = (8, "Q", "Q", 20) if big else (4, "H", "I", 12)
    inline = struct.calcsize(word)  # a value of no more bytes stands in the entry
    pages, seen = 0, set[int]()
    (pos,) = struct.unpack_from(order + word, data, first)
    _whole(data, "its directory", pos + struct.calcsize(count_of))
    while pos and pos not in seen and len(seen) <= limit:
        seen.add(pos)
        try:
            (count,) = struct.unpack_from(order + count_of, data, pos)
            entries = pos + struct.calcsize(count_of)
            subfile = 0
            if len(seen) == 1:
                _whole(data, "its directory", entries + count * entry_size)
            for at in range(entries, entries + count * entry_size, entry_size):
                tag, kind, values = struct.unpack_from(order + "HH" + word, data, at)
                value = at + entry_size - inline
                if tag == 0x00FE:  # NewSubfileType; a LONG
                    (subfile,) = struct.unpack_from(order + "I", data, value)
                size = values * _TIFF_SIZES.get(kind, 0)
                if len(seen) == 1 and tag in _TIFF_NEEDED and size > inline:
                    (value,) = struct.unpack_from(order + word, data, value)
                    _whole(data, f"tag {tag}", value + size)
                if len(seen) == 1 and (tag == 0xC612 or subfile & 1):  # DNGVersion
                    raise ImageProblemError(Problem.UNSUPPORTED_FORMAT, "camera raw")
            pages += not subfile & 5
            (pos,) = struct.unpack_from(order + word, data, entries + count * entry_size)
        except struct.error:
            break
    return pages


# -------------------------------------------------------------------------------------------------
# Decoding

_TRUNCATED = re.compile(
    r"truncat|premature end of (jpeg|input)|unexpected end|not enough|end of file", re.IGNORECASE
)
_STRAY = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x(?!d[0-7])")
_MAX_STRAY_BYTES = 64


@contextlib.contextmanager
def _guarded(otherwise: Problem) -> Iterator[None]:
    """Turn whatever a decoder raises into ImageProblemError; let none of its warnings out."""
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageProblemError:
        raise
    except MemoryError as error:
        raise ImageProblemError(Problem.OUT_OF_MEMORY, "not enough memory to decode it") from error
    except Image.DecompressionBombError as error:
        raise ImageProblemError(Problem.TOO_MANY_PIXELS, _one_line(error)) from error
    except Exception as error:  # decoders raise anything on hostile bytes
        detail = _one_line(error)
        problem = Problem.TRUNCATED_IMAGE if _TRUNCATED.search(detail) else otherwise
        raise ImageProblemError(problem, detail) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _one_line(error: Exception) -> str:
    text = "".join(c if c.isprintable() else "?" for c in str(error)[:300])
    return text or type(error).__name__


_PLUGINS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}


def _open(data: bytes | memoryview, kind: str) -> ImageFile.ImageFile:
    """Open with the one plugin for ``kind``; ``Image.open`` would hide the reason of a failure."""
    image = _PLUGINS[kind](io.BytesIO(data))
    # Pillow takes an orientation from XMP where EXIF has none; other loaders do not, nor does
    # probe().
    image.info.pop("xmp", None)
    image.info.pop("XML:com.adobe.xmp", None)
    return image


def _load(image: ImageFile.ImageFile, header: ImageHeader) -> ImageFile.ImageFile:
    """Decode the first frame with Pillow, as it is stored (TIFF: turned upright already)."""
    with _libtiff_errors_raised():
        image.load()
    expected = (header.width, header.height) if header.format == "tiff" else header.stored_size
    if image.size != expected:
        _bad_header(f"the header says {expected} and the decoder {image.size}")
    return image


# libtiff prints errors to file descriptor 2 by itself, where Pillow says "decoder error -2".
_LIBTIFF: Final = ctypes.CDLL(_imaging.__file__)  # symbols of the libtiff that Pillow has loaded
_ERROR_HANDLER: Final = ctypes.CFUNCTYPE(
    None,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_void_p,  # a va_list
)
_vsnprintf: Final = ctypes.CDLL(None).vsnprintf
_vsnprintf.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)
_libtiff_errors: ContextVar[dict[bytes, str] | None] = ContextVar("libtiff_errors", default=None)
"""The first error of each part of libtiff while an image is decoded here."""


def _note_libtiff_error(part: bytes | None, template: bytes, values: int) -> None:
    errors = _libtiff_errors.get()
    if errors is None:  # somebody else's TIFF in this process
        if _print_libtiff_error:
            _print_libtiff_error(part, template, values)
    elif (part or b"") not in errors:
        text = ctypes.create_string_buffer(200)
        _vsnprintf(text, len(text), template, values)
        errors[part or b""] = "libtiff: " + printable(text.value.decode("utf-8", "replace"))


_libtiff_handler: Final = _ERROR_HANDLER(_note_libtiff_error)
_print_libtiff_error = None
if hasattr(_LIBTIFF, "TIFFSetErrorHandler"):  # Pillow can be built without it
    _LIBTIFF.TIFFSetErrorHandler.restype = _ERROR_HANDLER
    _print_libtiff_error = _LIBTIFF.TIFFSetErrorHandler(_libtiff_handler)


@contextlib.contextmanager
def _libtiff_errors_raised() -> Iterator[None]:
    """Give libtiff's reason where Pillow fails, and fail where a codec of it decoded past damage.

    By a handler, as redirecting the file descriptor would take what other threads print.
    """
    errors: dict[bytes, str] = {}
    before = _libtiff_errors.set(errors)
    try:
        yield
    except OSError as error:
        for detail in errors.values():
            raise ImageProblemError(Problem.DECODE_FAILED, detail) from error
        raise
    finally:
        _libtiff_errors.reset(before)
    for part, detail in errors.items():
        if b"Decode" in part:
            raise ImageProblemError(Problem.DECODE_FAILED, detail)


def _turbo(
    data: bytes | memoryview, header: ImageHeader, colours: str, factor: int, *, fast: bool
) -> NDArray[np.uint8] | None:
    """Decode a JPEG at ``1 / factor`` by libjpeg-turbo, to the end mark; None: Pillow must decide.

    libjpeg reports the first flaw that it worked around, and that alone. A cut file is always told.
    Up to 64 stray bytes behind a scan or between segments, as some cameras leave them, are accepted
    if Pillow finds the file whole; behind a restart interval, or more of them, they are the trace
    of damage.

    Raises:
        ImageProblemError: TRUNCATED_IMAGE, DECODE_FAILED.
    """
    width, height = header.stored_size
    rows, columns = -(-height // factor), -(-width // factor)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data,
            colours,
            fastdct=fast,
            fastupsample=fast,
            min_height=rows,
            min_width=columns,
            strict=True,
        )
    except ValueError as error:
        detail = _one_line(error)
        stray = _STRAY.match(detail)
        if stray and int(stray[1]) <= _MAX_STRAY_BYTES:
            return None
        if detail.startswith(("Corrupt JPEG data", "Premature end")):
            raise
        return None  # a layout that this interface cannot do (odd subsampling, lossless), or damage
    if pixels.shape[:2] != (rows, columns):
        _bad_header(f"the header says {(columns, rows)} and the decoder {pixels.shape[1::-1]}")
    return pixels


def check_decode(data: bytes | memoryview, header: ImageHeader) -> None:
    """Decode the whole bit stream of the first frame, as cheaply as its format allows.

    JPEG is decoded in grey at 1/8 scale: that leaves out arithmetic, and no bit of the stream. A
    file without its end mark (JPEG EOI, PNG IEND, GIF trailer) counts as truncated even if its
    pixels are whole, as nothing else tells it from a cut one; bytes behind the end mark are
    accepted. The checksums of PNG and deflated TIFF are checked. Damage that still decodes cannot
    be told from another image.

    Raises:
        ImageProblemError: TRUNCATED_IMAGE, DECODE_FAILED with the decoder's reason, OUT_OF_MEMORY,
            or BAD_HEADER where decoder and ``header`` disagree.
    """
    with _guarded(Problem.DECODE_FAILED):
        if header.format == "jpeg" and _turbo(data, header, "GRAY", 8, fast=True) is not None:
            return
        _load(_open_whole(data, header), header)


def _open_whole(data: bytes | memoryview, header: ImageHeader) -> ImageFile.ImageFile:
    """Open with Pillow, after a check of what its decoders pass over."""
    if header.format == "png":
        _check_png(bytes(data))
    elif header.format == "gif" and not _gif_frames(bytes(data), header.frames)[1]:
        raise ImageProblemError(Problem.TRUNCATED_IMAGE, "ends before its trailer")
    image = _open(data, header.format)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(data, image.tag_v2)
    return image


def _check_png(data: bytes) -> None:
    kind, end = b"", 8
    for kind, start, end in _png_chunks(data):
        critical = not kind[0] & 0x20
        stored = int.from_bytes(data[end : end + 4], "big")
        if critical and zlib.crc32(memoryview(data)[start - 4 : end]) != stored:
            name = kind.decode("ascii", "replace")
            raise ImageProblemError(
                Problem.DECODE_FAILED, f"the checksum of chunk {name} at byte {start - 8} is wrong"
            )
    if kind != b"IEND":
        raise ImageProblemError(
            Problem.TRUNCATED_IMAGE, f"ends before its IEND chunk; whole up to byte {end}"
        )


_UNCOMPRESSED, _JPEG, _DEFLATE = 1, 7, frozenset({8, 32946})
_TIFF_PLACES = ((273, 324), (279, 325))
"""The tags for the offsets and the sizes of strips, or of tiles."""


def _check_tiff(data: bytes | memoryview, tags: TiffImagePlugin.ImageFileDirectory_v2) -> None:
    """Check that the compressed strips, or tiles, are there and whole (TIFF 6.0; its TN2)."""
    compression = tags.get(259, _UNCOMPRESSED)
    if compression == _UNCOMPRESSED:  # their sizes are often wrong, and Pillow goes by the pixels
        return
    starts, sizes = (tags.get(strip, ()) or tags.get(tile, ()) for strip, tile in _TIFF_PLACES)
    checked = 0
    for start, size in sorted(zip(starts, sizes, strict=False)):
        _whole(data, "a strip", start + size)
        if start < checked or not size:  # no byte twice, or a small file could take long
            continue
        checked, strip = start + size, memoryview(data)[start : start + size]
        if compression in _DEFLATE and tags.get(266, 1) == 1:  # 2: bits in reverse order, rare
            _check_zlib(strip)
        elif compression == _JPEG and tags.get(277, 1) in _JPEG_MODES:
            whole = tags[347][:-2] + strip[2:] if 347 in tags else bytes(strip)
            check_decode(whole, probe(whole))


def _check_zlib(stream: memoryview) -> None:
    """Inflate to the checksum; libtiff stops where it has the pixels."""
    inflater = zlib.decompressobj()
    for at in range(0, len(stream), 1 << 16):
        inflater.decompress(stream[at : at + (1 << 16)])
        if inflater.eof:
            return
    raise zlib.error("incomplete or truncated stream")


_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image of each EXIF orientation upright."""


def decode(
    data: bytes | memoryview,
    header: ImageHeader,
    *,
    min_side: int | None = None,
    gray: bool = False,
) -> NDArray[np.uint8]:
    """Decode the first frame to upright 8-bit pixels, by the same rules for every format.

    Alpha and colour keys are laid over white. 16 bits become 8 by dropping the lower byte; 32-bit
    and float values are stretched from the smallest to the largest finite one. CMYK goes to sRGB by
    its ICC profile, or by ``(255 - ink) * (255 - black) / 255`` if it has none; other profiles are
    not applied.

    Args:
        data: the encoded image.
        header: what :func:`probe` found in ``data``.
        min_side: shorter side, in pixels, that is enough. The result is scaled by the smallest of
            1/8, 1/4, 1/2 and 1 that keeps it (JPEG while decoding, others by averaging); sizes are
            rounded up.
            None: full size.
        gray: luma (ITU-R BT.601) in place of RGB.

    Returns:
        (height, width, 3), or (height, width) if ``gray``.

    Raises:
        ImageProblemError: as :func:`check_decode`.
    """
    factor = scale(header, min_side)
    turn = _TRANSPOSE.get(header.exif_orientation)
    with _guarded(Problem.DECODE_FAILED):
        if header.format == "jpeg" and header.mode != "CMYK":
            pixels = _turbo(data, header, "GRAY" if gray else "RGB", factor, fast=False)
            if pixels is not None:
                pixels = pixels[..., 0] if gray else pixels
                if turn is None:
                    return pixels
                return np.array(Image.fromarray(pixels).transpose(turn))
        opened = _open_whole(data, header)
        image = _over(_plain(_load(opened, header)), "#ffffff").convert("L" if gray else "RGB")
        if factor > 1:
            image = image.reduce(factor)
        return np.array(_upright(image, header))


def scale(header: ImageHeader, min_side: int | None) -> int:
    """Return by what :func:`decode` divides the sides for ``min_side``: 1, 2, 4 or 8."""
    shorter = min(header.width, header.height)
    if min_side is None:
        return 1
    return next((f for f in (8, 4, 2) if -(-shorter // f) >= min_side), 1)


def _upright(image: Image.Image, header: ImageHeader) -> Image.Image:
    turn = _TRANSPOSE.get(header.exif_orientation)
    return image if turn is None or header.format == "tiff" else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    """Return the pixels as L, LA, RGB or RGBA of 8 bits, by the rules of :func:`decode`."""
    mode, alpha = image.mode, image.has_transparency_data
    if mode.startswith("I;16"):
        deep = np.asarray(image)
        plain = Image.fromarray((deep >> 8).astype(np.uint8))
        if alpha:
            opaque = deep != image.info["transparency"]
            plain.putalpha(Image.fromarray(opaque.astype(np.uint8) * np.uint8(255)))
        return plain
    if mode in {"I", "F"}:
        return Image.fromarray(_stretch(np.asarray(image)))
    if mode == "CMYK":
        return _cmyk_to_srgb(image)
    if mode in {"1", "L", "LA"}:
        return _as_mode(image, "LA" if alpha else "L")
    return _as_mode(image, "RGBA" if alpha else "RGB")


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image, without the copy that Pillow makes of one that has the mode already."""
    return image if image.mode == mode else image.convert(mode)


def _stretch(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale to 0 to 255, some rows at a time: in float64 a large image would not fit in memory."""
    blocks = [slice(row, row + _STRETCHED_ROWS) for row in range(0, len(values), _STRETCHED_ROWS)]
    low, high = math.inf, -math.inf
    for block in blocks:
        part = values[block].astype(np.float64)
        finite = part[np.isfinite(part)]
        low, high = finite.min(initial=low), finite.max(initial=high)
    if low > high:  # no value is finite
        low = high = 0.0
    # Halved first: the distance between two finite values may not be finite.
    span = (high / 2 - low / 2) or 1.0
    stretched = np.empty(values.shape, np.uint8)
    for block in blocks:
        part = np.nan_to_num(values[block].astype(np.float64), nan=low).clip(low, high)
        stretched[block] = np.rint((part / 2 - low / 2) / span * 255)
    return stretched


_STRETCHED_ROWS = 256


def _profile_space(profile: bytes | None) -> bytes:
    """Return the colour space an ICC profile is for, such as ``b"RGB "`` (ICC.1:2022, 7.2.8)."""
    return profile[16:20] if profile and profile[36:40] == b"acsp" else b""


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    profile: bytes | None = image.info.get("icc_profile")
    if profile and _profile_space(profile) == b"CMYK":
        with contextlib.suppress(
            ImageCms.PyCMSError, OSError
        ):  # a broken profile is as good as none
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
            if converted is not None:
                return converted
    return image.convert("RGB")


def _over(image: Image.Image, background: str) -> Image.Image:
    """Lay an image with alpha over a colour; one without stays as it is."""
    if image.mode not in {"LA", "RGBA"}:
        return image
    below = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(below, _as_mode(image, "RGBA")).convert("RGB")


# -------------------------------------------------------------------------------------------------
# Encoding

_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_MAX_SIDE = {"jpeg": 65_500, "png": 0x7FFF_FFFF, "webp": 16_383}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """How images are encoded that are not copied.

    Attributes:
        format: what is written.
        quality: 1 to 100, for jpeg and webp. 95 keeps a second lossy generation hard to see.
        subsampling: of colour, for jpeg.
        background: ``#rrggbb`` in lower case; what alpha is laid over, for jpeg.
    """

    format: Literal["jpeg", "png", "webp"]
    quality: int = 95
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
    background: str = "#ffffff"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the option, its value, and what is allowed.
        """
        if self.format not in _MAX_SIDE:
            raise UsageError(f"format is {self.format!r}; use one of {', '.join(_MAX_SIDE)}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality is {self.quality!r}; use a whole number from 1 to 100")
        if self.subsampling not in _SUBSAMPLINGS:
            raise UsageError(
                f"subsampling is {self.subsampling!r}; use one of {', '.join(_SUBSAMPLINGS)}"
            )
        if not _COLOUR.fullmatch(self.background):
            raise UsageError(
                f"background is {self.background!r}; use #rrggbb in lower case, such as #ffffff"
            )


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded image: its bytes, what its header says, and how it was made.

    ``encoding`` is one line of ``name=value`` words in a fixed order, such as
    ``jpeg quality=95 subsampling=4:2:0 from=png mode=RGBA>RGB background=#ffffff``; ``a>b`` reads
    "was a, is b". A word is there only where it applies.
    """

    data: bytes
    width: int
    height: int
    mode: str
    encoding: str


def check_encodable(header: ImageHeader, format: str) -> None:  # noqa: A002 - as in Pillow
    """Raise ImageProblemError (TOO_MANY_PIXELS) unless a format holds an image of this size."""
    if max(header.width, header.height) > _MAX_SIDE[format]:
        limit = f"{format} holds at most {_MAX_SIDE[format]} pixels a side"
    elif header.width * header.height > DEFAULT_LIMITS.max_pixels:
        limit = f"at most {DEFAULT_LIMITS.max_pixels} pixels can be encoded anew"
    else:
        return
    raise ImageProblemError(Problem.TOO_MANY_PIXELS, f"{header.width} x {header.height}; {limit}")


def encode(data: bytes | memoryview, header: ImageHeader, options: EncodeOptions) -> Encoded:
    """Decode the first frame in full and encode it anew, upright; equal input gives equal bytes.

    Pixels follow the rules of :func:`decode`, but PNG and WebP keep alpha, and PNG keeps 16-bit
    grey. An ICC profile is kept where it fits what is written, as its pixels are not converted; all
    other metadata (EXIF, XMP, comments) is left out.

    Raises:
        ImageProblemError: as :func:`check_decode`; TOO_MANY_PIXELS if a side is too long for the
            format.
    """
    check_encodable(header, options.format)
    with _guarded(Problem.DECODE_FAILED):
        opened = _open(data, header.format)
        depth = _depth(opened)  # known only until the pixels are loaded
        image = _load(opened, header)
        profile, has_exif = image.info.get("icc_profile"), "exif" in image.info
        ready, background = _ready(image, options)
        ready = _upright(ready, header)
        ready.info = {}  # or the encoders would write comments and colour keys from it
        lossy = options.format != "png"
        subsampled = options.format == "jpeg" and ready.mode == "RGB"
        fits = _profile_space(profile) == (b"RGB " if ready.mode in {"RGB", "RGBA"} else b"GRAY")
        out = io.BytesIO()
        ready.save(
            out,
            options.format,
            icc_profile=profile if fits else None,
            **({"quality": options.quality} if lossy else {}),
            **({"subsampling": options.subsampling} if subsampled else {}),
        )
    icc = "kept" if fits else "applied" if _profile_space(profile) == b"CMYK" else "dropped"
    words = {
        "quality": options.quality if lossy else None,
        "subsampling": options.subsampling if subsampled else None,
        "from": header.format,
        "mode": f"{image.mode}>{ready.mode}" if image.mode != ready.mode else None,
        "background": background,
        "orientation": f"{header.exif_orientation}>1" if header.exif_orientation > 1 else None,
        "depth": f"{depth}>8" if depth > 8 and ready.mode != "I;16" else None,
        "range": "stretched" if image.mode in {"I", "F"} else None,
        "frame": f"1/{header.frames}" if header.frames > 1 else None,
        "icc": icc if profile else None,
        "exif": "dropped" if has_exif else None,
    }
    made = [options.format, *(f"{name}={value}" for name, value in words.items() if value)]
    return Encoded(out.getvalue(), *ready.size, ready.mode, " ".join(made))


def _ready(image: Image.Image, options: EncodeOptions) -> tuple[Image.Image, str | None]:
    """Return an image in a mode that the format holds, and what alpha was laid over, if it was."""
    if (
        options.format == "png"
        and image.mode.startswith("I;16")
        and not image.has_transparency_data
    ):
        return Image.fromarray(np.asarray(image).astype(np.uint16)), None
    plain = _plain(image)
    alpha = plain.mode in {"LA", "RGBA"}
    if options.format == "jpeg" and alpha:
        return _over(plain, options.background), options.background
    if options.format == "webp":
        # The encoder leaves out alpha that is opaque everywhere, so it is left out here, too.
        seen = alpha and plain.getchannel("A").getextrema() != (255, 255)
        return plain.convert("RGBA" if seen else "RGB"), None
    return plain, None


def _depth(image: ImageFile.ImageFile) -> int:
    """Return the bits per sample in the file of an image whose pixels are not loaded yet."""
    if any(";16" in str(tile.args) for tile in image.tile):
        return 16
    return 32 if image.mode in {"I", "F"} else 8
