"""BRISQUE: how far the statistics of a picture's fine structure are from those of good photographs.

Mittal, Moorthy, Bovik: "No-Reference Image Quality Assessment in the Spatial Domain", IEEE
Transactions on Image Processing 21 (12), 2012. Constants and borders are those of OpenCV's quality
module: 8-bit luma, a 7 x 7 Gaussian of sigma 7/6 with repeated borders, C = 1 level, and for the
second scale a cubic interpolation to half the size. The model is the one that its authors trained
on the LIVE data base, as the package ``brisque`` 0.2.0 carries it;
``tests/golden/make_brisque.py`` made ``brisque.npz`` of it.

No sum is left to a library that may share it out between threads: equal pixels give equal scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from pixsieve.stage import Needs, ScoreStage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pixsieve.stage import ImageBatch

    Floats = NDArray[np.float32]

LONGER_SIDE = 512
"""Images are looked at in this size, in pixels, or in their own if that is smaller."""

# The Gaussian in 1024ths, and the cubic kernel (a = -3/4) half-way between two pixels in 32nds: so
# what is flat in the image is exactly flat after filtering; no rounding error passes for texture.
_GAUSSIAN = np.array([13, 80, 243, 352], np.float32) / 1024
_CUBIC = np.array([-3, 19], np.float32) / 32
_STRIP = 32_768  # pixels at a time, so that all that belongs to them stays in the cache

_GRID = np.arange(200, 10_001) / 1000
"""Shapes that a distribution may have, as in the authors' release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrisqueStage(ScoreStage):
    """Adds ``brisque``: 0 (like a good photograph) to about 100 (badly distorted).

    Blur, blocking and noise raise it. It was trained on photographs: of drawings, text and
    screenshots it says little, and of what is like nothing that it has seen it says up to 156. The
    very best come out below 0. Images are looked at with the longer side at 512 pixels, so a blur
    that cannot be seen at that size does not count. Null where there is nothing to measure: a
    constant image, a line.
    """

    needs = Needs(pixels=LONGER_SIDE, gray=True)

    def adds(self) -> pa.Schema:
        metadata = {
            "scale": "0 to 100; may lie beyond both ends",
            "unit": "score",
            "better": "lower",
            "source": "BRISQUE (Mittal, Moorthy, Bovik 2012), its authors' model, in 512 pixels",
        }
        return pa.schema([pa.field("brisque", pa.float32(), metadata=metadata)])

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema, model = self.adds(), Model()

        def score(batch: ImageBatch) -> pa.RecordBatch:
            scores = [model.score(pixels) for pixels in batch.pixels]
            return pa.RecordBatch.from_arrays([pa.array(scores, pa.float32())], schema=schema)

        return score


class Model:
    """The trained regression, and the tables that finding features needs."""

    def __init__(self) -> None:
        file = resources.files("pixsieve.scorers").joinpath("brisque.npz")
        with resources.as_file(file) as path, np.load(path, allow_pickle=False) as data:
            self._vectors = data["vectors"].astype(np.float64)
            self._weights = data["weights"].astype(np.float64)
            self._low, self._high = data["low"], data["high"]
            self._gamma, self._rho = float(data["gamma"]), float(data["rho"])
        self._ratios = np.array(
            [math.gamma(2 / a) ** 2 / (math.gamma(1 / a) * math.gamma(3 / a)) for a in _GRID]
        )

    def score(self, gray: NDArray[np.uint8]) -> float | None:
        """Return the score of ``(H, W)`` luma of any size; ``None`` if nothing can be measured."""
        levels = _at_most(gray, LONGER_SIDE).astype(np.float32) - 128  # nearer to 0: rounds less
        features = [self._features(levels), self._features(_half(levels))]
        if features[0] is None or features[1] is None:
            return None
        scaled = 2 * (np.array(features).ravel() - self._low) / (self._high - self._low) - 1
        distances = ((self._vectors - scaled) ** 2).sum(axis=1)
        return float((self._weights * np.exp(-self._gamma * distances)).sum()) - self._rho

    def _features(self, levels: Floats) -> list[float] | None:
        """Return the 18 features of one scale.

        They tell how the normalised pixels, and products of neighbours in four directions, are
        distributed.
        """
        if min(levels.shape) < 2:  # noqa: PLR2004  # no neighbours in both directions
            return None
        fits = [self._fit(*sums) for sums in _sums(_normalised(levels))]
        found: list[float] = []
        for fit in fits:
            if fit is None:
                return None
            shape, left, right = fit
            if not found:
                found = [shape, (left + right) / 2]
                continue
            spread = math.gamma(2 / shape) / math.sqrt(
                math.gamma(1 / shape) * math.gamma(3 / shape)
            )
            found += [shape, (math.sqrt(right) - math.sqrt(left)) * spread, left, right]
        return found

    def _fit(
        self,
        size: float,
        absolute: float,
        squares: float,
        signed: float,
        below: float,
        above: float,
    ) -> tuple[float, float, float] | None:
        """Return an asymmetric generalised Gaussian's shape, and its variances left and right of 0.

        By matching moments (Lasmar, Stitou, Berthoumieu 2009). The arguments are the number of
        values, the sums of ``|x|``, ``x * x`` and ``x * |x|``, and how many are below and above 0.
        """
        left, right = (squares - signed) / 2, (squares + signed) / 2
        if not (below and above and left > 0 and right > 0):
            return None
        left, right = left / below, right / above
        skew = math.sqrt(left / right)
        ratio = (absolute / size) ** 2 / (squares / size)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        return float(np.interp(ratio, self._ratios, _GRID)), left, right


