"""Pixels converted to sRGB by their profile."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageCms

from pixsieve.image.srgb import is_other, profile_space, to_srgb
from pixsieve.testing import cameras, images

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_srgb_is_known_by_its_name():
    assert not is_other(None)
    assert not is_other(SRGB)
    assert is_other(cameras.other_profile())
    assert not is_other(cameras.other_profile()[:200])
    assert not is_other(b"junk")
    assert not is_other(images.cmyk_profile())
    assert profile_space(SRGB) == b"RGB "
    assert profile_space(b"junk") == b""


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_those_of_the_profile(mode):
    image = images.rgba() if mode == "RGBA" else images.pixels()
    converted = np.asarray(to_srgb(image, cameras.other_profile()), int)
    # the profile changes red and blue places
    swapped = np.asarray(image, int)[..., [2, 1, 0, 3][: len(mode)]]
    assert np.abs(converted - swapped).max() <= 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGB"])
def test_a_profile_that_does_not_fit_changes_nothing(mode):
    image = images.pixels(mode=mode)
    for profile in (images.cmyk_profile(), b"junk", b""):
        assert to_srgb(image, profile) is image
    if mode == "RGB":
        assert to_srgb(image, cameras.other_profile()[:300]) is image
    else:
        assert to_srgb(image, SRGB) is image


def test_gray_is_converted_by_its_curve():
    curve = bytearray(SRGB)
    gray = bytes(curve).replace(b"RGB ", b"GRAY", 1).replace(b"rTRC", b"kTRC", 1)
    image = Image.linear_gradient("L")
    converted = to_srgb(image, gray)
    assert converted.mode == "L"
    assert np.abs(np.asarray(converted, int) - np.asarray(image, int)).max() <= 2
