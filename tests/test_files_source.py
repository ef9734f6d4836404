"""Loose files: what belongs together, where shards end, and what a change of the folder changes."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixsieve.errors import SourceChangedError
from pixsieve.schema import INDEX, Problem
from pixsieve.sources import IndexOptions, SourceShard, find_shards, index_shard
from pixsieve.sources.files import LooseFiles
from pixsieve.sources.group import split_name
from pixsieve.storage import LocalStorage
from pixsieve.storage.base import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

STORAGE = LocalStorage()


def image(kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, kind)
    return data.getvalue()


JPEG, PNG = image(), image("PNG")


def fill(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def index(folder: Path, options: IndexOptions | None = None) -> list[dict[str, Any]]:
    options = options or IndexOptions()
    _, shards = find_shards(str(folder), STORAGE, options)
    rows: list[dict[str, Any]] = []
    for shard in shards:
        table = index_shard(shard, options, STORAGE, str(folder / ".spool")).table
        assert table.schema == INDEX
        rows += table.to_pylist()
    return rows


def brief(row: dict[str, Any]) -> tuple[str, str | None, list[str], str | None]:
    return (
        row["key"],
        row["image_name"],
        [sibling["name"] for sibling in row["siblings"]],
        row["problem"],
    )


def cut(paths: Iterable[str], key_split: str = "auto") -> list[SourceShard]:
    options = IndexOptions(key_split=key_split)  # type: ignore[arg-type]
    loose = LooseFiles("/root", options)
    shards = []
    for path in sorted(paths, key=lambda path: path.split("/")):
        shards += loose.add(ObjectInfo(path, 1, "1"))
    return [*shards, *loose.finish()]


def test_files_with_one_stem_in_one_folder_are_a_sample(tmp_path: Path) -> None:
    fill(
        tmp_path,
        **{
            "cats/tabby/a.jpg": JPEG,
            "cats/tabby/a.json": b"{}",
            "cats/tabby/a.txt": b"red",
            "dogs/a.txt": b"orphan",
            "a.JPG": PNG,
        },
    )
    found = index(tmp_path)
    assert [brief(row) for row in found] == [
        ("a", "a.JPG", [], None),
        ("cats/tabby/a", "cats/tabby/a.jpg", ["cats/tabby/a.json", "cats/tabby/a.txt"], None),
        ("dogs/a", None, ["dogs/a.txt"], Problem.MISSING_IMAGE),
    ]
    assert [row["class_name"] for row in found] == [None, "cats", "dogs"]
    cat = found[1]
    assert (cat["image_file"], cat["image_offset"], cat["image_size"]) == (
        "cats/tabby/a.jpg",
        0,
        len(JPEG),
    )
    assert cat["siblings"][1] == {
        "name": "cats/tabby/a.txt",
        "extension": "txt",
        "file": "cats/tabby/a.txt",
        "offset": 0,
        "size": 3,
        "version": STORAGE.stat(str(tmp_path / "cats/tabby/a.txt")).version,
    }


def test_a_sample_is_whole_though_other_names_stand_in_between(tmp_path: Path) -> None:
    names = ["a", "a-1.jpg", "a.jpg", "a.k/x.jpg", "a.mask.png", "a.mask.txt", "a.txt"]
    fill(tmp_path, **{name: JPEG if name.endswith("jpg") else b"text" for name in names})
    assert [brief(row)[:3] for row in index(tmp_path)] == [
        ("a", "a.jpg", ["a", "a.txt"]),
        ("a-1", "a-1.jpg", []),
        ("a.k/x", "a.k/x.jpg", []),
        ("a.mask", None, ["a.mask.png", "a.mask.txt"]),
    ]
    assert [brief(row)[:3] for row in index(tmp_path, IndexOptions(key_split="first"))] == [
        ("a", "a.jpg", ["a", "a.mask.png", "a.mask.txt", "a.txt"]),
        ("a-1", "a-1.jpg", []),
        ("a.k/x", "a.k/x.jpg", []),
    ]


def test_images_without_an_extension_and_wrongly_named_ones_are_found(tmp_path: Path) -> None:
    fill(tmp_path, **{"d41d8cd9": JPEG, "e5.jpg": PNG, "f6.jpg": b"<html>", "g7.jpg": b""})
    assert [brief(row)[1] for row in index(tmp_path)] == ["d41d8cd9", "e5.jpg", None, None]
    assert [brief(row)[3] for row in index(tmp_path)][2:] == [
        Problem.UNSUPPORTED_FORMAT,
        Problem.EMPTY_IMAGE,
    ]


def test_a_name_twice_but_for_case_is_a_problem(tmp_path: Path) -> None:
    fill(tmp_path, **{"a.jpg": JPEG, "a.JPG": PNG})
    assert [row["problem"] for row in index(tmp_path)] == [Problem.DUPLICATE_MEMBER]


def test_links_out_of_the_folder_and_pipes_are_unsafe_rows(tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(JPEG)
    folder = tmp_path / "in"
    fill(folder, **{"a.jpg": JPEG, "d.jpg": JPEG})
    (folder / "b.jpg").symlink_to(outside)
    os.mkfifo(folder / "c.jpg")
    (folder / "d.txt").symlink_to(folder / "a.jpg")
    found = index(folder)
    assert [(row["key"], row["problem"]) for row in found] == [
        ("a", None),
        ("b", Problem.UNSAFE_MEMBER),
        ("c", Problem.UNSAFE_MEMBER),
        ("d", None),
    ]
    assert "link" in found[1]["problem_detail"]
    assert "fifo" in found[2]["problem_detail"]


def test_a_name_that_is_not_utf8_is_an_unsafe_row(tmp_path: Path) -> None:
    fill(tmp_path, **{"a.jpg": JPEG})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.jpg")).write_bytes(JPEG)
    assert [(row["key"], row["problem"]) for row in index(tmp_path)] == [
        ("a", None),
        ("b\\xff", Problem.UNSAFE_MEMBER),
    ]


def test_a_file_that_changes_after_it_was_listed_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, **{"a.jpg": JPEG})
    _, shards = find_shards(str(tmp_path), STORAGE)
    (shard,) = shards
    fill(tmp_path, **{"a.jpg": JPEG + b"more"})
    with pytest.raises(SourceChangedError, match=r"a\.jpg changed"):
        index_shard(shard, IndexOptions(), STORAGE, str(tmp_path))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(SourceChangedError, match=r"a\.jpg vanished"):
        index_shard(shard, IndexOptions(), STORAGE, str(tmp_path))


def test_shards_end_where_names_say_so_and_a_new_file_moves_its_own_shard_only() -> None:
    numbers = random.Random(0).sample(range(10**9), 20_000)
    paths = [f"{number % 7}/{number:09d}.jpg" for number in numbers]
    before = {shard.files for shard in cut(paths)}
    assert 20 < len(before) < 320
    for new in ("3/000000000.jpg", "5/5.jpg", "9/new.jpg", f"{paths[0][:-4]}.txt"):
        after = {shard.files for shard in cut([*paths, new])}
        assert len(before - after) <= 2
        assert len(after - before) <= 2


def test_shards_are_bounded_whatever_the_names() -> None:
    for names in (
        [f"img.{n:05d}.jpg" for n in range(5000)],
        [f"{n}.jpg" for n in range(5000)],
        ["data", *(f"data-x/{n}.jpg" for n in range(5000))],
        ["a.jpg", *(f"a.k/{n}.jpg" for n in range(5000)), "a.txt"],
    ):
        sizes = [len(shard.files) for shard in cut(names)]
        assert sum(sizes) == len(names)
        assert max(sizes) <= 1026


def test_shards_are_made_while_files_are_listed() -> None:
    loose = LooseFiles("/root", IndexOptions())
    for n in range(1100):
        if list(loose.add(ObjectInfo(f"{n:05d}.jpg", 1, "1"))):
            return
    pytest.fail("nothing came out after 1100 samples")


PARTS = st.text("ab-.", min_size=1, max_size=4).filter(lambda part: not part.startswith("."))
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@given(st.sets(PATHS, max_size=60), st.sampled_from(["auto", "first"]))
@settings(max_examples=300, deadline=None)
def test_no_sample_is_ever_cut_and_no_file_lost(paths: set[str], key_split: str) -> None:
    # A path is not at once a file and a folder.
    paths = {path for path in paths if not any(other.startswith(path + "/") for other in paths)}
    loose = LooseFiles("/root", IndexOptions(key_split=key_split))  # type: ignore[arg-type]
    samples: list[set[str]] = []
    shards = []
    for path in sorted(paths, key=lambda path: path.split("/")):
        shards += loose.add(ObjectInfo(path, 1, "1"))
        samples += [{file.path for file in loose._shard}]
    shards += loose.finish()
    assert sorted(file.path for shard in shards for file in shard.files) == sorted(paths)
    # What left the waiting samples never gets a further file: cutting anywhere cuts no sample.
    for ended in samples:
        keys = {split_name(path, last=key_split != "first")[0] for path in ended}
        rest = paths - ended
        assert not keys & {split_name(path, last=key_split != "first")[0] for path in rest}
