"""Near-duplicates planted on purpose, and pictures that only look alike: for ``variants.py``.

Variants are made of photographs, one file each. Text pages and charts are drawn with one font and
one layout, each with its own content. Everything follows from names and numbers alone.
"""

from __future__ import annotations

import hashlib
import io
import random
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PHOTOS, PAGES, CHARTS = "photographs", "pages", "charts"
"""Folders of what differs; each variant has one of its own."""

_PAGE = (620, 800)
_CHART = (640, 480)
_SYLLABLES = (
    "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "qui",
    "ro", "su", "ta", "ve", "wi", "xo", "yu", "zan", "ther", "ing", "ment",
)  # fmt: skip
_INKS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


_Make: TypeAlias = "Callable[[Image.Image, random.Random], tuple[str, bytes]]"


def _jpeg(picture: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _resave(quality: int) -> _Make:
    return lambda picture, _: ("jpg", _jpeg(picture, quality))


def _resize(percent: int) -> _Make:
    def make(picture: Image.Image, _: random.Random) -> tuple[str, bytes]:
        size = tuple(max(1, round(side * percent / 100)) for side in picture.size)
        return "jpg", _jpeg(picture.resize((size[0], size[1]), Image.Resampling.LANCZOS))

    return make


def _crop(percent: float, *, centre: bool) -> _Make:
    """Cut ``percent`` of the width and of the height off."""

    def make(picture: Image.Image, chance: random.Random) -> tuple[str, bytes]:
        width, height = (round(side * (1 - percent / 100)) for side in picture.size)
        x, y = (0.5, 0.5) if centre else (chance.random(), chance.random())
        left, top = round(x * (picture.width - width)), round(y * (picture.height - height))
        return "jpg", _jpeg(picture.crop((left, top, left + width, top + height)))

    return make


def _change(
    change: Callable[[Image.Image], Image.Image],
) -> _Make:
    return lambda picture, _: ("jpg", _jpeg(change(picture)))


def _text(picture: Image.Image) -> Image.Image:
    """Write a line over the lower left, as a date stamp or a name is."""
    marked = picture.copy()
    font = ImageFont.load_default(max(8, picture.height // 14))
    place = (picture.width * 0.04, picture.height * 0.88)
    ImageDraw.Draw(marked).text(
        place, "sample 2024-05-01", "white", font, stroke_width=1, stroke_fill="black"
    )
    return marked


def _border(picture: Image.Image) -> Image.Image:
    """Put a white frame of 4 % of the shorter side round it."""
    return ImageOps.expand(picture, max(1, round(min(picture.size) * 0.04)), "white")


def _format(name: str, **options: int) -> _Make:
    def make(picture: Image.Image, _: random.Random) -> tuple[str, bytes]:
        buffer = io.BytesIO()
        picture.save(buffer, name, **options)
        return name, buffer.getvalue()

    return make


VARIANTS: dict[str, _Make] = {
    **{f"resave q{quality}": _resave(quality) for quality in (30, 50, 75, 95)},
    **{f"resize {percent} %": _resize(percent) for percent in (25, 50, 75, 150, 200)},
    **{f"crop {percent} %, centre": _crop(percent, centre=True) for percent in (2, 5, 10, 20)},
    "crop 25 % of the area, anywhere": _crop(100 * (1 - 0.75**0.5), centre=False),
    "crop 25 %, anywhere": _crop(25, centre=False),
    "mirror": _change(ImageOps.mirror),
    "brightness x0.7": _change(lambda picture: ImageEnhance.Brightness(picture).enhance(0.7)),
    "brightness x1.4": _change(lambda picture: ImageEnhance.Brightness(picture).enhance(1.4)),
    "contrast x0.7": _change(lambda picture: ImageEnhance.Contrast(picture).enhance(0.7)),
    "contrast x1.4": _change(lambda picture: ImageEnhance.Contrast(picture).enhance(1.4)),
    "small text": _change(_text),
    "border 4 %": _change(_border),
    "grey": _change(lambda picture: picture.convert("L")),
    "as PNG": _format("png", compress_level=1),
    "as WebP": _format("webp", quality=80),
}
"""By name, what makes (file extension, bytes) of a picture in RGB; crops: of width and height."""


def variant(name: str, photo: str, picture: Image.Image) -> tuple[str, bytes]:
    """Return a variant's file extension and bytes; where chance plays a part, names decide it."""
    return VARIANTS[name](picture, random.Random(f"{name}/{photo}"))


def page(number: int) -> bytes:
    """Return a page of text as PNG: title, paragraphs of made-up words."""
    chance = random.Random(f"page/{number}")
    picture = Image.new("L", _PAGE, 255)
    draw = ImageDraw.Draw(picture)
    draw.text((60, 50), _words(chance, 4).title(), 0, ImageFont.load_default(26))
    font = ImageFont.load_default(15)
    y = 110
    while y < _PAGE[1] - 80:
        for _ in range(chance.randint(3, 9)):
            line = _words(chance, 14)
            while font.getlength(line) > _PAGE[0] - 120:
                line = line.rpartition(" ")[0]
            draw.text((60, y), line, 0, font)
            y += 21
        y += 14
    return _png(picture)


def chart(number: int) -> bytes:
    """Return a chart as PNG: axes, grid, labels; in turn lines, bars and points."""
    chance = random.Random(f"chart/{number}")
    picture = Image.new("RGB", _CHART, "white")
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = 70, 50, 610, 420
    draw.text((200, 15), _words(chance, 3).title(), "black", ImageFont.load_default(20))
    for step in range(6):
        y = bottom - step * (bottom - top) // 5
        draw.line((left, y, right, y), "#cccccc")
        draw.text((30, y - 8), str(step * 20), "black", ImageFont.load_default(13))
    draw.line((left, top, left, bottom, right, bottom), "black", 2)
    for ink in _INKS[: chance.randint(1, 3)]:
        _series(draw, chance, ink, number % 3)
    return _png(picture)


def _series(draw: ImageDraw.ImageDraw, chance: random.Random, ink: str, kind: int) -> None:
    count = chance.randint(6, 20)
    level = chance.uniform(80, 400)
    spots = []
    for step in range(count):
        level = min(410, max(60, level + chance.uniform(-90, 90)))
        spots.append((75 + step * 530 / count, level))
    if kind == 0:
        draw.line(spots, ink, 3)
    for x, y in spots:
        if kind == 1:
            draw.rectangle((x, y, x + 200 / count, 420), ink)
        elif kind == 2:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), ink)


def _words(chance: random.Random, count: int) -> str:
    return " ".join(
        "".join(chance.choices(_SYLLABLES, k=chance.randint(1, 3))) for _ in range(count)
    )


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def folder_of(name: str) -> str:
    """Return the name of a variant's folder."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def plant(root: Path, photos: Mapping[str, bytes], graphics: int) -> Path:
    """Return a folder with photographs, their variants, and graphics; what is not there is made.

    A variant's file has the name of its photograph, in the variant's folder.

    Args:
        root: Folder that keeps what is made from one run to the next.
        photos: JPEGs by name.
        graphics: Number of pages, and of charts.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes() + str(graphics).encode())
    for name, data in photos.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    folder = root / f"planted-{digest.hexdigest()[:8]}"
    if folder.is_dir():
        return folder
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in (PHOTOS, PAGES, CHARTS, *map(folder_of, VARIANTS)):
        (unfinished / name).mkdir(parents=True)
    for photo, data in photos.items():
        (unfinished / PHOTOS / f"{photo}.jpg").write_bytes(data)
        with Image.open(io.BytesIO(data)) as opened:
            picture = opened.convert("RGB")
        for name in VARIANTS:
            extension, changed = variant(name, photo, picture)
            (unfinished / folder_of(name) / f"{photo}.{extension}").write_bytes(changed)
    for number in range(graphics):
        (unfinished / PAGES / f"page-{number:04d}.png").write_bytes(page(number))
        (unfinished / CHARTS / f"chart-{number:04d}.png").write_bytes(chart(number))
    unfinished.rename(folder)
    return folder
