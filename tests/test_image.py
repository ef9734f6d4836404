"""What an image's bytes are, whether they decode, and which pixels they hold.

These tests would catch a cut file that passes, a picture that is turned, inverted or clipped on
its way to pixels, and anything but an ImageProblemError that hostile bytes draw from a decoder.
"""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from pixsieve import image
from pixsieve.errors import UsageError
from pixsieve.image import EncodeOptions, ImageHeader, ImageLimits, ImageProblemError
from pixsieve.schema import Problem
from pixsieve.testing import images

EVERY_FORMAT = images.every_format()


def tiff(parts: list[bytes], tags: dict[int, tuple[str, tuple]], places: int = 273) -> bytes:
    """Make a TIFF whose directory stands before its strips, or its tiles (``places`` 324)."""
    sizes = [len(part) for part in parts]
    tags = tags | {places: ("I", sizes), {273: 279, 324: 325}[places]: ("I", sizes)}
    at = 8 + 2 + 12 * len(tags) + 4
    first = at + sum(struct.calcsize(f"<{len(values)}{code}") for code, values in tags.values())
    tags[places] = ("I", list(accumulate(sizes[:-1], initial=first)))
    entries, long_values = b"", b""
    for tag, (code, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{code}", *values)
        if len(packed) > 4:
            packed, long_values = struct.pack("<I", at + len(long_values)), long_values + packed
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[code], len(values)) + packed.ljust(
            4, b"\0"
        )
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + long_values
    return head.ljust(first, b"\0") + b"".join(parts)


def pixel_tags(samples: int, compression: int, photometric: int) -> dict:
    return {
        256: ("H", (97,)),
        257: ("H", (61,)),
        258: ("H", (8,) * samples),
        259: ("H", (compression,)),
        262: ("H", (photometric,)),
        277: ("H", (samples,)),
    }


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


ALL_KINDS = EVERY_FORMAT | {
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
    "lossless webp": images.photo(format="WEBP", lossless=True),
    "alpha webp": images.save(images.rgba(), "WEBP"),
    "alpha avif": images.save(images.rgba(), "AVIF", speed=10),
}


def attempt(step):
    """Return what ``step`` returns, or its image problem; nothing else may come out."""
    try:
        return step()
    except ImageProblemError as error:
        return error


def problem(data: bytes, limits: ImageLimits = image.DEFAULT_LIMITS) -> Problem | None:
    """Return what probe and check_decode find, if anything."""
    found = attempt(lambda: image.check_decode(data, image.probe(data, limits)))
    if found is None:
        return None
    assert found.detail
    assert found.detail.isprintable()
    return found.problem


def reason(data: bytes) -> str:
    """Return that in words."""
    found = attempt(lambda: image.check_decode(data, image.probe(data)))
    return "" if found is None else f"{found.problem}: {found.detail}"


def scratched(data: bytes) -> bytes:
    """Overwrite a run of bytes in the middle, which is pixels."""
    middle = len(data) // 2
    return data[:middle] + b"\x55" * 64 + data[middle + 64 :]


def decode(data: bytes, **options) -> np.ndarray:
    return image.decode(data, image.probe(data), **options)


def encode(data: bytes, to: str, **options) -> image.Encoded:
    return image.encode(data, image.probe(data), EncodeOptions(format=to, **options))


def reopen(encoded: image.Encoded) -> Image.Image:
    found = Image.open(io.BytesIO(encoded.data))
    found.load()
    return found


# What is it?


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_a_format_is_known_from_its_first_32_bytes(name):
    assert image.sniff(EVERY_FORMAT[name][:32]) == name
    assert image.sniff(memoryview(EVERY_FORMAT[name])) == name


@pytest.mark.parametrize("looks", images.not_images())
def test_other_content_is_no_format_and_is_called_by_its_name(looks):
    data = images.not_images()[looks]
    assert image.sniff(data) is None
    assert image.describe(data) == looks
    with pytest.raises(ImageProblemError) as caught:
        image.probe(data)
    assert (caught.value.problem, caught.value.detail) == (Problem.UNSUPPORTED_FORMAT, looks)


@pytest.mark.parametrize(
    ("brands", "expected"),
    [
        (b"avif\0\0\0\0mif1miaf", "avif"),
        (b"mif1\0\0\0\0miafavif", "avif"),
        (b"mif1\0\0\0\0miafheic", None),
        (b"mp42\0\0\0\0isomavc1", None),
    ],
)
def test_avif_is_told_by_its_brands(brands, expected):
    assert image.sniff(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(8)) == expected


