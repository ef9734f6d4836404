"""The stage that names a pipeline's input."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence  # noqa: TC003  # recipes ask for the types
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from pixsieve import schema
from pixsieve.errors import PlanError, nearest
from pixsieve.sources.base import IndexOptions, KeySplit
from pixsieve.stage import ReadStage, check_fields

JSON_TYPES = {
    "string": pa.string(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
}
"""Types that a json field can be read as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePartitioningStage(ReadStage):
    """Names the input before an ``ImageReaderStage()``, as NeMo Curator's scripts do.

    Args:
        file_paths: As ``path_or_paths`` of :class:`ImageReaderStage`.
        files_per_partition: Accepted for such scripts and without effect: units of work follow
            source shards, and no result depends on them.
        file_extensions: Likewise; what a file is is told by its content.
    """

    file_paths: str | Sequence[str]
    files_per_partition: int | None = None
    file_extensions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "file_paths", _plain(self.file_paths))
        if self.file_extensions is not None:
            object.__setattr__(self, "file_extensions", tuple(self.file_extensions))


@dataclass(frozen=True, slots=True)
class ImageReaderStage(ReadStage):
    """Reads samples: an image with its caption, json, class and any other members.

    Args:
        path_or_paths: A folder (recursive), a tar (plain, gz, zst), a glob, a brace list such as
            ``in/{00000..00009}.tar``, or a list of these. ``None`` after a
            ``FilePartitioningStage``.
        decode_check: ``"full"`` decodes every image completely and fails those that do not;
            ``"header"`` looks at headers only (images that the writer will re-encode are decoded
            all the same).
        animated: What to do with more than one frame: ``"reject"``, or take the ``"first_frame"``.
        caption_field: Field of the json member that is the caption of samples without a ``.txt``
            member.
        json_fields: Fields of the json member that become columns, with their types: ``string``,
            ``int64``, ``double`` or ``bool``. A value of another type is null, and
            ``metadata_problem`` says so.
        key_split: Where a member name's key ends: at its ``first`` dot or its ``last``; ``auto`` is
            first in tars, as WebDataset readers do, and last in folders.
        image_member: Extension of the member that is the image where a sample has several images;
            ``"*"`` where it is the first member, as in pixsieve's own tars.
        salvage: Whether a tar is read on behind damage, from the next header that is whole. A
            sample may then lack members that lay in between; without it, all behind is lost.
        max_pixels: Images with more are failed without being decoded.
        max_image_bytes: Images with more are failed without being read.
    """

    path_or_paths: str | Sequence[str] | None = None
    decode_check: Literal["full", "header"] = field(default="full", kw_only=True)
    animated: Literal["reject", "first_frame"] = field(default="reject", kw_only=True)
    caption_field: str | None = field(default=None, kw_only=True)
    json_fields: Mapping[str, str] = field(default_factory=dict, kw_only=True, hash=False)
    key_split: KeySplit = field(default="auto", kw_only=True)
    image_member: str | None = field(default=None, kw_only=True)
    salvage: bool = field(default=False, kw_only=True)
    max_pixels: int = field(default=178_956_970, kw_only=True)
    max_image_bytes: int = field(default=256 * 1024 * 1024, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.path_or_paths is not None:
            object.__setattr__(self, "path_or_paths", _plain(self.path_or_paths))
        for name in ("max_pixels", "max_image_bytes"):
            if getattr(self, name) < 1:
                msg = f"{name} is {getattr(self, name)}; expected at least 1"
                raise PlanError(msg)
        for name, kind in self.json_fields.items():
            if kind not in JSON_TYPES:
                msg = (
                    f"json_fields: {name!r} has the type {kind!r}; "
                    f"expected one of {', '.join(JSON_TYPES)}{nearest(str(kind), JSON_TYPES)}"
                )
                raise PlanError(msg)
            if name in schema.RESERVED:
                msg = f"json_fields: {name!r} is a column of pixsieve's own; json cannot give it"
                raise PlanError(msg)

    @property
    def index_options(self) -> IndexOptions:
        return IndexOptions(
            key_split=self.key_split, image_member=self.image_member, salvage=self.salvage
        )

    def adds(self) -> pa.Schema:
        return pa.schema([(name, JSON_TYPES[kind]) for name, kind in self.json_fields.items()])


def _plain(paths: str | Sequence[str]) -> str | tuple[str, ...]:
    """Return paths as recipes give them, so that a stage equals the one that is read back."""
    if isinstance(paths, (str, os.PathLike)):
        return os.fspath(paths)
    return tuple(map(os.fspath, paths))
