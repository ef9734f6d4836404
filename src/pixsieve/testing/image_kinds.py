"""Every kind of image that is read, and what is found in one."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from PIL import Image

from pixsieve import image
from pixsieve.testing import images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pixsieve.schema import Problem

T = TypeVar("T")
Tags = dict[int, tuple[str, "Sequence[int]"]]
"""Of a TIFF: tag to type, ``H`` or ``I`` as in ``struct``, and values."""


def every_kind() -> dict[str, bytes]:
    """Make an image of every kind: format, mode, compression, and how it is put together."""
    return images.every_format() | {
        "progressive jpeg": images.photo(progressive=True),
        "restarts jpeg": images.photo(restart_marker_rows=1),
        "gray jpeg": images.photo(mode="L"),
        "cmyk jpeg": images.cmyk_jpeg(),
        "oriented jpeg": images.oriented_jpeg(6),
        "gray16 png": images.png16(),
        "rgb16 png": images.png16_rgb(),
        "rgba png": images.rgba_png(),
        "1-bit png": images.photo(format="PNG", mode="1"),
        "palette png": images.palette_png(transparent=True),
        "animated png": images.animated_png(),
        "animated gif": images.animated_gif(),
        "animated webp": images.animated_webp(),
        "animated avif": images.animated_avif(),
        "pages tiff": images.multipage_tiff(),
        "lzw tiff": images.photo(format="TIFF", compression="tiff_lzw"),
        "float tiff": images.float_tiff(),
        "deflate tiff": images.photo(format="TIFF", compression="tiff_adobe_deflate"),
        "packbits tiff": images.photo(format="TIFF", compression="packbits"),
        "dct tables tiff": images.photo(format="TIFF", compression="jpeg"),
        "dct cmyk tiff": images.photo(format="TIFF", mode="CMYK", compression="jpeg"),
        "dct tiff": dct_tiff(),
        "tiled tiff": tiled_tiff(),
        "premultiplied tiff": premultiplied_tiff(),
        "lossless webp": images.photo(format="WEBP", lossless=True),
        "alpha webp": images.save(images.rgba(), "WEBP"),
        "alpha avif": images.save(images.rgba(), "AVIF", speed=10),
    }


def tiff(parts: Sequence[bytes], tags: Tags, places: int = 273) -> bytes:
    """Make a TIFF whose directory stands before its strips, or its tiles (``places`` 324)."""
    sizes = [len(part) for part in parts]
    tags = tags | {places: ("I", sizes), {273: 279, 324: 325}[places]: ("I", sizes)}
    at = 8 + 2 + 12 * len(tags) + 4
    first = at + sum(struct.calcsize(f"<{len(values)}{code}") for code, values in tags.values())
    tags[places] = ("I", list(accumulate(sizes[:-1], initial=first)))
    entries, long_values = b"", b""
    for tag, (code, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{code}", *values)
        if len(packed) > struct.calcsize("<I"):
            packed, long_values = struct.pack("<I", at + len(long_values)), long_values + packed
        entries += struct.pack("<HHI4s", tag, {"H": 3, "I": 4}[code], len(values), packed)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + long_values
    return head.ljust(first, b"\0") + b"".join(parts)


def pixel_tags(samples: int, compression: int, photometric: int) -> Tags:
    """Make the tags for the pixels of :func:`images.pixels`."""
    return {
        256: ("H", (97,)),
        257: ("H", (61,)),
        258: ("H", (8,) * samples),
        259: ("H", (compression,)),
        262: ("H", (photometric,)),
        277: ("H", (samples,)),
    }


def premultiplied_tiff() -> bytes:
    """Make a TIFF of grey with associated alpha."""
    levels = images.pixels(0, 97, 61).convert("L").tobytes()
    strip = b"".join(bytes((level // 2, 128)) for level in levels)
    return tiff([strip], pixel_tags(2, 1, 1) | {278: ("H", (61,)), 338: ("H", (1,))})


def tiled_tiff() -> bytes:
    """Make a TIFF of deflated tiles."""
    rows = np.zeros((64, 128, 3), np.uint8)
    rows[:61, :97] = np.asarray(images.pixels())
    tiles = [rows[y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32, 64, 96)]
    side = {322: ("H", (32,)), 323: ("H", (32,))}
    return tiff([zlib.compress(tile.tobytes()) for tile in tiles], pixel_tags(3, 8, 2) | side, 324)


def dct_tiff() -> bytes:
    """Make a TIFF of one strip that is a JPEG."""
    return tiff([images.photo()], pixel_tags(3, 7, 6) | {530: ("H", (2, 2))})


def scratched(data: bytes) -> bytes:
    """Overwrite a run of bytes in the middle, which is pixels."""
    middle = len(data) // 2
    return data[:middle] + b"\x55" * 64 + data[middle + 64 :]


def attempt(step: Callable[[], T]) -> T | image.ImageProblemError:
    """Return what ``step`` returns, or its image problem; nothing else may come out."""
    try:
        return step()
    except image.ImageProblemError as error:
        return error


def decode(data: bytes, **options: Any) -> NDArray[np.uint8]:
    """Return the pixels as scorers get them."""
    return image.decode(data, image.probe(data), **options)


def encode(data: bytes, to: Literal["jpeg", "png", "webp"], **options: Any) -> image.Encoded:
    """Encode an image anew, as the writer does."""
    return image.encode(data, image.probe(data), image.EncodeOptions(format=to, **options))


def reopen(encoded: image.Encoded) -> Image.Image:
    """Return what Pillow reads of an encoded image."""
    found = Image.open(io.BytesIO(encoded.data))
    found.load()
    return found


def problem(data: bytes, limits: image.ImageLimits = image.DEFAULT_LIMITS) -> Problem | None:
    """Return what probe and check_decode find, if anything."""
    found = attempt(lambda: image.check_decode(data, image.probe(data, limits)))
    if found is None:
        return None
    assert found.detail  # noqa: S101
    assert found.detail.isprintable()  # noqa: S101
    return found.problem


def reason(data: bytes) -> str:
    """Return what they find in words: problem and detail."""
    found = attempt(lambda: image.check_decode(data, image.probe(data)))
    return "" if found is None else f"{found.problem}: {found.detail}"
