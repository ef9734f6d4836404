"""Images in another format, and how they were made."""
# ruff: noqa: PLR2004 - the numbers are the formats' own

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFile, JpegImagePlugin

from pixsieve.errors import UsageError
from pixsieve.image.check import turbo
from pixsieve.image.containers import riff_chunks
from pixsieve.image.header import DEFAULT_LIMITS, ImageHeader
from pixsieve.image.pillow import load_image, open_image
from pixsieve.image.pixels import lay_over, plain_image, upright
from pixsieve.image.problem import ImageProblemError, guarded
from pixsieve.image.resize import Filter, Layout, reduction, resize
from pixsieve.image.srgb import is_other, profile_space, to_srgb
from pixsieve.schema import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
MAX_SIDE = {"jpeg": 65_500, "png": 0x7FFF_FFFF, "webp": 16_383, "avif": 32_768}
"""Pixels a side that a format holds, and its usual decoders take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """How images are encoded that are not copied.

    Attributes:
        format: what is written.
        quality: 1 to 100, for jpeg, webp and avif. 95 keeps a second lossy generation hard to see.
        subsampling: of colour, for jpeg and avif.
        progressive: several scans, from coarse to fine, for jpeg.
        background: ``#rrggbb`` in lower case; what alpha is laid over, for jpeg, and the colour of
            borders.
    """

    format: Literal["jpeg", "png", "webp", "avif"]
    quality: int = 95
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
    progressive: bool = False
    background: str = "#ffffff"

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: names the option, its value, and what is allowed.
        """
        if self.format not in MAX_SIDE:
            raise UsageError(f"format is {self.format!r}; use one of {', '.join(MAX_SIDE)}")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What becomes of pixels between decoding and encoding; of none there is a second decode.

    Attributes:
        layout: Sides to resize to.
        shrink: The filter for that.
        srgb: Convert to sRGB, by the ICC profile. Without one the pixels count as sRGB already.
        as_it_was: Encode in the manner of the source, not by the options: a JPEG by its own
            quantisation tables, with its own subsampling where Pillow has it, so that it is as fine
            and as large as before; a lossless WebP without loss.
    """

    layout: Layout | None = None
    shrink: Filter = "area"
    srgb: bool = False
    as_it_was: bool = False


_NO_CHANGES = Changes()


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
    exif_orientation: int = 1


def check_encodable(
    header: ImageHeader,
    format: str,  # noqa: A002 - as in Pillow
    size: tuple[int, int] | None = None,
) -> None:
    """Raise ImageProblemError (TOO_MANY_PIXELS) unless an image can be encoded in a format.

    ``size`` are the sides that it will have, if not its own.
    """
    if max(size or (header.width, header.height)) > MAX_SIDE[format]:
        limit = f"{format} holds at most {MAX_SIDE[format]} pixels a side"
    elif header.width * header.height > DEFAULT_LIMITS.max_pixels:
        limit = f"at most {DEFAULT_LIMITS.max_pixels} pixels can be encoded anew"
    else:
        return
    raise ImageProblemError(Problem.TOO_MANY_PIXELS, f"{header.width} x {header.height}; {limit}")


def encode(
    data: bytes | memoryview,
    header: ImageHeader,
    options: EncodeOptions,
    changes: Changes = _NO_CHANGES,
) -> Encoded:
    """Decode the first frame once, change it, and encode it, upright; equal input, equal bytes.

    Pixels follow the rules of :func:`decode`, but PNG, WebP and AVIF keep alpha, and PNG keeps
    16-bit grey. An ICC profile is kept where it fits what is written and was not applied; all other
    metadata (EXIF, XMP, comments) is left out. A JPEG that becomes a quarter of its size or less,
    per side, is reduced while it is decoded, to twice that size or more.

    Raises:
        ImageProblemError: as :func:`check_decode`; TOO_MANY_PIXELS if a side is too long for the
            format.
    """
    to = changes.layout
    check_encodable(header, options.format, to.size if to else None)
    with guarded(Problem.DECODE_FAILED):
        opened = open_image(data, header.format)
        depth = _depth(opened)  # known only until the pixels are loaded
        image, width, height = _load(data, opened, header, to)
        profile, has_exif = opened.info.get("icc_profile"), "exif" in opened.info
        applied = changes.srgb and is_other(profile)
        ready, background = _ready(image, options, profile if applied else None)
        ready = upright(ready, header)
        if to:
            ready = resize(ready, width, height, to, changes.shrink, options.background)
            background = options.background if to.size > to.scaled else background
        ready.info = {}  # or the encoders would write comments and colour keys from it
        fits = not applied and (
            profile_space(profile) == (b"RGB " if ready.mode in {"RGB", "RGBA"} else b"GRAY")
        )
        settings = _settings(ready, options)
        if changes.as_it_was and options.format == header.format:
            settings = _own_settings(data, opened, ready, header) or settings
        settings["icc_profile"] = profile if fits else None
        saved = _saved(ready, options.format, settings)
    icc = "kept" if fits else "dropped"
    if applied or profile_space(profile) == b"CMYK":
        icc = "applied"
    words: dict[str, object] = {
        "quality": settings.get("quality"),
        "tables": "kept" if "qtables" in settings else None,
        "subsampling": settings.get("subsampling"),
        "progressive": "yes" if "progressive" in settings else None,
        "lossless": "yes" if "lossless" in settings else None,
        "from": header.format,
        "mode": f"{image.mode}>{ready.mode}" if image.mode != ready.mode else None,
        "background": background,
        "orientation": f"{header.exif_orientation}>1" if header.exif_orientation > 1 else None,
        "depth": f"{depth}>8" if depth > 8 and ready.mode != "I;16" else None,
        "range": "stretched" if image.mode in {"I", "F"} else None,
        "frame": f"1/{header.frames}" if header.frames > 1 else None,
        "icc": icc if profile else None,
        "exif": "dropped" if has_exif else None,
        **(_told(to, header, changes.shrink) if to else {}),
    }
    made = [options.format, *(f"{name}={value}" for name, value in words.items() if value)]
    return Encoded(saved, *ready.size, ready.mode, " ".join(made))


def _told(to: Layout, header: ImageHeader, shrink: Filter) -> dict[str, str | None]:
    """Return the words for how an image was resized."""
    (width, height), own = to.scaled, (header.width, header.height)
    used = shrink if width < own[0] or height < own[1] else "lanczos"
    return {
        "size": "{}x{}>{}x{}".format(*own, *to.size),
        "scaled": f"{width}x{height}" if to.scaled not in {own, to.size} else None,
        "filter": used if to.scaled != own else None,
    }


def _load(
    data: bytes | memoryview, opened: ImageFile.ImageFile, header: ImageHeader, to: Layout | None
) -> tuple[Image.Image, float, float]:
    """Return the first frame as it is stored, and its upright sides in its own pixels.

    These end within the last pixels of an image that was reduced while it was decoded.
    """
    if to and header.format == "jpeg" and header.mode != "CMYK":
        factor = reduction(header.width, header.height, to.scaled)
        gray = header.mode == "L"
        pixels = turbo(data, header, "GRAY" if gray else "RGBX", factor, fast=False)
        if pixels is not None:
            image = Image.fromarray(pixels[..., 0]) if gray else _rgb_image(pixels)
            return image, header.width / factor, header.height / factor
    return load_image(opened, header), header.width, header.height


def _rgb_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return (height, width, 4) pixels, of which the last channel is padding, as RGB; no copy."""
    height, width, channels = pixels.shape
    buffers = [None, pa.py_buffer(np.ascontiguousarray(pixels))]
    values = pa.UInt8Array.from_buffers(pa.uint8(), pixels.size, buffers)
    values = pa.FixedSizeListArray.from_arrays(values, channels)
    return Image.fromarrow(values, "RGB", (width, height))


