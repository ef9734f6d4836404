"""How a command shows what it is at."""

# ruff: noqa: PLC0415  # whatever is heavy is imported by the command that needs it

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.engine.progress import Progress


@contextlib.contextmanager
def shown_progress(*, quiet: bool, as_json: bool) -> Iterator[Progress]:
    """Choose how progress is shown: not at all, to a machine, on a terminal, or in a log."""
    from pixsieve.engine.progress import JsonLines, Lines, Quiet

    if quiet:
        yield Quiet()
    elif as_json:
        yield JsonLines()
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from pixsieve.engine.bars import Bars

        with Bars() as bars:
            yield bars
    else:
        yield Lines()
