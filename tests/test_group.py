"""Which members are a sample, which is its image, and that none is ever lost or used twice."""

from __future__ import annotations

import io
import itertools
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixsieve.schema import INDEX, Problem
from pixsieve.sources import IndexOptions, SourceShard, index_shard
from pixsieve.sources.group import split_name
from pixsieve.storage import LocalStorage
from pixsieve.storage.base import ObjectInfo
from pixsieve.testing.strategies import (
    FORMATS,
    Entry,
    damaged_tars,
    entries,
    header,
    tars,
    write_tar,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

STORAGE = LocalStorage()


def image(kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, kind)
    return data.getvalue()


JPEG, PNG = image(), image("PNG")


def index(folder: Path, data: bytes, options: IndexOptions | None = None) -> list[dict[str, Any]]:
    path = folder / "x.tar"
    path.write_bytes(data)
    info = STORAGE.stat(str(path))
    shard = SourceShard(
        kind="tar",
        id="x.tar",
        root=str(folder),
        files=(ObjectInfo("x.tar", info.size, info.version),),
    )
    result = index_shard(shard, options or IndexOptions(), STORAGE, str(folder / "spool"))
    result.table.validate(full=True)
    assert result.table.schema == INDEX
    return result.table.to_pylist()


def rows(folder: Path, *members: tuple[str, bytes], **options: Any) -> list[dict[str, Any]]:
    data = write_tar([Entry(name, data) for name, data in members])
    return index(folder, data, IndexOptions(**options))


def brief(row: dict[str, Any]) -> tuple[str, int, str | None, list[str], str | None]:
    siblings = [sibling["name"] for sibling in row["siblings"]]
    return row["key"], row["occurrence"], row["image_name"], siblings, row["problem"]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("a.jpg", ("a", "jpg"), ("a", "jpg")),
        ("a.mask.PNG", ("a", "mask.png"), ("a.mask", "png")),
        ("x.y/a.jpg", ("x.y/a", "jpg"), ("x.y/a", "jpg")),
        ("././a.jpg", ("a", "jpg"), ("a", "jpg")),
        (".DS_Store", (".DS_Store", ""), (".DS_Store", "")),
        ("x/._a.jpg", ("x/._a", "jpg"), ("x/._a", "jpg")),
        ("README", ("README", ""), ("README", "")),
        ("a.", ("a", ""), ("a", "")),
        ("x/", ("x/", ""), ("x/", "")),
        ("", ("", ""), ("", "")),
        ("../../a.jpg", ("../../a", "jpg"), ("../../a", "jpg")),
    ],
)
def test_a_name_is_a_key_and_an_extension(
    name: str, first: tuple[str, str], last: tuple[str, str]
) -> None:
    assert split_name(name, last=False) == first
    assert split_name(name, last=True) == last


def test_neighbours_with_one_key_are_a_sample_with_all_their_places(tmp_path: Path) -> None:
    found = rows(tmp_path, ("a.txt", b"red"), ("a.jpg", JPEG), ("a.json", b"{}"), ("x/b.JPG", JPEG))
    assert [brief(row) for row in found] == [
        ("a", 0, "a.jpg", ["a.txt", "a.json"], None),
        ("x/b", 0, "x/b.JPG", [], None),
    ]
    assert [row["image_extension"] for row in found] == ["jpg", "jpg"]
    data = (tmp_path / "x.tar").read_bytes()
    for row in found:
        start = row["image_offset"]
        assert data[start : start + row["image_size"]] == JPEG
        assert row["image_file"] == "x.tar"
        assert row["class_name"] is None
    first = found[0]["siblings"][0]
    assert data[first["offset"] :][: first["size"]] == b"red"
    assert first["version"] == found[0]["image_version"]
    assert len({row["image_id"] for row in found}) == 2


def test_a_key_that_comes_back_with_other_extensions_is_one_sample(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        *((f"{key}.jpg", JPEG) for key in "abc"),
        *((f"{key}.mask.png", PNG) for key in "ab"),
        *((f"{key}.txt", b"text") for key in "ac"),
    )
    assert [brief(row) for row in found] == [
        ("a", 0, "a.jpg", ["a.mask.png", "a.txt"], None),
        ("b", 0, "b.jpg", ["b.mask.png"], None),
        ("c", 0, "c.jpg", ["c.txt"], None),
    ]


