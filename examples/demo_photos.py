"""A folder of photographs as people have them: good ones, copies, thumbnails, and broken files.

The photographs come with scikit-image and scikit-learn. Every file has a fate that is known
beforehand, so that a run over the folder can be checked file by file.
"""

# ruff: noqa: INP001 - scripts, not a package
from __future__ import annotations

import importlib.util
import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT = "kept"

ORIGINALS = {
    "skimage": {
        "aneurysms": "data/microaneurysms.png",
        "astronaut": "data/astronaut.png",
        "brick": "data/brick.png",
        "cameraman": "data/camera.png",
        "cat": "data/chelsea.png",
        "coffee": "data/coffee.png",
        "coins": "data/coins.png",
        "grass": "data/grass.png",
        "gravel": "data/gravel.png",
        "hubble": "data/hubble_deep_field.jpg",
        "logo": "data/logo.png",
        "moon": "data/moon.png",
        "motorcycle_left": "data/motorcycle_left.png",
        "motorcycle_right": "data/motorcycle_right.png",
        "page": "data/page.png",
        "retina": "data/retina.jpg",
        "rocket": "data/rocket.jpg",
        "text": "data/text.png",
        "tissue": "data/ihc.png",
    },
    "sklearn": {
        "china": "datasets/images/china.jpg",
        "flower": "datasets/images/flower.jpg",
    },
}
"""Packages, and the files in them by the name that they have here."""

_CAPTIONS = {
    "animals/cat": "a ginger cat looks past the camera",
    "people/astronaut": "an astronaut in an orange suit before a flag and a shuttle model",
    "food/coffee": "a cup of coffee on a saucer, seen from above",
    "places/china": "a temple with a curved roof under a blue sky",
    "plants/flower": "a pink dahlia before dark leaves",
    "space/rocket": "a rocket on its launch pad at dusk",
    "space/moon": "craters on the moon in low light",
}
_PAGE = "<!DOCTYPE html><html><title>404</title><body>The photograph has moved.</body></html>\n"


def originals() -> dict[str, Path]:
    """Return the photographs' paths by name.

    Raises:
        SystemExit: A package that ships them is not installed.
    """
    found: dict[str, Path] = {}
    for package, files in ORIGINALS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed: pip install --group demo")
        found |= {name: Path(spec.origin).parent / path for name, path in files.items()}
    return found


def make(folder: Path, photos: Mapping[str, Path]) -> dict[str, str]:
    """Fill ``folder``, which is emptied first.

    Args:
        folder: Where the files go.
        photos: A photograph's path for each name in :data:`ORIGINALS`.

    Returns:
        For each sample's path below ``folder`` its fate: ``"kept"``, or the reason why it is not.
    """
    shutil.rmtree(folder, ignore_errors=True)
    fates: dict[str, str] = {}

    def add(path: str, data: bytes, fate: str = KEPT) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        fates[path] = fate

    def opened(name: str) -> Image.Image:
        with Image.open(photos[name]) as image:
            image.load()
        return image

    def whole(name: str) -> bytes:
        return photos[name].read_bytes()

    # Good ones: JPEGs as they are or made from a PNG, and other formats.
    add("places/china.jpg", whole("china"))
    add("plants/flower.jpg", whole("flower"))
    add("space/hubble.jpg", whole("hubble"))
    add("space/rocket.jpg", whole("rocket"))
    add("space/moon.jpg", _encoded(opened("moon"), "JPEG"))
    add("medicine/retina.jpg", whole("retina"))
    add("medicine/tissue.jpg", _encoded(opened("tissue"), "JPEG"))
    add("animals/cat.jpg", _encoded(opened("cat"), "JPEG"))
    add("people/astronaut.png", whole("astronaut"))
    add("people/cameraman.png", whole("cameraman"))
    add("food/coffee.webp", _encoded(opened("coffee"), "WEBP"))
    add("things/coins.jpg", _encoded(opened("coins"), "JPEG"))
    add("things/logo.png", whole("logo"))  # with an alpha channel
    for name in ("motorcycle_left", "motorcycle_right"):  # much alike, yet not the same bytes
        add(f"things/{name}.jpg", _encoded(opened(name), "JPEG"))
    for name in ("brick", "grass", "gravel"):
        add(f"textures/{name}.jpg", _encoded(opened(name), "JPEG"))

    # Odd, but good: the name tells of another format; the picture lies on its side and says so.
    add("downloads/cat_mirrored.png", _encoded(ImageOps.mirror(opened("cat")), "JPEG"))
    add("downloads/astronaut_mirrored.jpg", _encoded(ImageOps.mirror(opened("astronaut")), "PNG"))
    add("downloads/china_on_its_side.jpg", _on_its_side(ImageOps.mirror(opened("china"))))

    # Copies of the same bytes; the one with a caption is the one to keep.
    add("downloads/china (1).jpg", whole("china"), "exact_duplicate")
    add("downloads/IMG_0001.jpg", whole("rocket"), "exact_duplicate")
    add("zz_backup/flower.jpg", whole("flower"), "exact_duplicate")

    # Copies that were made smaller or saved again.
    hubble = opened("hubble")
    half = hubble.resize((hubble.width // 2, hubble.height // 2))
    add("downloads/hubble_small.jpg", _encoded(half, "JPEG"), "perceptual_duplicate")
    add("downloads/coffee.jpg", _encoded(opened("coffee"), "JPEG"), "perceptual_duplicate")

    # Too small.
    add("documents/page.png", whole("page"), "filter")
    add("documents/text.png", whole("text"), "filter")
    add("medicine/aneurysms.png", whole("aneurysms"), "filter")
    for name in ("cat", "china", "rocket"):
        add(f"thumbnails/{name}.jpg", _encoded(_thumbnail(opened(name)), "JPEG"), "filter")

    # Not to be used at all.
    cut = _encoded(ImageOps.mirror(opened("flower")), "JPEG")
    add("downloads/flower_cut.jpg", cut[: len(cut) * 6 // 10], "truncated_image")
    add("downloads/not_found.jpg", _PAGE.encode(), "unsupported_format")
    add("downloads/empty.jpg", b"", "empty_image")
    add("downloads/notes.txt", b"rename these files some day\n", "missing_image")
    add("downloads/blinking.gif", _animation(opened("coins"), opened("moon")), "animated")

    for stem, caption in _CAPTIONS.items():
        (folder / f"{stem}.txt").write_text(caption, encoding="utf-8")
        fields = {"caption": caption, "license": "see the package", "rating": len(caption) % 5 + 1}
        (folder / f"{stem}.json").write_text(json.dumps(fields), encoding="utf-8")
    return fates


def _encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, quality=92, **options)
    return buffer.getvalue()


def _thumbnail(image: Image.Image) -> Image.Image:
    return ImageOps.contain(image, (160, 160))


def _on_its_side(image: Image.Image) -> bytes:
    """Turn the picture and put the EXIF tag in that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = image.transpose(Image.Transpose.ROTATE_90)
    return _encoded(turned, "JPEG", exif=exif)


def _animation(*frames: Image.Image) -> bytes:
    buffer = io.BytesIO()
    first, *others = [ImageOps.fit(frame.convert("L"), (300, 300)) for frame in frames]
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=500)
    return buffer.getvalue()
