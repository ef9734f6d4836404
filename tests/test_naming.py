"""Keys that last: safe ones, each once, and the others give way to ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.export.naming import lasting
from pixsieve.pipeline import Pipeline
from pixsieve.stages import ImageReaderStage, ImageWriterStage
from pixsieve.storage import tables
from pixsieve.testing import images
from pixsieve.testing.corpus import run_pipeline, write_files
from pixsieve.verify import verify


def column(*keys: str) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(keys, pa.string())])


def test_the_first_of_a_key_in_the_order_of_the_export_keeps_it():
    keys = [column("a", "b"), column("A", "c", "a")]
    assert lasting(keys, np.array([4, 0, 1, 2, 3])).tolist() == [True, False, True, False, True]
    assert lasting(keys, np.array([1, 2])).tolist() == [True, True]
    assert lasting([], np.empty(0, np.int64)).tolist() == []


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "_a", "-a", "a b", "é", "a" * 58, "a\n"])
def test_a_key_that_some_loader_would_not_take_goes(key: str):
    assert lasting([column(key, "a" * 57)], np.arange(2)).tolist() == [False, True]


def test_an_export_keeps_the_keys_of_its_source_where_it_can(tmp_path):
    files = {f"{name}.jpg": images.photo(n, 64, 48) for n, name in enumerate(("x1", "x2", "y y"))}
    write_files(tmp_path / "in", files)
    pipeline = Pipeline().add_stage(ImageReaderStage(str(tmp_path / "in")))
    out = tmp_path / "out"
    run_pipeline(pipeline.add_stage(ImageWriterStage(output_dir=str(out), member_names="key")))
    rows = tables.read_table(str(next(out.glob("images-*.parquet"))))
    ids = rows["image_id"].to_pylist()
    assert rows["key"].to_pylist() == ["x1", "x2", ids[2]]
    assert rows["original_key"].to_pylist() == ["x1", "x2", "y y"]
    assert verify(out, workers=0).findings == ()
