"""What protects a worker from the sample that it is reading."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from pixsieve.schema import Problem


class Guard(Protocol):
    """Knows which samples must not be touched again, and notes which one is being touched."""

    avoid: Mapping[int, Problem]
    """Rows that ended a worker before, with what is to be said of them."""

    def watch(self, row: int) -> AbstractContextManager[None]:
        """Note that ``row`` is being read, and bound the time that this may take."""
        ...


class NoGuard:
    """For work in the caller's own process."""

    def __init__(self, avoid: Mapping[int, Problem] | None = None) -> None:
        self.avoid = avoid or {}

    @contextlib.contextmanager
    def watch(self, row: int) -> Iterator[None]:  # noqa: ARG002
        yield
