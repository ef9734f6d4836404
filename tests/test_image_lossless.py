"""JPEG turned by their coefficients: the same pixels in another order, or None."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve import image
from pixsieve.image import lossless
from pixsieve.image.pillow import open_image
from pixsieve.image.strip import Stripped
from pixsieve.testing import cameras, exiftool, images
from pixsieve.testing.image_kinds import decode

pytestmark = pytest.mark.skipif(
    not lossless.is_available(), reason="libturbojpeg is not there: apt-get install libturbojpeg0"
)


def turned_upright(data: bytes, orientation: int) -> bytes | None:
    found = lossless.turned_upright(data, orientation)
    assert found is None or isinstance(found, Stripped)
    return found and found.data


KINDS = {
    "4:2:0": {},
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 1},
    "gray": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
    "rgb": {"keep_rgb": True},
    "optimised": {"optimize": True},
}


def made(orientation: int, **options: object) -> bytes:
    options = {"width": 96, "height": 64} | options
    exif = b"Exif\0\0" + cameras.exif_tiff(orientation)
    return images.photo(exif=exif, **options)


def chroma_at_full_size(options: dict[str, object]) -> bool:
    """Whether no chroma is interpolated, which is not the same in each direction."""
    return options.get("subsampling") == "4:4:4" or bool({"mode", "keep_rgb"} & options.keys())


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_turned(kind, orientation):
    data = made(orientation, **KINDS[kind])
    found = turned_upright(data, orientation)
    assert found is not None
    before, after = image.probe(data), image.probe(found)
    assert after.exif_orientation == 1
    assert (after.width, after.height, after.mode) == (before.width, before.height, before.mode)
    image.check_decode(found, after)
    expected, shown = decode(data).astype(int), decode(found).astype(int)
    # The inverse transform rounds rows and columns apart, so a turned block can differ.
    assert np.abs(expected - shown).max() <= (3 if chroma_at_full_size(KINDS[kind]) else 12)
    assert np.abs(expected - shown).mean() < 1
    assert (b"\xff\xc2" in found) == (kind == "progressive")


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_turning_back_gives_the_same_coefficients(kind, orientation):
    back = {6: 8, 8: 6}.get(orientation, orientation)
    data = images.photo(0, 96, 64, **KINDS[kind])
    turned = turned_upright(data, orientation)
    assert turned is not None
    again = turned_upright(turned, back)
    assert again is not None
    shown = [np.asarray(open_image(each, "jpeg")) for each in (data, again)]
    assert np.array_equal(*shown)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(("width", "height"), [(96, 61), (97, 64), (97, 61)])
def test_what_is_not_exact_is_not_done(width, height, orientation):
    # What comes from the right, or from below, to the front must not end within a block.
    across = orientation in {2, 3, 7, 8}
    down = orientation in {3, 4, 6, 7}
    exact = not (across and width % 16) and not (down and height % 16)
    found = turned_upright(made(orientation, width=width, height=height), orientation)
    assert (found is not None) == exact
    if found is not None:
        header = image.probe(found)
        assert {header.width, header.height} == {width, height}


def test_damage_is_not_turned():
    data = made(6)
    assert turned_upright(data[:-100], 6) is None
    assert turned_upright(images.flipped(data, data.index(b"\xff\xda") + 200, 7), 6) is not None
    assert turned_upright(data[:40], 6) is None
    assert turned_upright(b"\xff\xd8\xff\xd9", 6) is None


@pytest.mark.skipif(not exiftool.is_available(), reason="exiftool is not there")
@pytest.mark.parametrize("order", "<>")
def test_metadata_stays_and_fits(order):
    data = cameras.camera_jpeg(6, order=order, icc=cameras.other_profile())
    found = turned_upright(data, 6)
    assert found is not None
    before, after = exiftool.tags(data), exiftool.tags(found)
    assert after["IFD0:Orientation"] == "Horizontal (normal)"
    assert after["XMP-tiff:Orientation"] == "Horizontal (normal)"
    assert (after["ExifIFD:ExifImageWidth"], after["ExifIFD:ExifImageHeight"]) == (64, 96)
    same = [name for name in before if name.startswith(("GPS", "ICC", "IPTC", "XMP-exif"))]
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert not [name for name in after if name.startswith(("IFD1", "MP"))]
    assert image.check_decode(found, image.probe(found)) is None
    told = lossless.turned_upright(data, 6)
    assert told is not None
    assert told.dropped == ("thumbnail", "mpf", "trailer")


@settings(deadline=None)
@given(st.data())
def test_damaged_exif_is_no_obstacle(draw):
    block = bytearray(cameras.exif_tiff(6, thumbnail=b"thumbnail"))
    for _ in range(draw.draw(st.integers(1, 6))):
        block[draw.draw(st.integers(0, len(block) - 1))] = draw.draw(st.integers(0, 255))
    cut = bytes(block[: draw.draw(st.integers(0, len(block)))])
    plain = images.photo(0, 96, 64)
    data = plain[:20] + cameras.segment(0xE1, b"Exif\0\0" + cut) + plain[20:]
    found = turned_upright(data, 6)
    if found is not None:
        assert np.array_equal(decode(found), decode(turned_upright(plain, 6)))
    else:
        assert image.probe(data).exif_orientation > 1


def test_without_the_library_it_is_told(monkeypatch):
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    lossless._library.cache_clear()
    try:
        assert not lossless.is_available()
        with pytest.raises(RuntimeError, match="libturbojpeg"):
            turned_upright(made(6), 6)
    finally:
        monkeypatch.undo()
        lossless._library.cache_clear()
