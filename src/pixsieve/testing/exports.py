"""Small finished exports, for tests of what is made of one: index files and other formats."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pixsieve import image, schema
from pixsieve.export import files, finished, tar
from pixsieve.export.contents import Contents
from pixsieve.export.indexes.base import Desk
from pixsieve.scorers.guard import NoGuard
from pixsieve.storage import tables
from pixsieve.testing import images

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

NONE = pa.schema([])


def members(number: int, *, json_value: object = None) -> dict[str, bytes]:
    """Make the members of a sample: a JPEG, a caption, and json if there is a value for it."""
    found = {
        "jpg": images.photo(number, 64 + number, 48),
        "txt": f"picture {number}: \u00fc | `x` *y*".encode(),
    }
    if json_value is not None:
        found["json"] = json.dumps(json_value).encode()
    return found


def plain(folder: Path, **about: Any) -> finished.Dataset:
    """Write ten samples with captions and json into three shards."""
    samples = [
        members(number, json_value={"a": number, "b": number + 0.5, "t": ["x", "y"]})
        for number in range(10)
    ]
    kind = {"a": "int", "b": "float", "t": ["string"]}
    return finished_dataset(folder, samples, **({"json_type": kind} | about))


def mixed(folder: Path, **about: Any) -> finished.Dataset:
    """Write 12 samples that differ in all they may: formats, members, json, split, bucket, rows."""
    samples = []
    for number in range(12):
        extension, name = list(_FORMATS.items())[number % len(_FORMATS)]
        found = {extension: images.photo(number, 50 + number, 40, name)}
        if number % 3:
            found["txt"] = f"caption {number}".encode()
        if number % 2:
            odd: dict[str, Any] = {"a": number if number % 4 == 1 else number + 0.5, "_type": "x"}
            odd |= {"o": {"q": [{"z": 1}], "": 1}, "m": 1 if number == 1 else "s", "n": None}
            found["json"] = json.dumps(odd).encode()
        samples.append(found)
    samples[4]["mask.png"] = images.photo(1, format="PNG", mode="L")
    samples[7] |= {"cls": b"3", "xml": b"<a/>", "txt.gz": gzip.compress(b"hello", mtime=0)}
    samples[10] |= {"npy": _array(), "meta.json": b'{"k": 1}', "jpg_2": b"x", "json.gz": b"x"}
    samples[10]["json.gz"] = gzip.compress(b'{"a": 1}', mtime=0)
    rows = [
        {
            "embedding": [0.5, -0.5, float(number)],
            "tags": ["a", "b"][: number % 3],
            "ok": None if number % 3 == 0 else bool(number % 2),
            "likes": None if number == 0 else 2**40 + number,
            "score": float("nan") if number == 1 else 0.5 * number,
            "pdq": b"\x00\xffab",
            'we: ird/#|"\u00e9': "z" if number else None,
            "license": ["CC0", None, "CC-BY | 4.0"][number % 3],
        }
        for number in range(12)
    ]
    groups = [("train", "a")] * 4 + [("train", "b-c")] * 3 + [("test-x", "a")] * 3
    groups += [("test_x", "a")] * 2
    kind = {"a": "float", "_type": "string", "o": {"q": [{"z": "int"}], "": "int"}}
    about = {"name": 'a "n\u00e4me" | `x` <b> *c* #1: {d}', "json_type": kind | _UNTYPED} | about
    return finished_dataset(folder, samples, groups=groups, rows=rows, added=ODD, **about)


_FORMATS = {
    "jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "tif": "TIFF", "gif": "GIF",
    "bmp": "BMP",
}  # fmt: skip
_UNTYPED = {"m": "mixed", "n": "null", "e": ["null"]}
ODD = pa.schema(
    [
        pa.field(
            "embedding",
            pa.list_(pa.float32(), 3),
            metadata={"scale": "-1 to 1", "unit": "vector", "better": "neither", "source": "model"},
        ),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("ok", pa.bool_()),
        pa.field("likes", pa.int64()),
        pa.field("score", pa.float32(), metadata={"scale": "0 to 1", "better": "higher"}),
        pa.field("pdq", pa.binary(4)),
        pa.field('we: ird/#|"\u00e9', pa.string()),
        pa.field("license", pa.string()),
    ]
)
"""Columns of all the kinds that a sidecar may have."""


def _array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.arange(6).reshape(2, 3))
    return out.getvalue()


def finished_dataset(
    folder: Path,
    samples: Sequence[Mapping[str, bytes]],
    *,
    per_shard: int = 4,
    groups: Sequence[tuple[str | None, str | None]] | None = None,
    added: pa.Schema = NONE,
    rows: Sequence[Mapping[str, Any]] = (),
    json_type: Any = None,
    **about: Any,
) -> finished.Dataset:
    """Write tars and sidecars into a folder; return them as the engine describes a finished export.

    Args:
        folder: It is made.
        samples: Members of each sample by their extensions, the image first.
        per_shard: Samples in a shard; fewer in the last one of a group.
        groups: Split and bucket of each sample; those of a group must follow each other.
        added: Columns beyond the fixed ones.
        rows: For each sample, values of columns that are not to have those made up here.
        json_type: As in ``Contents``.
        about: Other fields of the dataset.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prefix, name_hash = about.get("prefix", "images"), about.get("hash", "0123456789ab")
    shards: list[finished.Shard] = []
    in_group = Counter[tuple[str | None, str | None]]()
    of_split = Counter[str | None]()
    columns = pa.schema([*schema.SIDECAR, *added])
    for numbers in _runs(groups or [(None, None)] * len(samples), per_shard):
        split, bucket = groups[numbers[0]] if groups else (None, None)
        parts = [prefix, split, bucket, name_hash, f"{in_group[split, bucket]:06d}"]
        stem = "-".join(part for part in parts if part is not None)
        in_group[split, bucket] += 1
        data, found = b"", []
        for number in numbers:
            given = rows[number] if rows else {}
            row = _row(number, samples[number], f"{stem}.tar") | {"split": split, "bucket": bucket}
            for name, content in zip(row["members"], samples[number].values(), strict=True):
                data += tar.header(name, len(content)) + content + bytes(tar.padding(len(content)))
            row["member_offset"] = len(data) - sum(map(tar.member_bytes, row["member_sizes"]))
            row["member_offset"] += tar.BLOCK
            found.append(row | dict(given))
        (folder / f"{stem}.tar").write_bytes(data + bytes(tar.trailer(len(data))))
        table = pa.Table.from_pylist(found, schema=columns)
        with (folder / f"{stem}.parquet").open("wb") as file:
            file.write(tables.table_bytes(table, tables.DATASET))
        shards.append(
            finished.Shard(
                tar=files.record(folder, f"{stem}.tar"),
                sidecar=files.record(folder, f"{stem}.parquet"),
                split=split,
                bucket=bucket,
                samples=len(numbers),
                number=len(shards),
                split_number=of_split[split],
                split_shards=0,
            )
        )
        of_split[split] += 1
    known = Counter(next(iter(sample)) for sample in samples)
    others = Counter(name for sample in samples for name in list(sample)[1:])
    described = {
        "name": "test",
        "plan_sha256": hashlib.sha256(repr([shard.tar for shard in shards]).encode()).hexdigest(),
        "counts": {"indexed": len(samples), "kept": len(samples), "dropped": 0, "failed": 0},
        "reasons": [],
        "inputs": [{"path": "in.tar", "samples": len(samples), "sha256": "0" * 64}],
        "recipe": "name: test\nstages: []\n",
    }
    return finished.Dataset(
        folder=folder,
        prefix=prefix,
        hash=name_hash,
        samples=len(samples),
        columns=tables.schema_of(str(folder / shards[0].sidecar.name)),
        contents=Contents(
            samples=len(samples),
            images=dict(sorted(known.items())),
            members=dict(sorted(others.items())),
            json=json_type,
        ),
        shards=tuple(shards),
        **(described | {key: value for key, value in about.items() if key not in _NAMING}),
    )


