"""Other formats, for what cannot read tars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.export.formats.imagefolder import ImagefolderFormat
from pixsieve.export.formats.lance import LanceFormat
from pixsieve.export.formats.litdata import LitdataFormat
from pixsieve.export.formats.mds import MdsFormat
from pixsieve.export.formats.parquet import ParquetFormat
from pixsieve.export.formats.tfrecord import TfrecordFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixsieve.export.formats.base import Format

_ALL: tuple[Format, ...] = (
    ParquetFormat(),
    MdsFormat(),
    LitdataFormat(),
    LanceFormat(),
    ImagefolderFormat(),
    TfrecordFormat(),
)

FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}
"""All of them, in the order in which they are written."""
