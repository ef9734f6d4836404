"""The stage that changes images while they are exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pixsieve import image
from pixsieve.errors import PlanError
from pixsieve.export.dataset import PRIVACY, STRIPPED
from pixsieve.stage import WriteStage, check_fields

if TYPE_CHECKING:
    import pyarrow as pa

    from pixsieve.export.writer import ImageWriterStage

_MAX_SIZE = 16_383
_TO_PNG: Final = frozenset({"gif", "bmp", "tiff"})
"""Formats that are read and not written: what changes of them is written as PNG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTransformStage(WriteStage):
    """Changes images while they are exported; it stands right before the :class:`ImageWriterStage`.

    Each with as little loss as it can be done: an image that stays as it is is copied; metadata
    goes, and a JPEG is turned, without decoding pixels; all else is one decode and one encode, by
    the writer's ``image_format``, ``quality`` and so on. The sidecar's ``encoding`` says what was
    done. An image that is encoded anew is always upright and without metadata.

    Args:
        resize_mode: As in img2dataset. ``"no"``; ``"keep_ratio"``: the shorter side becomes
            ``image_size``; ``"keep_ratio_largest"``: the longer side; ``"center_crop"``: the
            shorter side becomes ``image_size``, the longer one is cut to it; ``"border"``: the
            longer side becomes ``image_size``, the shorter one is filled up with the writer's
            ``background``.
        image_size: Side in pixels.
        upscale: Also enlarge images, by Lanczos; else those that are too small stay as they are.
        resample: What makes images smaller, on values as they are stored (gamma and all):
            ``"area"`` as img2dataset does, ``"lanczos"`` is sharper and takes twice the time.
        orientation: ``"upright"`` turns images by their EXIF orientation; ``"keep"`` leaves that to
            the reader, with a tag that says it.
        lossless: JPEG are turned by their coefficients where that is exact, which needs
            libturbojpeg; ``False``: by encoding them anew. Where it is not exact, a JPEG is encoded
            anew with its own quantisation tables in either case.
        strip: Leave out EXIF, GPS, XMP, IPTC, comments, thumbnails and what stands behind an image.
            Colour profiles stay.
        color: ``"srgb"`` converts to sRGB by the ICC profile, perceptually, and leaves that out.
    """

    resize_mode: image.ResizeMode = "no"
    image_size: int | None = None
    upscale: bool = False
    resample: image.Filter = "area"
    orientation: Literal["upright", "keep"] = "upright"
    lossless: bool = True
    strip: bool = True
    color: Literal["keep", "srgb"] = "keep"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resize_mode == "no":
            idle = [
                name
                for name, given in (
                    ("image_size", self.image_size is not None),
                    ("upscale", self.upscale),
                    ("resample", self.resample != "area"),
                )
                if given
            ]
            if idle:
                msg = (
                    f"{idle[0]} is {getattr(self, idle[0])!r}, but resize_mode is 'no'; "
                    "name a resize_mode, such as 'keep_ratio'"
                )
                raise PlanError(msg)
        elif self.image_size is None or not 1 <= self.image_size <= _MAX_SIZE:
            msg = (
                f"image_size is {self.image_size!r} with resize_mode {self.resize_mode!r}; "
                f"expected a side in pixels from 1 to {_MAX_SIZE}"
            )
            raise PlanError(msg)
        if self.orientation == "keep" and not self.lossless:
            msg = "lossless is False, but orientation is 'keep': nothing is turned; leave it out"
            raise PlanError(msg)
        if not (self.decodes or self.orientation == "upright" or self.strip):
            msg = "ImageTransformStage changes nothing as it is set; leave it out"
            raise PlanError(msg)

    def check(self, columns: pa.Schema) -> None:
        """Raise ``PlanError`` if the library that turns JPEG is needed and not there."""
        del columns
        if self.orientation == "upright" and self.lossless and not image.can_turn_losslessly():
            msg = (
                "ImageTransformStage turns JPEG without loss by libturbojpeg, which is not there; "
                "install it ('apt-get install libturbojpeg0', 'dnf install turbojpeg' or 'brew "
                "install jpeg-turbo'), or set lossless to False, or orientation to 'keep'"
            )
            raise PlanError(msg)

    @property
    def decodes(self) -> bool:
        """Whether images of any kind may have to be decoded."""
        return self.resize_mode != "no" or self.color != "keep"

    @property
    def bounds_sides(self) -> bool:
        """Whether no side of a result is longer than ``image_size``."""
        return self.resize_mode in {"keep_ratio_largest", "border"}

    @property
    def options(self) -> image.TransformOptions:
        """What becomes of images."""
        return image.TransformOptions(
            mode=self.resize_mode,
            size=self.image_size or 0,
            upscale=self.upscale,
            shrink=self.resample,
            upright=self.orientation == "upright",
            lossless=self.lossless,
            strip=self.strip,
            srgb=self.color == "srgb",
        )

    def may_change(self, width: int, height: int, exif_orientation: int, target: str) -> bool:
        """Return whether an image may change, by what is known of it without reading it."""
        options = self.options
        return (
            options.strip
            or options.srgb
            or (options.upright and exif_orientation > 1)
            or image.sides(width, height, options, target) is not None
        )


def privacy(transform: ImageTransformStage | None) -> str:
    """Say what is done with metadata in images."""
    return STRIPPED if transform is not None and transform.strip else PRIVACY


def decoded_formats(
    writer: ImageWriterStage, transform: ImageTransformStage | None
) -> frozenset[str]:
    """Return the formats whose images may be encoded anew, whatever they are, so must decode."""
    if transform is None:
        return writer.encoded_formats
    if transform.decodes:
        return frozenset(image.FORMATS)
    anew = {name for name in image.FORMATS if target_of(name, writer, transform) != name}
    return frozenset(anew | ({"avif"} if transform.strip else set()))


def target_of(source: str, writer: ImageWriterStage, transform: ImageTransformStage | None) -> str:
    """Return the format that an image of a format is exported in."""
    if writer.target_format is not None:
        return writer.target_format
    if transform is None or source not in _TO_PNG:
        return source
    # GIF and BMP have no orientation, and metadata is taken out of them as they are
    return "png" if transform.decodes or source == "tiff" else source
