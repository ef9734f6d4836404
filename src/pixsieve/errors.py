"""Every error that pixsieve raises on purpose.

::

    PixsieveError                                    catch this for "anything from pixsieve"
    ├─ UsageError             (ValueError)           the caller must change something; raised before any work   exit 2
    │  ├─ RecipeError                                a recipe's key, with file and line
    │  ├─ PlanError                                  a stage or column that does not fit the pipeline
    │  └─ MissingExtraError   (ImportError)          an optional package is absent; has the install line
    ├─ SourceError                                   the input is not what it claims to be                      exit 3
    │  ├─ SourceNotFoundError (FileNotFoundError)
    │  └─ SourceChangedError                         changed, shrank or vanished while it was being read
    ├─ StorageError           (OSError)              reading or writing failed: disk full, permission, I/O      exit 4
    ├─ RunError                                      the run cannot go on                                       exit 5
    │  ├─ WorkerLostError                            a worker process died outside any one sample
    │  ├─ FailureBudgetError                         more samples failed than the run allows
    │  ├─ OutputConflictError (FileExistsError)      the output belongs to another recipe, input or program
    │  ├─ BusyError                                  another run works on this output
    │  └─ InterruptedRunError                        a signal asked the run to stop                             exit 130
    └─ VerifyError                                   a dataset does not hold what it promises                   exit 6

A bad image is none of these: it is a row with a :class:`pixsieve.schema.Problem`.
Messages say what is wrong with which named thing, what was expected, and what to do.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class PixsieveError(Exception):
    """Anything that pixsieve raises on purpose. ``exit_code`` is what the command ends with."""

    exit_code: ClassVar[int] = 1


class UsageError(PixsieveError, ValueError):
    """The caller must change something; raised before any work."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe cannot be understood; the message starts with ``file:line:``."""


class PlanError(UsageError):
    """A stage, a column or a type does not fit the pipeline."""


class MissingExtraError(UsageError, ImportError):
    """A feature needs a package that is not installed; the message has the install line."""


class SourceError(PixsieveError):
    """An input is not what it claims to be."""

    exit_code = 3


class SourceNotFoundError(SourceError, FileNotFoundError):
    """An input that was named does not exist."""


class SourceChangedError(SourceError):
    """An input changed, shrank or vanished between two reads of one run."""


class StorageError(PixsieveError, OSError):
    """Reading or writing failed for a reason of the environment.

    Args:
        message: What failed, with which file, and why.
        number: The system's error number; it tells whether trying again may help.
    """

    exit_code = 4

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, int | None]]:
        return type(self), (str(self), self.errno)  # OSError leaves the number behind


class RunError(PixsieveError):
    """The run cannot go on."""

    exit_code = 5


class WorkerLostError(RunError):
    """A worker process died and the work cannot be retried any further."""


class FailureBudgetError(RunError):
    """More samples failed than the run allows."""


class OutputConflictError(RunError, FileExistsError):
    """The output folder holds something that this run must not touch."""


class BusyError(RunError):
    """Another run works on this output."""


class InterruptedRunError(RunError):
    """A signal asked the run to stop; what was finished is kept."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code  # type: ignore[misc]  # 128 and the signal's number, as shells do

    def __str__(self) -> str:
        return str(self.args[0])


class VerifyError(PixsieveError):
    """A dataset does not hold what it promises."""

    exit_code = 6


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the name most like ``name``, or ``""``."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""
