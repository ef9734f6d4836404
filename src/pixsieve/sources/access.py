"""Reading samples where an index says they are."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixsieve.errors import SourceNotFoundError
from pixsieve.sources.files import open_unchanged
from pixsieve.sources.spool import packed_version, spool_path, unpack
from pixsieve.storage.base import ObjectInfo

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from pixsieve.storage.base import Reader, Storage


@dataclass(frozen=True, slots=True)
class _Opened:
    """``reader`` is what offsets are in; ``source`` what was named: the same, unless compressed."""

    reader: Reader
    source: Reader

    def close(self) -> None:
        self.reader.close()
        if self.source is not self.reader:
            self.source.close()


class SourceFiles:
    """Opens the files of a source, by the names and versions that an index gives them.

    A file that is not any more what it was when it was indexed is noticed: when it is opened, and
    again before it is closed (that is, on a clean exit of the ``with`` block, or when it makes room
    for another). Not shared between threads.

    Args:
        root: Where the names start.
        storage: Where the files are.
        spool_dir: Where compressed tars were unpacked to; those that are missing are unpacked
            again.
        limit: Files that are kept open at most.
    """

    def __init__(self, root: str, storage: Storage, spool_dir: str, *, limit: int = 64) -> None:
        self._root = root
        self._storage = storage
        self._spool_dir = spool_dir
        self._limit = limit
        self._opened: OrderedDict[tuple[str, str], _Opened] = OrderedDict()

    def open(self, file: str, version: str) -> Reader:
        """Return a reader, open for at least ``limit - 1`` further files; do not close it.

        Raises:
            SourceChangedError: the file vanished or changed.
            StorageError: it cannot be read.
        """
        opened = self._opened.get((file, version))
        if opened is None:
            if len(self._opened) >= self._limit:
                _, oldest = self._opened.popitem(last=False)
                with contextlib.closing(oldest):
                    oldest.source.check_unchanged()
            opened = self._opened[file, version] = self._open(file, version)
        else:
            self._opened.move_to_end((file, version))
        return opened.reader

    def check_unchanged(self) -> None:
        """Raise ``SourceChangedError`` if an open file changed since it was indexed."""
        for opened in self._opened.values():
            opened.source.check_unchanged()

    def close(self) -> None:
        """Close all files; their readers cannot be used any more."""
        while self._opened:
            self._opened.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.check_unchanged()
        finally:
            self.close()

    def _open(self, file: str, version: str) -> _Opened:
        packed = packed_version(version)
        info = ObjectInfo(file, 0, version if packed is None else packed[0])
        source = open_unchanged(self._storage, self._root, info)
        if packed is None:
            return _Opened(source, source)
        path = spool_path(self._spool_dir, file, packed[0])
        try:
            spool = self._spool(path, packed[1])
            if spool is None:
                unpack(source, self._storage, path)
                spool = self._storage.open(path)
        except BaseException:
            source.close()
            raise
        return _Opened(spool, source)

    def _spool(self, path: str, size: int) -> Reader | None:
        """Open what was unpacked before, unless it is gone or cut."""
        try:
            spool = self._storage.open(path)
        except SourceNotFoundError:
            return None
        if spool.info.size == size:
            return spool
        spool.close()
        return None
