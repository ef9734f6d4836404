"""What the user names becomes shards: each file once, in one order, wherever the command is run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pixsieve.errors import SourceNotFoundError, UsageError
from pixsieve.sources import find, find_shards
from pixsieve.storage import LocalStorage
from pixsieve.testing.strategies import Entry, write_tar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STORAGE = LocalStorage()
TAR = write_tar([Entry("a.jpg", b"\xff\xd8\xff")])


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TAR if ".tar" in name or name.endswith("shard") else b"\xff\xd8\xff")


def found(paths: str | Sequence[str]) -> tuple[str, list[tuple[str, list[str]]]]:
    root, shards = find_shards(paths, STORAGE)
    listed = list(shards)
    assert all(shard.root == root for shard in listed)
    return root, [(shard.kind, [file.path for file in shard.files]) for shard in listed]


def test_a_folder_is_searched_for_tars_and_loose_files(tmp_path: Path) -> None:
    fill(tmp_path, "b/2.tar", "b/1.tar.gz", "c/x.jpg", "c/x.txt", "a.TAR", ".hidden/y.jpg", "z.png")
    assert found(str(tmp_path)) == (
        str(tmp_path),
        [
            ("tar", ["a.TAR"]),
            ("tar", ["b/1.tar.gz"]),
            ("tar", ["b/2.tar"]),
            ("files", ["c/x.jpg", "c/x.txt", "z.png"]),
        ],
    )


def test_files_that_go_with_a_tar_are_no_samples_but_images_and_orphans_are(tmp_path: Path) -> None:
    fill(tmp_path, "0.parquet", "0.tar", "0_stats.json", "1.json", "1.tar", "1_stats.json")
    fill(tmp_path, "1.jpg", "1.txt", "10.txt", "9.json", "sub/0.json")
    kinds = dict(found(str(tmp_path))[1][2:])
    assert [paths for kind, paths in found(str(tmp_path))[1] if kind == "tar"] == [
        ["0.tar"],
        ["1.tar"],
    ]
    assert kinds["files"] == ["1.jpg", "1.json", "1.txt", "10.txt", "9.json", "sub/0.json"]


@pytest.mark.parametrize(
    ("pattern", "root", "paths"),
    [
        ("in/0.tar", "in", ["0.tar"]),
        ("in/{0..2}.tar", "in", ["0.tar", "1.tar", "2.tar"]),
        ("in/{00..01}.tar", "in", ["00.tar", "01.tar"]),
        ("{in,on}/0.tar", "", ["in/0.tar", "on/0.tar"]),
        ("in/*.tar", "in", ["0.tar", "00.tar", "01.tar", "1.tar", "2.tar"]),
        ("in/[12].tar", "in", ["1.tar", "2.tar"]),
        ("?n/0.tar", "", ["in/0.tar", "on/0.tar"]),
        ("**/0.tar", "", ["in/0.tar", "in/deep/er/0.tar", "on/0.tar"]),
        ("in/**", "in", ["0.tar", "00.tar", "01.tar", "1.tar", "2.tar", "deep/er/0.tar"]),
        ("o*", "", ["on/0.tar"]),
        ("in/../on/0.tar", "on", ["0.tar"]),
        ("in/d[x]/0.tar", "in/d[x]", ["0.tar"]),
    ],
)
def test_patterns_stand_for_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, root: str, paths: list[str]
) -> None:
    fill(tmp_path, *(f"in/{n}.tar" for n in ("0", "1", "2", "00", "01")), "on/0.tar")
    fill(tmp_path, "in/deep/er/0.tar")
    if "d[x]" in pattern:
        fill(tmp_path, "in/d[x]/0.tar")
    expected = (str(tmp_path / root), [("tar", [path]) for path in paths])
    assert found(str(tmp_path / pattern)) == expected
    monkeypatch.chdir(tmp_path)
    assert found(pattern) == expected


def test_a_list_is_merged_in_order_and_each_file_read_once(tmp_path: Path) -> None:
    fill(tmp_path, "in/1.tar", "in/0.tar", "in/a.jpg", "in/sub/2.tar")
    names = ["in/sub", "in/1.tar", "in", "in/*.tar", "in/./0.tar"]
    paths = [str(tmp_path / name) for name in names]
    expected = (
        str(tmp_path / "in"),
        [
            ("tar", ["0.tar"]),
            ("tar", ["1.tar"]),
            ("tar", ["sub/2.tar"]),
            ("files", ["a.jpg"]),
        ],
    )
    assert found(paths) == expected
    assert found(paths[::-1]) == expected


def test_a_single_file_is_what_it_holds(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "shard", "b")
    assert found(str(tmp_path / "a.jpg")) == (str(tmp_path), [("files", ["a.jpg"])])
    assert found(str(tmp_path / "shard")) == (str(tmp_path), [("tar", ["shard"])])
    assert found(str(tmp_path / "b")) == (str(tmp_path), [("files", ["b"])])


def test_a_name_with_braces_or_stars_that_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path, "{0..1}.tar", "*.tar", "2.tar")
    assert found(str(tmp_path / "{0..1}.tar"))[1] == [("tar", ["{0..1}.tar"])]
    assert found(str(tmp_path / "*.tar"))[1] == [("tar", ["*.tar"])]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("in/00001.tr", "in/00001.tr does not exist; did you mean '00001.tar'?"),
        ("in/{00000..00002}.tar", "in/00002.tar (of "),
        ("on/0.tar", "there is no folder"),
        ("in/*.zip", "no file matches"),
        ("on/*.tar", "no file matches"),
        ("empty", "there is no file in"),
    ],
)
def test_what_is_not_there_is_named_with_what_is_near(
    tmp_path: Path, pattern: str, said: str
) -> None:
    fill(tmp_path, "in/00000.tar", "in/00001.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError) as error:
        find_shards(str(tmp_path / pattern), STORAGE)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ([], "no input"),
        ("s3://bucket/a.tar", "s3://"),
        (["ok", "https://example.org/a.tar"], "https://"),
        ("in/{0..100}.tar", "more than 100"),
        ("in/{0..1.tar", "braces"),
        (os.fsdecode(b"b\xff.tar"), "UTF-8"),
    ],
)
def test_what_cannot_be_named_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: str | list[str], said: str
) -> None:
    fill(tmp_path, "ok/a.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(find, "MAX_BRACES", 100)
    with pytest.raises(UsageError, match=said):
        find_shards(paths, STORAGE)


def test_folders_are_listed_while_shards_are_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, "a/0.tar", "b/0.tar")
    _, shards = find_shards(str(tmp_path), STORAGE)
    assert next(shards).id == "a/0.tar"
    fill(tmp_path, "b/1.tar")
    assert [shard.id for shard in shards] == ["b/0.tar", "b/1.tar"]


@pytest.mark.parametrize(
    ("pattern", "output", "read"),
    [
        ("in", "in", True),
        ("in", "in/deep/out", True),
        ("in/**", "in/out", True),
        ("in/**/*.tar", "in/out", True),
        ("in/*", "in/out", True),
        ("in/*.tar", "in", True),
        ("{in,on}", "on/out", True),
        ("i*", "in/out", True),
        ("in/*.tar", "in/out", False),
        ("in/*.jpg", "in", False),
        ("in/0.tar", "in/out", False),
        ("in", "inner", False),
        ("in", "out", False),
    ],
)
def test_an_output_that_would_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, output: str, read: bool
) -> None:
    fill(tmp_path, "in/0.tar", "in/a.jpg", "in/deep/b.jpg", "on/c.jpg")
    monkeypatch.chdir(tmp_path)
    if read:
        with pytest.raises(UsageError, match="the next run would read it; choose a folder beside"):
            find_shards(pattern, STORAGE, None, output)
    else:
        find_shards(pattern, STORAGE, None, output)
