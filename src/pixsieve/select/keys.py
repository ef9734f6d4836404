"""Uniform 64-bit keys of samples: what seeded choices are made by.

They derive from the id of a sample alone, so a choice neither depends on the order of rows nor
changes when other samples come or go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

_ID_DIGITS = 16


def hex_digits(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return text of exactly 16 hexadecimal digits as numbers, (n,) uint64."""
    text = b"".join(value.encode() for value in column.to_pylist())
    return np.frombuffer(bytes.fromhex(text.decode()), ">u8").astype(np.uint64)


def uniform(image_ids: pa.ChunkedArray, seed: int) -> NDArray[np.uint64]:
    """Return a uniform number for each id, (n,) uint64: splitmix64 of the id's digest and the seed.

    Seeds count modulo 2 ** 64. Source of the mixer: Steele, Lea, Flood, "Fast splittable
    pseudorandom number generators", OOPSLA 2014.
    """
    digest = hex_digits(pc.utf8_slice_codeunits(image_ids, -_ID_DIGITS))
    return _mix(digest ^ _mix(np.array([seed % 2**64], np.uint64)))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
