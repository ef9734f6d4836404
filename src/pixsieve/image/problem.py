"""What is wrong with an image, and how whatever a decoder raises becomes that."""

from __future__ import annotations

import contextlib
import re
import warnings
from typing import TYPE_CHECKING, NoReturn

from PIL import Image, ImageFile

from pixsieve.schema import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator


class ImageProblemError(Exception):
    """An image cannot be used. It never leaves a step: the caller makes a row of it.

    Attributes:
        problem: the code for the ``reason`` column.
        detail: one printable line, the decoder's own words where it has any.
    """

    def __init__(self, problem: Problem, detail: str) -> None:
        """Say what is wrong with an image, and why."""
        super().__init__(problem, detail)
        self.problem = problem
        self.detail = detail


def bad_header(detail: str) -> NoReturn:
    raise ImageProblemError(Problem.BAD_HEADER, detail)


def check_whole(data: bytes | memoryview, part: str, end: int) -> None:
    """Raise ImageProblemError (TRUNCATED_IMAGE) if a part ends behind the file."""
    if end > len(data):
        raise ImageProblemError(
            Problem.TRUNCATED_IMAGE, f"{len(data)} bytes; {part} ends at byte {end}"
        )


_TRUNCATED = re.compile(
    r"truncat|premature end of (jpeg|input)|unexpected end|not enough|end of file", re.IGNORECASE
)


@contextlib.contextmanager
def guarded(otherwise: Problem) -> Iterator[None]:
    """Turn whatever a decoder raises into ImageProblemError; let none of its warnings out."""
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageProblemError:
        raise
    except MemoryError as error:
        raise ImageProblemError(Problem.OUT_OF_MEMORY, "not enough memory to decode it") from error
    except Image.DecompressionBombError as error:
        raise ImageProblemError(Problem.TOO_MANY_PIXELS, one_line(error)) from error
    except Exception as error:  # decoders raise anything on hostile bytes
        detail = one_line(error)
        problem = Problem.TRUNCATED_IMAGE if _TRUNCATED.search(detail) else otherwise
        raise ImageProblemError(problem, detail) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def one_line(error: Exception) -> str:
    text = "".join(c if c.isprintable() else "?" for c in str(error)[:300])
    return text or type(error).__name__
