"""The stage that names a pipeline's output."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence  # noqa: TC003  # recipes ask for the types
from dataclasses import dataclass, field
from typing import Literal, Self

from pixsieve import image
from pixsieve.errors import PlanError, nearest
from pixsieve.export.formats import FORMATS
from pixsieve.export.indexes import DEFAULT, INDEXES
from pixsieve.export.indexes.card import check as check_card
from pixsieve.image import EncodeOptions
from pixsieve.stage import WriteStage, check_fields

ImageFormat = Literal["avif", "jpeg", "keep", "png", "webp"]
_IMAGE_FORMATS = ("avif", "jpeg", "keep", "png", "webp")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MIN_TAR_BYTES = 10_240


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageWriterStage(WriteStage):
    """Writes the kept samples as tars, each with a typed Parquet sidecar.

    Args:
        output_dir: Folder of the dataset. It is made; what it holds already is never overwritten.
        images_per_tar: Samples in every tar; only the last one (of a split and bucket) may hold
            fewer.
        max_bytes_per_tar: Instead of a count: as many samples as fit in so many bytes, at least
            one. Sizes are those in the source, so a tar with re-encoded images can come out smaller
            or larger.
        shards_multiple_of: The number of tars (of each split and bucket) is raised to the next
            multiple of this one, such as the number of GPUs times loader workers, so that each of
            them gets as many tars. Samples are then dealt evenly: tars differ by at most one
            sample, the larger ones come first, and none has more than ``images_per_tar``. It does
            not go with ``max_bytes_per_tar``; a split or bucket with too few samples ends the run.
        image_format: ``"jpeg"`` copies JPEG byte for byte and encodes all else as JPEG; ``"png"``,
            ``"webp"`` and ``"avif"`` likewise; ``"keep"`` copies every supported format.
        member_names: ``"id"`` names members by ``image_id``; ``"sequential"`` by a running number
            over the whole export; ``"key"`` by the key in the source, where all loaders would take
            it and no other sample has it, else by ``image_id``.
        prefix: First part of file names; letters, digits, ``_`` and ``-``.
        deterministic_name: Names hold a digest of the export's content; ``False``: a random id.
        remove_image_data: ``True``: nothing offers image bytes after the run. ``False``:
            :meth:`RunResult.batches` reads them from the shards on demand.
        verbose: One log line per shard with counts, bytes and rate.
        quality: For encoded JPEG, WebP and AVIF, 1 to 100.
        subsampling: Chroma subsampling of encoded JPEG and AVIF.
        progressive: Encoded JPEG has several scans, from coarse to fine.
        background: Colour under transparent pixels where the format has none, and of borders, as
            ``#rrggbb``.
        members: ``"as_found"`` copies what lies beside the images; ``"uniform"`` gives every sample
            the same members, and all json one schema with fixed types.
        indexes: Index files for loaders, by their names in ``docs/formats.md``; ``()`` for none.
        formats: Other formats to write as well, each into a folder of its name.
        card: What the dataset card shall say: ``license``, ``pretty_name``, ``description`` and
            the like.

    ``indexes``, ``formats`` and ``card`` can be changed later: a run with others adds and removes
    files of a finished dataset, and leaves its tars as they are.
    """

    output_dir: str
    images_per_tar: int = 1000
    max_bytes_per_tar: int | None = None
    shards_multiple_of: int = 1
    image_format: ImageFormat = "jpeg"
    member_names: Literal["id", "sequential", "key"] = "id"
    prefix: str = "images"
    deterministic_name: bool = True
    remove_image_data: bool = False
    verbose: bool = False
    quality: int = 95
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
    progressive: bool = False
    background: str = "#ffffff"
    members: Literal["as_found", "uniform"] = "as_found"
    indexes: Sequence[str] = DEFAULT
    formats: Sequence[str] = ()
    card: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.image_format not in _IMAGE_FORMATS:
            msg = (
                f"image_format is {self.image_format!r}; expected one of "
                f"{', '.join(_IMAGE_FORMATS)}{nearest(str(self.image_format), _IMAGE_FORMATS)}"
            )
            raise PlanError(msg)
        if self.member_names not in ("id", "sequential", "key"):
            msg = f"member_names is {self.member_names!r}; expected 'id', 'sequential' or 'key'"
            raise PlanError(msg)
        check_fields(self)
        object.__setattr__(self, "output_dir", os.fspath(self.output_dir))
        if not self.output_dir:
            msg = "output_dir is empty; name the folder of the dataset"
            raise PlanError(msg)
        if self.images_per_tar < 1:
            msg = f"images_per_tar is {self.images_per_tar}; expected at least 1"
            raise PlanError(msg)
        if self.max_bytes_per_tar is not None and self.max_bytes_per_tar < _MIN_TAR_BYTES:
            msg = (
                f"max_bytes_per_tar is {self.max_bytes_per_tar}; expected at least {_MIN_TAR_BYTES}"
            )
            raise PlanError(msg)
        if self.shards_multiple_of < 1:
            msg = f"shards_multiple_of is {self.shards_multiple_of}; expected at least 1"
            raise PlanError(msg)
        if self.shards_multiple_of > 1 and self.max_bytes_per_tar is not None:
            msg = (
                f"shards_multiple_of={self.shards_multiple_of} and max_bytes_per_tar="
                f"{self.max_bytes_per_tar} cannot go together; give images_per_tar instead of bytes"
            )
            raise PlanError(msg)
        if not _PREFIX.fullmatch(self.prefix):
            msg = (
                f"prefix is {self.prefix!r}; expected 1 to 64 letters, digits, '_' or '-', since "
                "loaders read file names as patterns and addresses"
            )
            raise PlanError(msg)
        self.encode_options(self.target_format or "jpeg")
        for option, known in (("indexes", INDEXES), ("formats", FORMATS)):
            object.__setattr__(self, option, _chosen(option, getattr(self, option), known))
        if "energon_sqlite" in self.indexes and "energon" not in self.indexes:
            msg = "indexes has 'energon_sqlite' without 'energon', to whose files it belongs"
            raise PlanError(msg)
        check_card(self.card)

    def bare(self) -> Self:
        """Return the stage without what can change while the tars stay as they are."""
        return dataclasses.replace(self, indexes=(), formats=(), card={})

    @property
    def target_format(self) -> str | None:
        """The one format of all exported images, or ``None`` where each keeps its own."""
        return None if self.image_format == "keep" else self.image_format

    @property
    def encoded_formats(self) -> frozenset[str]:
        """Formats whose images are encoded anew, so that they must decode."""
        return (
            frozenset(image.FORMATS) - {self.target_format} if self.target_format else frozenset()
        )

    def encode_options(self, target: str) -> EncodeOptions:
        """Return how images are encoded; ``UsageError`` where an option is out of range."""
        return EncodeOptions(
            format=target,  # type: ignore[arg-type]
            quality=self.quality,
            subsampling=self.subsampling,
            progressive=self.progressive,
            background=self.background,
        )


def _chosen(option: str, names: Sequence[str], known: Mapping[str, object]) -> tuple[str, ...]:
    """Return names in the order in which they are known, each once."""
    for name in names:
        if name not in known:
            msg = (
                f"{option} names {name!r}; expected any of {', '.join(known) or 'none'}"
                f"{nearest(name, known)}"
            )
            raise PlanError(msg)
    return tuple(name for name in known if name in names)
