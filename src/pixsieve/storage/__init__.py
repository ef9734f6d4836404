"""Where bytes lie: one module per kind of store behind the seam of ``base``."""

from __future__ import annotations

import re

from pixsieve.errors import UsageError
from pixsieve.storage.base import ObjectInfo, Reader, Sink, Storage
from pixsieve.storage.local import LocalStorage

__all__ = ["LocalStorage", "ObjectInfo", "Reader", "Sink", "Storage", "storage_for"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def storage_for(path: str) -> Storage:
    """Return the store that ``path`` is in."""
    if found := _SCHEME.match(path):
        msg = (
            f"{path}: there is no store for {found.group()} addresses; "
            "copy the data to a local or mounted folder and name that"
        )
        raise UsageError(msg)
    return LocalStorage()
