"""What the loaders of other formats share: rows that hold their image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixsieve.loaders.base import Loader, Sample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pixsieve.loaders.base import Folder, Passes

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


class Each:
    """Applies a function to each row of a batch; can be sent to other processes."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, rows: list[dict[str, Any]]) -> list[Sample]:
        return [self._make(row) for row in rows]


def through_workers(kind: Any, parts: Sequence[object], workers: int) -> Passes:
    """Return what starts a pass over datasets, by a data loader of a kind like PyTorch's."""
    loaders = [
        kind(
            part,
            batch_size=64,
            collate_fn=Each(sample_of),
            num_workers=workers,
            persistent_workers=True,
        )
        for part in parts
    ]
    return lambda: (sample for loader in loaders for batch in loader for sample in batch)


def sample_of(row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row whose image is bytes."""
    size = int(row["width"]), int(row["height"])
    return Sample(row["key"], row["image"], size, row["caption"])
