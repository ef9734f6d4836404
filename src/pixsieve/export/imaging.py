"""The image of a row as it goes into the tar: copied, or made anew."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from pixsieve import image
from pixsieve.errors import RunError, SourceChangedError
from pixsieve.export.transform import target_of

if TYPE_CHECKING:
    from pixsieve.export.transform import ImageTransformStage
    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.scorers.guard import Guard
    from pixsieve.sources import SourceFiles


_AS_IT_IS = image.TransformOptions(upright=False, strip=False)


class Source(NamedTuple):
    """Where a row's image lies, and what is known of it."""

    file: str
    version: str
    offset: int
    size: int
    sha256: str
    format: str
    width: int
    height: int
    exif_orientation: int


class Made(NamedTuple):
    """An image that was made anew: its bytes, and the columns of the sidecar that this changes."""

    data: bytes
    sha256: str
    width: int
    height: int
    format: str
    mode: str
    exif_orientation: int
    encoding: str
    member_size: int


def make(
    number: int,
    source: Source,
    writer: ImageWriterStage,
    transform: ImageTransformStage | None,
    files: SourceFiles,
    guard: Guard,
) -> Made | None:
    """Return a row's image as it is to be written, ``None`` if its bytes are to be copied.

    Args:
        number: The row, under which the guard watches over decoder and encoder.
        source: The row's image.
        writer: How images are written.
        transform: What becomes of them.
        files: Opens the source's files.
        guard: Knows which rows ended a worker before.

    Raises:
        SourceChangedError: the image is not what it was when it was inspected.
        RunError: it cannot be encoded.
    """
    target = target_of(source.format, writer, transform)
    if target == source.format and not (transform and _may_change(source, transform)):
        return None
    place = f"{source.file} at byte {source.offset}"
    data = files.open(source.file, source.version).read(source.offset, source.size)
    if hashlib.sha256(data).hexdigest() != source.sha256:
        msg = (
            f"{place}: the image is not what it was when it was "
            "inspected, though the file's size and time are; check the disk and run again"
        )
        raise SourceChangedError(msg)
    way_out = f"leave it out with a filter, such as sha256 <> '{source.sha256}'"
    if (ended := guard.avoid.get(number)) is not None:
        msg = f"{place}: encoding the image as {target} ended its worker ({ended}); {way_out}"
        raise RunError(msg)
    options = transform.options if transform else _AS_IT_IS
    encoding = writer.encode_options(target) if target in image.ENCODED else None
    try:
        with guard.watch(number):
            encoded = image.transform(data, image.probe(data), options, encoding)
    except image.ImageProblemError as problem:
        msg = (
            f"{place}: an image that was chosen cannot be encoded as {target}: "
            f"{problem.detail}; {way_out}"
        )
        raise RunError(msg) from problem
    if encoded is None:
        return None
    return Made(
        data=encoded.data,
        sha256=hashlib.sha256(encoded.data).hexdigest(),
        width=encoded.width,
        height=encoded.height,
        format=target,
        mode=encoded.mode,
        exif_orientation=encoded.exif_orientation,
        encoding=encoded.encoding,
        member_size=len(encoded.data),
    )


def _may_change(source: Source, transform: ImageTransformStage) -> bool:
    return transform.may_change(source.width, source.height, source.exif_orientation, source.format)
