"""What becomes of an image on its way into a dataset: with as little loss as it can be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixsieve.image.encoding import MAX_SIDE, Changes, Encoded, EncodeOptions, encode
from pixsieve.image.lossless import turned_upright
from pixsieve.image.pillow import open_image
from pixsieve.image.problem import guarded
from pixsieve.image.resize import Filter, Layout, ResizeMode, layout
from pixsieve.image.srgb import is_other
from pixsieve.image.strip import can_strip, strip
from pixsieve.schema import Problem

if TYPE_CHECKING:
    from pixsieve.image.header import ImageHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformOptions:
    """What becomes of images.

    Attributes:
        mode: How they are resized; see :func:`pixsieve.image.resize.layout`.
        size: Side in pixels, for all modes but ``"no"``.
        upscale: Also those that would become larger; but none beyond what its format holds.
        shrink: The filter for those that become smaller.
        upright: Turned by their EXIF orientation.
        lossless: JPEG by its coefficients, where that is exact. Needs libturbojpeg.
        strip: Without metadata.
        srgb: Converted to sRGB by their ICC profile.
    """

    mode: ResizeMode = "no"
    size: int = 0
    upscale: bool = False
    shrink: Filter = "area"
    upright: bool = True
    lossless: bool = True
    strip: bool = True
    srgb: bool = False


def transform(
    data: bytes, header: ImageHeader, options: TransformOptions, encoding: EncodeOptions | None
) -> Encoded | None:
    """Return an image as it is to be written; ``None`` if its bytes stay as they are.

    Bytes alone are rewritten where metadata goes, and where a JPEG can be turned by its
    coefficients. All else is one decode and one encode, which also leaves an image upright and
    without metadata, asked or not. What keeps its format and its size is then encoded in its own
    manner: a JPEG by its own quantisation tables, a lossless WebP without loss.

    Args:
        data: the image.
        header: what :func:`probe` found in it.
        options: what to do.
        encoding: how to encode what cannot stay as it is; an image of another format cannot. None:
            its format is not written, so the options must not ask for more than ``strip``.

    Raises:
        ImageProblemError: as :func:`encode`; only where pixels are decoded.
    """
    target = encoding.format if encoding else header.format
    to = sides(header.width, header.height, options, target)
    anew = to is not None or target != header.format
    if not anew and options.srgb:
        with guarded(Problem.BAD_HEADER):
            anew = is_other(open_image(data, header.format).info.get("icc_profile"))
    if not anew:
        turn = options.upright and header.exif_orientation > 1
        if not (turn or options.strip):
            return None
        try:
            return _rewritten(data, header, options, turn=turn)
        except _NotLossless:
            pass
    assert encoding is not None  # noqa: S101  # as is said above
    same = header.format == target and to is None
    changes = Changes(layout=to, shrink=options.shrink, srgb=options.srgb, as_it_was=same)
    return encode(data, header, encoding, changes)


def sides(width: int, height: int, options: TransformOptions, format: str) -> Layout | None:  # noqa: A002
    """Return how an upright image is resized, ``None`` if it stays as it is."""
    to = layout(width, height, options.mode, options.size, upscale=options.upscale)
    grows = to is not None and max(to.size) > max(width, height)
    return None if to is None or (grows and max(to.size) > MAX_SIDE[format]) else to


class _NotLossless(Exception):  # noqa: N818 - it is no error
    """An image cannot be had by rewriting bytes."""


def _rewritten(
    data: bytes, header: ImageHeader, options: TransformOptions, *, turn: bool
) -> Encoded | None:
    """Return an image with the same pixels; ``None`` if there is nothing to change.

    Raises:
        _NotLossless: it has to be decoded.
    """
    orientation = header.exif_orientation
    if turn and not (header.format == "jpeg" and options.lossless):
        raise _NotLossless
    dropped: tuple[str, ...] = ()
    if options.strip and can_strip(header.format):
        data, dropped = strip(data, header.format, orientation=1 if turn else orientation)
    elif options.strip and _may_have_metadata(data):
        raise _NotLossless
    if turn:
        turned = turned_upright(data, orientation)
        if turned is None:
            raise _NotLossless
        data, dropped = turned.data, dropped or turned.dropped
    elif not dropped:
        return None
    words = [header.format, "pixels=kept"]
    words += [f"orientation={orientation}>1"] if turn else []
    words += [f"dropped={','.join(dropped)}"] if dropped else []
    return Encoded(
        data=data,
        width=header.width,
        height=header.height,
        mode=header.mode,
        encoding=" ".join(words),
        exif_orientation=1 if turn else orientation,
    )


def _may_have_metadata(data: bytes) -> bool:
    """Return whether an ISO media file names an item of EXIF or XMP (ISO/IEC 23008-12, A.2)."""
    return b"Exif" in data or b"application/rdf+xml" in data
