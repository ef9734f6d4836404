"""Text of others on its way to a terminal or a log."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return ``text`` with every character that could disturb a terminal or a log line escaped.

    File names, keys and messages of decoders are data: they may hold control characters, line
    breaks, marks that reverse the direction of writing, or surrogates that no encoding takes.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
