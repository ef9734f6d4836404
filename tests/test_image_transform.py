"""Images on their way into a dataset: what is done, what is not, and what is said of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pixsieve import image
from pixsieve.image import EncodeOptions, TransformOptions, encoding, lossless
from pixsieve.testing import cameras, exiftool, images
from pixsieve.testing.image_kinds import decode, every_kind

JPEG = EncodeOptions(format="jpeg")
ALL_KINDS = every_kind()
needs_libturbojpeg = pytest.mark.skipif(
    not lossless.is_available(), reason="libturbojpeg is not there: apt-get install libturbojpeg0"
)


def transformed(
    data: bytes, to: EncodeOptions | None = None, **options: object
) -> image.Encoded | None:
    header = image.probe(data)
    own = EncodeOptions(format=header.format) if header.format in image.ENCODED else None  # type: ignore[arg-type]
    options = {"lossless": lossless.is_available()} | options
    return image.transform(data, header, TransformOptions(**options), to or own)  # type: ignore[arg-type]


def made(data: bytes, to: EncodeOptions | None = None, **options: object) -> image.Encoded:
    found = transformed(data, to, **options)
    assert found is not None
    return found


def checked(found: image.Encoded) -> image.ImageHeader:
    """Return the header, which is what was said of the image, as it decodes."""
    header = image.probe(found.data)
    assert (header.width, header.height, header.mode, header.exif_orientation) == (
        found.width, found.height, found.mode, found.exif_orientation,
    )  # fmt: skip
    assert header.format == found.encoding.split()[0]
    image.check_decode(found.data, header)
    return header


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upright": False},
        {"mode": "center_crop", "size": 40},
        {"mode": "border", "size": 120, "upscale": True, "shrink": "lanczos"},
        {"srgb": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("to", ["jpeg", "png", "webp", "own"])
def test_every_kind_is_what_is_said_of_it(kind, options, to):
    data = ALL_KINDS[kind]
    header = image.probe(data)
    if to == "own" and header.format not in image.ENCODED:
        return
    target = None if to == "own" else EncodeOptions(format=to)
    found = transformed(data, target, **options)
    if found is None:
        assert to in {"own", header.format}
        return
    after = checked(found)
    if "size" in options:
        assert (after.width, after.height) == (options["size"],) * 2
    assert transformed(data, target, **options) == found


@needs_libturbojpeg
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(96, 64), (97, 61)])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_orientation_is_shown_right(orientation, size, progressive):
    upright = images.pixels(3, *size)
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = upright if turned is None else upright.transpose(Image.Transpose(turned))
    data = images.save(
        stored, "JPEG", exif=images.exif(orientation), quality=90, progressive=progressive
    )
    found = made(data)
    header = checked(found)
    assert (header.width, header.height) == size
    assert exiftool.is_available() is False or exiftool.private(found.data) == []
    shown = decode(found.data).astype(int)
    assert np.abs(shown - np.asarray(upright, int)).mean() < 9
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), int)
    exact = found.encoding.startswith("jpeg pixels=kept")
    assert exact == (size == (96, 64) or orientation in {1, 5})
    assert np.abs(shown - expected).mean() < (0.3 if exact else 4)
    assert ("progressive" in Image.open(io.BytesIO(found.data)).info) == progressive


@needs_libturbojpeg
def test_words_say_what_was_done():
    assert made(cameras.camera_jpeg(6)).encoding == (
        "jpeg pixels=kept orientation=6>1 dropped=exif,xmp,mpf,flashpix,iptc,app15,comment,trailer"
    )
    assert made(cameras.camera_jpeg(6, width=97, height=61)).encoding == (
        "jpeg tables=kept subsampling=4:2:0 from=jpeg orientation=6>1 exif=dropped"
    )
    assert made(cameras.camera_jpeg(6), upright=False).encoding == (
        "jpeg pixels=kept dropped=exif,xmp,mpf,flashpix,iptc,app15,comment,trailer"
    )
    assert made(images.photo(0, 500, 375), mode="center_crop", size=100).encoding == (
        "jpeg quality=95 subsampling=4:2:0 from=jpeg size=500x375>100x100 scaled=133x100 "
        "filter=area"
    )
    assert made(images.photo(), mode="border", size=200, upscale=True).encoding == (
        "jpeg quality=95 subsampling=4:2:0 from=jpeg background=#ffffff size=97x61>200x200 "
        "scaled=200x126 filter=lanczos"
    )
    assert made(cameras.described_webp(6, lossless=True)).encoding == (
        "webp lossless=yes from=webp orientation=6>1 exif=dropped"
    )


def test_what_needs_no_change_stays_as_it_is():
    for data in (images.photo(), images.photo(format="PNG"), images.photo(format="WEBP")):
        assert transformed(data) is None
        assert transformed(data, mode="keep_ratio", size=200) is None
        assert transformed(data, mode="keep_ratio", size=61) is None
        assert transformed(data, srgb=True) is None
    assert transformed(cameras.camera_jpeg(6), strip=False, upright=False) is None
    assert transformed(images.animated_gif()) is None
    assert transformed(images.avif()) is None


@pytest.mark.parametrize("orientation", range(2, 9))
def test_own_tables_lose_next_to_nothing_on_the_same_grid(orientation):
    for width, height, most in ((96, 64, 1.0), (97, 61, 4.0)):
        data = images.oriented_jpeg(orientation, 1, width, height)
        found = made(data, lossless=False)
        assert "tables=kept" in found.encoding
        checked(found)
        error = np.abs(decode(found.data).astype(int) - decode(data)).mean()
        assert error < most
        assert len(found.data) < 1.1 * len(data)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_own_subsampling_is_kept_where_pillow_has_it(subsampling):
    for orientation in (3, 6):
        data = images.photo(0, 97, 61, exif=images.exif(orientation), subsampling=subsampling)
        kept = "4:4:4" if (subsampling, orientation) == ("4:2:2", 6) else subsampling
        assert f"subsampling={kept} " in made(data, lossless=False).encoding


@pytest.mark.parametrize(
    "data",
    [
        cameras.camera_jpeg(6, width=97, height=61, icc=cameras.other_profile()),
        cameras.described_png(6, icc_profile=cameras.other_profile()),
        cameras.camera_jpeg(3, mode="L"),
        cameras.camera_jpeg(mode="CMYK"),
    ],
    ids=["jpeg", "png", "gray", "cmyk"],
)
def test_all_changes_share_one_decode(data, monkeypatch):
    calls: list[object] = []

    def counted(real):
        def decoder(*args: object, **options: object) -> object:
            found = real(*args, **options)
            if found is not None:
                calls.append(real)
            return found

        return decoder

    for name in ("turbo", "load_image"):
        monkeypatch.setattr(encoding, name, counted(getattr(encoding, name)))
    to = EncodeOptions(format="webp")
    found = made(data, to, mode="border", size=50, srgb=True)
    assert (found.width, found.height) == (50, 50)
    assert len(calls) == 1
    calls.clear()
    assert made(cameras.camera_jpeg())
    assert calls == []


def test_profiles_are_kept_or_applied():
    profile = cameras.other_profile()
    data = cameras.camera_jpeg(icc=profile)
    for options in ({}, {"mode": "keep_ratio", "size": 32}):
        kept = made(data, **options)
        assert Image.open(io.BytesIO(kept.data)).info["icc_profile"] == profile
        converted = made(data, srgb=True, **options)
        assert "icc=applied" in converted.encoding
        assert "icc_profile" not in Image.open(io.BytesIO(converted.data)).info
        swapped = decode(converted.data).astype(int)[..., ::-1]
        assert np.abs(swapped - decode(kept.data)).mean() < 6
    assert "tables=kept" in made(data, srgb=True).encoding


def test_a_large_image_is_reduced_while_it_is_decoded_and_looks_the_same():
    data = images.photo(0, 1601, 1203, quality=95)
    for size, factor in ((75, 8), (150, 4), (300, 2), (600, 1)):
        found = made(data, mode="keep_ratio", size=size)
        whole = Image.open(io.BytesIO(data)).resize(
            (found.width, found.height), Image.Resampling.HAMMING
        )
        error = np.asarray(whole, float) - decode(found.data)
        assert np.sqrt((error**2).mean()) < 3, factor


def test_nothing_is_enlarged_beyond_its_format():
    data = images.photo(0, 1000, 4, format="PNG")
    to = EncodeOptions(format="webp")
    assert made(data, to, mode="keep_ratio", size=60, upscale=True).width == 15_000
    assert made(data, to, mode="keep_ratio", size=70, upscale=True).width == 1000


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@settings(deadline=None)
@given(st.data())
def test_hostile_bytes_end_as_problems(kind, draw):
    data = bytearray(
        {
            "jpeg": cameras.camera_jpeg(6, width=64, height=48),
            "png": cameras.described_png(6, width=30, height=20),
            "webp": cameras.described_webp(6),
        }[kind]
    )
    for _ in range(draw.draw(st.integers(1, 5))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = bytes(data[: draw.draw(st.integers(len(data) // 2, len(data)))])
    for options in ({}, {"mode": "center_crop", "size": 16, "srgb": True}):
        try:
            found = transformed(cut, **options)
        except image.ImageProblemError:
            continue
        if found is not None:
            assert image.probe(found.data).format == kind
