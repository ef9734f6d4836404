"""Files of this machine, mounted network folders included."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat as stat_module
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from pixsieve.errors import (
    PixsieveError,
    SourceChangedError,
    SourceNotFoundError,
    StorageError,
)
from pixsieve.storage.base import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Buffer

_IOV_MAX = 1024  # buffers that one preadv(2) takes
_SINK_BUFFER = 64 * 1024
_KINDS = {
    stat_module.S_IFIFO: "fifo",
    stat_module.S_IFCHR: "device",
    stat_module.S_IFBLK: "device",
    stat_module.S_IFSOCK: "socket",
}


class LocalReader:
    """An open local file, read at given places only.

    A file that shrinks is an error, never a crash.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            msg = f"{path} does not exist (any more)"
            raise SourceNotFoundError(msg) from error
        except OSError as error:
            raise storage_error("cannot open", path, error) from error
        self.info = _info(path, os.fstat(self._fd))

    def read(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd, size, offset)
            while len(data) < size:  # a short read: a signal, a network mount, or the end
                more = os.pread(self._fd, size - len(data), offset + len(data))
                if not more:
                    raise self._too_short(offset + size)
                data += more
        except OSError as error:
            raise storage_error("cannot read", self._path, error) from error
        return data

    def read_into(self, buffers: Sequence[Buffer], offset: int) -> None:
        try:
            if len(buffers) <= _IOV_MAX:
                done = os.preadv(self._fd, buffers, offset)
                if done == sum(map(len, buffers)):  # type: ignore[arg-type]  # all have a length
                    return
            views = [memoryview(buffer).cast("B") for buffer in buffers]
            while views:
                done = os.preadv(self._fd, views[:_IOV_MAX], offset)
                if not done and any(len(view) for view in views[:_IOV_MAX]):
                    raise self._too_short(offset + sum(map(len, views)))
                offset += done
                while views and done >= len(views[0]):
                    done -= len(views.pop(0))
                if done:
                    views[0] = views[0][done:]
        except OSError as error:
            raise storage_error("cannot read", self._path, error) from error

    def check_unchanged(self) -> None:
        try:
            now = _info(self._path, Path(self._path).stat())
        except FileNotFoundError as error:
            msg = f"{self._path} vanished while it was being read; restore it and run again"
            raise SourceChangedError(msg) from error
        except OSError as error:
            raise storage_error("cannot read", self._path, error) from error
        if now != self.info:
            msg = (
                f"{self._path} changed while it was being read (version {self.info.version} "
                f"became {now.version}); run again when nothing writes to it"
            )
            raise SourceChangedError(msg)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _too_short(self, wanted: int) -> SourceChangedError:
        return SourceChangedError(
            f"{self._path} shrank while it was being read: byte {wanted - 1} was expected, it had "
            f"{self.info.size} bytes when it was opened; restore it and run again"
        )


@dataclass(frozen=True, slots=True)
class LocalStorage:
    """The local file system. Paths are native paths."""

    def stat(self, path: str) -> ObjectInfo:
        try:
            return _info(path, Path(path).stat())
        except FileNotFoundError as error:
            msg = f"{path} does not exist"
            raise SourceNotFoundError(msg) from error
        except OSError as error:
            raise storage_error("cannot look at", path, error) from error

    def list(self, root: str) -> Iterator[ObjectInfo]:
        real_root = os.path.realpath(root)
        yield from _list(root, "", real_root)

    def open(self, path: str) -> LocalReader:
        return LocalReader(path)

    @contextlib.contextmanager
    def create(self, path: str, *, durable: bool = True) -> Iterator[BinaryIO]:
        with self.create_together([path], durable=durable) as (sink,):
            yield sink

    @contextlib.contextmanager
    def create_together(
        self, paths: Sequence[str], *, durable: bool = True
    ) -> Iterator[tuple[BinaryIO, ...]]:
        targets = [Path(path) for path in paths]
        temporaries = [
            target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp") for target in targets
        ]
        try:
            with contextlib.ExitStack() as stack:
                sinks = tuple(
                    stack.enter_context(temporary.open("xb", buffering=_SINK_BUFFER))
                    for temporary in temporaries
                )
                yield sinks
                for sink in sinks:
                    sink.flush()
                    if durable:
                        os.fsync(sink.fileno())
            for temporary, target in zip(temporaries, targets, strict=True):
                temporary.rename(target)
            if durable:
                for folder in {target.parent for target in targets}:
                    sync_folder(folder)
        except BaseException as error:
            for temporary in temporaries:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
            if isinstance(error, OSError) and not isinstance(error, PixsieveError):
                raise storage_error("cannot write", ", ".join(paths), error) from error
            raise


def storage_error(action: str, path: str | Path, error: OSError) -> StorageError:
    """Return ``error`` as one line that names the file and the cause."""
    return StorageError(f"{action} {path}: {error.strerror or error}", error.errno)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _info(path: str, found: os.stat_result) -> ObjectInfo:
    # The change time, too: tools can set the modification time back, this one they cannot.
    version = f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"
    return ObjectInfo(path, found.st_size, version)


def _list(folder: str, prefix: str, real_root: str) -> Iterator[ObjectInfo]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if not e.name.startswith(".")), key=_part_order)
    except FileNotFoundError as error:
        msg = f"{folder} does not exist"
        raise SourceNotFoundError(msg) from error
    except OSError as error:
        raise storage_error("cannot list", folder, error) from error
    for entry in found:
        name = prefix + entry.name
        try:
            name.encode()
        except UnicodeEncodeError:
            escaped = os.fsencode(name).decode("utf-8", "backslashreplace")
            yield ObjectInfo(escaped, 0, "unsafe:name that is not UTF-8")
            continue
        if entry.is_symlink() and not _stays_inside(entry, real_root):
            yield ObjectInfo(name, 0, "unsafe:link")
        elif entry.is_dir(follow_symlinks=False):
            yield from _list(entry.path, f"{name}/", real_root)
        elif entry.is_file():
            yield _info(name, entry.stat())
        else:
            mode = stat_module.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
            yield ObjectInfo(name, 0, f"unsafe:{_KINDS.get(mode, 'special file')}")


def _part_order(entry: os.DirEntry[str]) -> bytes:
    return os.fsencode(entry.name)


def _stays_inside(entry: os.DirEntry[str], real_root: str) -> bool:
    """Tell whether a link leads to a regular file below the root.

    Links to folders could make circles.
    """
    target = os.path.realpath(entry.path)
    return Path(target).is_file() and target.startswith(real_root + os.sep)
