"""The members beside the image: their names in the tar, and their bytes."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_EXTENSION = 40  # characters; with an id of at most 57 a name stays below a header's 100 bytes
_UNSAFE = re.compile(r"[^a-z0-9._-]+")


class Sibling(NamedTuple):
    """A member of a sample that is not its image, in the source."""

    extension: str
    file: str
    version: str
    offset: int
    size: int


def named(siblings: Iterable[Sibling], taken: str) -> list[tuple[str, Sibling]]:
    """Return each member with its extension in the tar; the image has ``taken``."""
    extensions = {taken}
    found = []
    for sibling in siblings:
        free = _free_extension(sibling.extension, extensions)
        extensions.add(free)
        found.append((free, sibling))
    return found


def _free_extension(original: str, taken: set[str]) -> str:
    """Return a safe extension for a member, which no other member of the sample has."""
    safe = _safe_extension(original)
    free, number = safe, 2
    while free in taken:
        mark = f"_{number}"
        free, number = safe[: _EXTENSION - len(mark)] + mark, number + 1
    return free


@functools.lru_cache(maxsize=1024)
def _safe_extension(original: str) -> str:
    return _UNSAFE.sub("-", original.lower())[:_EXTENSION] or "data"
