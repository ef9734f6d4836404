"""A picture of some samples, for the dataset card."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from pixsieve import image
from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.export.finished import Dataset
    from pixsieve.scorers.guard import Guard

MOST = 8
SIDE = 160
_COLUMNS = 4
_GAP = 8
_PAPER = "#ffffff"
_MISSING = "#d0d0d0"
_QUALITY = 85


def picture(dataset: Dataset, guard: Guard) -> bytes:
    """Return a JPEG with thumbnails of up to 8 samples, evenly spaced over the export.

    They are upright, in the order of the export, row by row, at most 160 pixels wide and high. An
    image that cannot be decoded, or that ended a worker, is a grey square.
    """
    found = []
    for number, data in enumerate(_images(dataset)):
        with guard.watch(number):
            found.append(_missing() if number in guard.avoid else _thumbnail(data))
    columns = min(_COLUMNS, len(found))
    rows = -(-len(found) // _COLUMNS)
    step = SIDE + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, rows * step + _GAP), _PAPER)
    for number, thumbnail in enumerate(found):
        left = _GAP + number % _COLUMNS * step + (SIDE - thumbnail.width) // 2
        top = _GAP + number // _COLUMNS * step + (SIDE - thumbnail.height) // 2
        sheet.paste(thumbnail, (left, top))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def chosen(samples: int) -> list[int]:
    """Return the numbers of the samples to show: in the middle of as many runs of equal length."""
    count = min(MOST, samples)
    return [(2 * number + 1) * samples // (2 * count) for number in range(count)]


def _images(dataset: Dataset) -> Iterator[bytes]:
    wanted = chosen(dataset.samples)
    first = 0
    for shard in dataset.shards:
        rows = [number - first for number in wanted if first <= number < first + shard.samples]
        first += shard.samples
        if not rows:
            continue
        places = dataset.sidecar(shard, ["member_offset", "member_size"]).take(rows).to_pylist()
        with LocalStorage().open(str(dataset.folder / shard.tar.name)) as reader:
            for place in places:
                yield reader.read(place["member_offset"], place["member_size"])


def _thumbnail(data: bytes) -> Image.Image:
    try:
        header = image.probe(data)
        longer, shorter = max(header.width, header.height), min(header.width, header.height)
        pixels = image.decode(data, header, min_side=-(-SIDE * shorter // longer))
    except image.ImageProblemError:
        return _missing()
    thumbnail = Image.fromarray(pixels)
    thumbnail.thumbnail((SIDE, SIDE), Image.Resampling.HAMMING)
    return thumbnail


def _missing() -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), _MISSING)
