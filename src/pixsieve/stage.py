"""The kinds of stage that a pipeline is made of.

A stage is a frozen keyword dataclass: a description without I/O, that can be compared, hashed,
pickled and written down in a recipe. It may hold plain values only (numbers, text, booleans,
``None``, and tuples or dicts of these). A new stage is a new file with a subclass of one of the
kinds below.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import sys
import traceback
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar, Self

import msgspec
import pyarrow as pa

from pixsieve.errors import PixsieveError, PlanError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows, Scope, Task, Verdicts

    Rounds = Generator[Sequence[Task], Sequence[str], None]


class Stage(ABC):  # noqa: B024  # its kinds have them
    """One step of a pipeline."""

    version: ClassVar[int] = 1
    """Raise it when the meaning of the stage's result changes: cached results of it are then made
    anew. Of a stage outside of pixsieve a change of its module does the same."""

    def reads(self) -> tuple[str, ...]:
        """Names of the columns that the stage looks at."""
        return ()

    def adds(self) -> pa.Schema:
        """Columns that the stage adds, with ``scale`` and ``unit`` in each field's metadata."""
        return pa.schema([])

    def check(self, columns: pa.Schema) -> None:  # noqa: B027  # most stages fit anything
        """Raise ``PlanError`` unless the stage can work on these columns.

        Called before any work.
        """

    def digests(self) -> tuple[str, ...]:
        """Return digests of files outside the pipeline that decide the result, such as a model's.

        They are part of the fingerprint of cached work. Called before any work; may read files.
        """
        return ()

    def without_places(self) -> Self:
        """Return the stage as it reads on any machine: without the paths of this one."""
        return self


def check_fields(stage: Stage) -> None:
    """Raise ``PlanError`` unless each field of a stage has a value of its declared type.

    A wrong word where one of a few is expected would otherwise change what is done without a word.
    """
    hints = typing.get_type_hints(type(stage))
    for field in dataclasses.fields(stage):  # type: ignore[arg-type]  # every stage is one
        value = _as_text(getattr(stage, field.name))
        try:
            msgspec.convert(value, hints[field.name], strict=True)
        except msgspec.ValidationError as error:
            msg = f"{type(stage).__name__}: {field.name} is {value!r}: {error}"
            raise PlanError(msg) from None


def _as_text(value: object) -> object:
    """Return paths as text, which is as good as one where text is declared."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_as_text(item) for item in value]
    return value


@contextlib.contextmanager
def blaming(stage: Stage, kind: type[PixsieveError] = RunError) -> Iterator[None]:
    """Name the stage, and the line, in what the code of a user's own stage raises.

    A fault of pixsieve's own stages keeps its traceback.
    """
    try:
        yield
    except (PixsieveError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # such as an exit, or a panic of native code
        module = type(stage).__module__
        if module.partition(".")[0] == __name__.partition(".")[0]:
            raise
        file = getattr(sys.modules.get(module), "__file__", None)
        frames = traceback.extract_tb(error.__traceback__)
        at = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
        told = f"{type(error).__name__}: {error}"
        msg = f"{type(stage).__name__} failed: {told} ({at.filename}:{at.lineno}, in {at.name})"
        raise kind(msg) from error


def source_digest(kind: type[Stage]) -> str | None:
    """Return the SHA-256 of the code of a user's own stage, which decides what it gives.

    It is that of its module, or of the class alone in a script or notebook; ``None`` for pixsieve's
    own stages, whose ``version`` tells.
    """
    module = kind.__module__
    if module.partition(".")[0] == __name__.partition(".")[0]:
        return None
    try:
        text = inspect.getsource(kind if module == "__main__" else sys.modules[module])
    except (OSError, TypeError, KeyError):
        made = [value.__code__ for value in vars(kind).values() if inspect.isfunction(value)]
        text = repr([(code.co_name, code.co_code, code.co_names) for code in made])
        text += repr([[c for c in code.co_consts if not inspect.iscode(c)] for code in made])
    return hashlib.sha256(text.encode()).hexdigest()


class ReadStage(Stage):
    """Where samples come from."""


SHARED_PIXELS = 512
"""Shorter side that the shared decode has at least: enough for hashes, measures and most models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a scorer must be given for each image.

    Attributes:
        encoded: The image's bytes as they lie in the source.
        pixels: Decoded pixels whose shorter side is at least so many pixels (or the image's own
            size, if that is less); ``None`` for none. Up to :data:`SHARED_PIXELS` all scorers share
            one decode, the same for each of them whatever the others need, so that no score depends
            on its company.
        gray: ``(H, W)`` luma of those pixels instead of ``(H, W, 3)``.
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
    pixels: tuple[NDArray[np.uint8], ...]


class ScoreStage(Stage):
    """Adds columns by looking at images."""

    @property
    def needs(self) -> Needs:
        """What the scorer must be given; a class may simply say ``needs = Needs(...)``."""
        return Needs()

    def companion(self) -> ScoreStage | None:
        """Return a scorer that comes along, and whose scores are cached apart.

        It has what may change while the stage's own scores stay, such as flags by thresholds.
        """
        return None

    def selection(self) -> SelectStage | None:
        """Return the selection that follows from the stage's own columns, such as a threshold's."""
        return None

    def alone(self) -> Self:
        """Return the stage without what its companion or its selection alone needs.

        Here that is ``score_threshold``. Cached scores are kept under its fingerprint, so that
        another threshold scores nothing anew.
        """
        fields = {field.name for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # they are
        if "score_threshold" not in fields:
            return self
        return dataclasses.replace(self, score_threshold=None)  # type: ignore[type-var]

    @abstractmethod
    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        """Return the function that scores a batch: as many rows, the columns of :meth:`adds`.

        Called once in each worker process; heavy state (a model) lives in what is returned.
        """


class SelectStage(Stage):
    """Decides over rows of the table, never over pixels."""

    row_local: ClassVar[bool] = False
    """Whether a row's own columns decide. Then :meth:`passes` says it, too, and scorers that come
    later do not look at what is dropped."""

    def warnings(self, columns: pa.Schema) -> tuple[str, ...]:  # noqa: ARG002
        """Return what is odd about the stage, given these columns, without being wrong."""
        return ()

    def passes(self, columns: pa.Table) -> NDArray[np.bool_]:
        """Return for each row whether it stays; for row-local stages only."""
        raise NotImplementedError

    def rounds(self, scope: Scope) -> Rounds:  # noqa: ARG002
        """Yield lists of tasks for any number of workers, round by round; get their files' paths.

        For what is too much for one process. ``paths = yield [Task(...), ...]``: the engine runs a
        round's tasks in any order, keeps what they wrote, and sends back the paths, in the order of
        the tasks. The last round's are ``rows.found`` when :meth:`decide` is called. What is
        yielded may depend on the table and the files alone, never on the machine.
        """
        yield from ()

    @abstractmethod
    def decide(self, rows: Rows) -> Verdicts:
        """Return what to drop, and why, and what to put in order."""


class WriteStage(Stage):
    """Where and how the kept samples are written."""