def _ready(
    image: Image.Image, options: EncodeOptions, profile: bytes | None
) -> tuple[Image.Image, str | None]:
    """Return an image in a mode that the format holds, and what alpha was laid over, if it was.

    ``profile`` is what is to be converted from, to sRGB.
    """
    if (
        options.format == "png"
        and image.mode.startswith("I;16")
        and not image.has_transparency_data
        and profile is None
    ):
        return Image.fromarray(np.asarray(image).astype(np.uint16)), None
    plain = plain_image(image)
    if profile is not None:
        plain = to_srgb(plain, profile)
    alpha = plain.mode in {"LA", "RGBA"}
    if options.format == "jpeg" and alpha:
        return lay_over(plain, options.background), options.background
    if options.format in {"webp", "avif"}:
        # The encoder leaves out alpha that is opaque everywhere, so it is left out here, too.
        seen = alpha and plain.getchannel("A").getextrema() != (255, 255)
        return plain.convert("RGBA" if seen else "RGB"), None
    return plain, None


def _settings(ready: Image.Image, options: EncodeOptions) -> dict[str, object]:
    """Return what Pillow's encoder is told."""
    if options.format == "png":
        return {}
    settings: dict[str, object] = {"quality": options.quality}
    if options.format == "avif" or (options.format == "jpeg" and ready.mode == "RGB"):
        settings["subsampling"] = options.subsampling
    if options.format == "avif":
        settings["max_threads"] = 1  # the workers are as many as the cores
    if options.format == "jpeg" and options.progressive:
        settings["progressive"] = True
    return settings


