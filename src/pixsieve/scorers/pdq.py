"""PDQ: 256 bits that tell how an image looks, and how much there is to tell.

Source: Meta's PDQ ("The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm",
2019): luma, two passes of a box filter in each direction, 64 x 64 samples, 16 x 16 DCT, threshold
at the median. Filter and sampling are linear in rows and columns, so here they are one small matrix
for each.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 64
_BITS = 16
_PASSES = 2
_LEAST = 5  # shorter images have no hash
_GRID = 2.0**20
"""Samples are rounded to this part of a grey level: sums in another order give the same bits."""
_QUALITY_STEP = 90


def pdq(luma: NDArray[np.uint8]) -> tuple[bytes, int]:
    """Return the hash and its quality, 0 (nothing to tell) to 100.

    Args:
        luma: (H, W) grey pixels.

    Returns:
        32 bytes: the first bit is that of the highest frequencies, as in PDQ's own hexadecimal
        text. An image with a side of less than 5 pixels has the hash 0 and the quality 0.
    """
    rows, columns = luma.shape
    if min(rows, columns) < _LEAST:
        return bytes(32), 0
    samples = _sampler(rows) @ (luma.astype(np.float64) @ _sampler(columns).T)
    samples = np.rint(samples * _GRID) / _GRID
    cosines = _cosines()
    frequencies = np.rint((cosines @ samples @ cosines.T) * _GRID)
    median = np.partition(frequencies.ravel(), _BITS * _BITS // 2 - 1)[_BITS * _BITS // 2 - 1]
    bits = (frequencies > median).ravel()[::-1]
    return np.packbits(bits).tobytes(), _quality(samples)


def _quality(samples: NDArray[np.float64]) -> int:
    """Return how much neighbouring samples differ in all, 0 to 100."""
    steps = (np.diff(samples, axis=0), np.diff(samples, axis=1))
    total = sum(int(np.floor(np.abs(step) * 100 / 255).sum()) for step in steps)
    return min(100, total // _QUALITY_STEP)


@functools.lru_cache(maxsize=256)
def _sampler(length: int) -> NDArray[np.float64]:
    """Return what filters and samples a line of pixels: (64, length)."""
    window = (length + 2 * SIDE - 1) // (2 * SIDE)
    right = (window + 2) // 2  # pixels from the middle one on, itself included
    box = np.zeros((length, length))
    for at in range(length):
        first, stop = max(0, at + right - window), min(length, at + right)
        box[at, first:stop] = 1 / (stop - first)
    chosen = ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)
    found = box[chosen]
    for _ in range(_PASSES - 1):
        found = found @ box
    return found


@functools.cache
def _cosines() -> NDArray[np.float64]:
    """Return the DCT-II's rows 1 to 16, (16, 64)."""
    row = np.arange(1, _BITS + 1)[:, None]
    column = 2 * np.arange(SIDE)[None, :] + 1
    return np.asarray(np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * row * column), np.float64)
