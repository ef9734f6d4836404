"""What an image says of itself: its header, read under limits and without a pixel."""
# ruff: noqa: PLR2004 - the numbers are the formats' own

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from PIL import TiffImagePlugin

from pixsieve.image.containers import check_boxes, gif_frames, png_chunks, tiff_pages
from pixsieve.image.formats import describe, sniff
from pixsieve.image.pillow import open_image
from pixsieve.image.problem import ImageProblemError, bad_header, check_whole, guarded
from pixsieve.schema import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What one image may cost; checked from its header, before any pixel is decoded.

    Attributes:
        max_bytes: encoded size, in bytes.
        max_pixels: width times height of the first frame, in pixels. The default is where Pillow
            itself refuses, so a higher figure holds for JPEG alone.
        max_metadata_bytes: all segments before a JPEG's first scan, in bytes. (Pillow bounds the
            text and profiles of a PNG at 64 MiB; the other formats cannot hold more than
            ``max_bytes``.)
        max_frames: frames of an animation, or pages.
    """

    max_bytes: int = 512 << 20
    max_pixels: int = 178_956_970
    max_metadata_bytes: int = 16 << 20
    max_frames: int = 65_536


DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What an image says of itself.

    Attributes:
        format: a key of :data:`FORMATS`.
        width: in pixels, upright: after ``exif_orientation``.
        height: in pixels, upright.
        mode: Pillow's name for the pixels as they are stored: ``RGB``, ``L``, ``CMYK``, ``P``,
            ``I;16``, ...
        exif_orientation: 1 to 8; 1 if there is no tag, or none that can be read. For AVIF the
            file's own rotation, which stands above the tag.
        frames: frames of an animation, or full pages of a TIFF (thumbnails and masks do not count);
            1 for a JPEG, whatever previews a camera has put behind it.
    """

    format: str
    width: int
    height: int
    mode: str
    exif_orientation: int
    frames: int

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the pixels as they are stored, before they are turned upright."""
        turned = self.exif_orientation >= 5  # 5 to 8 swap the sides
        return (self.height, self.width) if turned else (self.width, self.height)


def probe(data: bytes | memoryview, limits: ImageLimits = DEFAULT_LIMITS) -> ImageHeader:
    """Read an image's header, and no pixel of it.

    Raises:
        ImageProblemError: EMPTY_IMAGE, TOO_MANY_BYTES, UNSUPPORTED_FORMAT, TOO_MANY_PIXELS,
            ANIMATED (more frames than ``limits`` allow), TRUNCATED_IMAGE (ends inside its header)
            or BAD_HEADER.
    """
    if not len(data):
        raise ImageProblemError(Problem.EMPTY_IMAGE, "no bytes")
    if len(data) > limits.max_bytes:
        raise ImageProblemError(
            Problem.TOO_MANY_BYTES, f"{len(data)} bytes; the limit is {limits.max_bytes}"
        )
    kind = sniff(data)
    if kind is None:
        raise ImageProblemError(Problem.UNSUPPORTED_FORMAT, describe(data))
    if kind == "jpeg":
        header = _probe_jpeg(data, limits)
    else:
        with guarded(Problem.BAD_HEADER):
            header = _probe_other(bytes(data), kind, limits)
    if header.width * header.height > limits.max_pixels:
        raise ImageProblemError(
            Problem.TOO_MANY_PIXELS,
            f"{header.width} x {header.height}; the limit is {limits.max_pixels} pixels",
        )
    if header.frames > limits.max_frames:
        raise ImageProblemError(
            Problem.ANIMATED, f"{header.frames} frames or more; the limit is {limits.max_frames}"
        )
    return header


JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_SOF_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_HIERARCHICAL_MARKERS = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE})
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_EXIF = b"Exif\0\0"


def _probe_jpeg(data: bytes | memoryview, limits: ImageLimits) -> ImageHeader:
    """Walk the markers up to the first scan (ITU-T T.81, annex B); skip bytes between them."""
    end = len(data)
    pos, last = 2, min(end, limits.max_metadata_bytes)
    orientation, frame = 0, None
    while pos + 4 <= last:
        if data[pos] != 0xFF:
            # In steps, so that many short runs do not cost a copy of the rest each.
            stray = bytes(data[pos : pos + 4096]).find(b"\xff")
            pos += stray if stray >= 0 else 4096
            continue
        marker = data[pos + 1]
        if marker == 0xFF:  # fill byte
            pos += 1
            continue
        if marker == 0 or marker in _BARE_MARKERS:
            pos += 2
            continue
        if marker in {0xD8, 0xD9}:
            bad_header(f"marker 0x{marker:02x} before the first scan")
        size = data[pos + 2] << 8 | data[pos + 3]
        if size < 2:
            bad_header(f"segment 0x{marker:02x} says that it has {size} bytes")
        if pos + 2 + size > end:
            break
        if marker == 0xDA:
            if frame is None:
                bad_header("a scan before the frame header")
            width, height, mode = frame
            if orientation >= 5:
                width, height = height, width
            return ImageHeader(
                format="jpeg",
                width=width,
                height=height,
                mode=mode,
                exif_orientation=orientation or 1,
                frames=1,
            )
        if marker == 0xE1:
            if not orientation and data[pos + 4 : pos + 10] == _EXIF:
                orientation = _orientation(data[pos + 10 : pos + 2 + size])
        elif marker in _HIERARCHICAL_MARKERS:
            raise ImageProblemError(Problem.UNSUPPORTED_FORMAT, "hierarchical JPEG")
        elif marker in _SOF_MARKERS:
            if frame is not None:
                bad_header("two frame headers")
            frame = _frame_header(data[pos + 4 : pos + 2 + size])
        pos += 2 + size
    if last < end and pos + 4 > last:
        bad_header(f"more than {limits.max_metadata_bytes} bytes before the first scan")
    raise ImageProblemError(Problem.TRUNCATED_IMAGE, f"ends in its header, at byte {end}")


def _frame_header(segment: bytes | memoryview) -> tuple[int, int, str]:
    if len(segment) < 6:
        bad_header(f"the frame header has {len(segment)} bytes")
    bits, height, width, components = struct.unpack_from(">BHHB", segment)
    if bits != 8:
        raise ImageProblemError(Problem.UNSUPPORTED_FORMAT, f"{bits}-bit JPEG")
    if not width or not height:  # a height of 0 may follow the scan (DNL); no decoder reads that
        bad_header(f"{width} x {height} pixels")
    if components not in JPEG_MODES:
        bad_header(f"{components} colour components")
    return width, height, JPEG_MODES[components]


_UINT = {order: {1: f"{order}B", 3: f"{order}H", 4: f"{order}I"} for order in "<>"}


def _orientation(tiff: bytes | memoryview) -> int:
    """Return the orientation tag in an EXIF block's first directory, or 1 (EXIF 2.32, 4.6.4)."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None:
        return 1
    try:
        (ifd,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, ifd)
        for entry in range(ifd + 2, ifd + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(_UINT[order][kind], tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except (struct.error, KeyError):
        pass  # a damaged tag is no reason to lose the image
    return 1


def _probe_other(data: bytes, kind: str, limits: ImageLimits) -> ImageHeader:
    if kind == "webp":
        check_whole(data, "the RIFF chunk", int.from_bytes(data[4:8], "little") + 8)
    elif kind == "avif":
        check_boxes(data)
    orientation, frames = 1, 1
    if kind == "tiff":  # first, as Pillow would not say what is wrong with the directories
        frames = tiff_pages(data, limits.max_frames)
    image = open_image(data, kind)
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        found = image.tag_v2.get(0x0112)
        if isinstance(found, int) and 1 <= found <= 8:
            orientation = found  # Pillow's size is upright already
    elif kind == "gif":
        frames, _ = gif_frames(data, limits.max_frames)
    elif kind == "png":
        orientation, frames = _png_extras(data)
    else:
        orientation = _orientation(image.info.get("exif", b"").removeprefix(_EXIF))
        frames = getattr(image, "n_frames", 1)
    if orientation >= 5 and kind != "tiff":
        width, height = height, width
    return ImageHeader(
        format=kind,
        width=width,
        height=height,
        mode=image.mode,
        exif_orientation=orientation,
        frames=max(frames, 1),
    )


_NO_COUNT = 1 << 31  # PNG's numbers are smaller


def _png_extras(data: bytes) -> tuple[int, int]:
    """Return orientation and frames; the EXIF chunk may stand behind the pixels."""
    orientation, frames, pixels = 1, 1, False
    for kind, start, end in png_chunks(data):
        if kind == b"eXIf":
            orientation = _orientation(data[start:end].removeprefix(_EXIF))
        elif kind == b"acTL" and not pixels and end - start >= 4:
            stated = int.from_bytes(data[start : start + 4], "big")
            frames = stated if stated < _NO_COUNT else 1  # decoders show the still image then
        pixels |= kind == b"IDAT"
    return orientation, frames