_NAMING = ("prefix", "hash")


def _runs(groups: Sequence[object], per_shard: int) -> Iterator[list[int]]:
    for _, found in itertools.groupby(range(len(groups)), lambda number: groups[number]):
        numbers = list(found)
        for start in range(0, len(numbers), per_shard):
            yield numbers[start : start + per_shard]


def _row(number: int, sample: Mapping[str, bytes], tar_file: str) -> dict[str, Any]:
    extension, data = next(iter(sample.items()))
    header = image.probe(data)
    key = f"key-{number:04d}"
    digest = hashlib.sha256(data).hexdigest()
    return {
        "image_id": key,
        "tar_file": tar_file,
        "member_name": f"{key}.{extension}",
        "key": key,
        "member_size": len(data),
        "sha256": digest,
        "width": header.width,
        "height": header.height,
        "format": header.format,
        "mode": header.mode,
        "caption": sample["txt"].decode() if "txt" in sample else None,
        "members": [f"{key}.{name}" for name in sample],
        "member_sizes": [len(content) for content in sample.values()],
        "original_path": "in.tar",
        "original_key": key,
        "original_offset": 512,
        "original_sha256": digest,
        "original_format": header.format,
        "exif_orientation": header.exif_orientation,
        "encoding": "copy",
    }


def index_files(dataset: finished.Dataset, names: Sequence[str], scratch: Path) -> None:
    """Write index files into a dataset's folder, as the engine does."""
    from pixsieve.export.indexes import INDEXES  # noqa: PLC0415

    for name in names:
        index = INDEXES[name]
        for shard in dataset.shards if index.suffix else ():
            members = finished.members_of(dataset.sidecar(shard, finished.MEMBER_COLUMNS))
            stem = shard.tar.name.removesuffix(".tar")
            (dataset.folder / f"{stem}{index.suffix}").write_bytes(index.of_shard(members))
        desk = Desk(scratch=scratch, guard=NoGuard())
        for path, content in index.of_dataset(dataset, desk).items():
            (dataset.folder / path).parent.mkdir(exist_ok=True)
            data = content if isinstance(content, bytes) else content.read_bytes()
            (dataset.folder / path).write_bytes(data)
