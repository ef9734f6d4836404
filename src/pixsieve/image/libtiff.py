"""What libtiff, inside Pillow, has to say: heard, and not printed."""

from __future__ import annotations

import contextlib
import ctypes
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from PIL import _imaging

from pixsieve.image.problem import ImageProblemError
from pixsieve.schema import Problem
from pixsieve.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

# libtiff prints errors to file descriptor 2 by itself, where Pillow says "decoder error -2".
_LIBTIFF: Final = ctypes.CDLL(_imaging.__file__)  # symbols of the libtiff that Pillow has loaded
_ERROR_HANDLER: Final = ctypes.CFUNCTYPE(
    None,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_void_p,  # a va_list
)
_vsnprintf: Final = ctypes.CDLL(None).vsnprintf
_vsnprintf.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)
_libtiff_errors: ContextVar[dict[bytes, str] | None] = ContextVar("libtiff_errors", default=None)
"""The first error of each part of libtiff while an image is decoded here."""


def _note_libtiff_error(part: bytes | None, template: bytes, values: int) -> None:
    errors = _libtiff_errors.get()
    if errors is None:  # somebody else's TIFF in this process
        if _print_libtiff_error:
            _print_libtiff_error(part, template, values)
    elif (part or b"") not in errors:
        text = ctypes.create_string_buffer(200)
        _vsnprintf(text, len(text), template, values)
        errors[part or b""] = "libtiff: " + printable(text.value.decode("utf-8", "replace"))


_libtiff_handler: Final = _ERROR_HANDLER(_note_libtiff_error)
_print_libtiff_error = None
if hasattr(_LIBTIFF, "TIFFSetErrorHandler"):  # Pillow can be built without it
    _LIBTIFF.TIFFSetErrorHandler.restype = _ERROR_HANDLER
    _print_libtiff_error = _LIBTIFF.TIFFSetErrorHandler(_libtiff_handler)


@contextlib.contextmanager
def libtiff_errors_raised() -> Iterator[None]:
    """Give libtiff's reason where Pillow fails, and fail where a codec of it decoded past damage.

    By a handler, as redirecting the file descriptor would take what other threads print.
    """
    errors: dict[bytes, str] = {}
    before = _libtiff_errors.set(errors)
    try:
        yield
    except OSError as error:
        for detail in errors.values():
            raise ImageProblemError(Problem.DECODE_FAILED, detail) from error
        raise
    finally:
        _libtiff_errors.reset(before)
    for part, detail in errors.items():
        if b"Decode" in part:
            raise ImageProblemError(Problem.DECODE_FAILED, detail)
