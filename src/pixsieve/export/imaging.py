"""The image of a row as it goes into the tar: copied, or made anew."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from pixsieve import image
from pixsieve.errors import RunError, SourceChangedError

if TYPE_CHECKING:
    from pixsieve.export.writer import ImageWriterStage
    from pixsieve.scorers.guard import Guard
    from pixsieve.sources import SourceFiles


class Source(NamedTuple):
    """Where a row's image lies, and what is known of it."""

    file: str
    version: str
    offset: int
    size: int
    sha256: str
    format: str


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
    number: int, source: Source, writer: ImageWriterStage, files: SourceFiles, guard: Guard
) -> Made | None:
    """Return a row's image as it is to be written, ``None`` if its bytes are to be copied.

    Args:
        number: The row, under which the guard watches over the encoder.
        source: The row's image.
        writer: How images are written.
        files: Opens the source's files.
        guard: Knows which rows ended a worker before.

    Raises:
        SourceChangedError: the image is not what it was when it was inspected.
        RunError: it cannot be encoded.
    """
    target = writer.target_format or source.format
    if target == source.format:
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
    try:
        with guard.watch(number):
            encoded = image.encode(data, image.probe(data), writer.encode_options(target))
    except image.ImageProblemError as problem:
        msg = (
            f"{place}: an image that was chosen cannot be encoded as {target}: "
            f"{problem.detail}; {way_out}"
        )
        raise RunError(msg) from problem
    return Made(
        data=encoded.data,
        sha256=hashlib.sha256(encoded.data).hexdigest(),
        width=encoded.width,
        height=encoded.height,
        format=target,
        mode=encoded.mode,
        exif_orientation=1,
        encoding=encoded.encoding,
        member_size=len(encoded.data),
    )