def _saved(image: Image.Image, format: str, settings: dict[str, object]) -> bytes:  # noqa: A002
    out = io.BytesIO()
    block = ImageFile.MAXBLOCK
    try:
        if "progressive" in settings:
            # Pillow's buffer must hold all scans, and is too small for noise. Not even noise at
            # quality 100 takes two bytes a sample.
            ImageFile.MAXBLOCK = max(block, 2 * image.width * image.height * len(image.getbands()))
        image.save(out, format, **settings)
    finally:
        ImageFile.MAXBLOCK = block
    return out.getvalue()


_SUBSAMPLED = {1: "4:2:2", 2: "4:2:0"}


def _own_settings(
    data: bytes | memoryview, opened: ImageFile.ImageFile, ready: Image.Image, header: ImageHeader
) -> dict[str, object]:
    """Return how an image was encoded, as far as that can be done again; else nothing."""
    if header.format == "webp" and any(kind == b"VP8L" for kind, *_ in riff_chunks(bytes(data))):
        return {"lossless": True}
    if isinstance(opened, JpegImagePlugin.JpegImageFile) and opened.mode == ready.mode:
        return _own_tables(opened, header)
    return {}


def _own_tables(opened: JpegImagePlugin.JpegImageFile, header: ImageHeader) -> dict[str, object]:
    """Return a JPEG's own quantisation tables and subsampling, as they are once it is upright.

    Nothing if they cannot serve: the file has no luma, or misses a table.
    """
    numbers = [table for *_, table in opened.layer]
    rgb = opened.info.get("adobe_transform") == 0 and len(numbers) > 1
    if rgb or not opened.quantization.keys() >= set(numbers):
        return {}
    turned = header.exif_orientation >= 5  # 5 to 8 swap the sides
    tables = [np.reshape(opened.quantization[number], (8, 8)) for number in numbers]
    found: dict[str, object] = {
        "qtables": [(table.T if turned else table).ravel().tolist() for table in tables]
    }
    if len(numbers) > 1:
        sampling = _SUBSAMPLED.get(JpegImagePlugin.get_sampling(opened), "4:4:4")
        # Pillow has no word for 4:2:2 that was turned
        found["subsampling"] = "4:4:4" if turned and sampling == "4:2:2" else sampling
    if "progression" in opened.info:
        found["progressive"] = True
    return found


def _depth(image: ImageFile.ImageFile) -> int:
    """Return the bits per sample in the file of an image whose pixels are not loaded yet."""
    if any(";16" in str(tile.args) for tile in image.tile):
        return 16
    return 32 if image.mode in {"I", "F"} else 8
