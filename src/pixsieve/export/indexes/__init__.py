"""Index files, so that an exported folder loads as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.export.indexes.card import CardIndex
from pixsieve.export.indexes.croissant import CroissantIndex
from pixsieve.export.indexes.dali import DaliIndex
from pixsieve.export.indexes.energon import EnergonIndex
from pixsieve.export.indexes.energon_sqlite import EnergonSqliteIndex
from pixsieve.export.indexes.frictionless import FrictionlessIndex
from pixsieve.export.indexes.litdata import LitdataIndex
from pixsieve.export.indexes.wids import WidsIndex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixsieve.export.indexes.base import Index

_ALL: tuple[Index, ...] = (
    CardIndex(),
    WidsIndex(),
    DaliIndex(),
    EnergonIndex(),
    EnergonSqliteIndex(),
    LitdataIndex(),
    CroissantIndex(),
    FrictionlessIndex(),
)

INDEXES: Mapping[str, Index] = {index.name: index for index in _ALL}
"""All of them, in the order in which they are written."""
DEFAULT: tuple[str, ...] = tuple(name for name in INDEXES if name != EnergonSqliteIndex.name)
"""Those that an export has if nothing else is asked for: all but the one that costs more than the
others together, and that plain loading does not need."""
