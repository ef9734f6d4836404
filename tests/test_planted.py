"""Faults that are planted in sound exports: each is found and named, and sound sets are silent.

Each is planted twice: as it is, and with a manifest that is made to agree, so that it is not by the
digest of a file that it is found.
"""

from __future__ import annotations

import contextlib
import functools
import json
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import webdataset
import yaml

from pixsieve.stages import ImageTransformStage
from pixsieve.testing import images, planted
from pixsieve.verify import verify as verify_with_workers

if TYPE_CHECKING:
    from pathlib import Path

verify = functools.partial(verify_with_workers, workers=0)


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A sound export without splits, and one with two."""
    return {
        splits: planted.export(tmp_path_factory.mktemp("set"), splits=splits)
        for splits in (False, True)
    }


def test_the_sets_are_sound(sets: dict[bool, Path]) -> None:
    for folder in sets.values():
        assert verify(folder).findings == ()


SOUND: dict[str, dict[str, Any]] = {
    "no captions": {"captions": False},
    "formats as they are": {"kinds": ("JPEG", "PNG", "WEBP"), "image_format": "keep"},
    "all one format": {"kinds": ("JPEG", "PNG", "WEBP")},
    "uniform members": {"members": "uniform"},
    "running numbers": {"member_names": "sequential"},
    "cut by bytes": {"max_bytes_per_tar": 20_480},
    "no index files": {"indexes": ()},
    "an even number of shards": {"shards_multiple_of": 2},
    "other formats": {"formats": ("parquet", "imagefolder", "tfrecord")},
    "resized": {"transform": ImageTransformStage(resize_mode="keep_ratio", image_size=64)},
    "stripped": {"transform": ImageTransformStage()},
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_export_has_no_finding(name: str, tmp_path: Path) -> None:
    assert verify(planted.export(tmp_path, **SOUND[name])).findings == ()


def test_a_set_of_webdatasets_own_writer_has_no_finding(tmp_path: Path) -> None:
    pattern = str(tmp_path / "shard-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0) as writer:
        for number in range(10):
            sample = {"jpg": images.photo(number, 64, 48), "txt": "a", "json": {"n": number}}
            writer.write({"__key__": f"{number:04d}", **sample})
    report = verify(tmp_path)
    assert report.kind == "foreign"
    assert report.findings == ()


def test_a_file_in_a_folder_of_another_format_is_checked_like_any_other(tmp_path: Path) -> None:
    folder = planted.export(tmp_path, formats=("parquet", "imagefolder"))
    (path,) = sorted((folder / "parquet").glob("*00000-of-00003*"))
    path.write_bytes(path.read_bytes()[:-1])
    (folder / "parquet" / "more.parquet").write_bytes(b"x")
    (folder / "parquet" / ".half.tmp").write_bytes(b"x")
    found = {(finding.rule, finding.file) for finding in verify(folder).findings}
    assert found == {
        ("file-size", f"parquet/{path.name}"),
        ("file-sha256", f"parquet/{path.name}"),
        ("file-stranger", "parquet/more.parquet"),
        ("file-leftover", "parquet/.half.tmp"),
    }


def test_a_format_that_the_recipe_asks_for_must_be_there(tmp_path: Path) -> None:
    folder = planted.export(tmp_path, formats=("parquet",))
    shutil.rmtree(folder / "parquet")
    planted.agree(folder)
    assert [(f.rule, f.file) for f in verify(folder).findings] == [("format-missing", "parquet")]


@pytest.mark.parametrize(
    "change",
    [
        lambda members: [*members[:2], *members[3:]],
        lambda members: [(name, b'{"number": 1.5}' if at == 5 else data)
                         for at, (name, data) in enumerate(members)],
        lambda members: [(name, b'{"n": 1}' if name.endswith("json") else data)
                         for name, data in members],
        lambda members: [each for each in members if not each[0].endswith("txt")],
    ],
    ids=["caption", "type", "keys", "captions"],
)  # fmt: skip
def test_members_that_are_not_uniform_though_the_recipe_says_so_are_named(
    change: Any, tmp_path: Path
) -> None:
    folder = planted.export(tmp_path, members="uniform")
    planted.edit_tar(folder, change)
    planted.agree(folder)
    assert "members-uneven" in {finding.rule for finding in verify(folder).findings}


@pytest.mark.parametrize(
    ("name", "rule"),
    [("wids.json", "index-wids"), ("index.json", "index-litdata"),
     (".nv-meta/.info.json", "index-energon"), (".nv-meta/split.yaml", "index-energon"),
     (".nv-meta/index.sqlite", "index-energon"), ("croissant.json", "index-croissant"),
     ("datapackage.json", "index-frictionless")],
)  # fmt: skip
@pytest.mark.parametrize("data", [None, b"", b"\xff\xfe{", b"[]", b"{}"])
def test_an_index_file_that_is_gone_or_garbage_is_named(
    name: str, rule: str, data: bytes | None, sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[False], tmp_path / "out")
    if data is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data)
    planted.agree(folder)
    assert rule in {finding.rule for finding in verify(folder).findings}


def test_a_database_that_is_a_view_without_end_is_not_read(
    sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[False], tmp_path / "out")
    path = folder / ".nv-meta" / "index.sqlite"
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE VIEW samples AS WITH RECURSIVE n(tar_file_id) AS "
            "(SELECT 0 UNION ALL SELECT 0 FROM n) SELECT * FROM n;"
            "CREATE TABLE sample_parts (tar_file_id INTEGER);"
        )
    assert "index-energon" in {finding.rule for finding in verify(folder).findings}


@pytest.mark.parametrize("name", [".nv-meta/dataset.yaml", ".nv-meta/split.yaml", "README.md"])
def test_aliases_are_not_unfolded(name: str, sets: dict[bool, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(sets[False], tmp_path / "out")
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    text = "\n".join([*lines, "field_map: {image: *a29}", "split_parts: {train: *a29}"])
    (folder / name).write_text(f"---\n{text}\n---\n" if name.endswith(".md") else text)
    rules = {finding.rule for finding in verify(folder).findings}
    assert rules & {"index-energon", "index-card"}


@pytest.mark.parametrize("seed", range(40))
def test_whatever_stands_in_an_index_file_verify_comes_to_its_end(
    seed: int, sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[False], tmp_path / "out")
    chance = random.Random(seed)
    name = ODD_FILES[seed % len(ODD_FILES)]
    data = (folder / name).read_bytes()
    if name.endswith(".sqlite"):
        damaged = bytearray(data)
        for _ in range(20):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (folder / name).write_bytes(damaged)
    else:
        head, _, tail = data.decode().removeprefix("---\n").partition("\n---\n")
        found = yaml.safe_load(head)
        for _ in range(5):
            found = mutated(found, chance)
        front, back = ("---\n", f"\n---\n{tail}") if name.endswith(".md") else ("", "")
        (folder / name).write_text(f"{front}{json.dumps(found)}{back}")
    verify(folder, load=False, decode=False)


ODD_FILES = (
    "wids.json", "index.json", "croissant.json", "datapackage.json", "datapackage.schema.json",
    ".nv-meta/.info.json", ".nv-meta/split.yaml", ".nv-meta/dataset.yaml", "README.md",
    ".nv-meta/index.sqlite",
)  # fmt: skip
ODD_VALUES = (
    None, 1, -1, 2**70, 1.5, "x", "../x", "/etc/passwd", "\0", "a" * 300, [], {}, [[]], [{}], True,
    "http://x/y.tar", "*.tar", "{000000..999999999}.tar",
)  # fmt: skip


def mutated(value: Any, chance: random.Random) -> Any:
    """Return a value in which one place has another value, or none."""
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.2:
        return chance.choice(ODD_VALUES)
    if isinstance(value, dict):
        key = chance.choice(list(value))
        return {**value, key: mutated(value[key], chance)}
    at = chance.randrange(len(value))
    return [*value[:at], mutated(value[at], chance), *value[at + 1 :]]


AGREEING = {name: fault for name, fault in planted.FAULTS.items() if fault.agreed != ""}


def check(fault: planted.Fault, rule: str, folder: Path, stem: str) -> None:
    report = verify(folder)
    found = {finding.rule: finding for finding in reversed(report.findings)}
    assert rule in found, sorted(found)
    file = fault.file.format(shard=stem)
    named = {finding.file for finding in report.findings if finding.rule == rule}
    assert any(name.startswith(file) for name in named) or named == {planted.MANIFEST}


@pytest.mark.parametrize("fault", planted.FAULTS.values(), ids=planted.FAULTS)
def test_a_planted_fault_is_found_and_named(
    fault: planted.Fault, sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[fault.splits], tmp_path / "out")
    stem = planted.shards(folder)[1].stem
    fault.plant(folder)
    check(fault, fault.rule, folder, stem)


@pytest.mark.parametrize("fault", AGREEING.values(), ids=AGREEING)
def test_it_is_found_though_the_manifest_agrees(
    fault: planted.Fault, sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[fault.splits], tmp_path / "out")
    stem = planted.shards(folder)[1].stem
    fault.plant(folder)
    planted.agree(folder)
    stem = "renamed" if fault.agreed == "shard-name" else stem
    check(fault, fault.agreed or fault.rule, folder, stem)
    assert "file-sha256" not in {finding.rule for finding in verify(folder).findings}
