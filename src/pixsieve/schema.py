"""The tables that steps hand to each other, and the values that their columns hold.

Every table is Parquet and written with exactly the schema given here, so that a shard in which a
column is all null has the same type as any other. ``docs/formats.md`` explains each column to
users.
"""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa


class Problem(StrEnum):
    """Why a sample cannot be used. The value is what stands in ``reason`` columns."""

    # found by locating samples in their source
    MISSING_IMAGE = "missing_image"  # members, but no image among them
    EMPTY_IMAGE = "empty_image"  # the image member has no bytes
    TWO_IMAGES = "two_images"  # two members could be the image and nothing says which
    DUPLICATE_MEMBER = "duplicate_member"  # one member name twice in one sample
    UNSAFE_MEMBER = "unsafe_member"  # link, device, fifo, sparse or unknown kind of member
    SOURCE_TRUNCATED = "source_truncated"  # the archive ends inside this sample
    SOURCE_DAMAGED = "source_damaged"  # the archive cannot be read any further from here
    # found by reading the sample
    UNSUPPORTED_FORMAT = "unsupported_format"  # by content, not by name
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    ANIMATED = "animated"  # more than one frame, and the first one was not asked for
    BAD_HEADER = "bad_header"
    TRUNCATED_IMAGE = "truncated_image"
    DECODE_FAILED = "decode_failed"
    OUT_OF_MEMORY = "out_of_memory"
    DECODE_TIMEOUT = "decode_timeout"
    DECODER_CRASH = "decoder_crash"


class Status(StrEnum):
    """Where a sample ended. indexed = kept + dropped + failed, in every run."""

    KEPT = "kept"
    DROPPED = "dropped"
    FAILED = "failed"


MEMBER = pa.struct(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("extension", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)
"""One run of bytes in a file: where a member that is not the image lies."""

INDEX = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("occurrence", pa.int32(), nullable=False),
        pa.field("class_name", pa.string()),
        pa.field("image_name", pa.string()),
        pa.field("image_extension", pa.string()),
        pa.field("image_file", pa.string(), nullable=False),
        pa.field("image_offset", pa.int64(), nullable=False),
        pa.field("image_size", pa.int64(), nullable=False),
        pa.field("image_version", pa.string(), nullable=False),
        pa.field("siblings", pa.list_(MEMBER), nullable=False),
        pa.field("problem", pa.string()),
        pa.field("problem_detail", pa.string()),
    ]
)
"""One row per sample of a source shard, in source order.

``image_file`` is relative to the source's root: the tar, or the image file itself. ``image_offset``
is the first byte of the image in it. A row with a problem may have no image (``image_name`` null,
size 0); its file and offset then say where the problem is. ``siblings`` are all other members, in
source order.
"""

INSPECTION = pa.schema(
    [
        pa.field("sha256", pa.string()),
        pa.field("siblings_sha256", pa.string()),
        pa.field("extensions", pa.string()),
        pa.field("json_type", pa.string()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("mode", pa.string()),
        pa.field("exif_orientation", pa.int32()),
        pa.field("frames", pa.int32()),
        pa.field("caption", pa.string()),
        pa.field("metadata_problem", pa.string()),
        pa.field("problem", pa.string()),
        pa.field("problem_detail", pa.string()),
    ]
)
"""What reading a sample once tells of it; the user's json fields follow these columns.

``extensions`` are those of all other members, sorted, with a blank between them. ``json_type`` is
what :func:`pixsieve.json_types.text_of` says of the ``.json`` member, null if there is none that
can be read. ``metadata_problem`` says why a caption, a json or a field of it could not be had; it
fails no sample.
``width`` and ``height`` are upright, in pixels: after EXIF orientation. ``sha256`` is of the
image's bytes as they lie in the source, ``siblings_sha256`` of the names and bytes of all other
members; both lower-case hexadecimal.
"""

SAMPLE = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("original_path", pa.string()),
        pa.field("original_key", pa.string()),
        pa.field("original_offset", pa.int64()),
        pa.field("byte_size", pa.int64()),
        pa.field("class_name", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("mode", pa.string()),
        pa.field("exif_orientation", pa.int32()),
        pa.field("frames", pa.int32()),
        pa.field("caption", pa.string()),
        pa.field("extensions", pa.string()),
    ]
)
"""The columns that every pipeline has for filters, selection and query; json fields and scores
follow."""

_WORD = pa.dictionary(pa.int16(), pa.string())

SELECTION = pa.schema(
    [
        pa.field("status", _WORD, nullable=False),
        pa.field("stage", _WORD),
        pa.field("reason", _WORD),
        pa.field("evidence", pa.string()),
        pa.field("duplicate_of", pa.string()),
        pa.field("split", _WORD),
        pa.field("bucket", _WORD),
        pa.field("rank", pa.int64()),
    ]
)
"""One row for every indexed sample, in index order; columns that selection stages add follow.
``rank`` is the place in the order of the export; null if not kept."""

SIDECAR = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("tar_file", pa.string(), nullable=False),
        pa.field("member_name", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("member_offset", pa.int64(), nullable=False),
        pa.field("member_size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("class_name", pa.string()),
        pa.field("members", pa.list_(pa.string()), nullable=False),
        pa.field("member_sizes", pa.list_(pa.int64()), nullable=False),
        pa.field("original_path", pa.string(), nullable=False),
        pa.field("original_key", pa.string(), nullable=False),
        pa.field("original_offset", pa.int64(), nullable=False),
        pa.field("original_sha256", pa.string(), nullable=False),
        pa.field("original_format", pa.string(), nullable=False),
        pa.field("exif_orientation", pa.int32(), nullable=False),
        pa.field("encoding", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("bucket", pa.string()),
        pa.field("metadata_problem", pa.string()),
    ]
)
"""The sidecar's contract: one row per sample in tar order; json fields, scores, and what
selection stages added follow.

``sha256``, ``format``, ``width``, ``height``, ``mode`` describe the image as it stands in the tar
(width and height upright); ``original_*`` the image as it was in its source. ``member_offset`` is
the image's first data byte in the tar. ``members`` are the names of all of the sample's members,
the image first. ``exif_orientation`` is the tag in the exported bytes, 1 if there is none.
``encoding`` is ``copy`` for bytes that were copied as they are, else how the image was made.
``metadata_problem`` is that of the inspection.
"""

ORIGINALS = pa.schema(
    [pa.field("original_json", pa.string()), pa.field("original_txt", pa.string())]
)
"""Columns that follow those of the contract where members were made uniform: ``.json`` members, and
``.txt`` members that are not UTF-8, as they were. What is not UTF-8 stands as a ``data:`` address
in base64 (RFC 2397). Each is there only if the export has such members."""

DROPPED = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("original_path", pa.string(), nullable=False),
        pa.field("original_key", pa.string(), nullable=False),
        pa.field("original_offset", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("evidence", pa.string()),
        pa.field("duplicate_of", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("caption", pa.string()),
    ]
)
"""``dropped.parquet``: every indexed sample that is not in the export. ``evidence`` is a JSON
object."""

RESERVED = frozenset(
    name
    for table in (INDEX, INSPECTION, SAMPLE, SELECTION, SIDECAR, ORIGINALS)
    for name in table.names
)
"""Column names that neither a json field nor a scorer may take."""
