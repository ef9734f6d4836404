"""The storage seam, which every byte that is read from a source or written passes.

A new kind of store is a new file beside this one: a class that keeps the promises below (the suite
in ``pixsieve.testing.storage_suite`` checks them) and a line in ``pixsieve.storage.storage_for``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object.

    Its path, its size in bytes, and a version that differs once it has changed.
    """

    path: str
    size: int
    version: str


class Reader(Protocol):
    """An open object. Not shared between threads.

    Every method raises :class:`pixsieve.errors.SourceChangedError` where the object turns out to be
    shorter than when it was opened, and :class:`pixsieve.errors.StorageError` where the store
    fails.
    """

    info: ObjectInfo

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        ...

    def read_into(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Fill the buffers, one after the other, with the bytes from ``offset`` on."""
        ...

    def check_unchanged(self) -> None:
        """Raise ``SourceChangedError`` unless the object is what it was when it was opened."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Sink(Protocol):
    """An object that is being written; see :meth:`Storage.create`."""

    def write(self, data: Buffer, /) -> object:
        """Append all of ``data``."""
        ...


class Storage(Protocol):
    """A place for objects. Implementations are picklable and safe to use from several processes."""

    def stat(self, path: str) -> ObjectInfo:
        """Describe one object; ``SourceNotFoundError`` if there is none."""
        ...

    def list(self, root: str) -> Iterator[ObjectInfo]:
        """All objects below ``root`` in the order of their path's parts; hidden ones are left out.

        Paths are relative to ``root``, with ``/`` between parts. What is not a regular object (a
        link that leaves the root, a device) is given with the version ``"unsafe:<kind>"`` and the
        size 0.
        """
        ...

    def open(self, path: str) -> Reader:
        """Open one object for reading."""
        ...

    def create(self, path: str, *, durable: bool = True) -> AbstractContextManager[Sink]:
        """Write an object that appears under ``path`` whole, on a clean exit, or not at all.

        ``durable``: it is on the medium, with its name, before the exit returns.
        """
        ...

    def create_together(
        self, paths: Sequence[str], *, durable: bool = True
    ) -> AbstractContextManager[tuple[Sink, ...]]:
        """Write objects that appear one after the other, in this order, when all of them are whole.

        It costs less than to write one after the other durably.
        """
        ...
