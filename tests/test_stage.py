"""A stage that is built in Python is checked as one in a recipe is."""

from __future__ import annotations

import pytest

from pixsieve.errors import PlanError
from pixsieve.stages import ImageReaderStage, ImageWriterStage


@pytest.mark.parametrize(
    "field",
    [
        {"decode_check": "Full"},
        {"animated": "x"},
        {"key_split": "mid"},
        {"image_member": 5},
        {"max_pixels": 0},
        {"max_image_bytes": -1},
        {"json_fields": ["a"]},
        {"path_or_paths": 5},
    ],
    ids=str,
)
def test_a_reader_with_a_wrong_value_is_refused_by_name(field):
    with pytest.raises(PlanError, match=next(iter(field))):
        ImageReaderStage(**{"path_or_paths": "in", **field})


@pytest.mark.parametrize(
    "field",
    [
        {"images_per_tar": 2.5},
        {"images_per_tar": True},
        {"images_per_tar": "5"},
        {"quality": "95"},
        {"image_format": "JPEG"},
        {"output_dir": ""},
        {"member_names": "x"},
    ],
    ids=str,
)
def test_a_writer_with_a_wrong_value_is_refused_by_name(field):
    with pytest.raises(PlanError, match=next(iter(field))):
        ImageWriterStage(**{"output_dir": "out", **field})


def test_lists_and_tuples_of_paths_are_as_good_as_one_path():
    assert ImageReaderStage(["a", "b"]) == ImageReaderStage(("a", "b"))
    assert ImageReaderStage(["a", "b"]).path_or_paths == ("a", "b")
    assert ImageReaderStage("a", json_fields={"x": "int64"}).json_fields == {"x": "int64"}
