"""Uniform 64-bit keys of samples: what seeded choices are made by.

They derive from the id of a sample alone, so a choice neither depends on the order of rows nor
changes when other samples come or go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DIGITS = 16
_BIT_6, _NINE, _LOW_NIBBLE = (
    np.uint64(number) for number in (0x0101010101010101, 9, 0x0F0F0F0F0F0F0F0F)
)


def hex_digits(column: pa.ChunkedArray, start: int) -> NDArray[np.uint64]:
    """Return 16 hexadecimal digits of each text as a number, (n,) uint64.

    Args:
        column: Text without nulls, with nothing but digits in that place.
        start: Where the digits begin; from the end, if negative.

    Raises:
        ValueError: a text is too short.
    """
    found = [_of_chunk(chunk.cast(pa.large_string()), start) for chunk in column.chunks]
    return np.concatenate(found) if found else np.empty(0, np.uint64)


def id_digests(image_ids: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return the digest that each image_id ends with, (n,) uint64."""
    return hex_digits(image_ids, -_DIGITS)


def uniform(image_ids: pa.ChunkedArray, seed: int) -> NDArray[np.uint64]:
    """Return a uniform number for each id, (n,) uint64: see :func:`mixed`."""
    return mixed(id_digests(image_ids), seed)


def mixed(digests: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return a uniform number for each id's digest, (n,) uint64: splitmix64 of it and the seed.

    Seeds count modulo 2 ** 64. Source of the mixer: Steele, Lea, Flood, "Fast splittable
    pseudorandom number generators", OOPSLA 2014.
    """
    return mix64(digests ^ mix64(np.array([seed % 2**64], np.uint64)))


def _of_chunk(column: pa.Array, start: int) -> NDArray[np.uint64]:
    if not len(column):
        return np.empty(0, np.uint64)
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset :][: len(column) + 1]
    at = ends[1:] + start if start < 0 else ends[:-1] + start
    if (at < ends[:-1]).any() or (at + _DIGITS > ends[1:]).any():
        msg = f"a text has no {_DIGITS} digits from its place {start} on"
        raise ValueError(msg)
    half = _DIGITS // 2
    words: NDArray[np.uint64] = np.ndarray(len(data) - half + 1, ">u8", data, strides=(1,))
    high, low = (_numbers(words[place].astype(np.uint64)) for place in (at, at + half))
    return np.asarray((high << np.uint64(32)) | low)


def _numbers(text: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return what eight characters in each 64 bits, the first one highest, spell: 32 bits."""
    letters = (text >> np.uint64(6)) & _BIT_6
    value = (text & _LOW_NIBBLE) + _NINE * letters
    for shift, mask in ((4, 0x00FF00FF00FF00FF), (8, 0x0000FFFF0000FFFF), (16, 0xFFFFFFFF)):
        value = (value | (value >> np.uint64(shift))) & np.uint64(mask)
    return value


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return uniform numbers, one for each: splitmix64."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