def test_a_key_that_comes_back_with_an_extension_again_is_another_sample(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        ("a.jpg", JPEG),
        ("a.txt", b"one"),
        ("b.jpg", JPEG),
        ("a.jpg", JPEG),
        ("a.txt", b"two"),
    )
    assert [brief(row) for row in found] == [
        ("a", 0, "a.jpg", ["a.txt"], None),
        ("b", 0, "b.jpg", [], None),
        ("a", 1, "a.jpg", ["a.txt"], None),
    ]
    assert len({row["image_id"] for row in found}) == 3
    captions = [row["siblings"][0]["offset"] for row in (found[0], found[2])]
    data = (tmp_path / "x.tar").read_bytes()
    assert [data[at : at + 3] for at in captions] == [b"one", b"two"]


def test_a_key_that_comes_back_with_another_image_is_another_sample(tmp_path: Path) -> None:
    found = rows(tmp_path, ("a.jpg", JPEG), ("b.jpg", JPEG), ("a.png", PNG))
    assert [brief(row) for row in found] == [
        ("a", 0, "a.jpg", [], None),
        ("b", 0, "b.jpg", [], None),
        ("a", 1, "a.png", [], None),
    ]


def test_images_are_told_by_content_whatever_their_names(tmp_path: Path) -> None:
    found = rows(tmp_path, ("a.bin", JPEG), ("a.txt", b"BMW and GIF and RIFF"), ("b.jpg", PNG))
    assert [brief(row)[2] for row in found] == ["a.bin", "b.jpg"]


def test_of_several_images_the_named_or_the_plain_one_counts(tmp_path: Path) -> None:
    members = [("a.mask.png", PNG), ("a.jpg", JPEG), ("a.depth.png", PNG)]
    assert brief(rows(tmp_path, *members)[0])[2] == "a.jpg"
    assert brief(rows(tmp_path, *members, image_member=".Mask.png")[0])[2] == "a.mask.png"
    assert brief(rows(tmp_path, *members, image_member="webp")[0])[2] == "a.jpg"
    two = [("a.jpg", JPEG), ("a.png", PNG)]
    (row,) = rows(tmp_path, *two)
    assert brief(row) == ("a", 0, None, ["a.jpg", "a.png"], Problem.TWO_IMAGES)
    assert "a.jpg" in row["problem_detail"]
    assert brief(rows(tmp_path, *two, image_member="png")[0])[2] == "a.png"
    assert brief(rows(tmp_path, *two, image_member="*")[0])[2] == "a.jpg"
    assert brief(rows(tmp_path, *two[::-1], image_member="*")[0])[2] == "a.png"
    (row,) = rows(tmp_path, ("a.txt", b"x"), *two, image_member="*")
    assert row["problem"] == Problem.TWO_IMAGES


@pytest.mark.parametrize(
    ("members", "problem", "said"),
    [
        ([("a.txt", b"red"), ("a.json", b"{}")], Problem.MISSING_IMAGE, "a.json"),
        ([("a", b"")], Problem.MISSING_IMAGE, "'a'"),
        ([("a.jpg", b""), ("a.txt", b"red")], Problem.EMPTY_IMAGE, "a.jpg"),
        ([("a.svg", b"<svg/>")], Problem.UNSUPPORTED_FORMAT, "SVG"),
        ([("a.jpg", b"%PDF-1.7")], Problem.UNSUPPORTED_FORMAT, "PDF"),
        ([("a.jpg", JPEG), ("a.JPG", JPEG)], Problem.DUPLICATE_MEMBER, "jpg"),
        ([("a.jpg", JPEG), ("a.txt", b"1"), ("a.txt", b"2")], Problem.DUPLICATE_MEMBER, "txt"),
    ],
)
def test_a_sample_without_its_image_is_a_row_with_all_members(
    tmp_path: Path, members: list[tuple[str, bytes]], problem: Problem, said: str
) -> None:
    (row,) = rows(tmp_path, *members)
    assert brief(row) == ("a", 0, None, [name for name, _ in members], problem)
    assert said in row["problem_detail"]
    assert (row["image_size"], row["image_extension"]) == (0, None)
    assert row["image_offset"] == row["siblings"][0]["offset"]


