"""pixsieve: piles of raw images in, curated and training-ready datasets out.

A plain ``import pixsieve`` loads nothing heavy; the public names below are loaded on first use. The
functions ``pixsieve.verify.verify`` and ``pixsieve.why.why`` are in modules of their names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixsieve import errors, recipe, stages, verify, why
    from pixsieve.engine.inline import InlineExecutor
    from pixsieve.engine.job import RunOptions
    from pixsieve.engine.local import LocalExecutor
    from pixsieve.engine.result import RunResult
    from pixsieve.errors import PixsieveError
    from pixsieve.pipeline import Pipeline

__version__ = "0.1.0"

__all__ = [
    "InlineExecutor",
    "LocalExecutor",
    "Pipeline",
    "PixsieveError",
    "RunOptions",
    "RunResult",
    "__version__",
    "errors",
    "recipe",
    "stages",
    "verify",
    "why",
]

_HOME = {
    "InlineExecutor": "pixsieve.engine.inline",
    "LocalExecutor": "pixsieve.engine.local",
    "Pipeline": "pixsieve.pipeline",
    "PixsieveError": "pixsieve.errors",
    "RunOptions": "pixsieve.engine.job",
    "RunResult": "pixsieve.engine.result",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in __all__:
        return importlib.import_module(f"pixsieve.{name}")
    msg = f"module 'pixsieve' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
