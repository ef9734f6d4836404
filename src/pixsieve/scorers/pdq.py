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
_LEAST = 5  # shorter images have no hash
_LONG = 2048  # lines up to here have their sampler kept: 0.5 kB for each pixel
_ROWS = 512  # of pixels at a time as floats: bounds the memory that a large image takes
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
    across = _sampler(columns).T
    lines = [luma[at : at + _ROWS].astype(np.float64) @ across for at in range(0, rows, _ROWS)]
    samples = _sampler(rows) @ np.concatenate(lines)
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


def _sampler(length: int) -> NDArray[np.float64]:
    """Return what filters and samples a line of pixels: (64, length)."""
    return _kept_sampler(length) if length <= _LONG else _made_sampler(length)


def _made_sampler(length: int) -> NDArray[np.float64]:
    # From the windows that the samples see: a long line must not cost the square of its length.
    window = (length + 2 * SIDE - 1) // (2 * SIDE)
    right = (window + 2) // 2  # pixels from the middle one on, itself included
    middle = np.arange(length)
    first = np.maximum(0, middle + right - window)
    stop = np.minimum(length, middle + right)
    share = 1 / (stop - first)
    chosen = ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)
    found = np.zeros((SIDE, length))
    for line, at in zip(found, chosen, strict=True):
        for seen in range(first[at], stop[at]):  # a second pass over what the first one made
            line[first[seen] : stop[seen]] += share[at] * share[seen]
    return found


_kept_sampler = functools.lru_cache(maxsize=128)(_made_sampler)


@functools.cache
def _cosines() -> NDArray[np.float64]:
    """Return the DCT-II's rows 1 to 16, (16, 64)."""
    row = np.arange(1, _BITS + 1)[:, None]
    column = 2 * np.arange(SIDE)[None, :] + 1
    return np.asarray(np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * row * column), np.float64)
