"""Thumbnails: grey, squashed, of one size."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.errors import PlanError
from pixsieve.scorers.thumbnail import ThumbnailStage
from pixsieve.stage import ImageBatch


def thumbnails(stage: ThumbnailStage, *pixels: np.ndarray) -> list[np.ndarray]:
    rows = pa.RecordBatch.from_pydict({"image_id": ["x"] * len(pixels)})
    found = stage.load()(ImageBatch(rows, (), tuple(pixels)))
    assert found.schema == stage.adds()
    shape = (stage.size, stage.size)
    return [np.frombuffer(each, np.uint8).reshape(shape) for each in found["thumbnail"].to_pylist()]


def test_halves_stay_where_they_are_whatever_the_shape():
    tall, wide = np.zeros((300, 40), np.uint8), np.zeros((40, 300), np.uint8)
    tall[:150], wide[:, :150] = 200, 200
    first, second = thumbnails(ThumbnailStage(size=32), tall, wide)
    assert (first[:14] == 200).all()
    assert (first[18:] == 0).all()
    assert (second == first.T).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 30000), (96, 96)])
def test_odd_shapes_have_one(shape):
    (found,) = thumbnails(ThumbnailStage(), np.full(shape, 77, np.uint8))
    assert (found == 77).all()


@pytest.mark.parametrize("size", [0, 7, 257])
def test_sizes_that_make_no_sense_are_refused(size):
    with pytest.raises(PlanError, match="size is"):
        ThumbnailStage(size=size)
