"""Verify finds what is wrong and names it, and is silent where nothing is.

The datasets are made here from the description of the format alone, with ``tarfile`` and
``pyarrow``, so that neither the writer nor verify can be wrong in the same way as its test.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
import zlib
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve.cli import main
from pixsieve.errors import SourceError, SourceNotFoundError, UsageError
from pixsieve.schema import DROPPED, SIDECAR
from pixsieve.testing.planted import FAULTS as FAULTS_OF_EXPORTS
from pixsieve.verify import RULES
from pixsieve.verify import verify as verify_with_workers
from pixsieve.verify.findings import LIMIT_PER_FILE, Findings
from pixsieve.verify.manifest import read_manifest
from pixsieve.verify.tars import members

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.verify import VerifyReport

verify = functools.partial(verify_with_workers, workers=0)

HASH = "0123456789ab"
RECIPE = """\
name: test
seed: 0
stages:
  - ImageReaderStage: {path_or_paths: [in.tar], json_fields: {1: string}}
  - ExactDeduplicationStage
  - colours: {least: 0.5}
"""
STAGES = [
    {
        "@": "ImageReaderStage",
        "path_or_paths": ["in.tar"],
        "json_fields": {"1": "string"},
        "animated": "reject",
    },
    {"@": "ExactDeduplicationStage", "keep": "caption"},
    {"@": "colour_package:ColourStage", "least": 0.5},
]
EXTENSIONS = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "gif": "gif",
    "bmp": "bmp",
    "tiff": "tif",
}


def picture(seed: int, kind: str = "jpeg", mode: str = "RGB", orientation: int = 1) -> bytes:
    """A small image of smooth colour, 24 to 40 pixels wide and 20 high."""
    width, height = 24 + seed % 17, 20
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    options: dict[str, Any] = {}
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@dataclass
class Shard:
    """One shard as it will be written; tests change it first."""

    name: str
    members: list[tuple[str, bytes]]
    rows: list[dict[str, Any]]
    split: str | None = None
    bucket: str | None = None
    schema: pa.Schema = SIDECAR
    metadata: dict[str, str] = field(default_factory=lambda: {"pixsieve": '{"format_version": 1}'})
    shape: Callable[[tarfile.TarInfo], None] = lambda _: None
    tar_format: int = tarfile.USTAR_FORMAT
    stated: int | None = None

    def place(self) -> None:
        """Set the rows' offsets and sizes to where the members will lie."""
        at, places = 0, {}
        for name, data in self.members:
            places.setdefault(name, (at + 512, len(data)))
            at += 512 + -(-len(data) // 512) * 512
        for row in self.rows:
            if row["member_name"] in places:
                row["member_offset"], row["member_size"] = places[row["member_name"]]
            row["member_sizes"] = [
                len(data) for name, data in self.members if name in row["members"]
            ]

    def reface(self) -> None:
        """Set what the rows say of their image's bytes."""
        data = dict(self.members)
        for row in self.rows:
            if row["member_name"] in data:
                digest = hashlib.sha256(data[row["member_name"]]).hexdigest()
                row["sha256"] = row["original_sha256"] = digest
        self.place()


@dataclass
class Export:
    """A whole dataset as it will be written."""

    shards: list[Shard]
    dropped: list[dict[str, Any]]
    dropped_schema: pa.Schema = DROPPED
    edit_manifest: Callable[[dict[str, Any]], None] = lambda _: None
    writer: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for shard in self.shards:
            write_tar(folder / f"{shard.name}.tar", shard.members, shard.shape, shard.tar_format)
            table = pa.Table.from_pylist(shard.rows, shard.schema)
            pq.write_table(
                table.replace_schema_metadata(shard.metadata), folder / f"{shard.name}.parquet"
            )
        (folder / "dropped").mkdir(exist_ok=True)
        table = pa.Table.from_pylist(self.dropped, self.dropped_schema)
        pq.write_table(table, folder / "dropped" / "dropped.parquet")
        recipe, stages = RECIPE, STAGES
        if self.writer:
            recipe += f"  - ImageWriterStage: {json.dumps(self.writer)}\n"
            stages = [*STAGES, {"@": "ImageWriterStage", **self.writer}]
        (folder / "recipe.yaml").write_text(recipe)
        kept = sum(len(shard.rows) for shard in self.shards)
        ends = Counter(row["status"] for row in self.dropped)
        reasons = Counter((r["stage"], r["status"], r["reason"]) for r in self.dropped)
        manifest = {
            "format": "pixsieve-dataset",
            "format_version": 1,
            "name": "test",
            "hash": HASH,
            "seed": 0,
            "recipe": {"name": "test", "seed": 0, "stages": stages},
            "recipe_sha256": "0" * 64,
            "plan_sha256": "0" * 64,
            "versions": {"pixsieve": "0"},
            "counts": {
                "indexed": kept + len(self.dropped),
                "kept": kept,
                "dropped": ends["dropped"],
                "failed": ends["failed"],
            },
            "reasons": [
                {"stage": stage, "status": status, "reason": reason, "count": count}
                for (stage, status, reason), count in sorted(reasons.items())
            ],
            "inputs": [{"path": "in.tar", "samples": kept + len(self.dropped), "sha256": "0" * 64}],
            "shards": [
                {
                    "tar": f"{shard.name}.tar",
                    "sidecar": f"{shard.name}.parquet",
                    "split": shard.split,
                    "bucket": shard.bucket,
                    "samples": len(shard.rows) if shard.stated is None else shard.stated,
                }
                for shard in self.shards
            ],
            "files": [
                {"name": str(path.relative_to(folder))}
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            ],
            "privacy": "metadata in images is kept as it was",
        }
        write_manifest(folder, manifest)
        seal(folder)
        self.edit_manifest(manifest := json.loads((folder / "manifest.json").read_bytes()))
        write_manifest(folder, manifest)
        return folder


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with the digest of its other lines."""
    manifest.pop("sha256", None)
    rest = json.dumps(manifest, sort_keys=True, indent=1) + "\n"
    manifest["sha256"] = hashlib.sha256(rest.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=1) + "\n")


def write_tar(
    path: Path,
    content: list[tuple[str, bytes]],
    shape: Callable[[tarfile.TarInfo], None] = lambda _: None,
    tar_format: int = tarfile.USTAR_FORMAT,
) -> None:
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shape(info)
            tar.addfile(info, io.BytesIO(data))


def seal(folder: Path) -> None:
    """Let the manifest state the sizes and digests that the files have now."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for entry in manifest["files"]:
        data = (folder / entry["name"]).read_bytes()
        entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_manifest(folder, manifest)


def sample(key: str, image: bytes, *siblings: tuple[str, bytes]) -> tuple[str, bytes, list[Any]]:
    return key, image, list(siblings)


def shard_of(
    index: int,
    samples: list[tuple[str, bytes, list[Any]]],
    split: str | None = None,
    bucket: str | None = None,
) -> Shard:
    name = "-".join(filter(None, ("images", split, bucket, HASH, f"{index:06d}")))
    content, rows = [], []
    for key, data, siblings in samples:
        with Image.open(io.BytesIO(data)) as image:
            kind = (image.format or "").lower()
            orientation = image.getexif().get(0x0112, 1)
            size = image.size if orientation < 5 else image.size[::-1]
            mode = image.mode
        mine = [(f"{key}.{EXTENSIONS[kind]}", data), *((f"{key}.{e}", d) for e, d in siblings)]
        content += mine
        digest = hashlib.sha256(data).hexdigest()
        rows.append(
            {
                "image_id": f"{key}-id",
                "tar_file": f"{name}.tar",
                "member_name": mine[0][0],
                "key": key,
                "member_offset": 0,
                "member_size": len(data),
                "sha256": digest,
                "width": size[0],
                "height": size[1],
                "format": kind,
                "mode": mode,
                "caption": dict(siblings)["txt"].decode() if "txt" in dict(siblings) else None,
                "class_name": None,
                "members": [member for member, _ in mine],
                "original_path": "in.tar",
                "original_key": f"the {key}",
                "original_offset": 512,
                "original_sha256": digest,
                "original_format": kind,
                "exif_orientation": orientation,
                "encoding": "copy",
                "split": split,
                "bucket": bucket,
            }
        )
    shard = Shard(name=name, members=content, rows=rows, split=split, bucket=bucket)
    shard.place()
    return shard


def dropped_row(name: str, **values: Any) -> dict[str, Any]:
    return {
        "image_id": name,
        "original_path": "in.tar",
        "original_key": name,
        "original_offset": 0,
        "status": "dropped",
        "stage": "dedup",
        "reason": "exact_duplicate",
        **values,
    }


def captioned(number: int) -> tuple[str, bytes, list[Any]]:
    text = f"caption {number} \N{SNOWMAN}".encode()
    return sample(f"k{number:03d}", picture(number), ("txt", text), ("json", b'{"a": 1}'))


def sound(shards: int = 3, each: int = 3) -> Export:
    """Captioned JPEGs in some shards, two dropped and one failed."""
    numbers = range(shards * each)
    return Export(
        shards=[
            shard_of(i, [captioned(n) for n in numbers[i * each :][:each]]) for i in range(shards)
        ],
        dropped=[
            dropped_row("d1", duplicate_of="k000-id"),
            dropped_row("d2", stage="filter", reason="width < 10"),
            dropped_row("d3", stage="inspect", status="failed", reason="truncated_image"),
        ],
    )


def rules(report: VerifyReport) -> set[str]:
    return {finding.rule for finding in report.findings}


# -- sound sets ---------------------------------------------------------------------------------


def mixed_formats() -> Export:
    kinds = [("jpeg", "RGB"), ("png", "RGBA"), ("png", "P"), ("webp", "RGB"), ("gif", "P"),
             ("bmp", "RGB"), ("tiff", "L"), ("jpeg", "L"), ("jpeg", "CMYK")]  # fmt: skip
    images = [picture(n, kind, mode) for n, (kind, mode) in enumerate(kinds)]
    mask = ("mask.png", picture(99, "png", "L"))
    return Export(
        shards=[shard_of(0, [sample(f"m{n}", i, mask) for n, i in enumerate(images)])], dropped=[]
    )


def oriented() -> Export:
    images = [picture(n, orientation=n) for n in range(2, 9)]
    return Export(
        shards=[shard_of(0, [sample(f"o{n}", i) for n, i in enumerate(images)])], dropped=[]
    )


def with_splits() -> Export:
    return Export(
        shards=[
            shard_of(0, [captioned(0)], "train"),
            shard_of(1, [captioned(1)], "train"),
            shard_of(0, [captioned(2)], "val"),
        ],
        dropped=[],
    )


def in_buckets() -> Export:
    """Splits and buckets of up to two samples a shard."""
    return Export(
        shards=[
            shard_of(0, [captioned(0), captioned(1)], "train", "64x128"),
            shard_of(1, [captioned(2)], "train", "64x128"),
            shard_of(0, [captioned(3), captioned(4)], "train", "128x64"),
            shard_of(0, [captioned(5)], "val", "64x128"),
        ],
        dropped=[],
        writer={"images_per_tar": 2, "prefix": "images", "max_bytes_per_tar": None},
    )


def dealt(*sizes: int) -> Export:
    """A split of shards of these sizes, and one of four; an even number of up to four samples."""
    numbers = iter(range(99))
    return Export(
        shards=[
            shard_of(index, [captioned(next(numbers)) for _ in range(size)], split)
            for split, of_split in (("train", sizes or (3, 2)), ("val", (2, 2)))
            for index, size in enumerate(of_split)
        ],
        dropped=[],
        writer={"images_per_tar": 4, "shards_multiple_of": 2},
    )


def cut_by_bytes() -> Export:
    export = sound(3)
    del export.shards[1].members[3:], export.shards[1].rows[1:]
    export.writer = {"images_per_tar": 3, "max_bytes_per_tar": 20_000}
    return export


def odd_captions() -> Export:
    export = Export(
        shards=[shard_of(0, [sample("e", picture(1), ("txt", b"")), sample("u", picture(2))])],
        dropped=[],
    )
    export.shards[0].members.append(
        ("u.txt", b"\xff\xfe")
    )  # not UTF-8: no column of text can hold it
    export.shards[0].rows[1]["members"].append("u.txt")
    export.shards[0].place()
    return export


def dropped_later() -> Export:
    export = sound(1)
    # d2 was dropped by another stage after d4 had been found to be its copy
    export.dropped.append(dropped_row("d4", duplicate_of="d2"))
    return export


def dropped_for_another_dataset() -> Export:
    export = sound(1)
    evidence = json.dumps({"cosine": 0.99, "against": "benchmark"})
    export.dropped += [
        dropped_row("d4", duplicate_of="an-id-there", evidence=evidence),
        dropped_row("d5", duplicate_of="d5", evidence=evidence),  # it has the same id there
    ]
    return export


SOUND = {
    "one shard": lambda: sound(1),
    "three shards": sound,
    "one sample": lambda: sound(1, 1),
    "mixed formats with masks": mixed_formats,
    "no captions": lambda: Export(
        shards=[shard_of(0, [sample(f"n{i}", picture(i)) for i in range(4)])], dropped=[]
    ),
    "oriented JPEGs": oriented,
    "splits": with_splits,
    "splits and buckets": in_buckets,
    "shards dealt evenly": dealt,
    "shards cut by bytes": cut_by_bytes,
    "an original that a later stage dropped": dropped_later,
    "originals in another dataset": dropped_for_another_dataset,
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_export_has_no_finding(name: str, tmp_path: Path) -> None:
    export = SOUND[name]()
    report = verify(export.write(tmp_path / "out"))
    assert report.findings == ()
    assert report.ok
    assert report.kind == "pixsieve"
    kept = sum(len(shard.rows) for shard in export.shards)
    assert (report.checked.samples, report.checked.decoded, report.checked.loaded) == (
        kept,
        kept,
        kept,
    )
    assert report.checked.files == 2 * len(export.shards) + 2
    assert report.unchecked == ()


def test_a_caption_that_no_column_can_hold_is_a_warning(tmp_path: Path) -> None:
    report = verify(odd_captions().write(tmp_path / "out"))
    assert [(f.severity, f.rule, f.member) for f in report.findings] == [
        ("warning", "text-encoding", "u.txt")
    ]
    assert report.ok


def older(export: Export) -> Export:
    """Without the columns that came later, and with ``dropped.parquet`` at the root."""
    for shard in export.shards:
        names = ("bucket", "member_sizes")
        shard.schema = pa.schema([each for each in SIDECAR if each.name not in names])
        for row in shard.rows:
            del row["bucket"], row["member_sizes"]
    return export


def test_an_older_export_is_sound(tmp_path: Path) -> None:
    out = older(sound()).write(tmp_path / "out")
    (out / "dropped" / "dropped.parquet").rename(out / "dropped.parquet")
    (out / "dropped").rmdir()
    manifest = json.loads((out / "manifest.json").read_bytes())
    for each in manifest["files"]:
        each["name"] = each["name"].rpartition("/")[2]
    write_manifest(out, manifest)
    assert verify(out).findings == ()


def test_a_score_column_is_said_to_be_unchecked(tmp_path: Path) -> None:
    export = sound(2)
    for shard in export.shards:
        shard.schema = shard.schema.append(pa.field("score", pa.float32()))
    report = verify(export.write(tmp_path / "out"))
    assert report.findings == ()
    assert any("score" in note for note in report.unchecked)


def img2dataset(folder: Path) -> Path:
    """Two shards as img2dataset writes them: rows for failures too, sha256 of the download, PAX."""
    folder.mkdir()
    for number in range(2):
        content, rows = [], []
        for place in range(4):
            key = f"{number:05d}{place:04d}"
            row: dict[str, Any] = {
                "url": "u",
                "key": key,
                "caption": None,
                "status": "failed_to_download",
            }
            if place != 2:
                data = picture(place, orientation=6 if place == 1 else 1)
                with Image.open(io.BytesIO(data)) as image:
                    row |= {"status": "success", "caption": f"c {key}", "sha256": "0" * 64}
                    row |= {"width": image.width, "height": image.height}
                content += [
                    (f"{key}.jpg", data),
                    (f"{key}.json", b"{}"),
                    (f"{key}.txt", f"c {key}".encode()),
                ]
            rows.append(row)
        write_tar(
            folder / f"{number:05d}.tar",
            content,
            lambda info: setattr(info, "mtime", 1.5),
            tarfile.PAX_FORMAT,
        )
        schema = pa.schema(
            [(n, pa.string()) for n in ("url", "key", "caption", "status", "sha256")]
            + [(n, pa.int32()) for n in ("width", "height")]
        )
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{number:05d}.parquet")
        stats = {"count": 4, "successes": 3, "failed_to_download": 1, "failed_to_resize": 0}
        (folder / f"{number:05d}_stats.json").write_text(json.dumps(stats))
    return folder


def curator(folder: Path) -> Path:
    """Shards as NeMo Curator's image writer makes them: images only, an absolute tar_file."""
    folder.mkdir()
    for batch in ("0a0a0a0a0a0a", "1b1b1b1b1b1b"):
        name = f"images-{batch}-000000"
        content = [(f"{batch}{n}.jpg", picture(n)) for n in range(3)]
        write_tar(folder / f"{name}.tar", content, tar_format=tarfile.PAX_FORMAT)
        rows = [
            {
                "image_id": member.removesuffix(".jpg"),
                "tar_file": f"/somewhere/else/{name}.tar",
                "member_name": member,
                "original_path": f"/in/{member}",
                "metadata": "{}",
            }
            for member, _ in content
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


def plain(folder: Path) -> Path:
    """Somebody's tars: folders in them, a long name, no sidecars, metadata that readers skip."""
    folder.mkdir()
    long = "x" * 120
    content = [(f"a/{n}.jpg", picture(n)) for n in range(3)] + [(f"a/{long}.jpeg", picture(4))]
    write_tar(folder / "shard-000007.tar", content, tar_format=tarfile.GNU_FORMAT)
    return folder


def test_a_sound_img2dataset_folder_has_no_finding(tmp_path: Path) -> None:
    report = verify(img2dataset(tmp_path / "i"))
    assert report.findings == ()
    assert report.kind == "foreign"
    assert (report.checked.samples, report.checked.rows, report.checked.loaded) == (6, 8, 6)
    read = [*(tmp_path / "i").glob("*.tar"), *(tmp_path / "i").glob("*.parquet")]
    assert report.checked.files == len(read) == 4
    assert report.checked.bytes == sum(path.stat().st_size for path in read)
    assert any("sha256" in note and "2 of 2 shards" in note for note in report.unchecked)


def test_a_sound_curator_folder_has_no_finding(tmp_path: Path) -> None:
    report = verify(curator(tmp_path / "c"))
    assert report.findings == ()
    assert report.checked.decoded == 6
    assert any("manifest" in note for note in report.unchecked)


def test_anybodys_tars_have_only_warnings_of_what_some_loaders_mind(tmp_path: Path) -> None:
    report = verify(plain(tmp_path / "p"))
    assert report.ok
    assert rules(report) == {"key-unsafe"}
    assert any("no sidecar" in note for note in report.unchecked)


def test_tars_that_are_compressed_or_lie_deeper_are_listed_as_not_checked(tmp_path: Path) -> None:
    folder = plain(tmp_path / "p")
    for name in ("a.tar.gz", "b.tar.zst", "more/c.tar", "more/d/e.tgz", ".hidden/f.tar"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    listed = "a.tar.gz, b.tar.zst, more/c.tar, more/d/e.tgz"
    note = f"tars that are compressed or lie in sub-folders: {listed}"
    assert note in verify(folder).unchecked
    for number in range(30):
        (folder / f"{number:02d}.tar.gz").write_bytes(b"x")
    (note,) = [note for note in verify(folder).unchecked if "compressed" in note]
    assert note.endswith("18.tar.gz, 19.tar.gz and 14 more")
    (folder / "shard-000007.tar").unlink()
    with pytest.raises(
        SourceError, match=r"no \.tar to verify; unpack compressed ones first.*14 more"
    ):
        verify(folder)


def test_a_set_without_its_manifest_has_its_other_tars_listed_too(tmp_path: Path) -> None:
    out = sound(1).write(tmp_path / "out")
    (out / "manifest.json").unlink()
    (out / "more.tar.gz").write_bytes(b"x")
    assert any("more.tar.gz" in note for note in verify(out).unchecked)


def test_one_tar_of_an_export_is_checked_against_its_sidecar(tmp_path: Path) -> None:
    out = sound().write(tmp_path / "out")
    report = verify(out / f"images-{HASH}-000001.tar")
    assert report.findings == ()
    assert (report.kind, report.checked.shards) == ("pixsieve", 1)
    assert any("one tar was named" in note for note in report.unchecked)


# -- planted faults -----------------------------------------------------------------------------

Edit = "Callable[[Export], None]"
FAULTS: dict[str, tuple[Any, set[str]]] = {}
"""By name: what changes an export before it is written, and exactly the rules that this breaks."""

DAMAGES: dict[str, tuple[Any, set[str]]] = {}
"""By name: what changes the files of a written export, and exactly the rules that this breaks."""


def fault(*broken: str) -> Callable[[Any], Any]:
    def register(edit: Any) -> Any:
        FAULTS[edit.__name__] = (edit, set(broken))
        return edit

    return register


def damage(*broken: str) -> Callable[[Any], Any]:
    def register(edit: Any) -> Any:
        DAMAGES[edit.__name__] = (edit, set(broken))
        return edit

    return register


def column(name: str, value: Any, *broken: str) -> None:
    def edit(export: Export) -> None:
        export.shards[1].rows[1][name] = value

    FAULTS[f"{name}_is_{str(value)[:20]}"] = (edit, set(broken))


column("tar_file", f"/data/images-{HASH}-000001.tar", "column-tar-file")
column("tar_file", f"images-{HASH}-000000.tar", "column-tar-file")
column("member_name", "k005.jpg", "column-member-name")
column("member_offset", 0, "column-member-offset")
column("member_size", 1, "column-member-size")
column("sha256", "0" * 64, "column-sha256", "column-original")
column("original_sha256", "0" * 64, "column-original")
column("original_format", "png", "column-original")
column("width", 1, "column-size")
column("height", 1, "column-size")
column("format", "png", "column-format", "column-original")
column("mode", "L", "column-mode")
column("exif_orientation", 6, "column-orientation")
column("caption", "another", "column-caption")
column("caption", None, "column-caption")
column("members", ["k004.jpg", "k004.json", "k004.txt"], "column-members")
column("split", "train", "column-split")
column("image_id", "k000-id", "image-id-duplicate")
column("image_id", "d2", "dropped-and-kept")


@fault("sidecar-order")
def two_rows_swapped(export: Export) -> None:
    rows = export.shards[0].rows
    rows[0], rows[1] = rows[1], rows[0]


@fault("sidecar-row-missing", "shard-count", "counts-kept")
def a_row_missing(export: Export) -> None:
    export.shards[0].stated = 2
    del export.shards[0].rows[1]


@fault("sidecar-row-extra", "shard-count", "counts-kept")
def a_sample_missing(export: Export) -> None:
    export.shards[0].members = export.shards[0].members[:-3]


@fault("sidecar-row-duplicate", "image-id-duplicate", "shard-count", "counts-kept")
def a_row_twice(export: Export) -> None:
    export.shards[0].rows.append(export.shards[0].rows[-1])


@fault("sidecar-row-missing", "sidecar-row-extra")
def a_sample_in_place_of_another(export: Export) -> None:
    shard = export.shards[0]
    shard.members = [(name.replace("k001", "k777"), data) for name, data in shard.members]


@fault("column-sha256", "column-size")
def two_images_swapped(export: Export) -> None:
    shard = export.shards[0]
    first, second = shard.members[0][1], shard.members[3][1]
    size = max(len(first), len(second))  # bytes behind a JPEG's end are ignored by decoders
    shard.members[0] = (shard.members[0][0], second.ljust(size, b"\0"))
    shard.members[3] = (shard.members[3][0], first.ljust(size, b"\0"))
    shard.place()


@fault("column-caption")
def two_captions_swapped(export: Export) -> None:
    shard = export.shards[0]
    first, second = shard.members[1], shard.members[4]
    shard.members[1], shard.members[4] = (first[0], second[1]), (second[0], first[1])


@fault("member-not-adjacent", "image-missing", "column-members", "shard-count", "counts-kept")
def members_interleaved(export: Export) -> None:
    content = export.shards[0].members
    content[2], content[3] = content[3], content[2]
    export.shards[0].place()


@fault("member-duplicate", "column-members", "load-failed")
def a_member_twice(export: Export) -> None:
    export.shards[0].members.insert(2, export.shards[0].members[1])
    export.shards[0].place()


@fault("image-not-first", "column-members")
def the_caption_first(export: Export) -> None:
    content = export.shards[0].members
    content[0], content[1] = content[1], content[0]
    export.shards[0].place()


@fault("image-missing", "column-members")
def no_image(export: Export) -> None:
    del export.shards[0].members[0]
    export.shards[0].place()


def renamed(export: Export, old: str, new: str) -> None:
    shard = export.shards[0]
    shard.members = [(name.replace(old, new), data) for name, data in shard.members]
    for row in shard.rows:
        for name in ("key", "member_name"):
            row[name] = row[name].replace(old, new)
        row["members"] = [name.replace(old, new) for name in row["members"]]


@fault("key-unsafe")
def a_blank_in_a_key(export: Export) -> None:
    renamed(export, "k001", "k 1")


@fault("key-unsafe")
def a_key_that_starts_with_a_dash(export: Export) -> None:
    renamed(export, "k001", "-k1")


@fault("key-unsafe", "member-name")
def a_key_that_leaves_the_folder(export: Export) -> None:
    renamed(export, "k001", "../k1")


@fault("member-name", "column-members")
def a_member_without_extension(export: Export) -> None:
    shard = export.shards[0]
    shard.members[1] = ("k000", shard.members[1][1])


@fault("extension-unsafe", "extension-format")
def an_upper_case_extension(export: Export) -> None:
    renamed(export, "k001.jpg", "k001.JPG")


@fault("extension-format")
def jpeg_for_jpg(export: Export) -> None:
    renamed(export, "k001.jpg", "k001.jpeg")


@fault("extension-format")
def a_png_named_jpg(export: Export) -> None:
    shard = export.shards[0]
    shard.members[3] = (shard.members[3][0], picture(1, "png"))
    shard.rows[1] |= {"format": "png", "original_format": "png"}
    shard.reface()


@fault("image-undecodable")
def a_truncated_image(export: Export) -> None:
    shard = export.shards[0]
    shard.members[3] = (shard.members[3][0], shard.members[3][1][:-40])
    shard.reface()


@fault("image-undecodable")
def a_page_of_html_for_an_image(export: Export) -> None:
    shard = export.shards[0]
    shard.members[3] = (shard.members[3][0], b"<html><body>404</body></html>")
    shard.reface()


@fault("image-undecodable")
def an_empty_image(export: Export) -> None:
    shard = export.shards[0]
    shard.members[3] = (shard.members[3][0], b"")
    shard.reface()


@fault("image-too-large")
def an_image_of_too_many_pixels(export: Export) -> None:
    shard = export.shards[0]
    data = bytearray(picture(1, "png"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    renamed(export, "k001.jpg", "k001.png")
    shard.members[3] = (shard.members[3][0], bytes(data))
    shard.rows[1] |= {"format": "png", "original_format": "png"}
    shard.reface()


@fault("key-duplicate", "image-id-duplicate")
def a_sample_in_two_shards(export: Export) -> None:
    export.shards[1] = shard_of(1, [captioned(n) for n in (3, 4, 0)])


@fault("key-case")
def a_key_in_two_cases_in_two_shards(export: Export) -> None:
    renamed(export, "k001", "K004")


@fault("key-case")
def a_key_in_two_cases_in_one_shard(export: Export) -> None:
    renamed(export, "k001", "K002")


@fault("sidecar-version")
def a_later_version_of_the_sidecar(export: Export) -> None:
    export.shards[0].metadata = {"pixsieve": '{"format_version": 2}'}


@fault("sidecar-version")
def a_sidecar_without_version(export: Export) -> None:
    export.shards[2].metadata = {}


@fault("sidecar-schema", "sidecar-schema-differs")
def a_column_missing(export: Export) -> None:
    schema = export.shards[1].schema
    export.shards[1].schema = schema.remove(schema.get_field_index("mode"))


def retyped(export: Export, name: str, kind: pa.DataType) -> None:
    for shard in export.shards:
        index = shard.schema.get_field_index(name)
        shard.schema = shard.schema.set(index, pa.field(name, kind))


@fault("sidecar-schema")
def a_column_of_another_type(export: Export) -> None:
    retyped(export, "width", pa.int64())


@fault("sidecar-schema")
def a_column_without_type(export: Export) -> None:
    retyped(export, "class_name", pa.null())


@fault("sidecar-schema")
def a_score_without_type(export: Export) -> None:
    for shard in export.shards:
        shard.schema = shard.schema.append(pa.field("score", pa.null()))


@fault("sidecar-schema-differs")
def a_score_in_one_shard_only(export: Export) -> None:
    export.shards[1].schema = export.shards[1].schema.append(pa.field("score", pa.float32()))


@fault("sidecar-schema-differs")
def columns_in_another_order(export: Export) -> None:
    fields = list(export.shards[1].schema)
    export.shards[1].schema = pa.schema([*fields[1:], fields[0]])


@fault("sidecar-null", "column-mode")
def a_null_where_none_may_be(export: Export) -> None:
    retyped(export, "mode", pa.string())
    export.shards[0].rows[0]["mode"] = None


@fault("tar-header")
def a_time_in_a_header(export: Export) -> None:
    export.shards[0].shape = lambda info: setattr(info, "mtime", 1)


@fault("tar-header")
def an_owner_in_a_header(export: Export) -> None:
    export.shards[0].shape = lambda info: setattr(info, "uname", "me")


@fault("tar-header")
def an_odd_mode_in_a_header(export: Export) -> None:
    export.shards[0].shape = lambda info: setattr(info, "mode", 0o600)


@fault("tar-header")
def gnu_headers(export: Export) -> None:
    export.shards[0].tar_format = tarfile.GNU_FORMAT


@fault("tar-extended-header", "column-member-offset")
def a_pax_header(export: Export) -> None:
    export.shards[0].tar_format = tarfile.PAX_FORMAT
    export.shards[0].shape = lambda info: info.pax_headers.update({"comment": "x"})


@fault("member-kind", "tar-header", "column-members")
def a_link_for_a_caption(export: Export) -> None:
    def link(info: tarfile.TarInfo) -> None:
        if info.name == "k001.txt":
            info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0

    content = export.shards[0].members
    content[4] = (content[4][0], b"")
    export.shards[0].shape = link
    export.shards[0].place()


@fault("shard-empty")
def an_empty_shard(export: Export) -> None:
    export.shards[1].members, export.shards[1].rows = [], []


@fault("shard-count", "counts-kept")
def a_manifest_that_counts_a_shard_wrong(export: Export) -> None:
    export.shards[1].stated = 4


def renumbered(export: Export, name: str) -> None:
    shard = export.shards[1]
    shard.name = name
    for row in shard.rows:
        row["tar_file"] = f"{name}.tar"


@fault("shard-gap")
def a_gap_in_the_numbers(export: Export) -> None:
    renumbered(export, f"images-{HASH}-000005")


@fault("shard-name")
def another_hash(export: Export) -> None:
    renumbered(export, "images-ffffffffffff-000001")


@fault("shard-name", "shard-gap")
def a_name_of_another_form(export: Export) -> None:
    renumbered(export, "one")


def manifest_edit(name: str, edit: Callable[[dict[str, Any]], Any], *broken: str) -> None:
    def change(export: Export) -> None:
        export.edit_manifest = edit

    FAULTS[f"manifest_{name}"] = (change, set(broken))


manifest_edit("version", lambda m: m.update(format_version=2), "manifest-version")
manifest_edit("version_text", lambda m: m.update(format_version="1"), "manifest-unreadable")
manifest_edit("without_counts", lambda m: m.pop("counts"), "manifest-unreadable")
manifest_edit("indexed", lambda m: m["counts"].update(indexed=13), "counts-indexed")
manifest_edit(
    "kept", lambda m: m["counts"].update(kept=8, indexed=11), "counts-kept", "counts-indexed"
)
manifest_edit("inputs", lambda m: m["inputs"][0].update(samples=1), "counts-indexed")
manifest_edit(
    "failed", lambda m: m["counts"].update(failed=0, dropped=3), "counts-reasons"
)  # the sum is right, the parts are not
manifest_edit("reason", lambda m: m["reasons"][0].update(count=2), "counts-reasons")
manifest_edit("reason_name", lambda m: m["reasons"][0].update(reason="x"), "counts-reasons")
manifest_edit("outside", lambda m: m["files"][0].update(name="../x"), "manifest-name")
manifest_edit("absolute", lambda m: m["files"][0].update(name="/etc/passwd"), "manifest-name")
manifest_edit("twice", lambda m: m["files"].append(m["files"][0]), "manifest-name")
manifest_edit("unlisted", lambda m: m["files"].pop(1), "manifest-name", "file-unlisted")
manifest_edit("size", lambda m: m["files"][1].update(size=1), "file-size")
manifest_edit("sha256", lambda m: m["files"][1].update(sha256="0" * 64), "file-sha256")


def recipe_edit(name: str, old: str, new: str) -> None:
    def edit(out: Path) -> None:
        path = out / "recipe.yaml"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        seal(out)

    DAMAGES[f"recipe_{name}"] = (edit, {"recipe-differs"})


recipe_edit("name", "name: test", "name: toast")
recipe_edit("seed", "seed: 0", "seed: 1")
recipe_edit("stage_name", "ExactDeduplicationStage", "ShuffleStage")
recipe_edit("stage_more", "  - ExactDeduplicationStage\n", "  - ExactDeduplicationStage\n" * 2)
recipe_edit("field", "0.5", "0.25")
recipe_edit("field_name", "least", "most")
recipe_edit("field_inside", "1: string", "1: int64")
recipe_edit("list", "[in.tar]", "[in.tar, more.tar]")
recipe_edit("list_for_text", "[in.tar]", "in.tar")
recipe_edit("text", RECIPE, "only this")
recipe_edit("no_yaml", "[in.tar]", "[in.tar")
recipe_edit("tag", "0.5", "!!python/name:os.system")
recipe_edit("depth", "0.5", "[" * 5000 + "]" * 5000)


@fault("dropped-status", "counts-reasons")
def a_dropped_row_that_says_kept(export: Export) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["counts"] |= {"dropped": 2}

    export.dropped[0]["status"] = "kept"
    export.edit_manifest = edit


@fault("dropped-twice")
def a_sample_dropped_twice(export: Export) -> None:
    export.dropped.append(export.dropped[1])


@fault("duplicate-of")
def a_duplicate_of_nothing(export: Export) -> None:
    export.dropped[0]["duplicate_of"] = "nobody"


@fault("duplicate-of")
def a_duplicate_of_itself(export: Export) -> None:
    export.dropped[0]["duplicate_of"] = "d1"


@fault("duplicate-of")
def a_duplicate_of_another_duplicate(export: Export) -> None:
    export.dropped.append(dropped_row("d4", duplicate_of="d1"))


@fault("dropped-schema")
def a_dropped_table_without_stage(export: Export) -> None:
    schema = export.dropped_schema
    export.dropped_schema = schema.remove(schema.get_field_index("stage"))


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_and_nothing_else_is(name: str, tmp_path: Path) -> None:
    edit, broken = FAULTS[name]
    export = deepcopy(sound())
    edit(export)
    report = verify(export.write(tmp_path / "out"))
    assert rules(report) == broken, report.to_text()
    errors = {rule for rule in broken if RULES[rule].own == "error"}
    assert report.ok == (not errors)


# -- planted faults in splits and buckets -------------------------------------------------------

IN_GROUPS: dict[str, tuple[Any, Any, set[str]]] = {}
"""By name: an export, what changes it before it is written, and exactly the rules it breaks."""


def in_groups(*broken: str, of: Callable[[], Export] = in_buckets) -> Callable[[Any], Any]:
    def register(edit: Any) -> Any:
        IN_GROUPS[edit.__name__] = (of, edit, set(broken))
        return edit

    return register


@in_groups("column-split")
def a_row_of_another_split(export: Export) -> None:
    export.shards[0].rows[1]["split"] = "val"


@in_groups("column-split")
def a_row_without_a_split(export: Export) -> None:
    export.shards[0].rows[0]["split"] = None


@in_groups("column-bucket")
def two_buckets_in_a_shard(export: Export) -> None:
    export.shards[0].rows[1]["bucket"] = "128x64"


@in_groups("column-bucket")
def a_row_without_a_bucket(export: Export) -> None:
    export.shards[3].rows[0]["bucket"] = None


@in_groups("column-bucket", of=with_splits)
def a_bucket_where_there_are_none(export: Export) -> None:
    export.shards[0].rows[0]["bucket"] = "64x64"


@in_groups("sidecar-schema")
def buckets_without_their_column(export: Export) -> None:
    for shard in export.shards:
        shard.schema = shard.schema.remove(shard.schema.get_field_index("bucket"))


@in_groups("shard-gap")
def the_first_shard_of_a_bucket_missing(export: Export) -> None:
    del export.shards[0]


@in_groups("counts-kept", "manifest-name")
def the_one_shard_of_a_split_missing(export: Export) -> None:
    export.edit_manifest = lambda manifest: manifest["shards"].pop()


def named(shard: Shard, name: str) -> None:
    shard.name = name
    for row in shard.rows:
        row["tar_file"] = f"{name}.tar"


@in_groups("shard-name")
def a_name_of_another_split(export: Export) -> None:
    named(export.shards[3], f"images-test-64x128-{HASH}-000000")


@in_groups("shard-name")
def a_name_of_another_bucket(export: Export) -> None:
    named(export.shards[2], f"images-train-64x64-{HASH}-000000")


@in_groups("shard-name")
def a_name_without_the_bucket(export: Export) -> None:
    named(export.shards[3], f"images-val-{HASH}-000000")


@in_groups("shard-name")
def the_bucket_before_the_split(export: Export) -> None:
    named(export.shards[3], f"images-64x128-val-{HASH}-000000")


@in_groups("shard-name")
def another_prefix(export: Export) -> None:
    named(export.shards[3], f"pictures-val-64x128-{HASH}-000000")


@in_groups("shard-name", of=with_splits)
def another_prefix_than_that_of_the_first(export: Export) -> None:
    named(export.shards[2], f"pictures-val-{HASH}-000000")


@in_groups("shard-name", of=with_splits)
def a_first_shard_without_its_split(export: Export) -> None:
    named(export.shards[0], f"images-{HASH}-000000")
    del export.shards[1]


@in_groups("shard-name", "column-split")
def a_manifest_that_says_another_split(export: Export) -> None:
    export.edit_manifest = lambda manifest: manifest["shards"][3].update(split="test")


@in_groups("shard-name", "column-bucket")
def a_manifest_that_says_no_bucket(export: Export) -> None:
    export.edit_manifest = lambda manifest: manifest["shards"][3].update(bucket=None)


@in_groups("manifest-unreadable")
def a_bucket_that_is_no_text(export: Export) -> None:
    export.edit_manifest = lambda manifest: manifest["shards"][3].update(bucket=64)


@in_groups("shard-size")
def a_shard_that_is_not_full_before_the_last(export: Export) -> None:
    export.shards[0] = shard_of(0, [captioned(0)], "train", "64x128")


@in_groups("shard-size")
def a_last_shard_that_is_too_full(export: Export) -> None:
    export.shards[3] = shard_of(0, [captioned(n) for n in (5, 6, 7)], "val", "64x128")


@in_groups("shard-size", of=lambda: dealt(4, 1))
def an_uneven_deal(export: Export) -> None:
    """Shards may differ by one sample."""


@in_groups("shard-size", of=lambda: dealt(2, 3))
def a_smaller_shard_before_a_larger_one(export: Export) -> None:
    """The larger ones come first."""


@in_groups("shard-size", "shard-multiple", of=lambda: dealt(5, 5))
def a_deal_of_too_few_shards(export: Export) -> None:
    """Ten samples make three shards of at most four, so that there must be four."""


@in_groups("shard-multiple", of=lambda: dealt(2, 2, 1))
def no_multiple_of_shards(export: Export) -> None:
    """The number of shards must be even."""


@in_groups("shard-multiple", of=lambda: dealt(2, 1, 1, 1))
def more_shards_than_needed(export: Export) -> None:
    """Two would have done."""


@in_groups("image-id-duplicate", "key-duplicate", "shard-size")
def a_sample_in_two_splits(export: Export) -> None:
    export.shards[3] = shard_of(0, [captioned(n) for n in (5, 6, 0)], "val", "64x128")


@pytest.mark.parametrize("name", IN_GROUPS)
def test_a_planted_fault_in_splits_and_buckets_is_named_and_nothing_else_is(
    name: str, tmp_path: Path
) -> None:
    of, edit, broken = IN_GROUPS[name]
    export = of()
    edit(export)
    report = verify(export.write(tmp_path / "out"))
    assert rules(report) == broken, report.to_text()
    assert not report.ok


@pytest.mark.parametrize("name", ["a_row_of_another_split", "two_buckets_in_a_shard"])
def test_rows_in_the_wrong_shard_are_found_where_tars_are_not_read_and_without_a_manifest(
    name: str, tmp_path: Path
) -> None:
    of, edit, broken = IN_GROUPS[name]
    export = of()
    edit(export)
    out = export.write(tmp_path / "out")
    report = verify(out, sample=0.0001)
    assert report.checked.shards == 1
    assert rules(report) == broken
    (finding,) = report.findings
    assert (finding.file, finding.member) == (f"{export.shards[0].name}.parquet", "k001")
    assert rules(verify(out / f"{export.shards[0].name}.tar")) == broken
    (out / "manifest.json").unlink()
    assert rules(verify(out)) == {*broken, "manifest-missing"}


def test_one_tar_of_a_split_and_a_bucket_is_sound(tmp_path: Path) -> None:
    export = in_buckets()
    out = export.write(tmp_path / "out")
    for shard in export.shards:
        assert verify(out / f"{shard.name}.tar").findings == ()
    (out / "manifest.json").unlink()
    assert rules(verify(out)) == {"manifest-missing"}


def test_an_older_dataset_that_knows_no_buckets_is_sound(tmp_path: Path) -> None:
    export = with_splits()
    buckets_without_their_column(export)

    def older(manifest: dict[str, Any]) -> None:
        for shard in manifest["shards"]:
            del shard["bucket"]

    export.edit_manifest = older
    export.writer = {"images_per_tar": 1}
    out = export.write(tmp_path / "out")
    assert verify(out).findings == ()
    assert verify(out / f"{export.shards[0].name}.tar").findings == ()


TAR = f"images-{HASH}-000001.tar"
SIDE = f"images-{HASH}-000001.parquet"


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def data_end(data: bytes) -> int:
    """Where the last member's padding ends."""
    return -(-len(data.rstrip(b"\0")) // 512) * 512


@damage("tar-no-end", "tar-padding")
def end_blocks_missing(out: Path) -> None:
    rewrite(out / TAR, lambda data: data[: data_end(data)])
    seal(out)


@damage("tar-no-end", "tar-padding")
def one_end_block_only(out: Path) -> None:
    rewrite(out / TAR, lambda data: data[: data_end(data) + 512])
    seal(out)


@damage("tar-padding")
def padding_missing(out: Path) -> None:
    rewrite(out / TAR, lambda data: data[: data_end(data) + 1024])
    seal(out)


@damage("tar-trailing-data")
def something_behind_the_end(out: Path) -> None:
    rewrite(out / TAR, lambda data: data[:-1] + b"x")
    seal(out)


@damage("tar-trailing-data")
def another_tar_behind_the_end(out: Path) -> None:
    rewrite(out / TAR, lambda data: data + data)
    seal(out)


@damage("tar-cut", "sidecar-row-extra", "shard-count", "counts-kept")
def a_cut_inside_a_member(out: Path) -> None:
    second = pq.read_table(out / SIDE)["member_offset"][1].as_py()
    rewrite(out / TAR, lambda data: data[: second + 100])
    seal(out)


@damage("tar-no-end", "tar-padding", "sidecar-row-extra", "shard-count", "counts-kept")
def a_cut_between_two_samples(out: Path) -> None:
    third = pq.read_table(out / SIDE)["member_offset"][2].as_py()
    rewrite(out / TAR, lambda data: data[: third - 512])
    seal(out)


@damage("tar-damaged", "sidecar-row-extra", "shard-count", "counts-kept")
def a_flipped_bit_in_a_header(out: Path) -> None:
    third = pq.read_table(out / SIDE)["member_offset"][2].as_py()
    rewrite(
        out / TAR,
        lambda data: data[: third - 500] + bytes([data[third - 500] ^ 1]) + data[third - 499 :],
    )
    seal(out)


@damage("file-sha256")
def a_flipped_bit_behind_an_image(out: Path) -> None:
    rewrite(out / TAR, lambda data: data[:1500] + data[1500:].replace(b'"a": 1', b'"a": 2', 1))


@damage("file-missing")
def a_tar_missing(out: Path) -> None:
    (out / TAR).unlink()


@damage("file-missing")
def a_sidecar_missing(out: Path) -> None:
    (out / SIDE).unlink()


@damage("file-missing")
def the_dropped_table_missing(out: Path) -> None:
    (out / "dropped" / "dropped.parquet").unlink()


@damage("file-size", "file-sha256")
def a_longer_recipe(out: Path) -> None:
    rewrite(out / "recipe.yaml", lambda data: data + b"\n")


@damage("sidecar-unreadable")
def a_sidecar_of_garbage(out: Path) -> None:
    rewrite(out / SIDE, lambda data: data[: len(data) // 2])
    seal(out)


@damage("dropped-unreadable")
def a_dropped_table_of_garbage(out: Path) -> None:
    rewrite(out / "dropped" / "dropped.parquet", lambda data: data[: len(data) // 2])
    seal(out)


@damage("manifest-missing")
def the_manifest_missing(out: Path) -> None:
    (out / "manifest.json").unlink()


@damage("manifest-unreadable")
def the_manifest_cut(out: Path) -> None:
    rewrite(out / "manifest.json", lambda data: data[:-30])


@damage("manifest-sha256")
def another_seed_in_the_manifest(out: Path) -> None:
    rewrite(out / "manifest.json", lambda data: data.replace(b'\n "seed": 0', b'\n "seed": 1'))


@damage("manifest-sha256")
def the_name_of_the_digest_changed(out: Path) -> None:
    rewrite(out / "manifest.json", lambda data: data.replace(b'\n "sha256"', b'\n "sha257"'))


@damage("manifest-missing", "sidecar-missing")
def neither_manifest_nor_a_sidecar(out: Path) -> None:
    (out / "manifest.json").unlink()
    (out / SIDE).unlink()


@damage("file-unlisted")
def a_foreign_tar_beside_the_shards(out: Path) -> None:
    write_tar(out / "more.tar", [("a.jpg", picture(1))])


@damage("file-unlisted")
def a_foreign_table_beside_the_shards(out: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), out / "more.parquet")


@damage("file-stranger")
def a_stranger(out: Path) -> None:
    (out / "notes.txt").write_text("mine")


@damage("file-leftover")
def a_leftover_of_a_write(out: Path) -> None:
    (out / f".{TAR}.abc123.tmp").write_bytes(b"x")


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_named_and_nothing_else_is(name: str, tmp_path: Path) -> None:
    edit, broken = DAMAGES[name]
    out = sound().write(tmp_path / "out")
    edit(out)
    report = verify(out)
    assert rules(report) == broken, report.to_text()
    assert report.ok == all(RULES[rule].own == "warning" for rule in broken)


def test_hidden_files_that_are_no_leftovers_are_left_alone(tmp_path: Path) -> None:
    out = sound(1).write(tmp_path / "out")
    (out / ".pixsieve").mkdir()
    (out / ".DS_Store").write_bytes(b"x")
    assert verify(out).findings == ()


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    out = sound(1).write(tmp_path / "out")
    rng = random.Random(1)
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        if path.name == "manifest.json":
            continue  # it is not listed in itself: see the test of all its bits
        for _ in range(12):
            at = rng.randrange(len(whole))
            path.write_bytes(
                whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
            )
            report = verify(out, load=False, decode=False)
            assert "file-sha256" in rules(report), (path.name, at)
            found = {f.file for f in report.findings if f.rule == "file-sha256"}
            assert found == {str(path.relative_to(out))}
        path.write_bytes(whole)


def test_every_flipped_bit_of_the_manifest_is_found(tmp_path: Path) -> None:
    out = sound(1).write(tmp_path / "out")
    path = out / "manifest.json"
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        at, bit = divmod(place, 8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        findings = Findings(own=True)
        read_manifest(path, findings)
        assert findings.kept, (at, bit)
        if place % 997 == 0:
            assert not verify(out, load=False, decode=False).ok


def test_an_older_manifest_without_a_digest_is_said_to_be_unchecked(tmp_path: Path) -> None:
    out = sound(1).write(tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_bytes())
    del manifest["sha256"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    report = verify(out)
    assert report.findings == ()
    assert report.unchecked == (
        "the manifest itself: it is of a version that gave it no digest of its own",
    )


def test_a_tar_cut_at_any_block_is_found_though_its_digest_is_right(tmp_path: Path) -> None:
    out = sound(1).write(tmp_path / "out")
    path = out / f"images-{HASH}-000000.tar"
    whole = path.read_bytes()
    for size in range(0, len(whole), 512):
        path.write_bytes(whole[:size])
        seal(out)
        assert not verify(out, load=False).ok, size


# -- faults in the sets of others ---------------------------------------------------------------


def test_a_missing_sample_of_img2dataset_is_found(tmp_path: Path) -> None:
    folder = img2dataset(tmp_path / "i")
    with tarfile.open(folder / "00000.tar") as tar:
        content = [(m.name, tar.extractfile(m).read()) for m in tar.getmembers()]  # type: ignore[union-attr]
    write_tar(folder / "00000.tar", content[3:])
    report = verify(folder)
    assert rules(report) == {"sidecar-row-extra", "stats-differ"}
    assert {f.member for f in report.findings} == {"000000000", None}


def test_a_wrong_caption_and_size_of_img2dataset_are_found(tmp_path: Path) -> None:
    folder = img2dataset(tmp_path / "i")
    rows = pq.read_table(folder / "00001.parquet").to_pylist()
    rows[0] |= {"caption": "another", "width": 7}
    pq.write_table(
        pa.Table.from_pylist(rows, pq.read_schema(folder / "00001.parquet")),
        folder / "00001.parquet",
    )
    assert rules(verify(folder)) == {"column-caption", "column-size"}


def test_a_tar_that_was_killed_while_it_was_written_is_found(tmp_path: Path) -> None:
    folder = img2dataset(tmp_path / "i")
    rewrite(folder / "00001.tar", lambda data: data[: data_end(data) - 700])
    report = verify(folder)
    assert not report.ok
    assert "tar-cut" in rules(report)
    assert any("damaged" in note for note in report.unchecked)


def test_a_row_of_curators_without_its_image_is_found(tmp_path: Path) -> None:
    folder = curator(tmp_path / "c")
    path = folder / "images-0a0a0a0a0a0a-000000.tar"
    write_tar(path, [(f"0a0a0a0a0a0a{n}.jpg", picture(n)) for n in range(2)])
    assert rules(verify(folder)) == {"sidecar-row-extra"}


def test_a_folder_that_webdataset_skips_is_found(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("__x__/1.jpg", picture(1)), ("2.jpg", picture(2))])
    assert rules(verify(tmp_path)) == {"key-unsafe", "load-differs"}


def test_gaps_missing_images_and_truncated_ones_of_others_are_found(tmp_path: Path) -> None:
    write_tar(tmp_path / "s-0.tar", [("a.jpg", picture(1)), ("b.txt", b"x"), ("a.txt", b"y")])
    write_tar(tmp_path / "s-2.tar", [("c.JPEG", picture(1)[:-30]), ("a.jpg", picture(3, "png"))])
    write_tar(tmp_path / "s-3.tar", [])
    report = verify(tmp_path)
    found = {finding.rule: finding.severity for finding in report.findings}
    assert found == {
        "image-undecodable": "error",
        "member-not-adjacent": "error",
        "image-missing": "warning",
        "key-duplicate": "warning",
        "extension-unsafe": "warning",
        "extension-format": "warning",
        "shard-gap": "warning",
        "shard-empty": "warning",
    }


def test_every_rule_is_broken_by_some_test() -> None:
    registered = (*FAULTS.values(), *DAMAGES.values(), *IN_GROUPS.values())
    planted = set().union(*(broken for *_, broken in registered))
    planted |= {rule for each in FAULTS_OF_EXPORTS.values() for rule in (each.rule, each.agreed)}
    planted -= {None, ""}
    in_tests_of_their_own = {"stats-differ", "load-differs", "format-missing", "members-uneven"}
    assert planted | in_tests_of_their_own == set(RULES)


# -- hostile tars -------------------------------------------------------------------------------


def test_mutated_tars_end_and_yield_only_what_lies_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(
        path,
        [("a" * 120 + ".jpg", b"12345"), ("b.txt", b""), ("c.txt", b"x" * 600)],
        lambda info: setattr(info, "mtime", 1.5),
        tarfile.PAX_FORMAT,
    )
    whole = path.read_bytes()
    rng = random.Random(7)
    faults: list[str] = []

    def note(rule: str, message: str, member: str | None) -> None:
        assert message
        assert member is None or isinstance(member, str)
        faults.append(rule)

    for _ in range(400):
        data = bytearray(whole)
        block = 512 * rng.randrange(data_end(whole) // 512)
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[block + rng.choice([rng.randrange(512), 124 + rng.randrange(12), 156])] = (
                rng.choice([0, 0x80, 0xFF, ord("x"), ord("7"), rng.randrange(256)])
            )
        if rng.random() < 0.8:  # a checksum that fits, so that the fields themselves are looked at
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
        path.write_bytes(data)
        faults.clear()
        with path.open("rb") as file:
            found = list(members(file, len(data), strict=False, report=note))
        assert all(m.offset >= 0 <= m.size <= len(data) - m.offset for m in found)
        assert set(faults) <= set(RULES)


def test_a_negative_size_ends_the_reading(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    assert "tar-damaged" in rules(verify(tmp_path))


def test_an_enormous_extended_header_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 3 << 20
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4 << 20))
    assert "tar-damaged" in rules(verify(tmp_path))


# -- how it is asked and how it answers ---------------------------------------------------------


def test_a_sampled_check_is_the_same_each_time_and_says_what_it_left_out(tmp_path: Path) -> None:
    out = sound(8).write(tmp_path / "out")
    first = verify(out, sample=0.25)
    assert first == verify(out, sample=0.25)
    assert first.ok
    assert first.checked.shards == 2
    assert first.checked.rows == 24
    assert any("2 of 8 tars" in note for note in first.unchecked)
    one = verify(out, sample=0.0001).checked
    assert (one.shards, one.images) == (1, 1)


def test_a_sampled_check_still_counts_everything_and_finds_keys_in_two_shards(
    tmp_path: Path,
) -> None:
    export = sound(6)
    export.shards[5] = shard_of(5, [captioned(n) for n in (15, 16, 0)])
    out = export.write(tmp_path / "out")
    (out / f"images-{HASH}-000002.tar").unlink()
    report = verify(out, sample=0.01)
    assert {"image-id-duplicate", "key-duplicate", "file-missing"} <= rules(report)


def test_without_decoding_a_truncated_image_passes_and_the_report_says_so(tmp_path: Path) -> None:
    export = sound(1)
    a_truncated_image(export)
    report = verify(export.write(tmp_path / "out"), decode=False)
    assert report.ok
    assert report.checked.decoded == 0
    assert any("decode" in note for note in report.unchecked)


def test_without_webdataset_the_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = sound(1).write(tmp_path / "out")
    monkeypatch.setitem(sys.modules, "webdataset", None)
    report = verify(out)
    assert report.findings == ()
    assert report.checked.loaded == 0
    assert any("not installed" in note for note in report.unchecked)
    assert any("switched off" in note for note in verify(out, load=False).unchecked)


def test_worker_processes_report_what_one_process_reports(tmp_path: Path) -> None:
    export = sound()
    two_captions_swapped(export)
    out = export.write(tmp_path / "out")
    calls: list[tuple[int, int, str]] = []
    report = verify(out, workers=2, progress=lambda *call: calls.append(call))
    assert report == verify(out)
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    assert {name for _, _, name in calls} == {f"images-{HASH}-{n:06d}.tar" for n in range(3)}


def test_the_findings_of_one_rule_in_one_file_are_bounded(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"k {n}.jpg", picture(1)) for n in range(50)])
    report = verify(tmp_path)
    assert len(report.findings) == LIMIT_PER_FILE + 1
    assert report.findings[-1].message == "30 more of this rule in this file"


def test_control_characters_in_names_never_reach_the_report(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar", [("\x1b[2Jk\n\udc80.jpg", picture(1))], tar_format=tarfile.GNU_FORMAT
    )
    report = verify(tmp_path)
    assert "key-unsafe" in rules(report)
    assert report.to_text().replace("\n", "").isprintable()
    report.to_json().encode()


def test_the_text_names_file_member_and_rule(tmp_path: Path) -> None:
    export = sound()
    a_truncated_image(export)
    text = verify(export.write(tmp_path / "out")).to_text()
    assert f"error: image-undecodable: images-{HASH}-000000.tar: k001.jpg: " in text
    assert "NOT SOUND (pixsieve dataset; 1 errors, 0 warnings)" in text


def test_quiet_prints_the_errors_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = sound()
    a_truncated_image(export)
    out = export.write(tmp_path / "out")
    (out / "a.txt").write_text("x")  # a warning
    assert main(["verify", str(out), "--quiet", "--workers", "1"]) == 6
    (error,) = verify(out).errors
    last = f"pixsieve: {out} does not hold what it promises: 1 errors"
    assert capsys.readouterr() == ("", f"{error.to_text()}\n{last}\n")


def test_the_json_has_the_whole_report(tmp_path: Path) -> None:
    export = sound(1)
    a_truncated_image(export)
    report = verify(export.write(tmp_path / "out"))
    data = json.loads(report.to_json())
    assert data["ok"] is False
    assert data["checked"]["samples"] == 3
    assert data["findings"][0]["rule"] == "image-undecodable"
    assert data.keys() == {"ok", "path", "kind", "findings", "checked", "loaders", "unchecked"}


def test_errors_stand_before_warnings(tmp_path: Path) -> None:
    export = sound()
    a_truncated_image(export)
    out = export.write(tmp_path / "out")
    (out / "a.txt").write_text("x")
    assert [f.severity for f in verify(out).findings] == ["error", "warning"]


def test_what_is_not_there_or_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="does not exist"):
        verify(tmp_path / "nothing")
    with pytest.raises(SourceError, match=r"no \.tar to verify$"):
        verify(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"unpack compressed ones first, .*: a\.tar\.gz"):
        verify(tmp_path)
    with pytest.raises(UsageError, match="neither a folder nor"):
        verify(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sample is"):
        verify(tmp_path, sample=share)


def test_verify_loads_none_of_the_code_that_writes() -> None:
    code = (
        "import sys, pixsieve.verify; "
        "print([m for m in sys.modules if m.startswith(('pixsieve.export', 'pixsieve.engine.work', "
        "'pixsieve.engine.run', 'pixsieve.sources', 'pixsieve.select', 'webdataset'))])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_guide_lists_every_rule() -> None:
    text = (Path(__file__).parent.parent / "docs" / "verify.md").read_text()
    listed = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [rule for rule in listed if rule in RULES] == list(RULES)
    for name, rule in RULES.items():
        columns = (f"`{name}`", rule.text, rule.own or "-", rule.foreign or "-")
        assert f"| {' | '.join(columns)} |" in text
