"""Images of like shape share a bucket, at the resolution that they have."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import PlanError
from pixsieve.select.buckets import BucketStage
from pixsieve.testing.rows import make_rows

SDXL = "704x1408 704x1344 768x1344 768x1280 832x1216 832x1152 896x1152 896x1088 960x1088 960x1024"
"""Those of the paper's list up to a ratio of 2, upright; with two lengths for one width."""


def rows(folder: Path, *sizes: tuple[int, int]):
    samples = [{"width": width, "height": height} for width, height in sizes]
    return make_rows(folder, samples, per_part=2)


def test_the_buckets_of_1024_are_the_large_ones_of_sdxl():
    (level,) = BucketStage()._levels()
    names = [f"{width}x{height}" for width, height in level]
    upright = [f"{h}x{w}" for w, h in reversed(level)]
    assert names == upright
    assert names[: names.index("1024x1024") + 1] == [
        "704x1408", "768x1344", "768x1280", "832x1216", "896x1152", "960x1088", "1024x1024",
    ]  # fmt: skip
    assert set(names[:6]) <= set(SDXL.split())


def test_each_image_goes_to_the_nearest_shape(tmp_path):
    found = rows(tmp_path, (4000, 3000), (3000, 4000), (2000, 2000), (9000, 1000), (1100, 1100))
    verdicts = BucketStage().decide(found)
    assert verdicts.bucket.to_pylist() == [
        "1152x896", "896x1152", "1024x1024", "1408x704", "1024x1024",
    ]  # fmt: skip
    assert verdicts.notes == (
        "896x1152: 1 (20.0%)",
        "1024x1024: 2 (40.0%)",
        "1152x896: 1 (20.0%)",
        "1408x704: 1 (20.0%)",
    )
    assert len(verdicts.drop) == 0


def test_of_several_resolutions_the_largest_without_enlarging(tmp_path):
    found = rows(tmp_path, (1024, 1024), (1023, 2000), (600, 600), (300, 300), (512, 512))
    verdicts = BucketStage(resolution=(1024, 512)).decide(found)
    assert verdicts.bucket.to_pylist() == [
        "1024x1024", "704x1408", "512x512", "512x512", "512x512",
    ]  # fmt: skip
    assert verdicts.notes[-1] == ("1 are smaller than their bucket: kept, and have to be enlarged")
    dropped = BucketStage(resolution=(512, 1024), too_small="drop").decide(found)
    assert dropped.drop.tolist() == [3]
    assert dropped.reason == "too_small_for_bucket"
    assert dropped.bucket.to_pylist()[3] is None
    told = dropped.evidence.of(found.take(dropped.drop, ("width", "height")))
    assert json.loads(told[0].as_py()) == {"width": 300, "height": 300}
    assert dropped.notes[-1] == "1 are smaller than their bucket: dropped"


def test_of_many_buckets_notes_name_the_fullest(tmp_path):
    sizes = [(100 + number, 100) for number in range(30)]
    found = rows(tmp_path, *sizes, *sizes[10:])
    notes = BucketStage(buckets=tuple(sizes)).decide(found).notes
    assert notes == (
        *(f"{width}x100: 2 (4.0%)" for width, _ in sizes[10:]),
        "10 more buckets: 10 (20.0%)",
    )


def test_buckets_of_ones_own(tmp_path):
    sizes = ((512, 512), (768, 512), (512, 768))
    found = rows(tmp_path, (1500, 1000), (1000, 1001), (100, 700))
    verdicts = BucketStage(buckets=sizes).decide(found)
    assert verdicts.bucket.to_pylist() == ["768x512", "512x512", "512x768"]
    assert BucketStage(buckets=sizes[::-1]).decide(found).bucket == verdicts.bucket


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), max_size=8),
    resolution=st.sampled_from([(512,), (1024,), (256, 512, 1024)]),
    step=st.sampled_from([32, 64]),
)
def test_no_other_shape_is_nearer(sizes, resolution, step, tmp_path_factory):
    stage = BucketStage(resolution=resolution, step=step)
    found = rows(tmp_path_factory.mktemp("rows"), *sizes)
    for (width, height), name in zip(sizes, stage.decide(found).bucket.to_pylist(), strict=True):
        chosen = tuple(map(int, name.split("x")))
        level = next(level for level in stage._levels() if chosen in level)

        def far(size, shape=width / height):
            return abs(math.log(shape) - math.log(size[0] / size[1]))

        assert far(chosen) <= min(map(far, level)) + 1e-9
        for larger in stage._levels()[stage._levels().index(level) + 1 :]:
            near = min(larger, key=far)
            assert width < near[0] or height < near[1]


def test_what_is_not_kept_has_no_bucket_and_no_row_at_all_is_fine(tmp_path):
    found = make_rows(tmp_path / "1", [{"problem": "decode_failed"}, {"width": 9}, {}])
    found.kept[2] = False
    assert BucketStage().decide(found).bucket.to_pylist() == [None, "704x1408", None]
    assert BucketStage().decide(make_rows(tmp_path / "2", [])).bucket.to_pylist() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 1000}, "1000 is no multiple of step=64; expected such as 1024"),
        ({"resolution": ()}, "resolution is empty"),
        ({"step": 0}, "step is 0"),
        ({"max_ratio": 0.5}, "max_ratio 0.5"),
        ({"step": 1, "max_ratio": 9.0}, "buckets; expected at most 1000"),
        ({"buckets": ()}, "expected sizes of 1 or more"),
        ({"buckets": ((64, 0),)}, "expected sizes of 1 or more"),
        ({"buckets": ((512, 512), (64, 64))}, "512x512 and 64x64 have one shape"),
        ({"buckets": ((512, 512),), "step": 32}, "leave resolution"),
        ({"too_small": "enlarge"}, "too_small is 'enlarge'"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(PlanError, match=message):
        BucketStage(**options)
