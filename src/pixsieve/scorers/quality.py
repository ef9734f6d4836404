"""Technical measures of an image, and flags for what is plainly wrong with it.

Everything is measured on the shared decode, by whole-number arithmetic as far as it goes, so equal
images have equal measures. What is a matter of distribution (brightness, colour) is measured on a
grid of pixels, all of them if the image is small; what is a matter of place (sharpness, blur) on
luma that is halved until it is small. The border is looked for in the pixels as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageFilter

from pixsieve.errors import PlanError
from pixsieve.scorers import jpeg_tables, luma
from pixsieve.stage import Needs, ScoreStage

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from numpy.typing import NDArray

    from pixsieve.stage import ImageBatch

    Pixels = NDArray[np.uint8]

SAMPLE_SIDE: Final = 96
"""Pixels that the grid has in each direction: up to twice as many, or as the image has."""
SHARPNESS_SIDE: Final = 176
"""Shorter side, in pixels, at which sharpness is measured."""
BLUR_SIDE: Final = 64
"""Longer side, in pixels, at which CleanVision looks for blur."""
OVEREXPOSED: Final = 250
"""Luma from here to 255 counts as overexposed, from 0 to ``UNDEREXPOSED`` as underexposed."""
UNDEREXPOSED: Final = 5
GRAY_TOLERANCE: Final = 8
"""Levels by which the channels of a pixel may differ in a grey image: what JPEG does to chroma."""
BORDER_TOLERANCE: Final = 10
"""Levels by which pixels of a border may differ from its corner: what JPEG does beside an edge."""

_STORED_GRAY = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_GOLDEN = (math.sqrt(5) - 1) / 2
_LEVELS = np.arange(256)

_HASLER = "Hasler and Suesstrunk, Measuring colourfulness in natural images, 2003"
_CLEANVISION = "CleanVision 0.3.7"
_COLUMNS: Final = {  # the type, and the values of the metadata's scale, unit, better and source
    "brightness": ("float", "0 to 1", "share of white", "neither", "mean BT.601 luma"),
    "contrast": (
        "float", "0 to 0.5", "share of white", "neither",
        "standard deviation of BT.601 luma (RMS contrast, Peli 1990)",
    ),
    "entropy": (
        "float", "0 to 8", "bits", "neither", "Shannon entropy of the histogram of BT.601 luma",
    ),
    "colourfulness": ("float", "0 to about 190", "levels of 255", "neither", _HASLER),
    "overexposed": (
        "float", "0 to 1", "share of pixels", "lower", f"BT.601 luma of {OVEREXPOSED} or more",
    ),
    "underexposed": (
        "float", "0 to 1", "share of pixels", "lower", f"BT.601 luma of {UNDEREXPOSED} or less",
    ),
    "is_gray": (
        "bool", "false or true", "", "neither",
        f"no channels of a pixel differ by more than {GRAY_TOLERANCE} levels",
    ),
    "sharpness": (
        "float", "0 and up", "squared levels of 255", "higher",
        f"variance of the Laplacian of BT.601 luma whose shorter side has {SHARPNESS_SIDE} pixels",
    ),
    "border": (
        "float", "0 to 1", "share of the area", "lower",
        f"rows and columns at the edges of one colour, give or take {BORDER_TOLERANCE} levels",
    ),
    "jpeg_quality": (
        "int", "1 to 100", "IJG quality setting", "higher",
        "nearest scaling of the standard quantisation tables; null for other formats",
    ),
    "aspect_ratio": ("float", "above 0", "width / height", "neither", "upright size"),
    "megapixels": ("float", "above 0", "million pixels", "higher", "width * height"),
    "dark_score": (
        "float", "0 to 1", "", "higher", f"{_CLEANVISION}: 99th percentile of brightness",
    ),
    "light_score": (
        "float", "0 to 1", "", "higher", f"{_CLEANVISION}: 1 - 5th percentile of brightness",
    ),
    "low_information_score": (
        "float", "0 to 1", "", "higher", f"{_CLEANVISION}: entropy of all channels / 10 bits",
    ),
    "blurry_score": (
        "float", "0 to 1", "", "higher", f"{_CLEANVISION}: edges and greys in {BLUR_SIDE} pixels",
    ),
    "odd_aspect_ratio_score": (
        "float", "0 to 1", "shorter / longer side", "higher", _CLEANVISION,
    ),
    "is_grayscale": (
        "bool", "false or true", "", "neither", "stored as grey, whatever the pixels show",
    ),
}  # fmt: skip
_FLAGS = ("dark", "light", "low_information", "blurry", "odd_aspect_ratio")
_TYPES = {"float": pa.float32(), "bool": pa.bool_(), "int": pa.int32()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQualityStage(ScoreStage):
    """Adds technical measures, and flags as CleanVision sets them.

    Measures:
        brightness, contrast: mean and standard deviation of luma, as shares of white.
        entropy: of the histogram of luma, 0 (one grey) to 8 bits.
        colourfulness: ``sqrt(var rg + var yb) + 0.3 * sqrt(mean(rg)^2 + mean(yb)^2)`` with
            ``rg = R - G`` and ``yb = (R + G) / 2 - B`` (Hasler and Süsstrunk 2003): 0 for grey,
            about 15 for slightly, 45 for quite, 109 for extremely colourful.
        overexposed, underexposed: shares of pixels with luma from 250 and up to 5.
        is_gray: whether the pixels show no colour, however they are stored.
        sharpness: variance of ``left + right + above + below - 4 * centre`` of luma, in levels,
            over all pixels that have four neighbours (Pech-Pacheco et al. 2000), once the image is
            shrunk (means of areas) to a shorter side of 176 pixels; it is never enlarged. Null if
            no pixel has four neighbours.
        border: share of the area in rows at the top and bottom, then columns at the left and right,
            whose pixels all are of the colour of the edge's first pixel. 1 for one single colour.
        jpeg_quality: the setting of the last encoder, from the file's quantisation tables; null for
            other formats. See :mod:`pixsieve.scorers.jpeg_tables`.
        aspect_ratio, megapixels: of the whole image, upright.

    Each flag is a score of CleanVision 0.3.7, 0 (worst) to 1, below a threshold:
        is_dark: ``dark_score``: 99th percentile of ``sqrt(.241 R^2 + .691 G^2 + .068 B^2) / 255``.
        is_light: ``light_score``: 1 minus the 5th percentile of the same.
        is_low_information: ``low_information_score``: entropy of the histogram of all channels
            together, times 0.1, at most 1.
        is_blurry: ``blurry_score``: ``min(1, 1 - exp(-e / 100) + s)`` of luma whose longer side
            has 64 pixels; e is the standard deviation of its edges (Pillow's ``FIND_EDGES``), and
            ``s = 1 - exp(-h / 100)`` with that of the 256 counts of its histogram as h, or 0 if s
            is at most 0.18.
        is_odd_aspect_ratio: ``odd_aspect_ratio_score``: shorter divided by longer side.
        is_grayscale: no score: whether the file stores grey alone.
        CleanVision's odd size needs the whole dataset: see ``OddSizeStage``.

    Args:
        dark_threshold: All defaults are those of CleanVision. Other thresholds set other flags, and
            measure nothing anew.
        light_threshold: Of ``light_score``.
        low_information_threshold: Of ``low_information_score``.
        blurry_threshold: Of ``blurry_score``.
        odd_aspect_ratio_threshold: Of ``odd_aspect_ratio_score``.
    """

    dark_threshold: float = 0.32
    light_threshold: float = 0.05
    low_information_threshold: float = 0.3
    blurry_threshold: float = 0.29
    odd_aspect_ratio_threshold: float = 0.35

    needs = Needs(encoded=True, pixels=2 * luma.SIDE)

    def reads(self) -> tuple[str, ...]:
        return ("width", "height", "mode")

    def adds(self) -> pa.Schema:
        return pa.schema(
            [
                pa.field(
                    name,
                    _TYPES[kind],
                    metadata={"scale": scale, "unit": unit, "better": better, "source": source},
                )
                for name, (kind, scale, unit, better, source) in _COLUMNS.items()
            ]
        )

    def check(self, columns: pa.Schema) -> None:  # noqa: ARG002
        for name, threshold in self._thresholds().items():
            if not 0 <= threshold <= 1:
                msg = (
                    f"{name}_threshold is {threshold:g}, but {name}_score is on a scale from 0 to "
                    f"1; choose a number in it (0 flags nothing)"
                )
                raise PlanError(msg)

    def _thresholds(self) -> dict[str, float]:
        return {name: getattr(self, f"{name}_threshold") for name in _FLAGS}

    def companion(self) -> ScoreStage:
        return QualityFlagsStage(**self._thresholds())

    def alone(self) -> Self:
        return type(self)()

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema = self.adds()

        def score(batch: ImageBatch) -> pa.RecordBatch:
            columns = (batch.rows[name].to_pylist() for name in self.reads())
            rows = [
                measure(pixels, encoded, width, height, mode)
                for pixels, encoded, width, height, mode in zip(
                    batch.pixels, batch.encoded, *columns, strict=True
                )
            ]
            arrays = [
                pa.array([row[name] for row in rows], kind)
                for name, kind in zip(schema.names, schema.types, strict=True)
            ]
            return pa.RecordBatch.from_arrays(arrays, schema=schema)

        return score


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFlagsStage(ScoreStage):
    """Adds the flags of :class:`ImageQualityStage`, from its scores: ``is_dark`` and the others.

    Args:
        dark: Images with a ``dark_score`` below it are flagged; likewise the others.
    """

    dark: float
    light: float
    low_information: float
    blurry: float
    odd_aspect_ratio: float

    def reads(self) -> tuple[str, ...]:
        return tuple(f"{name}_score" for name in _FLAGS)

    def adds(self) -> pa.Schema:
        return pa.schema(
            [
                pa.field(
                    f"is_{name}",
                    pa.bool_(),
                    metadata={
                        "scale": "false or true",
                        "unit": "",
                        "better": "lower",
                        "source": f"{name}_score below {getattr(self, name):g}",
                    },
                )
                for name in _FLAGS
            ]
        )

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema = self.adds()

        def score(batch: ImageBatch) -> pa.RecordBatch:
            arrays = [
                pc.less(batch.rows[f"{name}_score"], pa.scalar(getattr(self, name), pa.float32()))
                for name in _FLAGS
            ]
            return pa.RecordBatch.from_arrays(arrays, schema=schema)

        return score


Measures = dict[str, float | int | bool | None]


def measure(pixels: Pixels, encoded: bytes, width: int, height: int, mode: str) -> Measures:
    """Return all measures and scores of one image.

    Args:
        pixels: ``(H, W, 3)`` RGB, of whatever scale.
        encoded: The image's bytes.
        width: Of the whole image, in pixels, upright.
        height: Likewise.
        mode: Pillow's name for the pixels as the file stores them.
    """
    stored_gray = mode in _STORED_GRAY
    small = luma.small_luma(pixels)
    large = small if min(small.shape) >= SHARPNESS_SIDE else luma.fine_luma(pixels)
    return {
        **_distribution(_sample(pixels), stored_gray=stored_gray),
        "sharpness": _sharpness(_shrunk(large, SHARPNESS_SIDE)),
        "border": _border(pixels),
        "jpeg_quality": jpeg_tables.quality(encoded),
        "aspect_ratio": width / height,
        "megapixels": width * height / 1e6,
        "blurry_score": _blurry_score(Image.fromarray(small), width, height),
        "odd_aspect_ratio_score": min(width / height, height / width),
        "is_grayscale": stored_gray,
    }


def _sample(pixels: Pixels) -> Pixels:
    """Return a grid of pixels, its rows at changing distances, so that no pattern hides from it."""
    height, width = pixels.shape[:2]
    across = max(1, width // SAMPLE_SIDE)
    down = max(1, height // SAMPLE_SIDE)
    if across == down == 1:
        return pixels
    number = np.arange(height // down)
    rows = pixels[number * down + (number * _GOLDEN % 1 * down).astype(np.int64)]
    whole = rows.view("V3")[:, ::across]  # a pixel as one item is copied faster
    return np.ascontiguousarray(whole).view(np.uint8).reshape(len(rows), -1, 3)


def _distribution(pixels: Pixels, *, stored_gray: bool) -> Measures:
    """Return what does not depend on where the pixels are."""
    image = Image.fromarray(pixels)
    grays = np.array(image.convert("L").histogram())
    channels = grays if stored_gray else np.array(image.histogram())  # as CleanVision has it
    mean, variance = _of_histogram(grays)
    r, g, b = np.ascontiguousarray(pixels.reshape(-1, 3).T)
    red, green, blue = (band.astype(np.int16) for band in (r, g, b))
    rg, gb = red - green, green - blue
    mean_rg, var_rg = _mean_and_variance(rg)
    mean_yb, var_yb = _mean_and_variance(rg + 2 * gb)  # R + G - 2 B, twice yb
    brightness = _squared_brightness(r, g, b)
    return {
        "brightness": mean / 255,
        "contrast": math.sqrt(variance) / 255,
        "entropy": _entropy(grays),
        "colourfulness": math.sqrt(var_rg + var_yb / 4)
        + 0.3 * math.sqrt(mean_rg**2 + mean_yb**2 / 4),
        "overexposed": int(grays[OVEREXPOSED:].sum()) / r.size,
        "underexposed": int(grays[: UNDEREXPOSED + 1].sum()) / r.size,
        "is_gray": _spread(rg) <= GRAY_TOLERANCE and _spread(gb) <= GRAY_TOLERANCE,
        "dark_score": _percentile(brightness, 99),
        "light_score": 1 - _percentile(brightness, 5),
        "low_information_score": min(1.0, 0.1 * _entropy(channels)),
    }


def _of_histogram(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the mean and the variance of levels, from sums of whole numbers."""
    size, total, squares = (int(counts @ _LEVELS**power) for power in range(3))
    return total / size, (size * squares - total * total) / size**2


def _mean_and_variance(values: NDArray[np.integer]) -> tuple[float, float]:
    """Return both, from sums of whole numbers, which no order of adding rounds."""
    wide = values.ravel().astype(np.float64)
    squares = int(np.einsum("i,i", wide, wide))  # `@` starts threads that cost more than they save
    total = int(wide.sum())
    return total / wide.size, (wide.size * squares - total * total) / wide.size**2


def _spread(values: NDArray[np.int16]) -> int:
    return max(int(values.max()), -int(values.min()))


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return max(0.0, -float((shares * np.log2(shares)).sum()))  # and never -0


def _squared_brightness(r: Pixels, g: Pixels, b: Pixels) -> NDArray[np.int32]:
    """Return 1000 times the square of what CleanVision calls brightness, in levels."""
    weighted = np.zeros(r.shape, np.int32)
    for band, weight in ((r, 241), (g, 691), (b, 68)):
        wide = band.astype(np.int32)
        wide *= wide
        wide *= weight
        weighted += wide
    return weighted


def _percentile(squared: NDArray[np.int32], percent: int) -> float:
    """Return a percentile of brightness, 0 to 1, between two pixels as ``numpy.percentile``."""
    at, rest = divmod(percent * (squared.size - 1), 100)
    parted = np.partition(squared, at)
    low = high = int(parted[at])
    if rest:
        high = int(parted[at + 1 :].min())
    low_root, high_root = (math.sqrt(value / 1000) / 255 for value in (low, high))
    return low_root + (high_root - low_root) * rest / 100


def _shrunk(gray: Pixels, side: int) -> Pixels:
    height, width = gray.shape
    share = side / min(height, width)
    if share >= 1:
        return gray
    size = (round(width * share), round(height * share))
    return np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX))


