"""What a header says: format, size, orientation and frames, under limits.

These tests would catch a size before it is turned, and a header that costs more than it may.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pixsieve import image
from pixsieve.image import ImageHeader, ImageLimits
from pixsieve.schema import Problem
from pixsieve.testing import images
from pixsieve.testing.image_kinds import decode, encode, problem, reason, reopen

EVERY_FORMAT = images.every_format()


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        (images.photo(), ("jpeg", "RGB", 1)),
        (images.photo(mode="L"), ("jpeg", "L", 1)),
        (images.cmyk_jpeg(), ("jpeg", "CMYK", 1)),
        (images.camera_jpeg(), ("jpeg", "RGB", 1)),
        (images.png16(), ("png", "I;16", 1)),
        (images.png16_rgb(), ("png", "RGB", 1)),
        (images.rgba_png(), ("png", "RGBA", 1)),
        (images.palette_png(), ("png", "P", 1)),
        (images.photo(format="PNG", mode="1"), ("png", "1", 1)),
        (images.animated_png(4), ("png", "RGB", 4)),
        (images.animated_gif(5), ("gif", "P", 5)),
        (images.animated_webp(2), ("webp", "RGB", 2)),
        (images.animated_avif(2), ("avif", "RGB", 2)),
        (images.multipage_tiff(3), ("tiff", "RGB", 3)),
        (images.float_tiff(), ("tiff", "F", 1)),
        (images.photo(format="BMP"), ("bmp", "RGB", 1)),
    ],
)
def test_header_has_format_size_mode_and_frames(data, facts):
    expected = ImageHeader(
        format=facts[0], width=97, height=61, mode=facts[1], exif_orientation=1, frames=facts[2]
    )
    assert image.probe(data) == expected
    assert image.probe(memoryview(data)) == expected


def reference_for(orientation: int) -> Image.Image:
    return images.pixels(0, 48, 32).transpose(
        {  # EXIF 2.32, 4.6.4: where row 0 and column 0 of the stored pixels belong
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90,
        }[orientation]
    )


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_size_and_pixels_are_upright_in_every_format(kind, orientation):
    options = {"exif": images.exif(orientation)}
    if kind == "TIFF":
        options = {"tiffinfo": {0x0112: orientation}}
    elif kind == "WEBP":
        options |= {"lossless": True}
    else:
        options |= {"JPEG": {"quality": 100, "subsampling": 0}, "AVIF": {"quality": 100}}.get(
            kind, {}
        )
    data = images.photo(0, 48, 32, kind, **options)
    expected = np.asarray(reference_for(orientation), dtype=int)

    header = image.probe(data)
    assert (header.width, header.height) == ((32, 48) if orientation >= 5 else (48, 32))
    assert header.exif_orientation == orientation
    assert problem(data) is None
    found = decode(data)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 4

    encoded = encode(data, "png")
    assert (encoded.width, encoded.height) == (header.width, header.height)
    assert np.array_equal(np.asarray(reopen(encoded)), found)
    assert f"orientation={orientation}>1" in encoded.encoding
    assert image.probe(encoded.data).exif_orientation == 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(3, "HH"), (4, "I")])
def test_orientation_is_read_in_either_byte_order(order, kind, code):
    value = struct.pack(order + code, 8, 0)[:4] if code == "HH" else struct.pack(order + code, 8)
    block = struct.pack(order + "HIHHHI", 42, 8, 1, 0x0112, kind, 1) + value
    data = with_exif((b"II" if order == "<" else b"MM") + block)
    assert image.probe(data).exif_orientation == 8


def with_exif(block: bytes) -> bytes:
    body = b"Exif\0\0" + block
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(body) + 2) + body + images.photo()[2:]


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff\x12\x01",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x06\0\0\0",
        b"XX*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0",
    ],
)
def test_a_damaged_orientation_counts_as_none(block):
    assert image.probe(with_exif(block)).exif_orientation == 1
    assert problem(with_exif(block)) is None


def test_orientation_behind_the_pixels_of_a_png_counts():
    block = images.exif(6).removeprefix(b"Exif\0\0")
    late = images.with_chunk(images.photo(format="PNG"), b"eXIf", block, before=b"IEND")
    assert (image.probe(late).width, decode(late).shape) == (61, (97, 61, 3))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_orientation_in_xmp_turns_nothing(kind):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = {
        "PNG": lambda: images.with_chunk(
            images.photo(format="PNG"), b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp
        ),
        "TIFF": lambda: images.photo(format="TIFF", tiffinfo={700: xmp}),
        "WEBP": lambda: images.photo(format="WEBP", xmp=xmp),
    }[kind]()
    assert image.probe(data).exif_orientation == 1
    assert decode(data).shape == (61, 97, 3)


@pytest.mark.parametrize(
    ("data", "limits", "expected"),
    [
        (b"", {}, Problem.EMPTY_IMAGE),
        (images.photo(), {"max_bytes": 1000}, Problem.TOO_MANY_BYTES),
        (images.photo(), {"max_pixels": 97 * 61 - 1}, Problem.TOO_MANY_PIXELS),
        (images.photo(), {"max_metadata_bytes": 100}, Problem.BAD_HEADER),
        (images.animated_gif(5), {"max_frames": 4}, Problem.ANIMATED),
        (images.animated_webp(5), {"max_frames": 4}, Problem.ANIMATED),
        (images.multipage_tiff(5), {"max_frames": 4}, Problem.ANIMATED),
        (images.bomb_png(), {}, Problem.TOO_MANY_PIXELS),
        (images.twelve_bit_jpeg(), {}, Problem.UNSUPPORTED_FORMAT),
        (images.raw_tiff(), {}, Problem.UNSUPPORTED_FORMAT),
    ],
)
def test_a_header_past_a_limit_is_refused(data, limits, expected):
    assert problem(data, ImageLimits(**limits)) == expected


def test_limits_allow_what_is_exactly_at_them():
    data = images.photo()
    scan = data.index(b"\xff\xda")
    limits = ImageLimits(
        max_bytes=len(data), max_pixels=97 * 61, max_metadata_bytes=scan + 4, max_frames=1
    )
    assert problem(data, limits) is None


def test_a_header_that_is_a_bomb_allocates_no_pixels():
    gif = images.animated_gif()
    huge = gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:]
    assert problem(huge) == Problem.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xff\xda", b"\xff\xd9"),  # end mark before the scan
        (b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x01\x08"),  # segment shorter than its length
        (b"\xff\xc0\x00\x11\x08\x00\x3d", b"\xff\xc0\x00\x11\x08\x00\x00"),  # no height
        (b"\x00\x61\x03\x01", b"\x00\x61\x02\x01"),  # two colour components
        (b"\xff\xc0", b"\xff\xec"),  # no frame header
    ],
)
def test_a_jpeg_header_that_makes_no_sense_is_bad(old, new):
    data = images.photo()
    assert data.count(old) == 1
    assert problem(data.replace(old, new)) == Problem.BAD_HEADER


def test_fill_and_stray_bytes_between_jpeg_segments_are_skipped():
    data = images.photo()
    at = data.index(b"\xff\xdb")
    assert image.probe(data[:at] + b"\xff\xff\xff" + data[at:]) == image.probe(data)
    assert image.probe(data[:at] + b"\0junk\xff\0" + data[at:]) == image.probe(data)
    assert problem(data[:at] + b"\xff\xff\xff" + data[at:]) is None


@pytest.mark.parametrize(("kind_of_page", "frames"), [(0, 2), (1, 1), (4, 1)])
def test_thumbnails_and_masks_in_a_tiff_are_no_pages(kind_of_page, frames):
    second = images.pixels(1, 24, 16)
    second.encoderinfo = {"tiffinfo": {0x00FE: kind_of_page}}
    data = images.save(images.pixels(), "TIFF", save_all=True, append_images=[second])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert image.probe(data).frames == frames


def test_directories_of_a_tiff_that_form_a_loop_end():
    data = images.photo(format="TIFF")
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    at = first + 2 + 12 * count
    assert image.probe(data[:at] + struct.pack("<I", first) + data[at + 4 :]).frames == 1


def test_directories_of_a_tiff_that_overlap_are_bad():
    entries = 100  # of each directory; one begins in each entry of the one before
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", entries)
    for at in range(2 * entries):
        following = 8 + 12 * (at - entries + 1) if at >= entries else 0
        data += struct.pack("<I6xH", following, entries)
    assert reason(data) == "bad_header: its directories overlap"


@pytest.mark.parametrize("following", [2**64 - 1, 2**63, 1 << 40])
def test_directories_of_a_bigtiff_end_with_a_position_behind_its_end(following):
    data = images.photo(format="TIFF", big_tiff=True)
    (first,) = struct.unpack_from("<Q", data, 8)
    (count,) = struct.unpack_from("<Q", data, first)
    at = first + 8 + 20 * count
    changed = data[:at] + struct.pack("<Q", following) + data[at + 8 :]
    assert image.probe(changed) == image.probe(data)
    assert problem(changed) is None


def test_a_long_run_of_junk_before_a_jpeg_header_takes_linear_time():
    data = images.photo()
    junk = b"\0\xff" * (1 << 19)  # a copy of the rest for each pair would be half a terabyte
    at = data.index(b"\xff\xdb")
    assert image.probe(data[:at] + junk + data[at:]) == image.probe(data)


def test_a_box_that_says_it_is_empty_ends_the_walk():
    data = EVERY_FORMAT["avif"]
    meta = data.index(b"meta") - 4
    empty = data[:meta] + struct.pack(">I4sQ", 1, b"free", 0) + data[meta:]
    assert problem(empty) == Problem.BAD_HEADER
