"""The demo's folder: every file is what its fate says, and making it twice gives the same bytes."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_PATH = Path(__file__).parents[1] / "examples" / "demo_photos.py"
_SPEC = importlib.util.spec_from_file_location("demo_photos", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
demo_photos = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(demo_photos)

_SMALL = {"aneurysms", "page", "text"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return folder, originals and fates, from pictures with the names of the real ones."""
    rng = np.random.default_rng(3)
    originals = tmp_path_factory.mktemp("originals")
    photos = {}
    for files in demo_photos.ORIGINALS.values():
        for name, path in files.items():
            size = (120, 160, 3) if name in _SMALL else (300, 400, 3)
            photos[name] = originals / Path(path).name
            Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(photos[name])
    folder = tmp_path_factory.mktemp("demo") / "photos"
    return folder, photos, demo_photos.make(folder, photos)


def _image(path):
    with Image.open(path) as image:
        image.load()
    return image


def test_every_sample_has_a_fate_and_every_fate_a_file(made):
    folder, _, fates = made
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    siblings = {name for name in files - fates.keys() if name.endswith((".txt", ".json"))}
    assert fates.keys() == files - siblings
    assert len(siblings) == 14  # a caption and a json for each of seven


def test_kept_images_decode_are_large_enough_and_differ(made):
    folder, _, fates = made
    kept = [folder / path for path, fate in fates.items() if fate == "kept"]
    assert len(kept) == 21
    assert all(min(_image(path).size) >= 256 for path in kept)
    assert len({path.read_bytes() for path in kept}) == len(kept)


def test_images_to_be_filtered_decode_and_are_too_small(made):
    folder, _, fates = made
    small = [folder / path for path, fate in fates.items() if fate == "filter"]
    assert len(small) == 6
    assert all(min(_image(path).size) < 256 for path in small)


def test_duplicates_have_the_bytes_of_a_kept_image_that_has_a_caption(made):
    folder, _, fates = made
    captioned = {
        (folder / path).read_bytes()
        for path, fate in fates.items()
        if fate == "kept" and (folder / path).with_suffix(".txt").exists()
    }
    copies = [folder / path for path, fate in fates.items() if fate == "exact_duplicate"]
    assert len(copies) == 3
    assert all(path.read_bytes() in captioned for path in copies)


def test_near_duplicates_are_a_kept_picture_saved_in_another_way(made):
    folder, _, fates = made
    near = [path for path, fate in fates.items() if fate == "perceptual_duplicate"]
    assert near == ["downloads/hubble_small.jpg", "downloads/coffee.jpg"]
    small, large = (_image(folder / p) for p in (near[0], "space/hubble.jpg"))
    assert small.size == (large.width // 2, large.height // 2)
    assert _image(folder / near[1]).size == _image(folder / "food/coffee.webp").size


def test_the_cut_image_has_a_header_and_does_not_decode(made):
    folder, _, _ = made
    with Image.open(folder / "downloads" / "flower_cut.jpg") as image:
        assert image.size == (400, 300)
        with pytest.raises(OSError, match="truncated"):
            image.load()


def test_names_tell_of_another_format_where_they_should(made):
    folder, _, _ = made
    assert _image(folder / "downloads" / "cat_mirrored.png").format == "JPEG"
    assert _image(folder / "downloads" / "astronaut_mirrored.jpg").format == "PNG"


def test_the_picture_on_its_side_says_so(made):
    folder, photos, _ = made
    turned = _image(folder / "downloads" / "china_on_its_side.jpg")
    width, height = _image(photos["china"]).size
    assert turned.size == (height, width)
    assert turned.getexif()[0x0112] == 6


def test_making_it_again_gives_the_same_bytes(made, tmp_path):
    folder, photos, fates = made

    def digests(root):
        return {
            str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in root.rglob("*")
            if p.is_file()
        }

    (tmp_path / "stale.jpg").touch()
    assert demo_photos.make(tmp_path, photos) == fates
    assert digests(tmp_path) == digests(folder)
