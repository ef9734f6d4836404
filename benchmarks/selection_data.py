"""The input of ``selection.py``: tables, hashes and vectors as scoring leaves them, from a seed.

No image is made: selection never looks at one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from pixsieve import schema
from pixsieve.select import keys
from pixsieve.select.base import INTERNAL, Chunk, Part, collected, listing_bytes, sample_schema
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

RUN = 65_536
"""Rows of a table: as many as a run collects."""
SCORES = pa.schema([("aesthetic_score", pa.float32()), ("nsfw_score", pa.float32())])
DIM = 512
SIDE = 96
PLANTED = 0.05
"""Share of hashes and vectors that have a near-duplicate planted."""
HASH_BITS = 4
"""Bits in which planted hashes differ, at most."""
COSINE = 0.95
"""Planted vectors are nearer to each other than this."""


def table(folder: Path, rows: int) -> list[Path]:
    """Write the narrow columns of so many samples, with two scores; return the files."""

    def made(start: int, count: int, rng: np.random.Generator) -> pa.Table:
        values: dict[str, object] = {
            **_sample(start, count, rng),
            "aesthetic_score": rng.normal(5.2, 0.7, count).astype(np.float32),
            "nsfw_score": rng.beta(0.5, 8, count).astype(np.float32),
            "problem": pa.nulls(count, pa.string()),
            "problem_detail": pa.nulls(count, pa.string()),
            "located": np.ones(count, np.bool_),
        }
        values["id_digest"] = keys.id_digests(pa.chunked_array([values["image_id"]]))
        columns = pa.schema([*sample_schema([SCORES]), *INTERNAL])
        return pa.table([pa.array(values[f.name], f.type) for f in columns], schema=columns)

    return _files(folder, rows, made)


def hashes(rows: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return random 64-bit hashes, and for each its original, -1 where it is one itself."""
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**64, rows, np.uint64)
    copies = np.arange(rows - round(rows * PLANTED), rows)
    originals = np.full(rows, -1, np.int64)
    originals[copies] = rng.integers(0, copies[0], len(copies))
    values[copies] = values[originals[copies]]
    for _ in range(HASH_BITS):
        values[copies] ^= np.uint64(1) << rng.integers(0, 64, len(copies)).astype(np.uint64)
    return values, originals


