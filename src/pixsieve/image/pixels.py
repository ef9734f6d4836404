"""Upright 8-bit pixels, by the same rules for every format."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from pixsieve.image.check import open_whole, turbo
from pixsieve.image.pillow import load_image
from pixsieve.image.problem import guarded
from pixsieve.image.srgb import to_srgb
from pixsieve.schema import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.image.header import ImageHeader

_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image of each EXIF orientation upright."""


def decode(
    data: bytes | memoryview,
    header: ImageHeader,
    *,
    min_side: int | None = None,
    gray: bool = False,
) -> NDArray[np.uint8]:
    """Decode the first frame to upright 8-bit pixels, by the same rules for every format.

    Alpha and colour keys are laid over white. 16 bits become 8 by dropping the lower byte; 32-bit
    and float values are stretched from the smallest to the largest finite one. CMYK goes to sRGB by
    its ICC profile, or by ``(255 - ink) * (255 - black) / 255`` if it has none; other profiles are
    not applied.

    Args:
        data: the encoded image.
        header: what :func:`probe` found in ``data``.
        min_side: shorter side, in pixels, that is enough. The result is scaled by the smallest of
            1/8, 1/4, 1/2 and 1 that keeps it (JPEG while decoding, others by averaging); sizes are
            rounded up.
            None: full size.
        gray: luma (ITU-R BT.601) in place of RGB.

    Returns:
        (height, width, 3), or (height, width) if ``gray``.

    Raises:
        ImageProblemError: as :func:`check_decode`.
    """
    factor = scale(header, min_side)
    turn = _TRANSPOSE.get(header.exif_orientation)
    with guarded(Problem.DECODE_FAILED):
        if header.format == "jpeg" and header.mode != "CMYK":
            pixels = turbo(data, header, "GRAY" if gray else "RGB", factor, fast=False)
            if pixels is not None:
                pixels = pixels[..., 0] if gray else pixels
                if turn is None:
                    return pixels
                return np.array(Image.fromarray(pixels).transpose(turn))
        opened = open_whole(data, header)
        image = lay_over(plain_image(load_image(opened, header)), "#ffffff").convert(
            "L" if gray else "RGB"
        )
        if factor > 1:
            image = image.reduce(factor)
        return np.array(upright(image, header))


def scale(header: ImageHeader, min_side: int | None) -> int:
    """Return by what :func:`decode` divides the sides for ``min_side``: 1, 2, 4 or 8."""
    shorter = min(header.width, header.height)
    if min_side is None:
        return 1
    return next((f for f in (8, 4, 2) if -(-shorter // f) >= min_side), 1)


def upright(image: Image.Image, header: ImageHeader) -> Image.Image:
    turn = _TRANSPOSE.get(header.exif_orientation)
    return image if turn is None or header.format == "tiff" else image.transpose(turn)


def plain_image(image: Image.Image) -> Image.Image:
    """Return the pixels as L, LA, RGB or RGBA of 8 bits, by the rules of :func:`decode`."""
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    mode, alpha = image.mode, image.has_transparency_data
    if mode.startswith("I;16"):
        deep = np.asarray(image)
        plain = Image.fromarray((deep >> 8).astype(np.uint8))
        if alpha:
            opaque = deep != image.info["transparency"]
            plain.putalpha(Image.fromarray(opaque.astype(np.uint8) * np.uint8(255)))
        return plain
    if mode in {"I", "F"}:
        return Image.fromarray(_stretch(np.asarray(image)))
    if mode == "CMYK":
        return _cmyk_to_srgb(image)
    if mode in {"1", "L", "LA"}:
        return _as_mode(image, "LA" if alpha else "L")
    return _as_mode(image, "RGBA" if alpha else "RGB")


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image, without the copy that Pillow makes of one that has the mode already."""
    return image if image.mode == mode else image.convert(mode)


def _stretch(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale to 0 to 255, some rows at a time: in float64 a large image would not fit in memory."""
    blocks = [slice(row, row + _STRETCHED_ROWS) for row in range(0, len(values), _STRETCHED_ROWS)]
    low, high = math.inf, -math.inf
    for block in blocks:
        part = values[block].astype(np.float64)
        finite = part[np.isfinite(part)]
        low, high = finite.min(initial=low), finite.max(initial=high)
    if low > high:  # no value is finite
        low = high = 0.0
    # Halved first: the distance between two finite values may not be finite.
    span = (high / 2 - low / 2) or 1.0
    stretched = np.empty(values.shape, np.uint8)
    for block in blocks:
        part = np.nan_to_num(values[block].astype(np.float64), nan=low).clip(low, high)
        stretched[block] = np.rint((part / 2 - low / 2) / span * 255)
    return stretched


_STRETCHED_ROWS = 256


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    return to_srgb(image, image.info.get("icc_profile") or b"").convert("RGB")


def lay_over(image: Image.Image, background: str) -> Image.Image:
    """Lay an image with alpha over a colour; one without stays as it is."""
    if image.mode not in {"LA", "RGBA"}:
        return image
    below = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(below, _as_mode(image, "RGBA")).convert("RGB")
