"""The benchmark's input: many photographs, each with its own bytes, a caption and a json.

A few real photographs are repeated up to the count asked for. Each copy gets a JPEG comment with
its running number: no two are equal, yet none is encoded anew, and all decode to a real picture.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SAMPLES_PER_TAR = 100
MEMBERS_PER_SAMPLE = 3
_TILE = (500, 400)
_SHIPPED = {
    "skimage": (
        "data/astronaut.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/hubble_deep_field.jpg",
        "data/ihc.png",
        "data/motorcycle_left.png",
        "data/retina.jpg",
        "data/rocket.jpg",
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}
_SOI = b"\xff\xd8"
_APP0 = b"\xff\xe0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A made input.

    Attributes:
        count: How many samples it has.
        tars: Folder of tars with :data:`SAMPLES_PER_TAR` samples each, WebDataset style.
        loose: Folder of the same members as files, one sub-folder per tar, if they were asked for.
        size: Bytes of all tars.
    """

    count: int
    tars: Path
    loose: Path
    size: int


def photographs(folder: Path | None) -> dict[str, bytes]:
    """Return JPEGs by name: those of ``folder``, or cut from what installed packages ship.

    Raises:
        SystemExit: There is no photograph to be had.
    """
    if folder is not None:
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg"})
        found = {p.stem: p.read_bytes() for p in paths}
        where = f"in {folder}"
    else:
        found = dict(_shipped_tiles())
        where = "in scikit-image or scikit-learn: pip install both, or name a folder with --photos"
    if not found:
        raise SystemExit(f"no photographs {where}")
    return found


def _shipped_tiles() -> Iterator[tuple[str, bytes]]:
    """Cut the shipped photographs into JPEGs of about the size and weight of a web photograph."""
    width, height = _TILE
    for package, names in _SHIPPED.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        for name in names:
            path = Path(spec.origin).parent / name
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
            for top in range(0, max(picture.height - height, 0) + 1, height):
                for left in range(0, max(picture.width - width, 0) + 1, width):
                    tile = picture.crop(
                        (
                            left,
                            top,
                            min(left + width, picture.width),
                            min(top + height, picture.height),
                        )
                    )
                    buffer = io.BytesIO()
                    tile.save(buffer, "JPEG", quality=95)
                    yield f"{path.stem}-{left}-{top}", buffer.getvalue()


def make(root: Path, photos: Mapping[str, bytes], count: int, *, loose: bool) -> Corpus:
    """Return the corpus of ``count`` samples below ``root``; what is not there yet is made.

    Args:
        root: Folder that keeps corpora from one run to the next.
        photos: JPEGs by name.
        count: Number of samples.
        loose: Also make the folder of loose files.
    """
    digest = hashlib.sha256()
    for name, data in photos.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    folder = root / f"input-{digest.hexdigest()[:8]}-{count}"
    tars, files = folder / "tars", folder / "loose"
    if not tars.is_dir():
        _make_folder(tars, lambda target: _write_tars(target, photos, count))
    if loose and not files.is_dir():
        _make_folder(files, lambda target: _write_files(target, photos, count))
    return Corpus(
        count=count, tars=tars, loose=files, size=sum(p.stat().st_size for p in tars.iterdir())
    )


def _make_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill ``folder`` under another name first, so that a folder that is there is whole."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write(unfinished)
    unfinished.rename(folder)


def _samples(photos: Mapping[str, bytes], count: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, members by extension)."""
    names = list(photos)
    for number in range(count):
        name = names[number % len(names)]
        key = f"{number:09d}"
        caption = f"a photograph of {name.replace('_', ' ')}, number {number}"
        fields = {"key": key, "caption": caption, "source": name, "similarity": number % 997 / 997}
        yield (
            key,
            {
                "jpg": _numbered(photos[name], number),
                "txt": caption.encode(),
                "json": json.dumps(fields).encode(),
            },
        )


def _numbered(jpeg: bytes, number: int) -> bytes:
    """Put the number into a comment segment; after APP0, which JFIF wants to stand first."""
    comment = f"{number:012d}".encode()
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    cut = len(_SOI)
    if jpeg[cut : cut + 2] == _APP0:
        cut += 2 + int.from_bytes(jpeg[cut + 2 : cut + 4], "big")
    return jpeg[:cut] + segment + jpeg[cut:]


def _write_tars(folder: Path, photos: Mapping[str, bytes], count: int) -> None:
    samples = _samples(photos, count)
    for shard in range(-(-count // SAMPLES_PER_TAR)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for _, (key, members) in zip(range(SAMPLES_PER_TAR), samples, strict=False):
                for extension, data in members.items():
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def _write_files(folder: Path, photos: Mapping[str, bytes], count: int) -> None:
    for number, (key, members) in enumerate(_samples(photos, count)):
        part = folder / f"{number // SAMPLES_PER_TAR:05d}"
        part.mkdir(exist_ok=True)
        for extension, data in members.items():
            (part / f"{key}.{extension}").write_bytes(data)
