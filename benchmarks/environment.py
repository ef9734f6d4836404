"""Environments of their own for tools that do not fit beside pixsieve."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def made(folder: Path, packages: Sequence[str]) -> str | None:
    """Return the interpreter of an environment with the packages; ``None`` if it cannot be made."""
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        complete.touch()
    return str(python)
