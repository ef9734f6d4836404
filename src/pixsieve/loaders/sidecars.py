"""What the loaders of sidecars share: a row says where its image lies, and there it is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pixsieve.loaders.base import Folder, Loader, Sample

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("key", "tar_file", "member_offset", "member_size", "width", "height", "caption")
"""What is asked for of the sidecars."""
_OPEN = 64


class SidecarLoader(Loader):
    """A library that reads Parquet files; the image is one read of the tar that a row names."""

    reads = "sidecars"
    can = frozenset({"shuffle"})

    def reader(self, folder: Folder) -> Reader:
        """Return what makes samples of rows."""
        return Reader(folder.path)


class Reader:
    """Makes samples of rows; can be sent to other processes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_open": {}}

    def __call__(self, row: Mapping[str, Any]) -> Sample:
        data = os.pread(self._tar(row["tar_file"]), row["member_size"], row["member_offset"])
        return Sample(row["key"], data, (row["width"], row["height"]), row["caption"])

    def _tar(self, name: str) -> int:
        if name not in self._open:
            while len(self._open) >= _OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[name] = os.open(f"{self._path}/{name}", os.O_RDONLY)
        return self._open[name]
