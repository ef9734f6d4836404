"""Pixels converted to sRGB by their ICC profile."""

from __future__ import annotations

import contextlib
import functools
import io
from typing import TYPE_CHECKING

from PIL import Image, ImageCms

if TYPE_CHECKING:
    from collections.abc import Callable


def profile_space(profile: bytes | None) -> bytes:
    """Return the colour space an ICC profile is for, such as ``b"RGB "`` (ICC.1:2022, 7.2.8)."""
    return profile[16:20] if profile and profile[36:40] == b"acsp" else b""


def is_other(profile: bytes | None) -> bool:
    """Return whether a profile for RGB or grey is one for another space than sRGB.

    What calls itself sRGB counts as that; a broken one is as good as none.
    """
    if profile is None or profile_space(profile) not in {b"RGB ", b"GRAY"}:
        return False
    with contextlib.suppress(ImageCms.PyCMSError, OSError):
        return "srgb" not in ImageCms.getProfileDescription(_opened(profile)).lower()
    return False


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image with the perceptual intent; profiles without one have but one intent.

    Alpha stays as it is, and grey stays grey. A profile that does not fit the image, or is broken,
    leaves it as it is.

    Args:
        image: mode L, LA, RGB or RGBA; CMYK comes out as RGB.
        profile: ICC profile of the pixels.
    """
    fitting = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(profile_space(profile))
    colours = image.mode.removesuffix("A")
    if colours != fitting:
        return image
    alpha = image.getchannel("A") if image.mode.endswith("A") else None
    with contextlib.suppress(ImageCms.PyCMSError, OSError):
        converted = _transform(profile, colours)(image.convert(colours))
        if colours == "L":
            converted = converted.convert("L")
        if alpha is not None:
            converted.putalpha(alpha)
        return converted
    return image


def _opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Callable[[Image.Image], Image.Image]:
    """Return the conversion; images of one camera share their profile, and its set-up is dear."""
    made = ImageCms.buildTransform(_opened(profile), ImageCms.createProfile("sRGB"), mode, "RGB")

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, made)
        return image if converted is None else converted

    return convert
