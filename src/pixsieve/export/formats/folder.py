"""Files that a library writes itself: in a hidden folder first, then whole under their names."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
from typing import TYPE_CHECKING

from pixsieve.errors import MissingExtraError, PixsieveError
from pixsieve.storage.local import storage_error, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def check_library(name: str, package: str, module: str) -> None:
    """Check, without importing it, that a format's library is there.

    Raises:
        MissingExtraError: it is not; the message has the line that installs it.
    """
    if importlib.util.find_spec(module) is None:
        msg = f"the format {name!r} needs {package}: pip install 'pixsieve[{name}]'"
        raise MissingExtraError(msg)


@contextlib.contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """Make a hidden folder beside a file or folder, for what becomes it; it goes in the end.

    Raises:
        StorageError: making it, or writing into it, failed.
    """
    made = folder / f".{name}.{secrets.token_hex(4)}.tmp"
    try:
        made.mkdir(parents=True)
        yield made
    except OSError as error:
        if isinstance(error, PixsieveError):
            raise
        raise storage_error("cannot write", folder / name, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def put(files: Mapping[Path, Path]) -> None:
    """Move whole files, written -> final, after they are on the medium; then make names durable."""
    for made, target in files.items():
        fd = os.open(made, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        target.parent.mkdir(parents=True, exist_ok=True)
    for made, target in files.items():
        made.rename(target)
    for folder in {target.parent for target in files.values()}:
        sync_folder(folder)
