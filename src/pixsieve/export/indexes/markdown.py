"""Text of others in Markdown, where it must stay text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~$&^])")
_TICKS = re.compile(r"`+")


def text(value: object) -> str:
    """Return a value as one line of Markdown that shows it as it is."""
    return _MARKS.sub(r"\\\1", _one_line(value))


def code(value: object) -> str:
    """Return a value as a code span; in a table, too, it shows it as it is."""
    line = _one_line(value)
    if not line:
        return ""
    ticks = "`" * (_longest(line) + 1)
    space = " " if "`" in line or line[0] == line[-1] == " " else ""
    return f"{ticks}{space}{line}{space}{ticks}".replace("|", "\\|")


def block(value: str, language: str) -> str:
    """Return lines of text as a code block, which nothing in them can end."""
    fence = "`" * max(3, _longest(value) + 1)
    lines = "\n".join(_one_line(line, keep=True) for line in value.splitlines())
    return f"{fence}{language}\n{lines}\n{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _one_line(value: object, *, keep: bool = False) -> str:
    """Return text without line breaks and other marks that do not show; ``keep`` keeps blanks."""
    line = "".join(char if char.isprintable() else " " for char in str(value))
    return line if keep else " ".join(line.split())


def _longest(value: str) -> int:
    """Return the length of the longest run of backticks."""
    return max((len(ticks) for ticks in _TICKS.findall(value)), default=0)
