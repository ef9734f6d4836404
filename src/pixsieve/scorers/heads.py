"""What scorers over an embedding column have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pixsieve.errors import PlanError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from pixsieve.models.laion import Head


def check_embedding(columns: pa.Schema, column: str, head: Head, stage: str) -> None:
    """Raise ``PlanError`` unless the column holds what the head was trained on."""
    field = columns.field(column)
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    model = metadata.get("model", "an unknown model")
    if model != head.embedding:
        msg = (
            f"{stage}: the column {column!r} holds embeddings of {model}, but {head.name} was "
            f"trained on those of {head.embedding}; add an "
            f"ImageEmbeddingStage(model={head.embedding!r}) before it"
        )
        raise PlanError(msg)


def check_threshold(threshold: float | None, low: float, high: float, what: str) -> None:
    """Raise ``PlanError`` for a threshold that no score, or every score, passes."""
    if threshold is not None and not low < threshold < high:
        msg = (
            f"score_threshold is {threshold:g}, but {what} is on a scale from {low:g} to {high:g}, "
            f"so it would drop nothing or everything; choose one in between, or None to score only"
        )
        raise PlanError(msg)


def vectors(column: pa.Array, dim: int) -> NDArray[np.float32]:
    """Return an embedding column as rows (n, dim); a null row is NaN."""
    flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    found = np.full((len(column), dim), np.nan, np.float32)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    found[valid] = flat.reshape(-1, dim)
    return found
