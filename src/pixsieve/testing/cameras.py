"""Makers of images with metadata as cameras, phones and programs leave them."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from PIL import ImageCms

from pixsieve.testing import images

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'tiff:Orientation="6" exif:GPSLatitude="52,31.2N" dc:source="secret"/></rdf:RDF></x:xmpmeta>'
)
"""With a place, and an orientation."""


def exif_tiff(
    orientation: int, *, order: str = ">", thumbnail: bytes = b"", size: tuple[int, int] = (96, 64)
) -> bytes:
    """Make an EXIF block as TIFF: camera, orientation, sides, GPS place, and maybe a thumbnail."""
    gps = [
        (0x0001, 2, 2, b"N\0\0\0"),
        (0x0002, 5, 3, struct.pack(order + "6I", 52, 1, 31, 1, 12, 1)),
        (0x0003, 2, 2, b"E\0\0\0"),
        (0x0004, 5, 3, struct.pack(order + "6I", 13, 1, 24, 1, 18, 1)),
    ]
    inner = [
        (0x9003, 2, 20, b"2024:05:06 07:08:09\0"),
        (0x927C, 7, 12, b"maker secret"),
        (0xA002, 4, 1, struct.pack(order + "I", size[0])),
        (0xA003, 4, 1, struct.pack(order + "I", size[1])),
    ]
    first = [
        (0x010F, 2, 9, b"pixsieve\0"),
        (0x0112, 3, 1, struct.pack(order + "HH", orientation, 0)),
        (0x8769, 4, 1, b"EXIF"),
        (0x8825, 4, 1, b"GPS_"),
    ]
    second = [
        (0x0103, 3, 1, struct.pack(order + "HH", 6, 0)),
        (0x0201, 4, 1, b"THUM"),
        (0x0202, 4, 1, struct.pack(order + "I", len(thumbnail))),
    ]
    block = {b"EXIF": inner, b"GPS_": gps, b"IFD1": second if thumbnail else []}
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    directories = [first, *block.values()]
    sizes = [2 + 12 * len(d) + 4 + sum(_room(entry) for entry in d) for d in directories]
    places = [8 + sum(sizes[:number]) for number in range(len(sizes) + 1)]
    links = dict(zip([*block, b"THUM"], places[1:], strict=True))
    made = head
    for number, (place, directory) in enumerate(zip(places, directories, strict=False)):
        extra = place + 2 + 12 * len(directory) + 4
        entries, values = struct.pack(order + "H", len(directory)), b""
        for tag, kind, count, value in directory:
            placed = struct.pack(order + "I", links[value]) if value in links else value
            if _room((tag, kind, count, value)):
                placed = struct.pack(order + "I", extra + len(values))
                values += value + bytes(len(value) % 2)
            entries += struct.pack(order + "HHI", tag, kind, count) + placed
        following = links[b"IFD1"] if thumbnail and number == 0 else 0
        made += entries + struct.pack(order + "I", following) + values
    return made + thumbnail


def _room(entry: tuple[int, int, int, bytes]) -> int:
    """Return the bytes that an entry's value takes outside of its entry."""
    size = len(entry[3])
    return size + size % 2 if size > 4 else 0  # noqa: PLR2004 - what fits into an entry


def segment(marker: int, body: bytes) -> bytes:
    """Make a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def iptc() -> bytes:
    """Make the contents of an APP13 segment: Photoshop's block of IPTC, with a place and a name."""
    records = b"".join(
        struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text
        for number, text in ((80, b"A. Person"), (90, b"Berlin"))
    )
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records
    return b"Photoshop 3.0\0" + block + bytes(len(records) % 2)