def _at_most(gray: NDArray[np.uint8], longer: int) -> NDArray[np.uint8]:
    height, width = gray.shape
    if max(height, width) <= longer:
        return gray
    size = tuple(max(1, round(side * longer / max(height, width))) for side in (width, height))
    image = Image.fromarray(gray).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


def _strips(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    height, width = shape
    step = max(8, _STRIP // width)
    yield from ((start, min(start + step, height)) for start in range(0, height, step))


def _normalised(levels: Floats) -> Floats:
    """Return each pixel's distance from the mean around it, in local deviations plus one level."""
    padded = np.pad(levels, 3, mode="edge")
    found = np.empty_like(levels)
    for start, stop in _strips(levels.shape):
        strip = padded[start : stop + 6]
        mean = _blurred(strip)
        spread = _blurred(strip * strip)
        distance = np.subtract(levels[start:stop], mean, out=found[start:stop])
        mean *= mean
        spread -= mean
        np.abs(spread, out=spread)
        np.sqrt(spread, out=spread)
        spread += 1
        distance /= spread
    return found


def _blurred(padded: Floats) -> Floats:
    """Return the Gaussian mean of a strip that has three pixels more on every side."""
    height, width = padded.shape[0] - 6, padded.shape[1] - 6
    down = padded[3 : height + 3] * _GAUSSIAN[3]
    pair = np.empty_like(down)
    for k in range(3):
        np.add(padded[k : height + k], padded[6 - k : height + 6 - k], out=pair)
        pair *= _GAUSSIAN[k]
        down += pair
    across: Floats = down[:, 3 : width + 3] * _GAUSSIAN[3]
    pair = np.empty_like(across)
    for k in range(3):
        np.add(down[:, k : width + k], down[:, 6 - k : width + 6 - k], out=pair)
        pair *= _GAUSSIAN[k]
        across += pair
    return across


def _half(levels: Floats) -> Floats:
    """Return half the size by cubic interpolation; an odd last row or column is left out."""
    height, width = levels.shape[0] // 2 * 2, levels.shape[1] // 2 * 2
    p = np.pad(levels, 1, mode="edge")
    outer, inner = _CUBIC
    p = (p[0:height:2] + p[3 : height + 3 : 2]) * outer + (
        p[1 : height + 1 : 2] + p[2 : height + 2 : 2]
    ) * inner
    halved: Floats = (p[:, 0:width:2] + p[:, 3 : width + 3 : 2]) * outer + (
        p[:, 1 : width + 1 : 2] + p[:, 2 : width + 2 : 2]
    ) * inner
    return halved


def _sums(values: Floats) -> NDArray[np.float64]:
    """Return what :meth:`Model._fit` takes for the values and four products of neighbours, (5, 6).

    The neighbours are the one to the right, the one below, and those on both diagonals below.
    """
    strips = []
    for start, stop in _strips(values.shape):
        here, more = values[start:stop], values[start : stop + 1]
        upper, lower = more[:-1], more[1:]
        strips.append(
            [
                _moments(here),
                _moments(here[:, :-1] * here[:, 1:]),
                _moments(upper * lower),
                _moments(upper[:, :-1] * lower[:, 1:]),
                _moments(lower[:, :-1] * upper[:, 1:]),
            ]
        )
    sums: NDArray[np.float64] = np.array(strips, np.float64).sum(axis=0)
    return sums


def _moments(values: Floats) -> tuple[float, ...]:
    x = values.ravel()
    absolute = np.abs(x)
    return (
        x.size,
        float(absolute.sum()),
        float((x * x).sum()),
        float((x * absolute).sum()),
        int(np.count_nonzero(x < 0)),
        int(np.count_nonzero(x > 0)),
    )
