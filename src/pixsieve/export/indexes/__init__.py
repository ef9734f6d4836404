"""Index files, so that an exported folder loads as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixsieve.export.indexes.base import Index

_ALL: tuple[Index, ...] = ()

INDEXES: Mapping[str, Index] = {index.name: index for index in _ALL}
"""All of them, in the order in which they are written."""
DEFAULT: tuple[str, ...] = tuple(INDEXES)
"""Those that an export has if nothing else is asked for."""
