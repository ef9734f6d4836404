"""Small luma is that of the means of blocks, to a rounding."""

import weakref

import numpy as np
import pytest

from pixsieve.scorers.luma import small_luma
from pixsieve.testing import images


@pytest.mark.parametrize(
    ("height", "width", "factor"),
    [(256, 300, 1), (257, 300, 2), (258, 300, 2), (520, 516, 4), (300, 3000, 2), (1, 900, 1)],
)
def test_it_is_the_mean_of_blocks(height, width, factor):
    pixels = np.asarray(images.pixels(0, width, height))
    luma = small_luma(pixels)
    assert luma.dtype == np.uint8
    assert luma.shape[1] == -(-width // factor)
    assert luma.shape[0] in (height // factor, -(-height // factor))
    rows, columns = height // factor * factor, width // factor * factor
    exact = pixels[:rows, :columns].astype(float) @ (0.299, 0.587, 0.114)
    blocks = exact.reshape(rows // factor, factor, columns // factor, factor).mean(axis=(1, 3))
    difference = luma[: rows // factor, : columns // factor] - blocks
    assert abs(difference).max() <= 2
    assert abs(difference.mean()) < 0.7


def test_what_is_small_is_pillows_luma():
    picture = images.pixels(1, 300, 200)
    assert np.array_equal(small_luma(np.asarray(picture)), np.asarray(picture.convert("L")))


@pytest.mark.parametrize("level", [0, 1, 77, 254, 255])
def test_one_grey_stays_that_grey(level):
    assert set(np.unique(small_luma(np.full((2000, 3000, 3), level, np.uint8)))) == {level}


def test_the_pixels_are_left_as_they_were():
    pixels = np.asarray(images.pixels(0, 600, 520)).copy()
    before = pixels.copy()
    pixels.flags.writeable = False
    small_luma(pixels)
    assert np.array_equal(pixels, before)


def test_it_is_made_once_while_the_pixels_live_and_never_taken_for_anothers():
    first = np.zeros((300, 400, 3), np.uint8)
    assert small_luma(first) is small_luma(first)
    for level in range(1, 50):  # memory, and with it ids, are used again
        assert small_luma(np.full((300, 400, 3), level, np.uint8)).max() == level


def test_it_goes_with_the_pixels():
    pixels = np.zeros((300, 400, 3), np.uint8)
    made = weakref.ref(small_luma(pixels))
    assert made() is not None
    del pixels
    assert made() is None
