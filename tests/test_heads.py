"""A head takes the embeddings it was trained on, and a threshold must be on the scale."""

import math

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.errors import PlanError
from pixsieve.models import laion
from pixsieve.scorers import heads


def columns(model: str | None, kind: pa.DataType) -> pa.Schema:
    metadata = None if model is None else {"model": model}
    return pa.schema([pa.field("embedding", kind, metadata=metadata)])


def check(schema: pa.Schema, column: str = "embedding") -> None:
    heads.check_embedding(schema, column, laion.NSFW, "ImageNSFWFilterStage")


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()])
def test_the_right_embedding_fits(kind):
    check(columns(laion.VIT_L_14, pa.list_(kind, 768)))


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        (laion.VIT_B_32, 512, "holds embeddings of openai/clip-vit-base-patch32, but laion/clip"),
        ("efficientnet-lite0", 768, "holds embeddings of efficientnet-lite0"),
        (None, 768, "holds embeddings of an unknown model"),
        (laion.VIT_L_14, 512, r"is fixed_size_list.*\[512\]; .* takes 768 numbers"),
        (laion.VIT_L_14, -1, r"is list<.*; .* takes 768 numbers"),
    ],
)
def test_another_embedding_is_refused_by_name(model, size, message):
    with pytest.raises(PlanError, match=message):
        check(columns(model, pa.list_(pa.float32(), size)))


def test_without_an_embedding_the_message_says_what_to_put_before():
    way = r"put ImageEmbeddingStage\(model='openai/clip-vit-large-patch14', ...\) before ImageNSFWF"
    with pytest.raises(PlanError, match=rf"no column 'vector'.*{way}"):
        check(columns(laion.VIT_L_14, pa.list_(pa.float32(), 768)), "vector")


@pytest.mark.parametrize("threshold", [None, 1.01, 5, 5.0, 9.99])
def test_a_threshold_on_the_scale_is_taken(threshold):
    heads.check_threshold(threshold, 1, 10, "a_score")


@pytest.mark.parametrize("threshold", [0.5, 1, 10, 11, -1, math.nan, math.inf, "5", True])
def test_a_threshold_off_the_scale_is_refused(threshold):
    with pytest.raises(PlanError, match=r"score_threshold=.*: a_score goes from 1 to 10, so this"):
        heads.check_threshold(threshold, 1, 10, "a_score")


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16()])
def test_rows_of_a_column_are_its_vectors_and_null_is_no_number(kind):
    values = [[1.0, 2.0], None, [0.5, -4.0]]
    column = pa.array(values, pa.list_(kind, 2))
    expected = np.array([[1, 2], [np.nan, np.nan], [0.5, -4]], np.float32)
    np.testing.assert_array_equal(heads.vectors(column, 2), expected)
    np.testing.assert_array_equal(heads.vectors(column[1:], 2), expected[1:])
    assert heads.vectors(column[:0], 2).shape == (0, 2)


def test_a_score_that_is_no_number_is_null():
    found = heads.score_array(np.array([0.25, np.nan, np.inf], np.float32))
    assert found.to_pylist() == [0.25, None, None]
    assert found.type == pa.float32()
