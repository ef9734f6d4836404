"""Luma of an image, halved until it is small: enough for sharpness, blur and hashes."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

SIDE: Final = 256
"""Small luma has at most so many pixels in its shorter side, fine luma twice as many."""


_MADE: Final[dict[int, tuple[weakref.ref[Pixels], tuple[Pixels, Pixels]]]] = {}


def small_luma(pixels: Pixels) -> Pixels:
    """Return luma (ITU-R BT.601) of ``(H, W, 3)`` RGB, halved until it is small.

    Halving takes means of two by two pixels. The shorter side then has 128 to 256 pixels, or as
    many as the image if that has fewer.

    It is made once for as long as the array of pixels lives, since several scorers of a pass look
    at it. Nobody may change either.
    """
    return _luma(pixels)[1]


def fine_luma(pixels: Pixels) -> Pixels:
    """Return the same, halved once less: 256 to 512 pixels, or as many as the image has."""
    return _luma(pixels)[0]


def _luma(pixels: Pixels) -> tuple[Pixels, Pixels]:
    key = id(pixels)
    if (known := _MADE.get(key)) is not None:
        return known[1]
    luma = _made(pixels)
    # Gone with the pixels, before their id can be another array's.
    _MADE[key] = weakref.ref(pixels, lambda _: _MADE.pop(key, None)), luma
    return luma


def _made(pixels: Pixels) -> tuple[Pixels, Pixels]:
    factor = 1
    while min(pixels.shape[0] * factor, pixels.shape[1]) > factor * 2 * SIDE:
        pixels = _halved(pixels)  # rows first, whole rows at once: that leaves less to convert
        factor *= 2
    fine = Image.fromarray(pixels).convert("L").reduce((factor, 1))
    small = fine.reduce(2) if min(fine.size) > SIDE else fine
    return np.asarray(fine), np.asarray(small)


def _halved(pixels: Pixels) -> Pixels:
    """Return the means of each two rows, halves rounded up; an odd last row is left out."""
    rows = pixels[: pixels.shape[0] // 2 * 2].reshape(-1, 2, pixels[0].size)
    upper, lower = rows[:, 0], rows[:, 1]
    half = upper ^ lower
    half >>= 1
    mean = upper | lower
    mean -= half  # (a + b + 1) // 2 without a ninth bit
    return mean.reshape(-1, *pixels.shape[1:])
