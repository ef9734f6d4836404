"""Other formats, for what cannot read tars."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixsieve.export.formats.base import Format

_ALL: tuple[Format, ...] = ()

FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}
"""All of them, in the order in which they are written."""
