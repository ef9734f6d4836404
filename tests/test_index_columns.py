"""What columns mean, by their metadata."""

import pyarrow as pa

from pixsieve import schema
from pixsieve.export.indexes.columns import meaning
from pixsieve.stages import ImageQualityStage


def test_every_column_of_all_sidecars_has_a_meaning():
    assert [field.name for field in schema.SIDECAR if not meaning(field)] == []


def test_scores_tell_scale_unit_and_direction():
    for field in ImageQualityStage().adds():
        assert "scale: " in meaning(field)
    about = {"scale": "0 to 1", "unit": "share", "better": "higher", "source": "CLIP", "x": "y"}
    found = meaning(pa.field("a", pa.float32(), metadata=about))
    assert found == "CLIP; scale: 0 to 1; unit: share; higher is better"
    assert meaning(pa.field("a", pa.float32(), metadata={"unit": "", "better": "neither"})) == ""


def test_of_what_nobody_said_anything_nothing_is_said():
    assert meaning(pa.field("likes", pa.int64())) == ""


def test_metadata_that_is_no_text_does_no_harm():
    assert meaning(pa.field("a", pa.int64(), metadata={b"unit": b"\xff"})) == "unit: \ufffd"
