"""Starting worker processes from any script."""

from __future__ import annotations

import contextlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep processes that start meanwhile from importing the caller's script.

    Otherwise a script that does its work at its top level would do it again in each of them. What
    such a script defines itself must therefore lie in a module that can be imported.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