def _sharpness(gray: Pixels) -> float | None:
    if min(gray.shape) < 3:  # noqa: PLR2004  # a pixel and its two neighbours
        return None
    g = gray.astype(np.int16)
    laplacian = g[1:-1, 1:-1] * np.int16(-4)
    for neighbours in (g[:-2, 1:-1], g[2:, 1:-1], g[1:-1, :-2], g[1:-1, 2:]):
        laplacian += neighbours
    return _mean_and_variance(laplacian)[1]


def _blurry_score(gray: Image.Image, width: int, height: int) -> float:
    ratio = max(width, height) / BLUR_SIDE
    if ratio > 1:
        size = (max(int(width // ratio), 1), max(int(height // ratio), 1))
        gray = gray.resize(size, Image.Resampling.BICUBIC)
    _, edges = _of_histogram(np.array(gray.filter(ImageFilter.FIND_EDGES).histogram()))
    _, uneven = _mean_and_variance(np.array(gray.histogram()))
    edges, spread = 1 - math.exp(-0.01 * math.sqrt(edges)), 1 - math.exp(-0.01 * math.sqrt(uneven))
    return min(1.0, edges + (spread if spread > 0.18 else 0))  # noqa: PLR2004  # CleanVision's


def _border(pixels: Pixels) -> float:
    height, width = pixels.shape[:2]
    top = _uniform_rows(pixels)
    bottom = _uniform_rows(pixels[::-1])
    if top + bottom >= height:
        return 1.0
    left, right = _uniform_columns(pixels[top : height - bottom])
    inner = (height - top - bottom) * max(0, width - left - right)
    return float(1 - inner / (height * width))


def _uniform_rows(pixels: Pixels) -> int:
    """Return how many of the first rows are of the colour of the first pixel."""
    if not _alike(pixels[0]):
        return 0
    colour, size = pixels[0, 0].astype(np.int16), pixels[0].size
    # As long as a row: that is compared faster than three by three.
    low = np.resize((colour - BORDER_TOLERANCE).clip(0, 255).astype(np.uint8), size)
    high = np.resize((colour + BORDER_TOLERANCE).clip(0, 255).astype(np.uint8), size)
    found, step = 0, 1
    while found < len(pixels):  # in growing steps: borders are short, or absent
        block = pixels[found : found + step].reshape(-1, size)
        other = ((block < low) | (block > high)).any(axis=1)
        if other.any():
            return found + int(other.argmax())
        found, step = found + len(block), 2 * step
    return found


def _uniform_columns(pixels: Pixels) -> tuple[int, int]:
    """Return how many of the first, and of the last columns are of the colour of their top."""
    sides = [_alike(pixels[:, 0]), _alike(pixels[:, -1])]
    if not any(sides):
        return 0, 0
    rows = pixels.reshape(len(pixels), -1)
    low = rows.min(axis=0).reshape(-1, 3).astype(np.int16)
    high = rows.max(axis=0).reshape(-1, 3).astype(np.int16)
    found = []
    for order in (slice(None), slice(None, None, -1)):
        colour = pixels[0, order][0].astype(np.int16)
        fits = (low >= colour - BORDER_TOLERANCE) & (high <= colour + BORDER_TOLERANCE)
        other = ~fits.all(axis=1)[order]
        found.append(int(other.argmax()) if other.any() else len(other))
    return found[0], found[1]


def _alike(line: Pixels) -> bool:
    """Return whether some pixels of a line are of one colour; in most images they are not."""
    some = line[:: max(1, len(line) // 8)].astype(np.int16)
    return int(np.abs(some - some[0]).max()) <= BORDER_TOLERANCE
