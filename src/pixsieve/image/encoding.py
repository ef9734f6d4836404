"""Images in another format, and how they were made."""
# ruff: noqa: PLR2004 - the numbers are the formats' own

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageFile

from pixsieve.errors import UsageError
from pixsieve.image.header import DEFAULT_LIMITS, ImageHeader
from pixsieve.image.pillow import load_image, open_image
from pixsieve.image.pixels import lay_over, plain_image, profile_space, upright
from pixsieve.image.problem import ImageProblemError, guarded
from pixsieve.schema import Problem

_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_MAX_SIDE = {"jpeg": 65_500, "png": 0x7FFF_FFFF, "webp": 16_383}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """How images are encoded that are not copied.

    Attributes:
        format: what is written.
        quality: 1 to 100, for jpeg and webp. 95 keeps a second lossy generation hard to see.
        subsampling: of colour, for jpeg.
        background: ``#rrggbb`` in lower case; what alpha is laid over, for jpeg.
    """

    format: Literal["jpeg", "png", "webp"]
    quality: int = 95
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
    background: str = "#ffffff"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the option, its value, and what is allowed.
        """
        if self.format not in _MAX_SIDE:
            raise UsageError(f"format is {self.format!r}; use one of {', '.join(_MAX_SIDE)}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality is {self.quality!r}; use a whole number from 1 to 100")
        if self.subsampling not in _SUBSAMPLINGS:
            raise UsageError(
                f"subsampling is {self.subsampling!r}; use one of {', '.join(_SUBSAMPLINGS)}"
            )
        if not _COLOUR.fullmatch(self.background):
            raise UsageError(
                f"background is {self.background!r}; use #rrggbb in lower case, such as #ffffff"
            )


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded image: its bytes, what its header says, and how it was made.

    ``encoding`` is one line of ``name=value`` words in a fixed order, such as
    ``jpeg quality=95 subsampling=4:2:0 from=png mode=RGBA>RGB background=#ffffff``; ``a>b`` reads
    "was a, is b". A word is there only where it applies.
    """

    data: bytes
    width: int
    height: int
    mode: str
    encoding: str


def check_encodable(header: ImageHeader, format: str) -> None:  # noqa: A002 - as in Pillow
    """Raise ImageProblemError (TOO_MANY_PIXELS) unless a format holds an image of this size."""
    if max(header.width, header.height) > _MAX_SIDE[format]:
        limit = f"{format} holds at most {_MAX_SIDE[format]} pixels a side"
    elif header.width * header.height > DEFAULT_LIMITS.max_pixels:
        limit = f"at most {DEFAULT_LIMITS.max_pixels} pixels can be encoded anew"
    else:
        return
    raise ImageProblemError(Problem.TOO_MANY_PIXELS, f"{header.width} x {header.height}; {limit}")


def encode(data: bytes | memoryview, header: ImageHeader, options: EncodeOptions) -> Encoded:
    """Decode the first frame in full and encode it anew, upright; equal input gives equal bytes.

    Pixels follow the rules of :func:`decode`, but PNG and WebP keep alpha, and PNG keeps 16-bit
    grey. An ICC profile is kept where it fits what is written, as its pixels are not converted; all
    other metadata (EXIF, XMP, comments) is left out.

    Raises:
        ImageProblemError: as :func:`check_decode`; TOO_MANY_PIXELS if a side is too long for the
            format.
    """
    check_encodable(header, options.format)
    with guarded(Problem.DECODE_FAILED):
        opened = open_image(data, header.format)
        depth = _depth(opened)  # known only until the pixels are loaded
        image = load_image(opened, header)
        profile, has_exif = image.info.get("icc_profile"), "exif" in image.info
        ready, background = _ready(image, options)
        ready = upright(ready, header)
        ready.info = {}  # or the encoders would write comments and colour keys from it
        lossy = options.format != "png"
        subsampled = options.format == "jpeg" and ready.mode == "RGB"
        fits = profile_space(profile) == (b"RGB " if ready.mode in {"RGB", "RGBA"} else b"GRAY")
        out = io.BytesIO()
        ready.save(
            out,
            options.format,
            icc_profile=profile if fits else None,
            **({"quality": options.quality} if lossy else {}),
            **({"subsampling": options.subsampling} if subsampled else {}),
        )
    icc = "kept" if fits else "applied" if profile_space(profile) == b"CMYK" else "dropped"
    words = {
        "quality": options.quality if lossy else None,
        "subsampling": options.subsampling if subsampled else None,
        "from": header.format,
        "mode": f"{image.mode}>{ready.mode}" if image.mode != ready.mode else None,
        "background": background,
        "orientation": f"{header.exif_orientation}>1" if header.exif_orientation > 1 else None,
        "depth": f"{depth}>8" if depth > 8 and ready.mode != "I;16" else None,
        "range": "stretched" if image.mode in {"I", "F"} else None,
        "frame": f"1/{header.frames}" if header.frames > 1 else None,
        "icc": icc if profile else None,
        "exif": "dropped" if has_exif else None,
    }
    made = [options.format, *(f"{name}={value}" for name, value in words.items() if value)]
    return Encoded(out.getvalue(), *ready.size, ready.mode, " ".join(made))


def _ready(image: Image.Image, options: EncodeOptions) -> tuple[Image.Image, str | None]:
    """Return an image in a mode that the format holds, and what alpha was laid over, if it was."""
    if (
        options.format == "png"
        and image.mode.startswith("I;16")
        and not image.has_transparency_data
    ):
        return Image.fromarray(np.asarray(image).astype(np.uint16)), None
    plain = plain_image(image)
    alpha = plain.mode in {"LA", "RGBA"}
    if options.format == "jpeg" and alpha:
        return lay_over(plain, options.background), options.background
    if options.format == "webp":
        # The encoder leaves out alpha that is opaque everywhere, so it is left out here, too.
        seen = alpha and plain.getchannel("A").getextrema() != (255, 255)
        return plain.convert("RGBA" if seen else "RGB"), None
    return plain, None


def _depth(image: ImageFile.ImageFile) -> int:
    """Return the bits per sample in the file of an image whose pixels are not loaded yet."""
    if any(";16" in str(tile.args) for tile in image.tile):
        return 16
    return 32 if image.mode in {"I", "F"} else 8
