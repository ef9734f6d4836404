"""Checking one sample: its members' names, its image, and what its sidecar row says of them."""

from __future__ import annotations

import codecs
import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import simplejpeg

from pixsieve.image import FORMATS, ImageLimits, ImageProblemError, check_decode, probe
from pixsieve.schema import Problem
from pixsieve.verify.findings import Checked
from pixsieve.verify.sidecars import split_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.image import ImageHeader
    from pixsieve.scorers.guard import Guard
    from pixsieve.verify.tars import Member, Report

Row = dict[str, Any]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_EXTENSION = re.compile(r"[a-z0-9._-]+")
_ALIASES = {"jpg": {"jpg", "jpeg", "jpe", "jfif"}, "tif": {"tif", "tiff"}}
IMAGE_EXTENSIONS = frozenset(FORMATS.values()).union(*_ALIASES.values())
_TURNED = 5  # EXIF orientations from here on swap width and height
_JPEG_MODES = {"Gray": "L", "YCbCr": "RGB", "RGB": "RGB", "CMYK": "CMYK", "YCCK": "CMYK"}
_SHORT = 120
_MOST_SHAPES = 3

_LONGEST_CAPTION = 1024 * 1024  # bytes; docs/formats.md


@dataclass(slots=True)
class Sample:
    """A run of neighbouring members with one key."""

    key: str
    members: list[Member] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCheck:
    """How samples of one shard are checked, and where their findings go.

    Attributes:
        tar: Base name of the shard's tar.
        own: Whether pixsieve's own contract holds.
        decode: Whether images are decoded.
        guard: Bounds what an image may take, and knows those that took more; it calls an image by
            its offset in the tar.
        tar_finding: Takes what is wrong in the tar.
        row_finding: Takes what is wrong in the sidecar.
        shapes: Collects the shapes of json members: their keys, and the types of what these have.
    """

    tar: str
    own: bool
    decode: bool
    guard: Guard
    tar_finding: Report
    row_finding: Report
    limits: ImageLimits = field(default_factory=ImageLimits)
    shapes: set[str] = field(default_factory=set)

    def names(self, sample: Sample) -> list[Member]:
        """Check a sample's names; return its images: at most one in own sets, all in others."""
        if not _KEY.fullmatch(sample.key):
            self.tar_finding(
                "key-unsafe", "expected a key of [A-Za-z0-9][A-Za-z0-9_-]*", sample.key
            )
        images = []
        for member in sample.members:
            extension = split_name(member.name)[1]
            if not _EXTENSION.fullmatch(extension):
                self.tar_finding(
                    "extension-unsafe",
                    "expected a lower-case extension of [a-z0-9._-]",
                    member.name,
                )
            if _last_part(extension) in IMAGE_EXTENSIONS:
                images.append(member)
        if not images:
            self.tar_finding("image-missing", "no member has the extension of an image", sample.key)
        elif self.own and images[0] is not sample.members[0]:
            self.tar_finding(
                "image-not-first", f"{sample.members[0].name!r} lies before it", images[0].name
            )
        return images[:1] if self.own else images

    def contents(
        self, sample: Sample, images: list[Member], row: Row | None, file: BinaryIO
    ) -> tuple[dict[str, ImageHeader], Checked]:
        """Read the images and the caption; return the sound images' headers by member name."""
        facts = {}
        checked = Checked(images=len(images))
        for member in images:
            if member.size > self.limits.max_bytes:
                self.tar_finding(
                    "image-too-large", f"has {member.size:,} bytes, it was not read", member.name
                )
                continue
            data = _read(file, member)
            if row is not None and self.own:
                self._same(
                    "column-sha256", row, "sha256", hashlib.sha256(data).hexdigest(), sample.key
                )
            header = self._image(data, member)
            if header is not None:
                facts[member.name] = header
                checked += Checked(decoded=int(self.decode))
        self._texts(sample, row, file)
        return facts, checked

    def _texts(self, sample: Sample, row: Row | None, file: BinaryIO) -> None:
        """Check the caption and the json as loaders read them, and the caption's column."""
        first: dict[str, bytes] = {}
        for member in sample.members:
            extension = split_name(member.name)[1].lower()
            if extension in ("txt", "json") and member.size <= self.limits.max_bytes:
                data = _read(file, member)
                first.setdefault(extension, data)
                rule, fault = _TEXT_CHECKS[extension]
                if text := fault(data):
                    self.tar_finding(rule, text, member.name)
                elif extension == "json" and len(self.shapes) < _MOST_SHAPES:
                    self.shapes.add(_shape(msgspec.json.decode(data)))
        if row is not None and "caption" in row and "txt" in first:
            self._caption(sample, row["caption"], first["txt"])

    def _image(self, data: bytes, member: Member) -> ImageHeader | None:
        """Check an image by itself; return its header, None if it is not sound."""
        lost = self.guard.avoid.get(member.offset)
        if lost is not None:
            self.tar_finding(
                "image-undecodable", f"{lost.value}: it ended a worker process", member.name
            )
            return None
        try:
            with self.guard.watch(member.offset):
                header = probe(data, self.limits)
                if self.decode:
                    check_decode(data, header)
                second = _second_opinion(data, header)
        except ImageProblemError as error:
            too_large = error.problem in {Problem.TOO_MANY_BYTES, Problem.TOO_MANY_PIXELS}
            rule = "image-too-large" if too_large else "image-undecodable"
            self.tar_finding(rule, f"{error.problem.value}: {error.detail}", member.name)
            return None
        expected = FORMATS[header.format]
        known = {expected} if self.own else _ALIASES.get(expected, {expected})
        extension = split_name(member.name)[1]
        if (extension if self.own else _last_part(extension)) not in known:
            self.tar_finding(
                "extension-format", f"is a {header.format}, expected .{expected}", member.name
            )
        return second

    def _caption(self, sample: Sample, caption: str | None, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        # null may stand for an empty text, for one that is not UTF-8 and so cannot be there, and
        # for one that is longer than columns hold
        not_text = text != data.decode("utf-8", "ignore")
        may_be_null = not text or not_text or len(data) > _LONGEST_CAPTION
        if caption != text and not (caption is None and may_be_null):
            self.row_finding(
                "column-caption",
                f"caption is {_short(caption)}, the .txt member is {_short(text)}",
                sample.key,
            )

    def compare(
        self, sample: Sample, images: list[Member], row: Row, facts: dict[str, ImageHeader]
    ) -> None:
        """Compare a sample with its row, in the columns whose meaning is known."""
        if row.get("tar_file") is not None:
            # others write the path that the tar had on the machine that made it
            base = row["tar_file"] if self.own else str(row["tar_file"]).rpartition("/")[2]
            self._same("column-tar-file", {"tar_file": base}, "tar_file", self.tar, sample.key)
        if self.own:
            names = [member.name for member in sample.members]
            self._same("column-members", row, "members", names, sample.key)
            if "member_sizes" in row and row["members"] == names:
                sizes = [member.size for member in sample.members]
                self._same("column-member-sizes", row, "member_sizes", sizes, sample.key)
        if not images:
            return
        named = [member for member in images if member.name == row.get("member_name")]
        image = named[0] if named else images[0]
        if "member_name" in row:
            self._same("column-member-name", row, "member_name", image.name, sample.key)
        if self.own:
            self._same("column-member-offset", row, "member_offset", image.offset, sample.key)
            self._same("column-member-size", row, "member_size", image.size, sample.key)
            if row["encoding"] == "copy":
                self._same("column-original", row, "original_sha256", row["sha256"], sample.key)
                self._same("column-original", row, "original_format", row["format"], sample.key)
        header = facts.get(image.name)
        if header is not None:
            self._compare_header(sample, row, header)

    def _compare_header(self, sample: Sample, row: Row, header: ImageHeader) -> None:
        size = (header.width, header.height)
        stated = (row.get("width"), row.get("height"))
        # others may state the size as it is stored, before EXIF orientation
        turned = not self.own and header.exif_orientation >= _TURNED and stated == size[::-1]
        if None not in stated and stated != size and not turned:
            self.row_finding(
                "column-size", f"width and height are {stated}, found {size}", sample.key
            )
        if self.own:
            self._same("column-format", row, "format", header.format, sample.key)
            self._same("column-mode", row, "mode", header.mode, sample.key)
            self._same(
                "column-orientation", row, "exif_orientation", header.exif_orientation, sample.key
            )

    def _same(self, rule: str, row: Row, column: str, found: object, key: str) -> None:
        if row[column] != found:
            self.row_finding(rule, f"{column} is {_short(row[column])}, found {_short(found)}", key)


def _shape(value: object) -> str:
    """Return what a loader that guesses types makes of a json value; of lists just that."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shape(value[key])}" for key in sorted(value)) + "}"
    return type(value).__name__


def _text_fault(data: bytes) -> str:
    """Say what is wrong with a text for a loader that decodes it as UTF-8, if anything."""
    if data.startswith(codecs.BOM_UTF8):
        return "starts with a byte order mark, which loaders take for text"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 at byte {error.start:,}"
    return ""


def _json_fault(data: bytes) -> str:
    """Say why loaders would not read a json member as an object, if so."""
    if data.startswith(codecs.BOM_UTF8):
        return "starts with a byte order mark, which not every parser takes"
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"is no JSON: {error}"
    return "" if isinstance(found, dict) else f"is a {type(found).__name__}, not an object"


_TEXT_CHECKS: dict[str, tuple[str, Callable[[bytes], str]]] = {
    "txt": ("text-encoding", _text_fault),
    "json": ("json-invalid", _json_fault),
}


def _second_opinion(data: bytes, header: ImageHeader) -> ImageHeader:
    """Take a JPEG's size and mode from libjpeg: rows are made with a header walk of our own."""
    if header.format != "jpeg":
        return header
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:  # a kind of JPEG that this build of the library does not read
        return header
    if header.exif_orientation >= _TURNED:
        width, height = height, width
    return replace(header, width=width, height=height, mode=_JPEG_MODES.get(colours, header.mode))


def _read(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    return file.read(member.size)


def _last_part(extension: str) -> str:
    """The part that tells the format: ``seg.PNG`` is a png."""
    return extension.lower().rpartition(".")[2]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."
