"""The source seam: where samples come from.

A source finds its shards (:class:`SourceShard`) and locates the samples of one shard as rows of
:data:`pixsieve.schema.INDEX`. It never decodes an image. A new kind of source is a new file beside
this one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pixsieve.storage.base import ObjectInfo

KeySplit = Literal["auto", "first", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceShard:
    """A part of a source that is indexed as one unit of work.

    Attributes:
        kind: ``"tar"``, or ``"files"`` for a run of loose files.
        id: Stable name, relative to ``root``; for a run of loose files that of its first sample.
        root: Where the paths of ``files`` start. It differs between machines, so no output has it.
        files: The shard's objects in path order, paths relative to ``root``.
    """

    kind: Literal["tar", "files"]
    id: str
    root: str
    files: tuple[ObjectInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How members become samples.

    Attributes:
        key_split: A member name's key ends at the ``first`` or ``last`` dot of its last path part;
            ``auto`` is first in tars (as every WebDataset reader does) and last in folders.
        image_member: The extension of the member that is the image where a sample has several;
            ``*`` where it is the first member.
        salvage: Whether a tar is read on behind damage, from the next header that is whole.
    """

    key_split: KeySplit = "auto"
    image_member: str | None = None
    salvage: bool = False


_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def image_id(file: str, key: str, occurrence: int) -> str:
    """Return the id of a sample: readable, safe in every loader, and unique by its 64-bit digest.

    Made of the last part of the key, reduced to ``[A-Za-z0-9_-]`` and 40 characters, and 16
    hexadecimal digits of the SHA-256 of (file, key, occurrence). It does not change when other
    samples come or go.
    """
    identity = f"{file}\0{key}\0{occurrence}".encode("utf-8", "surrogateescape")
    slug = _UNSAFE.sub("-", key.rpartition("/")[2]).strip("-_")[:40].strip("-_")
    return f"{slug or 'image'}-{hashlib.sha256(identity).hexdigest()[:16]}"