def test_brands_are_not_read_past_the_file_type_box():
    assert image.sniff(b"\0\0\0\x10ftypmif1\0\0\0\0avifavif") is None


@pytest.mark.parametrize("kind", ["text", "no bytes"])
def test_short_and_cut_text_is_described(kind):
    data = {"text": ("é" * 300).encode()[:511], "no bytes": b""}[kind]
    assert image.describe(data) == kind


# Header


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


# Does it decode?


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_whole_image_passes(kind):
    assert problem(ALL_KINDS[kind]) is None


@pytest.mark.parametrize("kind", [kind for kind in ALL_KINDS if "jpeg" in kind])
def test_a_jpeg_that_is_cut_anywhere_is_refused_as_truncated(kind):
    data = ALL_KINDS[kind]
    for end in [*range(3, len(data), 7), *range(len(data) - 40, len(data))]:
        assert problem(data[:end]) == Problem.TRUNCATED_IMAGE, end


@pytest.mark.parametrize("kind", [k for k in ALL_KINDS if "jpeg" not in k and k != "bmp"])
def test_another_format_that_is_cut_anywhere_is_refused(kind):
    data = ALL_KINDS[kind]
    ends = [*range(1, len(data), 1 + len(data) // 60), *range(len(data) - 12, len(data))]
    if kind in {"pages tiff", "animated avif"}:  # only the first frame is read
        ends = [end for end in ends if end < len(data) // 4]
    for end in ends:
        assert problem(data[:end]) is not None, end


def test_a_bmp_may_lack_the_padding_of_its_last_row_and_no_more():
    data = EVERY_FORMAT["bmp"]
    assert problem(data[:-1]) is None  # 97 x 3 bytes need one of padding
    assert problem(data[:-2]) == Problem.TRUNCATED_IMAGE


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_a_bmp_that_is_cut_in_its_pixels_is_truncated(mode):
    data = images.photo(format="BMP", mode=mode)
    for end in range(2000, len(data) - 4, 501):
        assert problem(data[:end]) == Problem.TRUNCATED_IMAGE, end


@pytest.mark.parametrize("data", [tiled_tiff(), dct_tiff()], ids=["tiles", "strip"])
def test_a_tiff_that_is_cut_in_its_strips_or_tiles_is_truncated(data):
    for end in range(600, len(data), 61):
        assert reason(data[:end]).startswith(f"truncated_image: {end} bytes; a strip"), end
    assert reason(data[:-1]).startswith("truncated_image")


@pytest.mark.parametrize("kind", ["lzw tiff", "dct tables tiff", "dct cmyk tiff", "palette tiff"])
def test_a_tiff_that_is_cut_in_its_directory_is_truncated(kind):
    palette = images.photo(format="TIFF", mode="P", compression="tiff_lzw")
    data = (ALL_KINDS | {"palette tiff": palette})[kind]
    (directory,) = struct.unpack_from("<I", data, 4)
    for end in range(directory - 9, len(data) - 40):
        assert problem(data[:end]) == Problem.TRUNCATED_IMAGE, end


@pytest.mark.parametrize("kind", ["avif", "alpha avif"])
def test_an_avif_that_is_cut_anywhere_is_truncated(kind):
    data = ALL_KINDS[kind]
    for end in [*range(48, len(data), 41), len(data) - 1]:
        assert reason(data[:end]).startswith(f"truncated_image: {end} bytes; box m"), end


@pytest.mark.parametrize("kind", ["jpeg", "progressive jpeg", "png", "gif", "webp"])
def test_whole_pixels_without_the_end_mark_count_as_truncated(kind):
    end_mark = {"png": 12, "gif": 1}.get(kind, 2)
    assert problem(ALL_KINDS[kind][:-end_mark]) == Problem.TRUNCATED_IMAGE


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_bytes_behind_the_end_are_accepted(kind):
    assert problem(ALL_KINDS[kind] + b"\0" * 600) is None


def stray_jpeg(count: int) -> bytes:
    return images.photo()[:-2] + b"\0" * count + b"\xff\xd9"


def test_few_stray_bytes_behind_a_scan_are_accepted_and_many_are_not():
    assert problem(stray_jpeg(20)) is None
    assert np.array_equal(decode(stray_jpeg(20)), decode(images.photo()))
    assert problem(stray_jpeg(2000)) == Problem.DECODE_FAILED


def test_stray_bytes_do_not_hide_a_cut():
    data = images.photo()
    at = data.index(b"\xff\xdb")
    stray = data[:at] + b"\0" * 20 + data[at:]
    assert problem(stray) is None
    for end in range(at + 600, len(stray), 11):
        assert problem(stray[:end]) == Problem.TRUNCATED_IMAGE, end


@pytest.mark.parametrize("kind", ["jpeg", "progressive jpeg", "restarts jpeg", "cmyk jpeg"])
def test_a_jpeg_whose_middle_is_lost_is_refused(kind):
    data = ALL_KINDS[kind]
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    assert problem(data[:middle] + data[middle + 300 :]) == Problem.DECODE_FAILED


def test_any_flipped_bit_in_the_pixels_of_a_png_is_found():
    data = EVERY_FORMAT["png"]
    start = data.index(b"IDAT") + 4
    for at in range(start, len(data) - 16, 301):
        assert problem(images.flipped(data, at, at % 8)) == Problem.DECODE_FAILED, at


@pytest.mark.parametrize("kind", ["deflate tiff", "tiled tiff"])
def test_any_flipped_bit_in_the_deflated_pixels_of_a_tiff_is_found(kind):
    data = ALL_KINDS[kind]
    for at in range(600, len(data) - 600, 301):
        assert problem(images.flipped(data, at, at % 8)) == Problem.DECODE_FAILED, at


@pytest.mark.parametrize("kind", ["dct tiff", "dct tables tiff", "dct cmyk tiff"])
def test_a_scratch_in_the_jpeg_inside_a_tiff_is_found(kind):
    assert problem(scratched(ALL_KINDS[kind])) == Problem.DECODE_FAILED


def test_deflated_pixels_of_a_tiff_may_have_their_bits_in_reverse_order():
    packed = zlib.compress(np.asarray(images.pixels(mode="L")).tobytes())
    mirrored = np.packbits(np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little"))
    data = tiff([mirrored.tobytes()], pixel_tags(1, 8, 1) | {266: ("H", (2,))})
    assert problem(data) is None
    assert np.array_equal(decode(data, gray=True), np.asarray(images.pixels(mode="L")))


def test_strips_that_name_the_same_bytes_are_checked_once():
    strip = zlib.compress(bytes(64 << 20))  # 20,000 times that would be a terabyte
    data = bytearray(tiff([b""] * 20_000, pixel_tags(1, 8, 1)) + strip)
    entry = data.index(struct.pack("<HHI", 279, 4, 20_000))
    (sizes,) = struct.unpack_from("<I", data, entry + 8)
    data[sizes : sizes + 80_000] = struct.pack("<I", len(strip)) * 20_000
    assert problem(bytes(data)) is None


def test_a_box_that_says_it_is_empty_ends_the_walk():
    data = EVERY_FORMAT["avif"]
    meta = data.index(b"meta") - 4
    empty = data[:meta] + struct.pack(">I4sQ", 1, b"free", 0) + data[meta:]
    assert problem(empty) == Problem.BAD_HEADER


def test_what_pillow_logs_of_a_hostile_file_is_not_printed():
    data = bytearray(images.photo(format="TIFF"))
    at = data.index(struct.pack("<HHI", 277, 3, 1))  # samples per pixel
    data[at + 8 : at + 10] = b"\xff\xff"
    assert problem(bytes(data)) == Problem.BAD_HEADER
    # In a process of its own: pytest sets up logging, and only without it does Python print.
    script = (
        "import sys; from pixsieve import image\n"
        "try: image.probe(sys.stdin.buffer.read())\n"
        "except image.ImageProblemError as error: print(error.problem)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=bytes(data), capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"bad_header\n", b"")


SCRATCHED_TIFFS = {
    "lzma": scratched(images.photo(format="TIFF", compression="lzma")),
    "lzw": scratched(images.photo(format="TIFF", compression="tiff_lzw")),
    "fax": scratched(images.photo(format="TIFF", mode="1", compression="group4")),
}
LIBTIFF_SAYS = {
    "lzma": "Decoding error at scanline 0",
    "lzw": "Using code not yet in table",
    "fax": "Bad code word",  # and goes on
}


@pytest.mark.parametrize("compression", SCRATCHED_TIFFS)
def test_what_libtiff_finds_is_the_reason_and_is_not_printed(compression, capfd):
    data = SCRATCHED_TIFFS[compression]
    assert reason(data).startswith(f"decode_failed: libtiff: {LIBTIFF_SAYS[compression]}")
    with pytest.raises(ImageProblemError, match=LIBTIFF_SAYS[compression]):
        decode(data)
    with pytest.raises(ImageProblemError, match=LIBTIFF_SAYS[compression]):
        encode(data, "png")
    assert capfd.readouterr() == ("", "")


def test_threads_hear_of_their_own_images_alone():
    data = [*SCRATCHED_TIFFS.values(), EVERY_FORMAT["tiff"]] * 20
    expected = [reason(each) for each in data]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(reason, data)) == expected


def test_whoever_else_reads_tiffs_in_the_process_still_hears_of_errors(capfd):
    with Image.open(io.BytesIO(SCRATCHED_TIFFS["fax"])) as found:
        found.load()
    assert "Bad code word" in capfd.readouterr().err


def test_a_long_run_of_junk_before_a_jpeg_header_takes_linear_time():
    data = images.photo()
    junk = b"\0\xff" * (1 << 19)  # a copy of the rest for each pair would be half a terabyte
    at = data.index(b"\xff\xdb")
    assert image.probe(data[:at] + junk + data[at:]) == image.probe(data)


def test_a_setting_of_the_process_does_not_let_cut_images_pass(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert problem(images.truncated(EVERY_FORMAT["bmp"])) == Problem.TRUNCATED_IMAGE
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_header_of_another_image_is_noticed():
    other = image.probe(images.photo(0, 200, 100))
    with pytest.raises(ImageProblemError) as caught:
        image.check_decode(images.photo(), other)
    assert caught.value.problem == Problem.BAD_HEADER


def test_running_out_of_memory_is_a_problem_of_the_image(monkeypatch):
    def exhausted(*_args, **_options):
        raise MemoryError

    data = images.photo()
    header = image.probe(data)
    monkeypatch.setattr(image.simplejpeg, "decode_jpeg", exhausted)
    with pytest.raises(ImageProblemError) as caught:
        image.check_decode(data, header)
    assert caught.value.problem == Problem.OUT_OF_MEMORY


def test_a_problem_comes_through_pickle_whole():
    sent = pickle.loads(pickle.dumps(ImageProblemError(Problem.BAD_HEADER, "why")))  # noqa: S301
    assert (sent.problem, sent.detail) == (Problem.BAD_HEADER, "why")


# Pixels


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_pixels_are_rgb_or_gray_bytes_at_the_scale_asked_for(kind):
    data = ALL_KINDS[kind]
    header = image.probe(data)
    for min_side, factor in ((None, 1), (40, 1), (31, 2), (16, 4), (1, 8)):
        size = (-(-header.height // factor), -(-header.width // factor))
        colour = image.decode(data, header, min_side=min_side)
        gray = image.decode(data, header, min_side=min_side, gray=True)
        assert (colour.shape, colour.dtype) == ((*size, 3), np.uint8)
        assert (gray.shape, gray.dtype) == (size, np.uint8)
        luma = colour @ np.array([0.299, 0.587, 0.114])
        assert np.abs(luma - gray).mean() < 3


@pytest.mark.parametrize("kind", ["jpeg", "png", "cmyk jpeg", "oriented jpeg"])
def test_a_smaller_scale_shows_the_same_picture(kind):
    full = decode(ALL_KINDS[kind]).astype(int)
    half = decode(ALL_KINDS[kind], min_side=30).astype(int)
    rows, columns = half.shape[0] - 1, half.shape[1] - 1  # the last ones may be partial
    averaged = full[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 3).mean(axis=(1, 3))
    assert np.abs(averaged - half[:rows, :columns]).mean() < 3


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 70), (7, 5), (8, 8), (9, 17)])
def test_tiny_images_pass_and_decode_at_any_scale(width, height):
    for mode in ("RGB", "CMYK"):
        data = images.photo(0, width, height, mode=mode)
        assert problem(data) is None
        assert decode(data).shape == (height, width, 3)
        assert decode(data, min_side=1).shape == (-(-height // 8), -(-width // 8), 3)


def test_a_jpeg_decodes_to_the_pixels_that_pillow_makes():
    with Image.open(io.BytesIO(images.photo())) as found:
        assert np.abs(decode(images.photo()).astype(int) - np.asarray(found)).max() <= 2


def test_alpha_is_laid_over_white():
    image_, found = np.asarray(images.pixels(), dtype=int), decode(images.rgba_png())
    assert (found[:, :32] == 255).all()
    assert np.abs(found[:, 40:50] - (image_[:, 40:50] * 128 + 255 * 127) / 255).max() <= 1
    assert np.array_equal(found[:, -32:], image_[:, -32:])


def test_transparent_palette_colours_and_colour_keys_are_laid_over_white():
    assert (decode(images.palette_png(transparent=True))[:20, :20] == 255).all()
    assert not (decode(images.palette_png())[:20, :20] == 255).all()
    black = images.save(Image.new("RGB", (9, 9)), "PNG", transparency=(0, 0, 0))
    assert (decode(black) == 255).all()
    deep = images.with_chunk(images.png(2, 1, 16, 0, b"\0\x80\x00\x80\x01"), b"tRNS", b"\x80\x00")
    assert decode(deep, gray=True).tolist() == [[255, 128]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_its_upper_byte_and_never_clips(kind):
    data = images.save(images.gray16(), kind)
    assert np.array_equal(decode(data, gray=True), np.asarray(images.pixels(mode="L")))


def test_16_bit_colour_keeps_its_upper_byte():
    assert np.array_equal(decode(images.png16_rgb()), np.asarray(images.pixels()))


def test_floats_are_stretched_over_the_range():
    gray = np.asarray(images.pixels(mode="L"), dtype=float)
    found = decode(images.float_tiff(), gray=True)
    expected = (gray - gray.min()) / (gray.max() - gray.min()) * 255
    assert np.abs(found - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([np.nan, 0, 1, np.inf], [0, 0, 255, 255]),
        ([7, 7, 7, 7], [0, 0, 0, 0]),
        ([-3e38, 0, 3e38, -np.inf], [0, 128, 255, 0]),
        ([np.nan] * 4, [0, 0, 0, 0]),
    ],
)
def test_floats_that_are_not_finite_have_a_stated_place(values, expected):
    data = images.save(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert decode(data, gray=True).tolist() == [expected]


def test_cmyk_goes_through_its_profile_or_the_plain_formula():
    plain = decode(images.cmyk_jpeg(quality=100)).astype(int)
    assert np.abs(plain - np.asarray(images.pixels(), dtype=int)).mean() < 4
    red = decode(images.cmyk_jpeg(icc_profile=images.cmyk_profile()))
    assert (red.reshape(-1, 3).std(axis=0) < 3).all()
    assert red[0, 0, 0] > 200
    assert red[0, 0, 1] < 50


def test_a_broken_cmyk_profile_is_as_good_as_none():
    broken = images.cmyk_profile()[:200]
    assert np.array_equal(decode(images.cmyk_jpeg(icc_profile=broken)), decode(images.cmyk_jpeg()))


# Encoding


@pytest.mark.parametrize("to", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_is_encoded_decodes_and_is_what_it_says(kind, to):
    source = image.probe(ALL_KINDS[kind])
    encoded = encode(ALL_KINDS[kind], to)
    header = image.probe(encoded.data)
    assert header == ImageHeader(
        format=to,
        width=encoded.width,
        height=encoded.height,
        mode=encoded.mode,
        exif_orientation=1,
        frames=1,
    )
    assert (header.width, header.height) == (source.width, source.height)
    assert problem(encoded.data) is None
    assert encode(ALL_KINDS[kind], to) == encoded
    if to == "png" and source.mode not in {"I;16", "RGBA", "P"}:
        assert np.array_equal(decode(encoded.data), decode(ALL_KINDS[kind]))


@pytest.mark.parametrize(
    ("data", "to", "expected"),
    [
        (images.photo(format="PNG"), "jpeg", "jpeg quality=95 subsampling=4:2:0 from=png"),
        (images.photo(), "png", "png from=jpeg"),
        (images.photo(), "webp", "webp quality=95 from=jpeg"),
        (
            images.rgba_png(),
            "jpeg",
            "jpeg quality=95 subsampling=4:2:0 from=png mode=RGBA>RGB background=#ffffff",
        ),
        (images.rgba_png(), "webp", "webp quality=95 from=png"),
        (images.png16(), "png", "png from=png"),
        (images.png16(), "jpeg", "jpeg quality=95 from=png mode=I;16>L depth=16>8"),
        (images.png16_rgb(), "png", "png from=png depth=16>8"),
        (images.float_tiff(), "png", "png from=tiff mode=F>L depth=32>8 range=stretched"),
        (images.animated_gif(12), "png", "png from=gif mode=P>RGB frame=1/12"),
        (images.oriented_jpeg(6), "png", "png from=jpeg orientation=6>1 exif=dropped"),
        (
            images.cmyk_jpeg(icc_profile=images.cmyk_profile()),
            "png",
            "png from=jpeg mode=CMYK>RGB icc=applied",
        ),
        (images.photo(mode="1", format="PNG"), "webp", "webp quality=95 from=png mode=1>RGB"),
    ],
)
def test_encoding_says_how_the_image_was_made(data, to, expected):
    assert encode(data, to).encoding == expected


def test_alpha_is_kept_where_the_format_has_it_and_laid_over_the_background_where_not():
    for to in ("png", "webp"):
        assert reopen(encode(images.rgba_png(), to)).getchannel("A").getextrema() == (0, 255)
    flat = reopen(encode(images.rgba_png(), "jpeg", background="#ff0000"))
    red, green, blue = flat.getpixel((5, 30))
    assert red > 245
    assert max(green, blue) < 10


def test_16_bit_gray_is_kept_in_png():
    encoded = encode(images.save(images.gray16(), "TIFF"), "png")
    assert np.array_equal(np.asarray(reopen(encoded)), np.asarray(images.gray16()))


def test_a_profile_is_kept_only_where_it_fits_the_pixels():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kept = encode(images.photo(format="PNG", icc_profile=srgb), "jpeg")
    assert reopen(kept).info["icc_profile"] == srgb
    assert kept.encoding.endswith("icc=kept")
    wrong = encode(images.photo(format="PNG", mode="L", icc_profile=srgb), "jpeg")
    assert "icc_profile" not in reopen(wrong).info
    assert wrong.encoding.endswith("icc=dropped")


def test_no_metadata_but_the_profile_is_carried():
    secret = b"where I live"
    jpeg = images.photo(comment=secret, exif=images.exif(1), xmp=secret)
    assert secret in jpeg
    for to in ("jpeg", "png", "webp"):
        found = encode(jpeg, to).data
        assert secret not in found
        assert b"pixsieve" not in found


def test_an_image_too_long_for_the_format_is_refused():
    data = images.photo(0, 16_384, 1, "PNG")
    assert encode(data, "jpeg").width == 16_384
    with pytest.raises(ImageProblemError) as caught:
        encode(data, "webp")
    assert caught.value.problem == Problem.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"format": "gif"}, "format"),
        ({"format": "jpeg", "quality": 0}, "quality"),
        ({"format": "jpeg", "quality": 101}, "quality"),
        ({"format": "jpeg", "subsampling": "4:1:1"}, "subsampling"),
        ({"format": "jpeg", "background": "white"}, "background"),
        ({"format": "jpeg", "background": "#FFFFFF"}, "background"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options, name):
    with pytest.raises(UsageError, match=f"^{name} is"):
        EncodeOptions(**options)


# Hostile bytes


@st.composite
def mutated(draw) -> bytes:
    data = bytearray(ALL_KINDS[draw(st.sampled_from(sorted(ALL_KINDS)))])
    for _ in range(draw(st.integers(0, 4))):
        # Half of the edits hit the header, where the decoders' decisions are made.
        at = draw(st.integers(0, min(400, len(data) - 1)) | st.integers(0, len(data) - 1))
        edit = draw(st.binary(min_size=1, max_size=4))
        data[at : at + draw(st.sampled_from([0, len(edit)]))] = edit
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated() | st.binary(max_size=200), st.sampled_from(["jpeg", "png", "webp"]))
def test_nothing_but_an_image_problem_comes_of_any_bytes(data, to):
    header = attempt(lambda: image.probe(data, ImageLimits(max_pixels=200_000)))
    found = [header]
    if isinstance(header, ImageHeader):
        found += [
            attempt(lambda: image.check_decode(data, header)),
            attempt(lambda: image.decode(data, header, min_side=8)),
            attempt(lambda: image.decode(data, header, gray=True)),
            attempt(lambda: image.encode(data, header, EncodeOptions(format=to))),
        ]
    assert image.describe(data).isprintable()
    assert all(each.detail.isprintable() for each in found if isinstance(each, ImageProblemError))
