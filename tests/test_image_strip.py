"""Metadata taken out of an image's bytes: what goes, what stays, and that no pixel changes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixsieve import image
from pixsieve.image.strip import can_strip, jpeg_segments, strip
from pixsieve.testing import cameras, exiftool, images
from pixsieve.testing.image_kinds import decode, every_kind

PROFILE = cameras.other_profile()
DESCRIBED = {
    "camera": cameras.camera_jpeg(),
    "camera little-endian": cameras.camera_jpeg(order="<"),
    "camera with a profile in parts": cameras.camera_jpeg(icc=PROFILE, icc_part=100),
    "progressive": cameras.camera_jpeg(progressive=True, icc=PROFILE),
    "cmyk": cameras.camera_jpeg(mode="CMYK", icc=images.cmyk_profile()),
    "gray": cameras.camera_jpeg(mode="L"),
    "restart markers": cameras.camera_jpeg(restart_marker_blocks=1),
    "4:4:4": cameras.camera_jpeg(subsampling="4:4:4"),
    "rgb": cameras.camera_jpeg(keep_rgb=True),
    "png": cameras.described_png(),
    "png with a profile": cameras.described_png(icc_profile=PROFILE),
    "webp": cameras.described_webp(),
    "webp with a profile": cameras.described_webp(icc_profile=PROFILE),
    "lossless webp": cameras.described_webp(lossless=True),
    "gif": cameras.described_gif(),
}
needs_exiftool = pytest.mark.skipif(not exiftool.is_available(), reason="exiftool is not there")


def stripped(data: bytes, orientation: int = 1) -> bytes:
    return strip(data, image.probe(data).format, orientation=orientation).data


def profile(data: bytes) -> bytes | None:
    return Image.open(io.BytesIO(data)).info.get("icc_profile")


@pytest.mark.parametrize("kind", DESCRIBED)
def test_secrets_go_and_pixels_stay(kind):
    data = DESCRIBED[kind]
    header = image.probe(data)
    found = strip(data, header.format)
    assert found.dropped
    assert b"secret" in data
    assert b"secret" not in found.data
    assert b"Berlin" not in found.data
    assert image.probe(found.data) == header
    image.check_decode(found.data, header)
    assert np.array_equal(decode(found.data), decode(data))
    assert profile(found.data) == profile(data)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(found.data)) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))
    assert strip(found.data, header.format) == (found.data, ())


@needs_exiftool
@pytest.mark.parametrize("kind", DESCRIBED)
def test_exiftool_finds_nothing_any_more(kind):
    data = DESCRIBED[kind]
    assert exiftool.private(data)
    assert exiftool.private(stripped(data)) == []
    assert "Warning" not in " ".join(exiftool.tags(stripped(data)))


@pytest.mark.parametrize(
    "make", [cameras.camera_jpeg, cameras.described_png, cameras.described_webp]
)
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_orientation_that_is_kept_is_all_that_is_kept(make, orientation):
    found = stripped(make(orientation), orientation)
    assert image.probe(found) == image.probe(make(orientation))
    assert stripped(found, orientation) == found
    if orientation == 6 and exiftool.is_available():
        assert exiftool.private(found) == ["IFD0:Orientation"]


def test_what_is_dropped_is_named():
    assert strip(cameras.camera_jpeg(), "jpeg").dropped == (
        "exif", "xmp", "mpf", "flashpix", "iptc", "app15", "comment", "trailer",
    )  # fmt: skip
    assert strip(cameras.described_png(), "png").dropped == (
        "exif", "text", "xmp", "time", "chunk", "trailer",
    )  # fmt: skip
    assert strip(cameras.described_webp(), "webp").dropped == ("exif", "xmp", "trailer")
    assert strip(cameras.described_gif(), "gif").dropped == ("comment", "xmp")


@pytest.mark.parametrize("kind", every_kind())
def test_an_image_without_metadata_stays_as_it_is(kind):
    data = every_kind()[kind]
    header = image.probe(data)
    if not can_strip(header.format) or header.exif_orientation > 1:
        return
    found = strip(data, header.format)
    if not found.dropped:
        assert found.data is data
    assert image.probe(found.data) == header
    assert np.array_equal(decode(found.data), decode(data))


def test_animations_keep_their_frames():
    for data in (images.animated_gif(), images.animated_png(), images.animated_webp()):
        found = Image.open(io.BytesIO(stripped(data)))
        assert found.n_frames == 3


def test_a_thumbnail_in_jfif_goes():
    data = images.photo()
    at = data.index(b"JFIF") - 4
    thumbnail = b"JFIF\0\1\1\0\0\1\0\1\4\3" + b"tmb" * 12
    made = data[:at] + cameras.segment(0xE0, thumbnail) + data[at + 18 :]
    assert strip(made, "jpeg") == (data, ("thumbnail",))
    extension = data[: at + 18] + cameras.segment(0xE0, b"JFXX\0\x13tmb") + data[at + 18 :]
    assert strip(extension, "jpeg") == (data, ("thumbnail",))


def test_the_segments_between_scans_are_seen():
    data = images.photo(progressive=True)
    scans = [each for each in jpeg_segments(data) if each.marker == 0xDA]
    assert len(scans) > 3
    at = scans[1].start
    made = data[:at] + cameras.segment(0xFE, b"secret") + data[at:]
    assert strip(made, "jpeg") == (data, ("comment",))


def test_adobe_s_segment_stays_as_it_decides_the_colours():
    data = cameras.camera_jpeg(mode="CMYK")
    assert b"Adobe" in stripped(data)
    forged = data[:2] + cameras.segment(0xEE, b"secret") + data[2:]
    assert stripped(forged) == stripped(data)


def test_a_segment_of_a_reserved_kind_goes():
    data = images.photo()
    for marker in (0x02, 0xBF, 0xF0, 0xFD):
        made = data[:20] + cameras.segment(marker, b"secret") + data[20:]
        assert strip(made, "jpeg") == (data, ("segment",))


def test_stray_bytes_between_segments_go():
    data = images.photo()
    at = data.index(b"\xff\xdb")
    for junk in (b"secret", b"\xff\xff", b"\0" * 40):
        made = data[:at] + junk + data[at:]
        assert strip(made, "jpeg") == (data, ("stray",))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([*range(0xE0, 0xF0), 0xFE]), st.binary(max_size=300)), max_size=5
    ),
    st.booleans(),
)
def test_any_segments_go(segments, progressive):
    data = images.photo(0, 40, 30, progressive=progressive)
    made = b"".join(
        cameras.segment(marker, body)
        for marker, body in segments
        if not body.startswith((b"Adobe", b"JFIF\0", b"ICC_PROFILE\0"))
    )
    assert strip(data[:20] + made + data[20:], "jpeg").data == data


@settings(deadline=None)
@given(st.sampled_from(sorted(DESCRIBED)), st.data())
def test_an_image_that_is_cut_anywhere_loses_its_metadata_all_the_same(kind, draw):
    data = DESCRIBED[kind]
    whole = stripped(data)
    cut = data[: draw.draw(st.integers(0, len(data)))]
    try:
        header = image.probe(cut)
    except image.ImageProblemError:
        return
    found = strip(cut, header.format)
    assert b"secret" not in found.data
    assert found.data == cut or len(found.data) <= len(whole)
    assert strip(found.data, header.format).data == found.data


@settings(deadline=None)
@given(st.sampled_from(sorted(DESCRIBED)), st.data())
def test_damage_ends_nothing(kind, draw):
    data = bytearray(DESCRIBED[kind])
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        header = image.probe(bytes(data))
    except image.ImageProblemError:
        return
    found = strip(bytes(data), header.format)
    assert strip(found.data, header.format).data == found.data


def test_fill_bytes_within_a_scan_are_pixels():
    # libjpeg takes FF FF 00 for a stuffed FF, as it does FF 00
    data = images.photo(0, 200, 160, quality=100)
    scan = next(each for each in jpeg_segments(data) if each.marker == 0xDA)
    at = data.index(b"\xff\x00", scan.body)
    filled = data[:at] + b"\xff" + data[at:]
    assert strip(filled, "jpeg") == (filled, ())
    assert np.array_equal(decode(filled), decode(data))


def test_long_runs_of_fill_bytes_take_linear_time():
    data = images.photo()
    long = data[:-2] + b"\xff" * 4_000_000
    assert strip(long, "jpeg").data == long
    assert strip(long + b"\xd9", "jpeg").data == data
