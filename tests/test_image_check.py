"""Whether an image decodes completely.

These tests would catch a cut or damaged file that passes, and a whole one that is refused.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from pixsieve import image
from pixsieve.image import ImageProblemError, check
from pixsieve.schema import Problem
from pixsieve.testing import images
from pixsieve.testing.image_kinds import (
    dct_tiff,
    decode,
    every_kind,
    pixel_tags,
    problem,
    reason,
    scratched,
    tiff,
    tiled_tiff,
)

EVERY_FORMAT = images.every_format()
ALL_KINDS = every_kind()


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


@pytest.mark.parametrize("parts", [[(1, 1), (1, 1)], [(0, 1)], [(1, 2)]])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_profile_that_is_incomplete_or_there_twice_is_no_damage_and_hides_none(
    parts, orientation
):
    plain = images.oriented_jpeg(orientation)
    profile = b"".join(
        b"\xff\xe2" + struct.pack(">H12sBB", 216, b"ICC_PROFILE", *part) + bytes(200)
        for part in parts
    )
    at = plain.index(b"\xff\xdb")
    data = plain[:at] + profile + plain[at:]
    assert problem(data) is None
    assert problem(memoryview(data)) is None
    assert np.array_equal(decode(data), decode(plain))
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    assert problem(data[:middle] + data[middle + 300 :]) == Problem.DECODE_FAILED
    assert problem(data[:-400]) == Problem.TRUNCATED_IMAGE


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


def gray_strips(strips: list[bytes], tables: bytes = b"") -> bytes:
    """Make a TIFF of 8 x 80 pixels in JPEG strips of 8 rows."""
    tags = pixel_tags(1, 7, 1)
    tags |= {256: ("H", (8,)), 257: ("H", (80,)), 278: ("H", (8,))}
    if not tables:
        return tiff(strips, tags)
    words = struct.unpack(f"<{(len(tables) + 1) // 2}H", tables + bytes(len(tables) % 2))
    data = tiff(strips, tags | {347: ("H", words)})
    as_bytes = struct.pack("<HHI", 347, 7, len(tables))
    return data.replace(struct.pack("<HHI", 347, 3, len(words)), as_bytes)


def test_a_jpeg_strip_that_is_larger_than_the_strips_of_the_tiff_is_damage():
    strip = images.photo(0, 8, 8, mode="L", progressive=True)
    assert problem(gray_strips([strip] * 10)) is None
    at = strip.index(b"\xff\xc2") + 5
    for width, height in ((13_000, 13_000), (65_500, 65_500)):
        huge = strip[:at] + struct.pack(">HH", height, width) + strip[at + 4 :]
        found = reason(gray_strips([huge] * 10))
        assert found == f"decode_failed: a strip says that it has {width} x {height} pixels"


def test_strips_that_the_image_does_not_have_are_not_decoded():
    strip = images.photo(0, 8, 8, mode="L")
    assert problem(gray_strips([strip] * 10 + [b"junk"] * 10)) is None


def tables_and_strips() -> tuple[bytes, list[bytes]]:
    """Split a JPEG of 8 x 8 pixels into its tables, without EOI, and ten strips without them."""
    jpeg = images.photo(0, 8, 8, mode="L")
    tables, frame = jpeg.index(b"\xff\xdb"), jpeg.index(b"\xff\xc0")
    huffman, scan = jpeg.index(b"\xff\xc4"), jpeg.index(b"\xff\xda")
    strip = jpeg[:2] + jpeg[frame:huffman] + jpeg[scan:]
    return jpeg[:2] + jpeg[tables:frame] + jpeg[huffman:scan], [strip] * 10


@pytest.mark.parametrize("end", [b"\xff\xd9", b"", b"\xff\xd9" + bytes(5)])
def test_the_tables_of_jpeg_strips_may_lack_their_end_or_be_padded(end):
    tables, strips = tables_and_strips()
    assert problem(gray_strips(strips, tables + end)) is None


def test_tables_that_are_too_large_are_not_read_for_each_strip(monkeypatch):
    tables, strips = tables_and_strips()
    comment = b"\xff\xfe\x80\x00" + bytes(0x7FFE)
    large = tables + comment * 2 + b"\xff\xd9"
    read = []
    monkeypatch.setattr(check, "probe", lambda data, _: read.append(data))
    assert problem(gray_strips(strips, large)) is None
    assert not read


def test_the_sizes_of_old_jpeg_strips_do_not_count():
    strip = images.photo()
    tags = pixel_tags(3, 6, 6) | {513: ("I", (0,)), 514: ("I", (len(strip),)), 530: ("H", (2, 2))}
    data = tiff([strip], tags)
    place, size = struct.pack("<HHII", 513, 4, 1, 0), struct.pack("<HHII", 279, 4, 1, len(strip))
    data = data.replace(place, place[:8] + struct.pack("<I", data.index(strip)))
    overstated = data.replace(size, size[:8] + struct.pack("<I", len(strip) + 100))
    assert overstated != data
    assert problem(overstated) is None
    assert np.array_equal(decode(overstated), decode(data))


def test_a_header_of_another_image_is_noticed():
    other = image.probe(images.photo(0, 200, 100))
    with pytest.raises(ImageProblemError) as caught:
        image.check_decode(images.photo(), other)
    assert caught.value.problem == Problem.BAD_HEADER