def test_an_unsafe_or_cut_member_costs_its_own_sample_only(tmp_path: Path) -> None:
    members = [
        Entry("a.jpg", b"", tarfile.SYMTYPE),
        Entry("a.txt", b"red"),
        Entry("b.jpg", JPEG),
        Entry("c.jpg", JPEG),
        Entry("c.txt", b"x" * 600),
    ]
    data = write_tar(members)
    found = index(tmp_path, data[: data.rindex(b"x" * 100) - 10])
    assert [brief(row) for row in found] == [
        ("a", 0, None, ["a.jpg", "a.txt"], Problem.UNSAFE_MEMBER),
        ("b", 0, "b.jpg", [], None),
        ("c", 0, None, ["c.jpg", "c.txt"], Problem.SOURCE_TRUNCATED),
    ]
    assert "of 600 bytes" in found[2]["problem_detail"]


def test_where_a_source_cannot_be_read_on_is_a_row_with_an_id_of_its_own(tmp_path: Path) -> None:
    data = write_tar([Entry("unreadable@1024", JPEG[:100])])[:1024] + b"j" * 600
    found = index(tmp_path, data)
    assert [(row["key"], row["occurrence"], row["problem"]) for row in found] == [
        ("unreadable@1024", 0, None),
        ("unreadable@1024", 1, Problem.SOURCE_DAMAGED),
    ]
    assert found[1]["image_offset"] == 1024
    assert "600 bytes" in found[1]["problem_detail"]
    assert len({row["image_id"] for row in found}) == 2


def test_ids_do_not_change_when_other_samples_come(tmp_path: Path) -> None:
    (alone,) = rows(tmp_path, ("b.jpg", JPEG))
    among = rows(tmp_path, ("a.jpg", JPEG), ("b.jpg", JPEG), ("b.txt", b"red"), ("c.jpg", JPEG))
    assert alone["image_id"] == among[1]["image_id"]


def test_hostile_repetition_takes_linear_time(tmp_path: Path) -> None:
    pair = header(b"a.jpg") + header(b"b.jpg")
    assert len(index(tmp_path, pair * 10_000)) == 20_000
    many = b"".join(header(b"a.%d" % n) for n in range(10_000))
    (row,) = index(tmp_path, many + header(b"a.9999"))
    assert row["problem"] == Problem.DUPLICATE_MEMBER


@given(st.one_of(tars(), damaged_tars()), st.sampled_from(["first", "last"]))
@settings(max_examples=200, deadline=None)
def test_every_member_is_in_exactly_one_row_and_every_row_has_its_own_id(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, key_split: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    found = index(folder, data, IndexOptions(key_split=key_split))  # type: ignore[arg-type]
    listed = []
    for row in found:
        if row["image_name"] is not None:
            assert row["problem"] is None
            listed.append((row["image_offset"], row["image_size"]))
        else:
            assert row["problem"]
            assert row["problem_detail"]
        listed += [(sibling["offset"], sibling["size"]) for sibling in row["siblings"]]
    spans = sorted((offset, offset + size) for offset, size in listed)
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(spans))
    assert len({row["image_id"] for row in found}) == len(found)
    assert len({(row["key"], row["occurrence"]) for row in found}) == len(found)


@given(st.lists(entries(), max_size=10), st.sampled_from(FORMATS))
@settings(max_examples=100, deadline=None)
def test_no_row_mixes_keys_and_none_is_lost(
    tmp_path_factory: pytest.TempPathFactory, members: list[Entry], tar_format: int
) -> None:
    data = write_tar(members, tar_format)  # type: ignore[arg-type]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = sorted(m.offset_data for m in tar if not m.isdir())
    listed = []
    for row in index(tmp_path_factory.getbasetemp(), data):
        parts = [(sibling["name"], sibling["offset"]) for sibling in row["siblings"]]
        if row["image_name"] is not None:
            parts.append((row["image_name"], row["image_offset"]))
        assert {split_name(name, last=False)[0] for name, _ in parts} == {row["key"]}
        listed += [offset for _, offset in parts]
    assert sorted(listed) == expected
