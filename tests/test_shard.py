"""A shard holds its samples' bytes as they were, under safe names, and a sidecar that says so."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve import schema
from pixsieve.errors import RunError, SourceChangedError
from pixsieve.export.files import FileRecord, seal
from pixsieve.export.plan import Groups, plan_export
from pixsieve.export.shard import write_shard
from pixsieve.schema import Problem
from pixsieve.scorers.guard import Guard, NoGuard
from pixsieve.sources import SourceFiles
from pixsieve.stages import ImageWriterStage
from pixsieve.storage import LocalStorage, ObjectInfo, tables
from pixsieve.testing import images
from pixsieve.testing.rows import make_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ADDED = pa.schema([("likes", pa.int64()), ("score", pa.float32()), ("tags", pa.list_(pa.string()))])
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.[a-z0-9._-]{1,40}")


class Shard:
    """A shard that was written from samples, and what came of it."""

    def __init__(
        self,
        folder: Path,
        samples: Sequence[tuple[bytes, Mapping[str, bytes]]],
        *,
        rows: Sequence[Mapping[str, Any]] | None = None,
        added: pa.Schema = ADDED,
        splits: Groups | None = None,
        buckets: Groups | None = None,
        **options: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.output = folder, folder / "out"
        self.output.mkdir()
        blob, described = b"", []
        for number, (data, siblings) in enumerate(samples):
            places, start = [], len(blob) + 7
            blob += b"between" + data
            for extension, sibling in siblings.items():
                places.append((extension, len(blob), len(sibling)))
                blob += sibling
            described.append(
                {"image_offset": start, "image_size": len(data), "siblings": places}
                | self.facts(data)
                | (rows[number] if rows else {})
            )
        (folder / "a.tar").write_bytes(blob)
        version = LocalStorage().stat(str(folder / "a.tar")).version
        for row in described:
            row["image_version"] = version
        parts = make_parts(folder, described, added=added)
        for table in folder.glob("index-*.parquet"):  # siblings lie in the same file
            self.set_version(table, version)
        self.writer = ImageWriterStage(output_dir=str(self.output), **options)
        order = np.arange(len(described), dtype=np.int64)
        plan = plan_export(
            parts, order, self.writer, added, folder / "plan", splits=splits, buckets=buckets
        )
        self.plan = tables.read_table(str(plan.shards[0].table))
        self.added = added.names

    @staticmethod
    def facts(data: bytes) -> dict[str, Any]:
        from pixsieve import image  # noqa: PLC0415

        header = image.probe(data)
        names = ("format", "width", "height", "mode", "exif_orientation")
        found = {name: getattr(header, name) for name in names}
        return found | {"sha256": hashlib.sha256(data).hexdigest()}

    @staticmethod
    def set_version(path: Path, version: str) -> None:
        table = tables.read_table(str(path))
        rows = table["siblings"].to_pylist()
        for siblings in rows:
            for sibling in siblings:
                sibling["version"] = version
        at = table.schema.get_field_index("siblings")
        column = pa.array(rows, schema.INDEX.field("siblings").type)
        path.write_bytes(tables.table_bytes(table.set_column(at, table.schema.field(at), column)))

    def write(
        self, stem: str = "images-0-000000", guard: Guard | None = None
    ) -> tuple[int, FileRecord, int]:
        with SourceFiles(str(self.folder), LocalStorage(), str(self.folder / "spool")) as files:
            return write_shard(
                self.plan, self.added, stem, self.writer, files, LocalStorage(), guard or NoGuard()
            )

    def members(self, stem: str = "images-0-000000") -> list[tuple[str, bytes]]:
        with tarfile.open(self.output / f"{stem}.tar", mode="r:") as archive:
            return [(m.name, archive.extractfile(m).read()) for m in archive]

    def sidecar(self, stem: str = "images-0-000000") -> pa.Table:
        return pq.read_table(self.output / f"{stem}.parquet")


def test_members_are_adjacent_image_first_and_byte_for_byte_as_they_were(tmp_path: Path):
    samples = [
        (
            images.photo(number),
            {"txt": f"caption {number}".encode(), "json": b'{ "a" :1}\n', "cls": b""},
        )
        for number in range(3)
    ]
    shard = Shard(tmp_path, samples)
    shard.write()
    keys = shard.plan["new_key"].to_pylist()
    assert shard.members() == [
        (f"{key}.{extension}", data)
        for key, (photo, siblings) in zip(keys, samples, strict=True)
        for extension, data in {"jpg": photo, **siblings}.items()
    ]
    rows = shard.sidecar().to_pylist()
    assert [row["members"] for row in rows] == [
        [f"{key}.{extension}" for extension in ("jpg", "txt", "json", "cls")] for key in keys
    ]
    assert {row["encoding"] for row in rows} == {"copy"}


def test_the_sidecar_says_where_each_image_stands_in_the_tar(tmp_path: Path):
    samples = [(data, {"txt": b"x" * 600}) for data in images.every_format().values()]
    shard = Shard(tmp_path, samples, image_format="keep")
    record, encoded = shard.write()
    tar = (shard.output / "images-0-000000.tar").read_bytes()
    assert encoded == 0
    assert record == FileRecord(
        name="images-0-000000.parquet",
        size=(shard.output / "images-0-000000.parquet").stat().st_size,
        sha256=seal(shard.output / "images-0-000000.parquet"),
    )
    for row, (data, _) in zip(shard.sidecar().to_pylist(), samples, strict=True):
        assert tar[row["member_offset"] :][: row["member_size"]] == data
        assert row["member_sizes"] == [len(data), 600]
        assert row["sha256"] == row["original_sha256"] == hashlib.sha256(data).hexdigest()
        with Image.open(io.BytesIO(data)) as opened:
            assert (row["width"], row["height"], row["mode"]) == (*opened.size, opened.mode)
            assert row["format"] == row["original_format"] == opened.format.lower()
        assert row["member_name"] == row["members"][0]
        assert row["tar_file"] == "images-0-000000.tar"


def test_extensions_are_those_of_the_true_formats(tmp_path: Path):
    kinds = images.every_format()
    shard = Shard(tmp_path, [(data, {}) for data in kinds.values()], image_format="keep")
    shard.write()
    found = [name.rpartition(".")[2] for name, _ in shard.members()]
    extensions = {"jpeg": "jpg", "tiff": "tif"}
    assert found == [extensions.get(kind, kind) for kind in kinds]


@pytest.mark.parametrize("nulls", [False, True])
def test_the_sidecars_schema_is_the_contract_and_then_what_was_added(tmp_path: Path, nulls: bool):
    given = {"caption": "c", "class_name": "k", "likes": 3, "score": 0.5, "tags": ["a"]}
    rows = [dict.fromkeys(given) if nulls else given]
    shard = Shard(tmp_path, [(images.photo(), {})], rows=rows)
    shard.write()
    found = shard.sidecar().schema
    assert found.remove_metadata() == pa.schema([*schema.SIDECAR, *ADDED])
    assert json.loads(found.metadata[b"pixsieve"]) == {"format_version": 1}
    row = shard.sidecar().to_pylist()[0]
    assert {name: row[name] for name in given} == rows[0]


def test_split_and_bucket_of_the_shard_stand_in_every_row(tmp_path: Path):
    codes = np.zeros(2, np.int16)
    for number, (split, bucket) in enumerate([("train", "64x96"), ("val", None), (None, None)]):
        splits = None if split is None else Groups(names=(split,), codes=codes)
        buckets = None if bucket is None else Groups(names=(bucket,), codes=codes)
        photos = [(images.photo(1), {}), (images.photo(2), {})]
        shard = Shard(tmp_path / str(number), photos, splits=splits, buckets=buckets)
        shard.write()
        found = shard.sidecar()
        assert (found["split"].to_pylist(), found["bucket"].to_pylist()) == (
            [split] * 2, [bucket] * 2,
        )  # fmt: skip


def test_what_the_sample_was_stands_in_the_sidecar(tmp_path: Path):
    row = {"original_key": "deep/in a folder/ä.b", "original_path": "a.tar", "original_offset": 7}
    shard = Shard(tmp_path, [(images.oriented_jpeg(6), {})], rows=[row])
    shard.write()
    (found,) = shard.sidecar().to_pylist()
    assert {name: found[name] for name in row} == row
    assert found["exif_orientation"] == 6
    assert (found["width"], found["height"]) == (64, 96)
    assert found["key"] == found["image_id"]
    assert SAFE_NAME.fullmatch(found["member_name"])


def test_what_is_not_of_the_format_is_encoded_and_says_how(tmp_path: Path):
    samples = [
        (images.photo(), {}),
        (images.rgba_png(), {"txt": b"x"}),
        (images.oriented_jpeg(8), {}),
    ]
    shard = Shard(tmp_path, samples, image_format="jpeg", quality=80, background="#102030")
    _, encoded = shard.write()
    assert encoded == 1
    copied, made, turned = shard.sidecar().to_pylist()
    assert copied["encoding"] == turned["encoding"] == "copy"
    assert made["encoding"].startswith("jpeg quality=80 subsampling=4:2:0 from=png")
    assert "background=#102030" in made["encoding"]
    data = dict(shard.members())[made["member_name"]]
    assert made["member_name"].endswith(".jpg")
    assert hashlib.sha256(data).hexdigest() == made["sha256"] != made["original_sha256"]
    assert made["original_sha256"] == hashlib.sha256(samples[1][0]).hexdigest()
    assert (made["original_format"], made["format"], made["mode"]) == ("png", "jpeg", "RGB")
    assert made["member_size"] == len(data)
    with Image.open(io.BytesIO(data)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (97, 61))


def test_an_encoded_image_is_upright_and_without_a_tag(tmp_path: Path):
    shard = Shard(tmp_path, [(images.oriented_jpeg(6), {})], image_format="png")
    shard.write()
    (row,) = shard.sidecar().to_pylist()
    assert (row["exif_orientation"], row["width"], row["height"]) == (1, 64, 96)
    assert "orientation=6>1" in row["encoding"]
    ((_, data),) = shard.members()
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.size == (64, 96)


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path):
    samples = [(images.photo(1), {"txt": b"a"}), (images.photo(2, format="PNG"), {})]
    digests = []
    for folder in ("1", "2"):
        shard = Shard(tmp_path / folder, samples)
        shard.write()
        paths = sorted(shard.output.iterdir())
        digests.append([(path.name, seal(path)) for path in paths])
    assert digests[0] == digests[1]
    assert len(digests[0]) == 2


def extensions(shard: Shard) -> list[str]:
    return [name.partition(".")[2] for name, _ in shard.members()]


def test_siblings_keep_their_extension_made_safe_and_are_never_one_over_the_other(tmp_path: Path):
    siblings = {
        "jpg": b"another image's name", "jpg_2": b"1", "TXT": b"2", "txt": b"3", "mask.png": b"4",
        "a b/c": b"5", "a-b-c": b"6", "äö": b"7", "": b"8", "data": b"9", "x" * 60: b"10",
        "x" * 61: b"11", "..": b"12", "__key__": b"13",
    }  # fmt: skip
    shard = Shard(tmp_path, [(images.photo(), siblings)])
    shard.write()
    assert extensions(shard) == [
        "jpg", "jpg_2", "jpg_2_2", "txt", "txt_2", "mask.png", "a-b-c", "a-b-c_2", "-", "data",
        "data_2", "x" * 40, "x" * 38 + "_2", "..", "__key__",
    ]  # fmt: skip
    assert [data for _, data in shard.members()][1:] == list(siblings.values())


def test_many_long_extensions_still_fit_a_header(tmp_path: Path):
    siblings = {"x" * 40 + str(number): b"%d" % number for number in range(120)}
    row = {"original_key": "k" * 80}
    shard = Shard(tmp_path, [(images.photo(), siblings)], rows=[row])
    shard.write()
    assert len({name for name, _ in shard.members()}) == 121
    assert max(len(name) for name, _ in shard.members()) <= 57 + 1 + 40
    assert [data for _, data in shard.members()][1:] == list(siblings.values())


def test_a_source_that_changed_leaves_nothing_behind(tmp_path: Path):
    shard = Shard(tmp_path, [(images.photo(), {"txt": b"x"})])
    source = tmp_path / "a.tar"
    os.utime(source, ns=(1, 1))
    with pytest.raises(SourceChangedError, match="changed after it was listed"):
        shard.write()
    assert list(shard.output.iterdir()) == []


def test_rot_in_a_source_is_not_encoded_as_if_it_were_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A disk that rots changes no time; a test that writes does, so the change time is left out."""
    monkeypatch.setattr(
        "pixsieve.storage.local._info",
        lambda path, found: ObjectInfo(path, found.st_size, str(found.st_mtime_ns)),
    )
    shard = Shard(tmp_path, [(images.photo(format="PNG"), {})])
    source = tmp_path / "a.tar"
    before = source.stat()
    source.write_bytes(images.flipped(source.read_bytes(), 300))
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))  # nothing else tells
    with pytest.raises(SourceChangedError, match=r"a\.tar at byte 7: .* is not what it was when"):
        shard.write()
    assert list(shard.output.iterdir()) == []


def test_an_image_whose_encoding_ended_its_worker_is_named(tmp_path: Path):
    shard = Shard(tmp_path, [(images.photo(format="PNG"), {})])
    guard = NoGuard({0: Problem.DECODER_CRASH})
    with pytest.raises(RunError, match=r"a\.tar at byte 7: .*decoder_crash.*; leave it out with"):
        shard.write(guard=guard)
    assert list(shard.output.iterdir()) == []


def test_an_image_that_cannot_be_encoded_after_all_is_named(tmp_path: Path):
    panorama = images.photo(0, 16_400, 8, "PNG")
    shard = Shard(tmp_path, [(panorama, {})], image_format="webp")
    with pytest.raises(
        RunError, match=r"a\.tar at byte 7: .* cannot be encoded as webp: 16400 x 8"
    ):
        shard.write()
    assert list(shard.output.iterdir()) == []


def test_a_seal_is_the_digest_of_the_file(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"abc")
    assert seal(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
