"""What protects a worker from the sample that it is reading or scoring."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractContextManager

    from pixsieve.schema import Problem

READ, CHECK, DECODE = -3, -2, -1
"""What is done to a sample: read it, decode it to check it, decode it for scorers; from 0 on the
scorers of the unit, in their order."""


class Guard(Protocol):
    """Knows which samples must not be touched again, and notes which one is being touched."""

    avoid: Mapping[int, Problem]
    """Rows that ended a worker before, with what is to be said of them."""

    lost: Mapping[int, AbstractSet[int]] | None
    """``None`` unless the unit lost a worker before; then what was done to which row, where that
    is known. Scorers are handed one sample at a time then, so that it becomes known."""

    def watch(self, row: int | None, deed: int = READ) -> AbstractContextManager[None]:
        """Note that ``row`` is being touched, or many at once, and bound the time of it."""
        ...


class NoGuard:
    """For work in the caller's own process."""

    def __init__(
        self,
        avoid: Mapping[int, Problem] | None = None,
        lost: Mapping[int, AbstractSet[int]] | None = None,
    ) -> None:
        self.avoid = avoid or {}
        self.lost = lost

    @contextlib.contextmanager
    def watch(self, row: int | None, deed: int = READ) -> Iterator[None]:  # noqa: ARG002
        yield
