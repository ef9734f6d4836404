"""Perceptual hashes: images that look alike have hashes that differ in few bits."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from pixsieve.scorers.luma import small_luma
from pixsieve.scorers.pdq import pdq
from pixsieve.stage import Needs, ScoreStage

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from numpy.typing import NDArray

    from pixsieve.stage import ImageBatch

_SIDE, _LOW = 32, 8
_REDUCING_GAP = 3.0
"""Pillow shrinks by averaging down to three times the size, then filters: a fifth of the time."""
_COSINE_BITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PerceptualHashStage(ScoreStage):
    """Adds ``phash`` and ``dhash``, and with ``pdq`` also ``pdq`` and ``pdq_quality``.

    Args:
        pdq: Add PDQ's 256 bits, which tell more and cost more.

    ``phash`` (8 bytes): the 8 x 8 lowest frequencies of the DCT of 32 x 32 grey pixels, each above
    the median of them or not; row by row, the first bit is the constant part. Source:
    imagehash.phash. ``dhash`` (8 bytes): 9 x 8 grey pixels, each brighter than its left neighbour
    or not; row by row. Source: imagehash.dhash. ``pdq`` (32 bytes) and ``pdq_quality`` (0 to 100;
    below 50 a hash tells little): see :mod:`pixsieve.scorers.pdq`.

    All arithmetic that decides a bit is in integers, or rounded far below what could, so that
    hashes are the same on every machine and in every version.
    """

    pdq: bool = False

    needs = Needs(pixels=512)

    def adds(self) -> pa.Schema:
        return pa.schema(
            [
                _field("phash", pa.binary(8), "64-bit DCT hash, as imagehash.phash"),
                _field("dhash", pa.binary(8), "64-bit difference hash, as imagehash.dhash"),
            ]
        )

    def companion(self) -> ScoreStage | None:
        return PdqStage() if self.pdq else None

    def alone(self) -> Self:
        return type(self)()

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema = self.adds()

        def score(batch: ImageBatch) -> pa.RecordBatch:
            images = [reduced(pixels) for pixels in batch.pixels]
            hashes = [[phash(image) for image in images], [dhash(image) for image in images]]
            arrays = [pa.array(found, pa.binary(8)) for found in hashes]
            return pa.RecordBatch.from_arrays(arrays, schema=schema)

        return score


@dataclass(frozen=True, slots=True, kw_only=True)
class PdqStage(ScoreStage):
    """Adds ``pdq`` and ``pdq_quality``, for :class:`PerceptualHashStage`."""

    needs = Needs(pixels=512)

    def adds(self) -> pa.Schema:
        source = "PDQ, Meta 2019"
        quality = {"scale": "0 to 100", "unit": "", "better": "higher", "source": source}
        return pa.schema(
            [
                _field("pdq", pa.binary(32), source),
                pa.field("pdq_quality", pa.int32(), metadata=quality),
            ]
        )

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema = self.adds()

        def score(batch: ImageBatch) -> pa.RecordBatch:
            found = [pdq(_luma(pixels)) for pixels in batch.pixels]
            columns = [[bits for bits, _ in found], [quality for _, quality in found]]
            arrays = [
                pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)
            ]
            return pa.RecordBatch.from_arrays(arrays, schema=schema)

        return score


def reduced(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return the luma of ``(H, W, 3)`` RGB, small, but three times as large as any hash looks at.

    Both hashes take it; filtering starts from means of blocks then, at a fraction of the time.
    """
    image = Image.fromarray(small_luma(pixels))
    factor = min(image.size) // round(_REDUCING_GAP * _SIDE)
    return image.reduce(factor) if factor > 1 else image


def _luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).convert("L"))


def phash(image: Image.Image) -> bytes:
    """Return the DCT hash of a grey image: 8 bytes."""
    pixels = np.asarray(_shrunk(image, (_SIDE, _SIDE)), np.float64)
    cosines = _cosines()
    low = (cosines @ pixels @ cosines.T).ravel()  # whole numbers below 2**53: exact in any order
    middle = np.sort(low)
    return np.packbits(2 * low > middle[31] + middle[32]).tobytes()


def dhash(image: Image.Image) -> bytes:
    """Return the difference hash of a grey image: 8 bytes."""
    pixels = np.asarray(_shrunk(image, (_LOW + 1, _LOW)), np.int16)
    return np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes()


def _shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)


@functools.cache
def _cosines() -> NDArray[np.float64]:
    """Return the lowest rows of the DCT-II, times 2**16, as whole numbers: (8, 32)."""
    row = np.arange(_LOW)[:, None]
    column = 2 * np.arange(_SIDE)[None, :] + 1
    exact = np.cos(np.pi * row * column / (2 * _SIDE))
    return np.asarray(np.rint(exact * 2**_COSINE_BITS), np.float64)


def _field(name: str, kind: pa.DataType, source: str) -> pa.Field:
    metadata = {"scale": "bits", "unit": "Hamming distance", "better": "neither", "source": source}
    return pa.field(name, kind, metadata=metadata)
