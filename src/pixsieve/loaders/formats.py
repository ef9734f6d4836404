"""What the loaders of other formats share: rows that hold their image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixsieve.loaders.base import Loader, Sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pixsieve.loaders.base import Folder

INDEX = "index.json"
COLUMNS = ("key", "image", "width", "height", "caption")
"""What is asked for of a row."""


class FormatLoader(Loader):
    """A library that reads another format of the dataset, which lies in a folder of its own."""

    reads = "format"
    can = frozenset({"shuffle", "workers"})

    def place(self, folder: Folder) -> str:
        """Return the path of the format's folder."""
        return f"{folder.path}/{self.through}"


def parts_of(place: str) -> list[str]:
    """Return the folders that have an index: the one given, or those of its splits."""
    if (Path(place) / INDEX).exists():
        return [place]
    return sorted(str(path.parent) for path in Path(place).glob(f"*/{INDEX}"))


def sample_of(row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row whose image is bytes."""
    size = int(row["width"]), int(row["height"])
    return Sample(row["key"], row["image"], size, row["caption"])
