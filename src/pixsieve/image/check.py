"""Whether an image decodes, to its last byte."""
# ruff: noqa: PLR2004 - the numbers are the formats' own

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import simplejpeg
from PIL import ImageFile, TiffImagePlugin

from pixsieve.image.containers import gif_frames, png_chunks
from pixsieve.image.header import JPEG_MODES, ImageHeader, ImageLimits, probe
from pixsieve.image.pillow import load_image, open_image
from pixsieve.image.problem import ImageProblemError, bad_header, check_whole, guarded, one_line
from pixsieve.schema import Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STRAY = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x(?!d[0-7])")
_MAX_STRAY_BYTES = 64


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
    with guarded(Problem.DECODE_FAILED):
        if header.format == "jpeg" and turbo(data, header, "GRAY", 8, fast=True) is not None:
            return
        load_image(open_whole(data, header), header)


def turbo(
    data: bytes | memoryview, header: ImageHeader, colours: str, factor: int, *, fast: bool
) -> NDArray[np.uint8] | None:
    """Decode a JPEG at ``1 / factor`` by libjpeg-turbo, to the end mark; None: Pillow must decide.

    libjpeg reports the first flaw that it worked around, and that alone. A cut file is always told.
    Up to 64 stray bytes behind a scan or between segments, as some cameras leave them, are accepted
    if Pillow finds the file whole; behind a restart interval, or more of them, they are the trace
    of damage. A profile that is incomplete or there twice is no flaw of the pixels, and would hide
    those that they have.

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
        detail = one_line(error)
        if "bad ICC marker" in detail:
            plain = _without_profile(data)
            if len(plain) < len(data):
                return turbo(plain, header, colours, factor, fast=fast)
        stray = _STRAY.match(detail)
        if stray and int(stray[1]) <= _MAX_STRAY_BYTES:
            return None
        if detail.startswith(("Corrupt JPEG data", "Premature end")):
            raise
        return None  # a layout that this interface cannot do (odd subsampling, lossless), or damage
    if pixels.shape[:2] != (rows, columns):
        bad_header(f"the header says {(columns, rows)} and the decoder {pixels.shape[1::-1]}")
    return pixels


_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_SCAN, _APP2 = 0xDA, 0xE2


def _without_profile(data: bytes | memoryview) -> bytes:
    """Cut a JPEG's ICC profile out: the APP2 segments before its first scan (ICC.1:2010, B.4)."""
    kept, kept_to, pos = [], 0, 2
    while (found := _SEGMENT.search(data, pos)) and data[found.start() + 1] != _SCAN:
        start = found.start()
        pos = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if data[start + 1] == _APP2 and data[start + 4 : start + 16] == b"ICC_PROFILE\0":
            kept.append(data[kept_to:start])
            kept_to = pos
    return b"".join([*kept, data[kept_to:]])


def open_whole(data: bytes | memoryview, header: ImageHeader) -> ImageFile.ImageFile:
    """Open with Pillow, after a check of what its decoders pass over."""
    if header.format == "png":
        _check_png(bytes(data))
    elif header.format == "gif" and not gif_frames(bytes(data), header.frames)[1]:
        raise ImageProblemError(Problem.TRUNCATED_IMAGE, "ends before its trailer")
    image = open_image(data, header.format)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(data, image.tag_v2)
    return image


def _check_png(data: bytes) -> None:
    kind, end = b"", 8
    for kind, start, end in png_chunks(data):
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


_UNCOMPRESSED, _OLD_JPEG, _JPEG, _DEFLATE = 1, 6, 7, frozenset({8, 32946})
_TIFF_PLACES = ((273, 324), (279, 325))
"""The tags for the offsets and the sizes of strips, or of tiles."""
_MAX_TABLES = 64 << 10
"""Bytes of JPEG tables; real ones have less than 1 kB, and each strip's check reads them again."""


def _check_tiff(data: bytes | memoryview, tags: TiffImagePlugin.ImageFileDirectory_v2) -> None:
    """Check that the compressed strips, or tiles, are there and whole (TIFF 6.0; its TN2)."""
    compression = tags.get(259, _UNCOMPRESSED)
    if compression == _UNCOMPRESSED:  # their sizes are often wrong, and Pillow goes by the pixels
        return
    if compression == _OLD_JPEG and 513 in tags:  # libtiff goes by that tag, not by the sizes
        return
    starts, sizes = (tags.get(strip, ()) or tags.get(tile, ()) for strip, tile in _TIFF_PLACES)
    tables, needed, max_pixels, checked = b"", 0, 0, 0
    if compression == _JPEG:
        tables, (needed, max_pixels) = _jpeg_tables(tags), _tiff_parts(tags)
    for start, size in sorted(zip(starts, sizes, strict=False)):
        check_whole(data, "a strip", start + size)
        if start < checked or not size:  # no byte twice, or a small file could take long
            continue
        checked, strip = start + size, memoryview(data)[start : start + size]
        if compression in _DEFLATE and tags.get(266, 1) == 1:  # 2: bits in reverse order, rare
            _check_zlib(strip)
        elif compression == _JPEG and tags.get(277, 1) in JPEG_MODES:
            if needed <= 0 or len(tables) > _MAX_TABLES:
                continue
            needed -= 1
            whole = tables + strip[2:] if tables else bytes(strip)
            header = probe(whole, _ANY_SIZE)
            if header.width * header.height > max_pixels:
                raise ImageProblemError(
                    Problem.DECODE_FAILED,
                    f"a strip says that it has {header.width} x {header.height} pixels",
                )
            check_decode(whole, header)


_ANY_SIZE = ImageLimits(max_pixels=1 << 32)  # the TIFF's own size is the limit


def _jpeg_tables(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bytes:
    """Return what stands before the JPEG in a strip; some writers pad it, or leave out its EOI."""
    tables: bytes = tags.get(347, b"")
    unpadded = tables.rstrip(b"\0")
    return unpadded[:-2] if unpadded.endswith(b"\xff\xd9") else tables


def _tiff_parts(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[int, int]:
    """Return how many strips, or tiles, the image has, and how many pixels one may have.

    More strips would be checked for nothing, and larger ones are not the image's: both could make a
    small file take long. A strip may be filled up to a whole MCU, of 16 x 16 pixels at most.
    """
    width, height = tags[256], tags[257]
    columns, rows = tags.get(322, width), tags.get(323, min(tags.get(278, height), height))
    planes = tags.get(277, 1) if tags.get(284) == 2 else 1
    return planes * -(-width // columns) * -(-height // rows), (columns + 16) * (rows + 16)


def _check_zlib(stream: memoryview) -> None:
    """Inflate to the checksum; libtiff stops where it has the pixels."""
    inflater = zlib.decompressobj()
    for at in range(0, len(stream), 1 << 16):
        inflater.decompress(stream[at : at + (1 << 16)])
        if inflater.eof:
            return
    raise zlib.error("incomplete or truncated stream")
