"""The sink seam: another format, made of the shards of a finished export.

A format reads what stands in the tars and sidecars, so it holds exactly what they hold, transforms
and order included; each shard is a unit of work of its own.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pixsieve.export.finished import About, Dataset, Shard


class Format(ABC):
    """How another format is written.

    A format is one file in this package, with one class that has no state.
    """

    name: ClassVar[str]
    """As in ``ImageWriterStage(formats=...)``; its folder in the dataset, too."""
    version: ClassVar[int] = 1
    """Raise it when the same export gets other bytes: the format is then written anew."""

    own: ClassVar[str] = r"(?!)"
    """Pattern of the names, relative to its folder, that its files have."""

    def owned(self, folder: Path) -> Iterator[Path]:
        """Yield the files in its folder that it has written: no other is ever removed."""
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and re.fullmatch(self.own, name):
                yield path

    def check(self) -> None:  # noqa: B027  # most need no more than the core has
        """Raise ``MissingExtraError``, with the line that installs it, unless its library is there.

        Called before any work; must be quick.
        """

    @abstractmethod
    def write_shard(self, about: About, shard: Shard, folder: Path) -> list[str]:
        """Write a shard's samples; return the names of the files, relative to ``folder``.

        Whatever stands under its final name must be whole at any time. Called once for each shard,
        in any order and in several processes at once.

        Args:
            about: The export; :meth:`About.images` has a shard's rows and images.
            shard: Which shard.
            folder: The format's own folder, which is there.

        Raises:
            RunError: the format cannot hold what the shard has.
            StorageError: reading or writing failed.
        """

    def finish(self, dataset: Dataset, written: Sequence[Sequence[str]], folder: Path) -> list[str]:  # noqa: ARG002
        """Write what describes the format's folder as a whole; return the names of the files.

        Args:
            dataset: The export.
            written: The names that :meth:`write_shard` gave for each shard, in order.
            folder: The format's own folder.
        """
        return []

    def is_listed(self, name: str) -> bool:  # noqa: ARG002
        """Tell whether the manifest lists a file.

        A format with a file for every image lists only those that have the images' digests.
        """
        return True
