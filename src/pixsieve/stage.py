"""The kinds of stage that a pipeline is made of.

A stage is a frozen keyword dataclass: a description without I/O, that can be compared, hashed, pickled and
written down in a recipe. It may hold plain values only (numbers, text, booleans, ``None``, and tuples or
dicts of these). A new stage is a new file with a subclass of one of the kinds below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows, Verdicts


class Stage(ABC):
    """One step of a pipeline."""

    version: ClassVar[int] = 1
    """Raise it when the meaning of the stage's result changes: cached results of it are then made anew."""

    def reads(self) -> tuple[str, ...]:
        """Names of the columns that the stage looks at."""
        return ()

    def adds(self) -> pa.Schema:
        """Columns that the stage adds, with ``scale`` and ``unit`` in the metadata of each field."""
        return pa.schema([])

    def check(self, columns: pa.Schema) -> None:
        """Raise ``PlanError`` unless the stage can work on these columns. Called before any work."""

    def without_places(self) -> Self:
        """Return the stage as it reads on any machine: without the paths of this one."""
        return self


class ReadStage(Stage):
    """Where samples come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a scorer must be given for each image.

    Attributes:
        encoded: The image's bytes as they lie in the source.
        pixels: Decoded pixels whose shorter side is at least so many pixels (or the image's own size,
            if that is less); ``None`` for none. All scorers of a pass share one decode.
        gray: ``(H, W)`` instead of ``(H, W, 3)``.
    """

    encoded: bool = False
    pixels: int | None = None
    gray: bool = False


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Images that are scored together; only such as could be read.

    Attributes:
        rows: The columns that the scorer reads, n rows.
        encoded: n times the bytes of an image, if needed, else empty.
        pixels: n arrays, uint8, ``(H, W, 3)`` RGB or ``(H, W)``, upright, if needed, else empty.
    """

    rows: pa.RecordBatch
    encoded: tuple[bytes, ...]
    pixels: tuple[NDArray, ...]  # type: ignore[type-arg]


class ScoreStage(Stage):
    """Adds columns by looking at images."""

    @property
    def needs(self) -> Needs:
        """What the scorer must be given; a class may simply say ``needs = Needs(...)``."""
        return Needs()

    def digests(self) -> tuple[str, ...]:
        """Return digests of files outside the pipeline that decide the scores, such as a model's.

        They are part of the fingerprint of cached scores. Called before any work; may read files.
        """
        return ()

    def selection(self) -> SelectStage | None:
        """Return the selection that follows from the stage's own columns, such as a threshold's."""
        return None

    @abstractmethod
    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        """Return the function that scores a batch: as many rows, the columns of :meth:`adds`.

        Called once in each worker process; heavy state (a model) lives in what is returned.
        """


class SelectStage(Stage):
    """Decides over rows of the table, never over pixels."""

    @abstractmethod
    def decide(self, rows: Rows) -> Verdicts:
        """Return what to drop, and why, and what to put in order."""


class WriteStage(Stage):
    """Where and how the kept samples are written."""
