"""How large images become: by arithmetic, by img2dataset's rules, and never larger unasked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixsieve.image.resize import Layout, layout, reduction, resize
from pixsieve.testing import images

SIDES = st.integers(1, 5000)
MODES = ("keep_ratio", "keep_ratio_largest", "center_crop", "border")


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("no", 100, None),
        ("keep_ratio", 256, Layout((341, 256), (341, 256))),
        ("keep_ratio_largest", 256, Layout((256, 192), (256, 192))),
        ("center_crop", 256, Layout((341, 256), (256, 256))),
        ("border", 256, Layout((256, 192), (256, 256))),
        ("keep_ratio", 375, None),
        ("keep_ratio_largest", 500, None),
        ("center_crop", 375, Layout((500, 375), (375, 375))),
        ("border", 500, Layout((500, 375), (500, 500))),
        ("keep_ratio", 376, None),
        ("keep_ratio_largest", 501, None),
        ("center_crop", 376, None),
        ("border", 501, None),
    ],
)
def test_each_mode(mode, size, expected):
    assert layout(500, 375, mode, size) == expected
    turned = expected and Layout(expected.scaled[::-1], expected.size[::-1])
    assert layout(375, 500, mode, size) == turned


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("keep_ratio", Layout((683, 512), (683, 512))),
        ("keep_ratio_largest", Layout((512, 384), (512, 384))),
        ("center_crop", Layout((683, 512), (512, 512))),
        ("border", Layout((512, 384), (512, 512))),
    ],
)
def test_what_is_smaller_is_enlarged_if_asked(mode, expected):
    assert layout(100, 75, mode, 512) is None
    assert layout(100, 75, mode, 512, upscale=True) == expected


@settings(deadline=None)
@given(SIDES, SIDES, st.sampled_from(MODES), st.integers(1, 2000), st.booleans())
def test_sides_follow_the_mode(width, height, mode, size, upscale):
    found = layout(width, height, mode, size, upscale=upscale)
    shorter, longer = sorted((width, height))
    side = shorter if mode in {"keep_ratio", "center_crop"} else longer
    if found is None:
        assert side <= size
        assert not upscale or side == size
        return
    assert upscale or side >= size
    scaled, final = found
    if not upscale:
        assert scaled <= (width, height)
    assert (min if side == shorter else max)(scaled) == size or shorter == longer or 1 in scaled
    # The other side is the nearest whole number of pixels (or the one pixel that there must be).
    for given_side, made in zip((width, height), scaled, strict=True):
        assert abs(made - given_side * size / side) <= 0.5 or made == 1
    assert final == (scaled if mode.startswith("keep") else (size, size))


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(1, 2000))
def test_at_least_twice_the_result_is_decoded(width, height, size):
    found = layout(width, height, "keep_ratio", size)
    if found is not None:
        factor = reduction(width, height, found.scaled)
        assert factor in {1, 2, 4, 8}
        assert factor == 1 or min(width / factor, height / factor) >= 2 * min(found.scaled) - 1
        larger = min(width / found.scaled[0], height / found.scaled[1]) < 4 * factor
        assert factor == 8 or larger


def test_a_reduced_image_is_not_shifted():
    # A line a third from the left is there in what is made of the whole and of the half, whose
    # width is rounded up.
    whole = Image.new("L", (601, 401))
    whole.paste(255, (200, 0, 210, 401))
    half = Image.new("L", (301, 201))
    half.paste(255, (100, 0, 105, 201))
    to = Layout((150, 100), (150, 100))
    made = [
        np.asarray(resize(each, *sides, to, "area", "#000000"), float)[50]
        for each, sides in ((whole, (601, 401)), (half, (300.5, 200.5)))
    ]
    centres = [np.average(np.arange(150), weights=row) for row in made]
    assert centres[0] == pytest.approx(centres[1], abs=0.05)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_crop_is_the_middle_and_border_is_round_it(mode):
    image = images.gray16() if mode == "I;16" else images.pixels(mode=mode)
    scaled = resize(image, 97, 61, Layout((64, 40), (64, 40)), "area", "#000000")
    cropped = resize(image, 97, 61, Layout((64, 40), (40, 40)), "area", "#000000")
    assert (scaled.mode, scaled.size, cropped.size) == (mode, (64, 40), (40, 40))
    middle = np.asarray(scaled.crop((12, 0, 52, 40)), int)
    assert np.abs(np.asarray(cropped, int) - middle).max() <= (257 if mode == "I;16" else 1)
    bordered = resize(image, 97, 61, Layout((64, 40), (64, 64)), "area", "#ff0000")
    assert np.array_equal(np.asarray(bordered.crop((0, 12, 64, 52))), np.asarray(scaled))
    corner = {"RGB": (255, 0, 0), "RGBA": (255, 0, 0, 255), "L": 76, "LA": (76, 255)}
    assert bordered.getpixel((0, 0)) == corner.get(mode, 76 * 257)


def test_a_crop_that_scales_nothing_keeps_the_pixels():
    image = images.pixels()
    made = resize(image, 97, 61, Layout((97, 61), (61, 61)), "area", "#000000")
    assert np.array_equal(np.asarray(made), np.asarray(image)[:, 18:79])


def test_colour_under_transparent_pixels_does_not_count():
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    image.paste((0, 255, 0, 255), (0, 0, 20, 40))
    made = np.asarray(resize(image, 40, 40, Layout((13, 13), (13, 13)), "lanczos", "#000000"))
    seen = made[made[..., 3] > 16]
    assert seen[:, 0].max() < 20


def test_area_averages():
    # Stripes of one pixel become grey, and no moiré.
    stripes = np.zeros((90, 90), np.uint8)
    stripes[:, ::2] = 255
    made = np.asarray(
        resize(Image.fromarray(stripes), 90, 90, Layout((31, 31), (31, 31)), "area", "#000000"), int
    )
    assert np.abs(made[:, 2:-2] - 127).max() < 12
