"""Makers of test images: every format and mode, and every way in which an image can be bad.

All return encoded bytes and are functions of their arguments alone.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def pixels(seed: int = 0, width: int = 97, height: int = 61, mode: str = "RGB") -> Image.Image:
    """Make a picture that has smooth parts, edges and noise, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    smooth[height // 3 : height // 2, width // 4 : width // 2] //= 3
    noise = rng.integers(-6, 7, smooth.shape, dtype=np.int16)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def save(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002 - Pillow's name
    """Encode an image by Pillow."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def photo(
    seed: int = 0,
    width: int = 97,
    height: int = 61,
    format: str = "JPEG",  # noqa: A002 - Pillow's name
    *,
    mode: str = "RGB",
    **options: Any,
) -> bytes:
    """Encode :func:`pixels` in any format and mode that Pillow writes."""
    return save(pixels(seed, width, height, mode), format, **options)


def truncated(data: bytes, share: float = 0.5) -> bytes:
    """Cut ``data`` after a share of its bytes."""
    return data[: int(len(data) * share)]


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    """Flip one bit."""
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


# JPEG


def oriented_jpeg(orientation: int, seed: int = 0, width: int = 96, height: int = 64) -> bytes:
    """Make a JPEG with an EXIF orientation, 1 to 8."""
    return photo(seed, width, height, exif=exif(orientation))


def exif(orientation: int) -> bytes:
    """Make an EXIF block that holds an orientation and a camera's name."""
    tags = Image.Exif()
    tags[0x010F] = "pixsieve"
    tags[0x0112] = orientation
    return tags.tobytes()


def cmyk_jpeg(seed: int = 0, width: int = 97, height: int = 61, **options: Any) -> bytes:
    """Make a CMYK JPEG as Adobe's programs do: inverted."""
    return photo(seed, width, height, mode="CMYK", **options)


def cmyk_profile(lab: tuple[int, int, int] = (128, 208, 128)) -> bytes:
    """Make an ICC profile by which all inks but black print one CIELAB colour (8-bit encoding)."""
    unity = (65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = struct.pack(">4s4xBBBx9i", b"mft1", 4, 3, 2, *unity)
    table += (
        bytes(range(256)) * 4 + (bytes(lab) + bytes((0, 128, 128))) * 2**3 + bytes(range(256)) * 3
    )
    text = struct.pack(">4s4xI", b"desc", 5) + b"test\0" + bytes(78 + 1)
    white = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)
    rights = b"text\0\0\0\0none\0\0\0\0"
    tags = {b"desc": text, b"wtpt": white, b"cprt": rights, b"A2B0": table}
    offset = 128 + 4 + 12 * len(tags)
    directory, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        directory += struct.pack(">4sII", name, offset + len(body), len(value))
        body += padded
    header = struct.pack(
        ">I4sI4s4s4s12x4s28x3i48x",
        *(offset + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp"),
        *(63190, 65536, 54061),
    )
    return header + directory + body


def twelve_bit_jpeg() -> bytes:
    """Make a JPEG whose header says 12 bits a sample; nothing decodes it."""
    data = photo()
    return flipped(data, data.index(b"\xff\xc0\x00\x11\x08") + 4, 2)


def camera_jpeg() -> bytes:
    """Make a JPEG with another whole JPEG behind its end, as cameras put previews (MPO)."""
    return photo(0) + photo(1, 48, 32)


# PNG


def png(width: int, height: int, depth: int, colour: int, raw: bytes) -> bytes:
    """Make a PNG of any depth and colour type from its filtered rows (PNG 3rd edition, 11.2)."""
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Make a PNG chunk."""
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(data: bytes, kind: bytes, body: bytes, *, before: bytes = b"IDAT") -> bytes:
    """Put a chunk into a PNG, before the first of another kind."""
    at = data.index(before) - 4
    return data[:at] + chunk(kind, body) + data[at:]


def bomb_png(width: int = 60_000, height: int = 60_000) -> bytes:
    """Make a PNG of a few bytes that says it is huge."""
    return png(width, height, 8, 2, b"")


def png16(seed: int = 0, width: int = 97, height: int = 61) -> bytes:
    """Make a 16-bit grey PNG whose values fill the range."""
    return save(gray16(seed, width, height), "PNG")


def gray16(seed: int = 0, width: int = 97, height: int = 61) -> Image.Image:
    """Make a 16-bit grey picture: :func:`pixels` in the upper byte, noise in the lower."""
    upper = np.asarray(pixels(seed, width, height, "L"), dtype=np.uint16)
    lower = np.random.default_rng(seed).integers(0, 256, upper.shape, dtype=np.uint16)
    return Image.fromarray(upper << 8 | lower)


def png16_rgb(seed: int = 0, width: int = 97, height: int = 61) -> bytes:
    """Make a PNG of 16 bits a channel: :func:`pixels` in the upper bytes, 255 in the lower."""
    upper = np.asarray(pixels(seed, width, height))
    rows = np.stack([upper, np.full_like(upper, 255)], axis=-1).reshape(height, -1)
    return png(width, height, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))


def rgba_png(seed: int = 0, width: int = 97, height: int = 61, **options: Any) -> bytes:
    """Make a PNG of :func:`rgba`."""
    return save(rgba(seed, width, height), "PNG", **options)


def rgba(seed: int = 0, width: int = 97, height: int = 61) -> Image.Image:
    """Make a picture with three stripes of alpha: 0, 128, 255."""
    image = pixels(seed, width, height)
    alpha = np.full((height, width), 128, dtype=np.uint8)
    alpha[:, : width // 3], alpha[:, -(width // 3) :] = 0, 255
    image.putalpha(Image.fromarray(alpha))
    return image


def palette_png(seed: int = 0, *, transparent: bool = False) -> bytes:
    """Make a palette PNG; if ``transparent``, its colour number 0 is, and it is used."""
    image = pixels(seed).quantize(16)
    image.paste(0, (0, 0, 20, 20))
    return save(image, "PNG", **({"transparency": 0} if transparent else {}))


# More than one frame


def _frames(count: int) -> list[Image.Image]:
    return [pixels(seed) for seed in range(count)]


def animated_gif(frames: int = 3) -> bytes:
    """Make an animated GIF."""
    first, *rest = _frames(frames)
    return save(first, "GIF", save_all=True, append_images=rest, duration=40)


def animated_webp(frames: int = 3) -> bytes:
    """Make an animated WebP."""
    first, *rest = _frames(frames)
    return save(first, "WEBP", save_all=True, append_images=rest, duration=40)


def animated_png(frames: int = 3) -> bytes:
    """Make an animated PNG."""
    first, *rest = _frames(frames)
    return save(first, "PNG", save_all=True, append_images=rest, duration=40)


def animated_avif(frames: int = 3) -> bytes:
    """Make an animated AVIF."""
    first, *rest = _frames(frames)
    return save(first, "AVIF", save_all=True, append_images=rest, duration=40, speed=10)


def multipage_tiff(pages: int = 3) -> bytes:
    """Make a TIFF of several pages."""
    first, *rest = _frames(pages)
    return save(first, "TIFF", save_all=True, append_images=rest)


# Others


def avif(seed: int = 0, width: int = 97, height: int = 61, **options: Any) -> bytes:
    """Make an AVIF, fast."""
    return photo(seed, width, height, "AVIF", speed=10, **options)


def float_tiff(seed: int = 0) -> bytes:
    """Make a TIFF of 32-bit floats: the grey :func:`pixels` times 1000, less 5000."""
    values = np.asarray(pixels(seed, mode="L"), dtype=np.float32)
    return save(Image.fromarray(values * 1000 - 5000), "TIFF")


def raw_tiff() -> bytes:
    """Make a TIFF that is laid out as a camera's raw file: the first page is a thumbnail."""
    return save(pixels(), "TIFF", tiffinfo={0x00FE: 1})


def every_format() -> dict[str, bytes]:
    """Make one plain image in each supported format, by its name."""
    made = {name: photo(0, format=name.upper()) for name in ("jpeg", "png", "webp", "bmp", "tiff")}
    return made | {"gif": photo(0, format="GIF"), "avif": avif()}


def not_images() -> dict[str, bytes]:
    """Make the beginnings of what is found under image names, by what ``describe`` calls them."""
    return {
        "HTML": b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>",
        "JSON": b'{"error": "not found"}',
        "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>',
        "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "EPS/PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(16),
        "MP4 or QuickTime": b"\0\0\0\x18ftypisom\0\0\2\0isommp42" + bytes(16),
        "JPEG XL": b"\xff\x0a\xfa\x1f\x41\x91\x08\x06\x01\x00",
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
        "WAV": b"RIFF\x24\0\0\0WAVEfmt ",
        "Photoshop document": b"8BPS\0\1\0\0\0\0\0\0",
        "camera raw": b"II*\0\x10\0\0\0CR\2\0" + bytes(20),
        "zip": b"PK\3\4\x14\0\0\0\0\0",
        "text": b"BMW cars on a road, by a caf\xc3\xa9",
        "unknown bytes 00 01 02 03 04 05 06 07": bytes(range(40)),
    }
