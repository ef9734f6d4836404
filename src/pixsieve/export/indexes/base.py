"""The seam of index files: what a loader wants to find beside the tars."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.export.finished import Dataset, Members
    from pixsieve.scorers.guard import Guard


class Desk(NamedTuple):
    """What an index has at hand while its files are made.

    Attributes:
        scratch: An empty folder, in which a large file can be made; its path is returned then.
        guard: Watches over what is decoded.
    """

    scratch: Path
    guard: Guard


class Index(ABC):  # an index has files beside the tars, or of the dataset, or both
    """Files that one loader needs, as a pure function of a finished export.

    An index is one file in this package, with one class that has no state.
    """

    name: ClassVar[str]
    """As in ``ImageWriterStage(indexes=...)``."""
    version: ClassVar[int] = 1
    """Raise it when the same export gets other bytes."""
    suffix: ClassVar[str | None] = None
    """Of a file beside each tar, in the place of ``.tar``."""
    files: ClassVar[tuple[str, ...]] = ()
    """What :meth:`of_dataset` writes, by names relative to the dataset's folder."""

    def of_shard(self, members: Members) -> bytes:
        """Return the file beside a tar; only asked for where there is a ``suffix``."""
        raise NotImplementedError

    def of_dataset(self, dataset: Dataset, desk: Desk) -> dict[str, bytes | Path]:  # noqa: ARG002
        """Return the files of the dataset as a whole, by names relative to its folder.

        Args:
            dataset: The finished export.
            desk: An empty folder, and who watches over the decoding of images.
        """
        return {}

    def is_edited(self, data: bytes) -> bool:  # noqa: ARG002
        """Tell whether somebody changed a file by hand that :meth:`of_dataset` had written.

        Only for what people do change: a run does not write over it then.
        """
        return False
