"""The loaders that a finished dataset is tried with; each imports its library when it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.errors import UsageError, nearest
from pixsieve.loaders.croissant import CroissantLoader
from pixsieve.loaders.daft import DaftLoader
from pixsieve.loaders.dali import DaliLoader
from pixsieve.loaders.duckdb import DuckdbLoader
from pixsieve.loaders.energon import EnergonLoader
from pixsieve.loaders.frictionless import FrictionlessLoader
from pixsieve.loaders.hf import HfLoader, HfParquetLoader, ImagefolderLoader, ParquetLoader
from pixsieve.loaders.lance import LanceLoader
from pixsieve.loaders.litdata import LitdataChunksLoader, LitdataLoader
from pixsieve.loaders.mds import MdsLoader
from pixsieve.loaders.polars import PolarsLoader
from pixsieve.loaders.pyarrow import PyarrowLoader
from pixsieve.loaders.ray import RayLoader
from pixsieve.loaders.torch import TorchLoader
from pixsieve.loaders.webdataset import WebDatasetLoader
from pixsieve.loaders.wids import WidsLoader

if TYPE_CHECKING:
    from pixsieve.loaders.base import Loader

LOADERS: dict[str, Loader] = {
    loader.name: loader
    for loader in (
        WebDatasetLoader(),
        TorchLoader(),
        WidsLoader(),
        HfLoader(),
        EnergonLoader(),
        DaliLoader(),
        RayLoader(),
        DaftLoader(),
        HfParquetLoader(),
        LitdataLoader(),
        DuckdbLoader(),
        PolarsLoader(),
        PyarrowLoader(),
        CroissantLoader(),
        FrictionlessLoader(),
        ParquetLoader(),
        MdsLoader(),
        LitdataChunksLoader(),
        LanceLoader(),
        ImagefolderLoader(),
    )
}
"""Every loader by its name: those that read tars, those that read sidecars, other formats'."""


def loader_of(name: str) -> Loader:
    """Return a loader by its name; ``UsageError`` if there is none of that name."""
    if name not in LOADERS:
        msg = f"there is no loader {name!r}; expected {', '.join(LOADERS)}{nearest(name, LOADERS)}"
        raise UsageError(msg)
    return LOADERS[name]
