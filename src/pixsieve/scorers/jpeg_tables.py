"""The quality setting that a JPEG was written with, estimated from its quantisation tables.

Segments: ITU-T T.81, B.2; the standard tables: its K.1. The scale from 1 to 100 is that of the
Independent JPEG Group's library (``jpeg_quality_scaling`` and ``jpeg_add_quant_table``).
"""
# ruff: noqa: PLR2004 - the numbers are the format's own

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Luminance and chrominance, in the zigzag order in which files store them.
_STANDARD: Final = (
    (
        16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40,
        26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
        56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87,
        95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
    ),
    (
        17, 18, 18, 24, 21, 24, 47, 26, 26, 47, 99, 66, 56, 66, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
        99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    ),
)  # fmt: skip

_MARKERS: Final = 4096  # segments and fill bytes that are looked at; files have some dozens


def quality(data: bytes | memoryview) -> int | None:
    """Return the setting from 1 to 100 whose standard tables are nearest to those of a JPEG.

    It is exact for files of encoders that scale the standard tables, as most do; of others, such as
    Photoshop and some cameras, it is the setting that loses about as much. A file that was saved
    several times shows its last setting alone.

    Nearest by the sum of absolute differences over the first two tables: that of luma, and that of
    chroma if there is one. Of equally near ones the highest.

    Returns:
        ``None`` for what is no JPEG, or one without tables before its first scan.
    """
    found: dict[int, tuple[int, ...]] = {}
    for segment in _tables(memoryview(data)):
        found.update(_read(segment))
    if 0 not in found:
        return None
    return _nearest(found[0], found.get(1))


def _tables(data: memoryview) -> Iterator[memoryview]:
    """Yield the contents of the DQT segments before the first scan."""
    if bytes(data[:2]) != b"\xff\xd8":
        return
    at = 2
    for _ in range(_MARKERS):
        head = bytes(data[at : at + 4])
        if head.startswith(b"\xff\xff"):  # a fill byte
            at += 1
            continue
        if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:
            return
        length = head[2] << 8 | head[3]
        if head[1] == 0xDB:
            yield data[at + 4 : at + 2 + length]
        at += 2 + length


def _read(segment: memoryview) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the number and the 64 values of each whole table of a DQT segment."""
    while len(segment) >= 65:
        wide, number = segment[0] >> 4, segment[0] & 15
        values = np.frombuffer(segment[1 : 129 if wide else 65], ">u2" if wide else "u1")
        if len(values) == 64:
            yield number, tuple(values.tolist())
        segment = segment[129 if wide else 65 :]


@lru_cache(maxsize=256)
def _nearest(luma: tuple[int, ...], chroma: tuple[int, ...] | None) -> int:
    distance = np.abs(_scaled(0) - np.array(luma)).sum(axis=1)
    if chroma is not None:
        distance += np.abs(_scaled(1) - np.array(chroma)).sum(axis=1)
    return 100 - int(distance[::-1].argmin())


@lru_cache
def _scaled(which: int) -> NDArray[np.int64]:
    """Return a standard table as each setting from 1 to 100 scales it, (100, 64)."""
    settings = np.arange(1, 101)[:, None]
    percent = np.where(settings < 50, 5000 // settings, 200 - 2 * settings)
    return ((np.array(_STANDARD[which]) * percent + 50) // 100).clip(1, 255)
