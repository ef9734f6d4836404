"""Which format bytes are, and what bytes of none look like."""

from __future__ import annotations

import struct

import pytest

from pixsieve import image
from pixsieve.image import ImageProblemError
from pixsieve.schema import Problem
from pixsieve.testing import images

EVERY_FORMAT = images.every_format()


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_a_format_is_known_from_its_first_32_bytes(name):
    assert image.sniff(EVERY_FORMAT[name][:32]) == name
    assert image.sniff(memoryview(EVERY_FORMAT[name])) == name


@pytest.mark.parametrize("looks", images.not_images())
def test_other_content_is_no_format_and_is_called_by_its_name(looks):
    data = images.not_images()[looks]
    assert image.sniff(data) is None
    assert image.describe(data) == looks
    with pytest.raises(ImageProblemError) as caught:
        image.probe(data)
    assert (caught.value.problem, caught.value.detail) == (Problem.UNSUPPORTED_FORMAT, looks)


def test_a_tiff_whose_first_pixels_spell_a_cameras_name_is_none_of_a_camera():
    later, camera = (4000).to_bytes(4, "little"), b"\x10\0\0\0CR\x02\0"
    assert image.sniff(b"II*\0" + later + b"CR" + bytes(52)) == "tiff"
    assert image.sniff(b"II*\0" + camera + bytes(52)) is None


@pytest.mark.parametrize(
    ("brands", "expected"),
    [
        (b"avif\0\0\0\0mif1miaf", "avif"),
        (b"mif1\0\0\0\0miafavif", "avif"),
        (b"mif1\0\0\0\0miafheic", None),
        (b"mp42\0\0\0\0isomavc1", None),
    ],
)
def test_avif_is_told_by_its_brands(brands, expected):
    assert image.sniff(struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(8)) == expected


def test_brands_are_not_read_past_the_file_type_box():
    assert image.sniff(b"\0\0\0\x10ftypmif1\0\0\0\0avifavif") is None


@pytest.mark.parametrize("kind", ["text", "no bytes"])
def test_short_and_cut_text_is_described(kind):
    data = {"text": ("é" * 300).encode()[:511], "no bytes": b""}[kind]
    assert image.describe(data) == kind
