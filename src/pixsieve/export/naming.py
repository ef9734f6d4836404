"""Which samples may keep the key that they had in their source."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa
    from numpy.typing import NDArray

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,56}")
"""What every loader takes for one key; as long as an ``image_id`` at most."""


def lasting(keys: Iterable[pa.ChunkedArray], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each exported sample, in the order of the export, whether it may keep its key.

    It may if the key is safe and no sample before it has it, also when case is ignored. 8 bytes a
    row are held; a chance collision of these digests renames a sample, and does no harm.

    Args:
        keys: Of all indexed rows, in order.
        order: Numbers of the exported rows.
    """
    digests = [np.empty(0, np.uint64)]
    for column in keys:
        found = (_digest(key) for chunk in column.chunks for key in chunk.to_pylist())
        digests.append(np.fromiter(found, np.uint64, len(column)))
    exported = np.concatenate(digests)[order]
    _, first = np.unique(exported, return_index=True)
    kept = np.zeros(len(order), np.bool_)
    kept[first] = True
    kept[exported == 0] = False
    return kept


def _digest(key: str) -> int:
    """Return a digest of a key, 0 if it is not safe."""
    if not _SAFE.fullmatch(key):
        return 0
    return int.from_bytes(hashlib.blake2b(key.casefold().encode(), digest_size=8).digest(), "big")