def other_profile() -> bytes:
    """Make an ICC profile of RGB by a matrix that is not sRGB: red and blue change places."""
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", srgb, 128)
    entries = {bytes(srgb[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    srgb[24:36] = bytes(12)  # the time at which it was made
    srgb[red : red + 4], srgb[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(srgb).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


def icc_segments(profile: bytes, each: int = 65_519) -> bytes:
    """Make the APP2 segments of a profile, each with as many bytes of it."""
    parts = [profile[at : at + each] for at in range(0, len(profile), each)]
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part)
        for number, part in enumerate(parts, 1)
    )


def camera_jpeg(
    orientation: int = 1,
    *,
    seed: int = 0,
    width: int = 96,
    height: int = 64,
    order: str = ">",
    icc: bytes = b"",
    icc_part: int = 65_519,
    mode: str = "RGB",
    **options: Any,
) -> bytes:
    """Make a JPEG with all that cameras and programs put into one.

    EXIF with GPS, maker's note and thumbnail; XMP and its extension; IPTC; FlashPix; a comment; the
    index of further pictures, and one of these behind the end; a private segment.
    """
    plain = images.photo(seed, width, height, mode=mode, **options)
    thumbnail = images.photo(seed, 16, 12)
    behind_jfif = 20 if plain[2:4] == b"\xff\xe0" else 2
    exif = exif_tiff(orientation, order=order, thumbnail=thumbnail, size=(width, height))
    segments = [
        segment(0xE1, b"Exif\0\0" + exif),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(32) + b"secret" * 10_000),
        icc_segments(icc, icc_part),
        segment(0xE2, _MPF),
        segment(0xE2, b"FPXR\0\0" + b"secret" * 10_000),
        segment(0xED, iptc()),
        segment(0xEF, b"private secret"),
        segment(0xFE, b"a comment: secret"),
    ]
    first = plain[:behind_jfif] + b"".join(segments) + plain[behind_jfif:]
    second = images.photo(1, 48, 32)
    from_index = len(first) - first.index(_MPF) - 4
    listed = struct.pack(">8I", 0x030000, len(first), 0, 0, 0, len(second), from_index, 0)
    return first.replace(_MPF, _MPF[:-32] + listed) + second


_MPF = (
    b"MPF\0MM\0*\0\0\0\x08\0\3"
    + struct.pack(">HHI4s", 0xB000, 7, 4, b"0100")
    + struct.pack(">HHII", 0xB001, 4, 1, 2)
    + struct.pack(">HHII", 0xB002, 7, 32, 50)
    + bytes(4 + 32)
)
"""The contents of an index of two pictures (CIPA DC-007), with room for what it lists."""


def described_png(orientation: int = 1, **options: Any) -> bytes:
    """Make a PNG with EXIF, text of each kind, XMP, a time, a private chunk, and bytes behind."""
    data = images.rgba_png(dpi=(300, 300), gamma=0.45, **options)
    for kind, body in (
        (b"eXIf", exif_tiff(orientation)),
        (b"tEXt", b"Author\0A. Person, secret"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"secret")),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"tIME", struct.pack(">HBBBBB", 2024, 5, 6, 7, 8, 9)),
        (b"prVt", b"secret"),
        (b"gAMA", struct.pack(">I", 45_455)),
    ):
        data = images.with_chunk(data, kind, body)
    return data + b"secret behind"


def described_webp(orientation: int = 1, **options: Any) -> bytes:
    """Make a WebP with EXIF and XMP, and bytes behind."""
    exif = b"Exif\0\0" + exif_tiff(orientation)
    made = images.photo(0, 97, 61, "WEBP", exif=exif, xmp=XMP, **options)
    return made + b"secret behind"


def described_gif() -> bytes:
    """Make an animated GIF with a comment and XMP."""
    data = images.animated_gif()
    at = data.index(b"!\xf9\x04")
    data = data[:at] + b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0" + data[at:]
    xmp = b"!\xff\x0bXMP DataXMP" + XMP + b"\1" + bytes(range(255, -1, -1)) + b"\0"
    return data[:at] + b"!\xfe\x06secret\0" + xmp + data[at:]
