"""Which pixels an image holds.

These tests would catch a picture that is turned, inverted or clipped on its way to pixels.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pixsieve import image
from pixsieve.testing import images
from pixsieve.testing.image_kinds import decode, every_kind, problem

ALL_KINDS = every_kind()


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
