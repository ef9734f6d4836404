"""What scorers with a model, a threshold, or a column of embeddings to read have in common."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.models.laion import Head
    from pixsieve.stage import ScoreStage

_S = TypeVar("_S", bound="ScoreStage")
_NO_SCORE = (
    "model_dir",
    "model_inference_batch_size",
    "num_gpus_per_worker",
    "remove_image_data",
    "verbose",
)
"""Settings that change no score: where models lie, how they run, what Curator's scripts give."""


def without_places(stage: _S, **named: object) -> _S:
    """Return a stage without the settings that change no score; ``named`` ones are replaced."""
    fields = dataclasses.fields(stage)  # type: ignore[arg-type]  # every stage is one
    usual = {field.name: field.default for field in fields if field.name in _NO_SCORE}
    return dataclasses.replace(stage, **usual | named)  # type: ignore[type-var]  # as above


def check_embedding(columns: pa.Schema, column: str, head: Head, stage: str) -> None:
    """Raise ``PlanError`` unless a column holds the embeddings that a head was trained on."""
    way_out = f"put ImageEmbeddingStage(model={head.embedding!r}, ...) before {stage}"
    if column not in columns.names:
        msg = f"there is no column {column!r} before {stage}; {way_out}"
        raise PlanError(msg)
    field = columns.field(column)
    found = (field.metadata or {}).get(b"model", b"an unknown model").decode()
    if found != head.embedding:
        msg = (
            f"column {column!r} holds embeddings of {found}, but {head.name} was trained on those "
            f"of {head.embedding}, and on others its scores mean nothing; {way_out}"
        )
        raise PlanError(msg)
    if not pa.types.is_fixed_size_list(field.type) or field.type.list_size != head.dim:
        msg = f"column {column!r} is {field.type}; {head.name} takes {head.dim} numbers an image"
        raise PlanError(msg)


def check_threshold(threshold: object, low: float, high: float, what: str) -> None:
    """Raise ``PlanError`` for a threshold at or beyond the ends of a scale."""
    if threshold is None:
        return
    if not isinstance(threshold, int | float) or not low < threshold < high:
        msg = (
            f"score_threshold={threshold!r}: {what} goes from {low:g} to {high:g}, so this would "
            f"drop nothing or everything; give a number in between, or None to score only"
        )
        raise PlanError(msg)


def vectors(column: pa.Array, dim: int) -> NDArray[np.float32]:
    """Return an embedding column as rows (n, dim); a null row is NaN."""
    flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    found = np.full((len(column), dim), np.nan, np.float32)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    found[valid] = flat.reshape(-1, dim)
    return found


def score_array(scores: NDArray[np.float32]) -> pa.Array:
    """Return scores as a column; one that is not finite as null."""
    return pa.array(scores, pa.float32(), mask=~np.isfinite(scores))