def vectors(folder: Path, rows: int, *, pictures: bool = False) -> tuple[Path, NDArray[np.int64]]:
    """Write samples with an embedding each, and with a thumbnail if asked for.

    Return the list of parts (see :class:`pixsieve.select.base.Scope`), and for each row its
    original, -1 where it is one itself. The vectors lie round two thousand centres, those of one
    centre at a cosine of about 0.55; a copy has one of 0.96 to 0.999 to its original. Pictures are
    made of 12 x 12 random greys; a copy is cropped by 10 % or mirrored.
    """
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((2000, DIM), np.float32)
    originals = np.full(rows, -1, np.int64)
    copies = np.sort(rng.choice(np.arange(1, rows), round(rows * PLANTED), replace=False))
    originals[copies] = (rng.random(len(copies)) * copies).astype(np.int64)
    originals[copies[originals[originals[copies]] >= 0]] = -1  # no copies of copies
    is_copy = originals >= 0
    folder.mkdir(parents=True, exist_ok=True)
    plain = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float16, (rows, DIM))
    for start in range(0, rows, RUN):
        stop = min(start + RUN, rows)
        found = centres[rng.integers(0, len(centres), stop - start)]
        found = found + 0.9 * rng.standard_normal(found.shape, np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        here = np.flatnonzero(is_copy[start:stop])
        source = originals[start + here]
        base = np.where((source < start)[:, None], plain[np.minimum(source, start)], 0)
        inside = source >= start
        base[inside] = found[source[inside] - start]
        noise = rng.standard_normal(base.shape, np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        found[here] = base + rng.uniform(0.03, 0.28, (len(here), 1)).astype(np.float32) * noise
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        plain[start:stop] = found.astype(np.float16)
    plain.flush()
    return _parts(folder, plain, originals if pictures else None), originals


def scores_of_vectors(*, pictures: bool = False) -> pa.Schema:
    """Return the columns that :func:`vectors` adds."""
    metadata = {"model": "made", "digest": "made", "dim": str(DIM)}
    embedding = pa.field("embedding", pa.list_(pa.float16(), DIM), metadata=metadata)
    thumbnail = pa.field("thumbnail", pa.binary(SIDE * SIDE))
    return pa.schema([embedding, thumbnail] if pictures else [embedding])


def _picture(row: int, original: int) -> bytes:
    """Return the thumbnail of a row: of an original, or of its copy."""
    seed = row if original < 0 else original
    greys = np.random.default_rng(seed).integers(0, 256, (12, 12), np.uint8)
    picture = Image.fromarray(greys).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if original >= 0 and row % 2:
        picture = ImageOps.mirror(picture)
    elif original >= 0:
        box = (SIDE / 20, SIDE / 20, SIDE * 19 / 20, SIDE * 19 / 20)
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return picture.tobytes()


def _parts(folder: Path, plain: NDArray[np.float16], pictured: NDArray[np.int64] | None) -> Path:
    """Write index, inspection and score tables, and the list of them."""
    columns = scores_of_vectors(pictures=pictured is not None)
    parts: list[Part] = []
    chunks: list[Chunk] = []
    for start in range(0, len(plain), RUN):
        count = min(RUN, len(plain) - start)
        rng = np.random.default_rng(start)
        sample = _sample(start, count, rng)
        located = {
            "image_id": sample["image_id"], "key": sample["original_key"],
            "occurrence": np.zeros(count, np.int32), "image_file": sample["original_path"],
            "image_offset": sample["original_offset"], "image_size": sample["byte_size"],
            "image_version": ["1"] * count, "siblings": [[]] * count,
        }  # fmt: skip
        flat = pa.array(plain[start : start + count].reshape(-1), pa.float16())
        scores: list[pa.Array] = [pa.FixedSizeListArray.from_arrays(flat, DIM)]
        if pictured is not None:
            made = [_picture(n, int(pictured[n])) for n in range(start, start + count)]
            scores.append(pa.array(made, columns.field("thumbnail").type))
        paths = [
            _write(folder / f"{name}-{start}.parquet", rows)
            for name, rows in (
                ("index", _filled(schema.INDEX, located, count)),
                ("read", _filled(schema.INSPECTION, sample, count)),
                ("scores", pa.table(scores, schema=columns)),
            )
        ]
        part = Part(source="", index=paths[0], start=0, stop=count, families=tuple(paths[1:]))
        narrow = _write(folder / f"narrow-{start}.parquet", collected([part], sample_schema([])))
        parts.append(part)
        chunks.append(Chunk(path=narrow, rows=count))
    listing = folder / "listing.json"
    listing.write_bytes(listing_bytes(parts, chunks))
    return listing


def _sample(start: int, count: int, rng: np.random.Generator) -> dict[str, object]:
    numbers = range(start, start + count)
    digits = rng.bytes(8 * count).hex()
    digests = rng.bytes(32 * count).hex()
    return {
        "image_id": [f"{n:09d}-{digits[16 * i : 16 * i + 16]}" for i, n in enumerate(numbers)],
        "original_path": [f"{n // 10_000:06d}.tar" for n in numbers],
        "original_key": [f"{n:09d}" for n in numbers],
        "original_offset": np.array(numbers, np.int64) * 1000,
        "byte_size": rng.integers(10_000, 300_000, count),
        "class_name": pa.nulls(count, pa.string()),
        "sha256": [digests[64 * i : 64 * i + 64] for i in range(count)],
        "format": ["jpeg"] * count,
        "width": rng.integers(100, 2000, count).astype(np.int32),
        "height": rng.integers(100, 2000, count).astype(np.int32),
        "mode": ["RGB"] * count,
        "exif_orientation": np.ones(count, np.int32),
        "frames": np.ones(count, np.int32),
        "caption": [f"a caption of some forty characters, {n:06d}" for n in numbers],
    }


def _filled(columns: pa.Schema, values: dict[str, object], count: int) -> pa.Table:
    found = [
        pa.array(values[f.name], f.type) if f.name in values else pa.nulls(count, f.type)
        for f in columns
    ]
    return pa.table(found, schema=columns)


def _files(
    folder: Path, rows: int, made: Callable[[int, int, np.random.Generator], pa.Table]
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(f"{rows} {RUN}".encode()).hexdigest()[:8]
    paths = []
    for start in range(0, rows, RUN):
        path = folder / f"{name}-{start:010d}.parquet"
        if not path.exists():
            _write(path, made(start, min(RUN, rows - start), np.random.default_rng(start)))
        paths.append(path)
    return paths


def _write(path: Path, rows: pa.Table) -> str:
    part = path.with_suffix(".tmp")
    part.write_bytes(tables.table_bytes(rows))
    part.rename(path)
    return str(path)
