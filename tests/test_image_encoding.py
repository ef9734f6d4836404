"""Images in another format: what they hold, what they leave out, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageCms

from pixsieve import image
from pixsieve.errors import UsageError
from pixsieve.image import EncodeOptions, ImageHeader, ImageProblemError
from pixsieve.schema import Problem
from pixsieve.testing import images
from pixsieve.testing.image_kinds import decode, encode, every_kind, problem, reopen

ALL_KINDS = every_kind()


@pytest.mark.parametrize("to", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_what_is_encoded_decodes_and_is_what_it_says(kind, to):
    source = image.probe(ALL_KINDS[kind])
    encoded = encode(ALL_KINDS[kind], to)
    header = image.probe(encoded.data)
    assert header == ImageHeader(
        format=to,
        width=encoded.width,
        height=encoded.height,
        mode=encoded.mode,
        exif_orientation=1,
        frames=1,
    )
    assert (header.width, header.height) == (source.width, source.height)
    assert problem(encoded.data) is None
    assert encode(ALL_KINDS[kind], to) == encoded
    if to == "png" and source.mode not in {"I;16", "RGBA", "P"}:
        assert np.array_equal(decode(encoded.data), decode(ALL_KINDS[kind]))


@pytest.mark.parametrize(
    ("data", "to", "expected"),
    [
        (images.photo(format="PNG"), "jpeg", "jpeg quality=95 subsampling=4:2:0 from=png"),
        (images.photo(), "png", "png from=jpeg"),
        (images.photo(), "webp", "webp quality=95 from=jpeg"),
        (
            images.rgba_png(),
            "jpeg",
            "jpeg quality=95 subsampling=4:2:0 from=png mode=RGBA>RGB background=#ffffff",
        ),
        (images.rgba_png(), "webp", "webp quality=95 from=png"),
        (images.png16(), "png", "png from=png"),
        (images.png16(), "jpeg", "jpeg quality=95 from=png mode=I;16>L depth=16>8"),
        (images.png16_rgb(), "png", "png from=png depth=16>8"),
        (images.float_tiff(), "png", "png from=tiff mode=F>L depth=32>8 range=stretched"),
        (images.animated_gif(12), "png", "png from=gif mode=P>RGB frame=1/12"),
        (images.oriented_jpeg(6), "png", "png from=jpeg orientation=6>1 exif=dropped"),
        (
            images.cmyk_jpeg(icc_profile=images.cmyk_profile()),
            "png",
            "png from=jpeg mode=CMYK>RGB icc=applied",
        ),
        (images.photo(mode="1", format="PNG"), "webp", "webp quality=95 from=png mode=1>RGB"),
    ],
)
def test_encoding_says_how_the_image_was_made(data, to, expected):
    assert encode(data, to).encoding == expected


def test_alpha_is_kept_where_the_format_has_it_and_laid_over_the_background_where_not():
    for to in ("png", "webp"):
        assert reopen(encode(images.rgba_png(), to)).getchannel("A").getextrema() == (0, 255)
    flat = reopen(encode(images.rgba_png(), "jpeg", background="#ff0000"))
    red, green, blue = flat.getpixel((5, 30))
    assert red > 245
    assert max(green, blue) < 10


def test_16_bit_gray_is_kept_in_png():
    encoded = encode(images.save(images.gray16(), "TIFF"), "png")
    assert np.array_equal(np.asarray(reopen(encoded)), np.asarray(images.gray16()))


def test_a_profile_is_kept_only_where_it_fits_the_pixels():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kept = encode(images.photo(format="PNG", icc_profile=srgb), "jpeg")
    assert reopen(kept).info["icc_profile"] == srgb
    assert kept.encoding.endswith("icc=kept")
    wrong = encode(images.photo(format="PNG", mode="L", icc_profile=srgb), "jpeg")
    assert "icc_profile" not in reopen(wrong).info
    assert wrong.encoding.endswith("icc=dropped")


def test_no_metadata_but_the_profile_is_carried():
    secret = b"where I live"
    jpeg = images.photo(comment=secret, exif=images.exif(1), xmp=secret)
    assert secret in jpeg
    for to in ("jpeg", "png", "webp"):
        found = encode(jpeg, to).data
        assert secret not in found
        assert b"pixsieve" not in found


def test_an_image_too_long_for_the_format_is_refused():
    data = images.photo(0, 16_384, 1, "PNG")
    assert encode(data, "jpeg").width == 16_384
    with pytest.raises(ImageProblemError) as caught:
        encode(data, "webp")
    assert caught.value.problem == Problem.TOO_MANY_PIXELS


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"format": "gif"}, "format"),
        ({"format": "jpeg", "quality": 0}, "quality"),
        ({"format": "jpeg", "quality": 101}, "quality"),
        ({"format": "jpeg", "subsampling": "4:1:1"}, "subsampling"),
        ({"format": "jpeg", "background": "white"}, "background"),
        ({"format": "jpeg", "background": "#FFFFFF"}, "background"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options, name):
    with pytest.raises(UsageError, match=f"^{name} is"):
        EncodeOptions(**options)
