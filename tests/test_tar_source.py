"""The walk over tars against the standard library, and on everything that a tar can lie about."""

from __future__ import annotations

import io
import subprocess
import tarfile
import warnings
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.schema import Problem
from pixsieve.sources.tar import (
    BLOCK,
    MAX_EXTENDED,
    MAX_EXTENDED_SIZE,
    Walk,
    is_tar,
    walk,
    walk_on,
)
from pixsieve.storage import LocalStorage
from pixsieve.testing.strategies import (
    FORMATS,
    Entry,
    damaged_tars,
    entries,
    header,
    seal,
    tars,
    write_tar,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

END = bytes(2 * BLOCK)
PADDING = bytes(BLOCK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tars")


def walked(folder: Path, data: bytes) -> Walk:
    path = folder / "x.tar"
    path.write_bytes(data)
    with LocalStorage().open(str(path)) as reader:
        return walk(reader, file="x.tar", version="1")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax(*records: tuple[str, bytes]) -> bytes:
    data = b""
    for keyword, value in records:
        body = b" " + keyword.encode() + b"=" + value + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        data += str(length).encode() + body
    return data


def extended(kind: bytes, data: bytes) -> bytes:
    return header(b"extended", len(data), kind) + padded(data)


def oracle(data: bytes) -> Iterator[tarfile.TarInfo]:
    """What ``tarfile`` reads before it ends, fails or goes backwards."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            last = -1
            for _ in range(len(data) // BLOCK + 1):
                member = tar.next()
                if member is None or member.offset_data <= last:
                    return
                last = member.offset_data
                yield member
    except (tarfile.TarError, ValueError, OverflowError, EOFError, MemoryError):
        return


@given(st.lists(entries(kinds=False), max_size=8), st.sampled_from(FORMATS))
@settings(max_examples=150, deadline=None)
def test_members_are_where_the_standard_library_finds_them(
    folder: Path, members: list[Entry], tar_format: int
) -> None:
    data = write_tar(members, tar_format)
    found = walked(folder, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar]
    assert [(m.name.rstrip("/"), m.offset, m.size) for m in found.members] == expected
    assert [m.head for m in found.members] == [
        data[m.offset : m.offset + min(m.size, 64)] for m in found.members
    ]
    assert not found.faults
    assert not found.notes
    assert found.read_to == len(data)


@given(tars())
@settings(max_examples=100, deadline=None)
def test_what_is_no_file_is_named_and_never_a_plain_member(folder: Path, data: bytes) -> None:
    found = walked(folder, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        known = tar.getmembers()
    sound = [m.offset for m in found.members if not m.fault]
    assert sound == [m.offset_data for m in known if m.isreg()]
    assert len(found.members) == sum(not m.isdir() for m in known)
    assert found.ignored == sum(m.isdir() for m in known)
    assert {m.fault.problem for m in found.members if m.fault} <= {Problem.UNSAFE_MEMBER}


@given(damaged_tars())
@settings(max_examples=400, deadline=None)
def test_no_member_is_missed_in_silence_on_damaged_tars(folder: Path, data: bytes) -> None:
    found = walked(folder, data)
    ours = {(m.offset, m.size): m for m in found.members}
    read_to = min((fault.offset for fault in found.faults), default=len(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for member in oracle(data):
            if not member.isreg() or member.issparse():
                continue
            cut = member.offset_data + member.size > len(data)
            assert (
                (member.offset_data, member.size) in ours
                or member.offset_data - BLOCK >= read_to
                or (cut and found.members[-1].fault)
            ), member
    # Bounds, order, and no byte in two members.
    position = 0
    for member in found.members:
        assert position <= member.offset <= member.offset + member.size <= len(data)
        position = member.offset + member.size
    assert all(0 <= fault.offset <= len(data) for fault in found.faults)
    assert len(found.faults) <= 1
    assert 0 <= found.read_to <= len(data)


@given(st.binary(max_size=3000))
@settings(max_examples=100, deadline=None)
def test_what_is_no_tar_is_one_fault_at_its_start(folder: Path, data: bytes) -> None:
    found = walked(folder, b"\x01" + data)
    assert [(f.offset, f.problem) for f in found.faults] == [(0, Problem.SOURCE_DAMAGED)]
    assert not found.members


def test_a_cut_at_any_offset_is_said(folder: Path) -> None:
    members = [Entry("a.jpg", b"\xff\xd8\xff" * 200), Entry("é" * 60 + ".txt", b"caption")]
    data = write_tar(members, tarfile.PAX_FORMAT)
    whole = walked(folder, data).members
    content = whole[-1].offset + BLOCK
    path = folder / "cut.tar"
    path.write_bytes(data)
    for length in range(content + BLOCK, -1, -1):
        with path.open("r+b") as file:
            file.truncate(length)
        with LocalStorage().open(str(path)) as reader:
            found = walk(reader, file="x.tar", version="1")
        sound = [m for m in found.members if not m.fault]
        assert sound == [m for m in whole if m.offset + m.size <= length]
        faulty = [m.fault.problem for m in found.members if m.fault]
        faulty += [f.problem for f in found.faults]
        at_border = length in (content, content + BLOCK)
        if at_border or length > content or length == whole[0].offset + 1024:
            assert not faulty, length
        elif 0 < length < BLOCK:
            assert faulty == [Problem.SOURCE_DAMAGED], length
        else:
            assert faulty == [Problem.SOURCE_TRUNCATED], length
        assert bool(found.notes) == (not faulty and length < content + BLOCK), length


@pytest.mark.parametrize(
    "options",
    [
        ["--format=v7"],
        ["--format=oldgnu"],
        ["--format=gnu"],
        ["--format=ustar"],
        ["--format=posix"],
        ["--format=gnu", "--label=name"],
        ["--format=posix", "--pax-option=comment=x"],
    ],
)
def test_tars_of_gnu_tar_are_read(folder: Path, tmp_path: Path, options: list[str]) -> None:
    names = ["a.jpg", "a.txt", "sub/b.jpg"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode() * 100)
    made = tmp_path / "made.tar"
    subprocess.run(
        ["tar", "cf", made, *options, "-C", tmp_path, "a.jpg", "a.txt", "sub"], check=True
    )
    data = made.read_bytes()
    found = walked(folder, data)
    assert [m.name for m in found.members] == names
    for member in found.members:
        assert data[member.offset : member.offset + member.size] == member.name.encode() * 100
    assert not found.faults


def test_a_sparse_file_of_gnu_tar_is_unsafe_and_the_next_member_is_found(
    folder: Path, tmp_path: Path
) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        for hole in range(
            60
        ):  # more than the header's four entries and one block of 21 have room for
            file.seek(hole * 65536)
            file.write(b"x" * 4096)
    (tmp_path / "b.txt").write_bytes(b"next")
    for options in (
        ["--format=gnu"],
        ["--format=posix"],
        ["--format=posix", "--sparse-version=0.1"],
    ):
        made = tmp_path / "made.tar"
        command = [
            "tar",
            "cSf",
            made,
            "--hole-detection=raw",
            *options,
            "-C",
            tmp_path,
            "a.jpg",
            "b.txt",
        ]
        subprocess.run(command, check=True)
        found = walked(folder, made.read_bytes())
        assert [m.name for m in found.members] == ["a.jpg", "b.txt"]
        assert found.members[0].fault
        assert found.members[0].fault.problem is Problem.UNSAFE_MEMBER
        assert "sparse" in found.members[0].fault.detail
        assert not found.members[1].fault
        assert found.members[1].head == b"next"


def test_archives_one_after_the_other_are_read_on_and_noted(folder: Path) -> None:
    one, two = write_tar([Entry("a.jpg", b"1")]), write_tar([Entry("b.jpg", b"2")])
    for data in (one + two, one[: 2 * BLOCK] + PADDING + two):  # cat, and a lone zero block
        found = walked(folder, data)
        assert [m.name for m in found.members] == ["a.jpg", "b.jpg"]
        assert not found.faults
        assert "several archives" in found.notes[0]


def test_data_after_the_end_is_a_fault_with_its_offset(folder: Path) -> None:
    one = write_tar([Entry("a.jpg", b"1")])
    for junk in (b"junk", bytes(BLOCK - 1) + b"j", b"j" * 5000):
        (fault,) = walked(folder, one + junk).faults
        assert fault.problem is Problem.SOURCE_DAMAGED
        assert fault.offset == len(one)
        assert "after the end" in fault.detail
    assert not walked(folder, one + bytes(77)).faults


def test_everything_from_a_bad_header_on_is_one_fault(folder: Path) -> None:
    data = bytearray(write_tar([Entry("a.jpg", b"1"), Entry("b.jpg", b"2"), Entry("c.jpg", b"3")]))
    data[2 * BLOCK + 10] ^= 1
    found = walked(folder, bytes(data))
    assert [m.name for m in found.members] == ["a.jpg"]
    (fault,) = found.faults
    assert (fault.offset, fault.problem) == (2 * BLOCK, Problem.SOURCE_DAMAGED)
    assert found.read_to == 2 * BLOCK


def test_empty_archives_hold_nothing_and_that_is_no_fault(folder: Path) -> None:
    for data in (bytes(BLOCK), END, bytes(10240)):
        found = walked(folder, data)
        assert not found.members
        assert not found.faults


def test_a_file_without_a_byte_is_no_empty_archive(folder: Path) -> None:
    (fault,) = walked(folder, b"").faults
    assert fault.problem == Problem.SOURCE_TRUNCATED


def test_a_signed_checksum_is_right_too(folder: Path) -> None:
    block = bytearray(header(b"caf\xe9.jpg", 1))
    block[148:156] = b" " * 8
    signed = sum(byte - 256 * (byte > 127) for byte in block)
    block[148:156] = b"%06o\0 " % signed
    found = walked(folder, bytes(block) + padded(b"1") + END)
    assert [m.name for m in found.members] == ["caf\\xe9.jpg"]


@pytest.mark.parametrize(
    "size",
    [
        b"-0000000001\0",
        b"+0000000001\0",
        b"0000_000001\0",
        b"0x000000001\0",
        b"00000000008\0",
        b"\0      0001\0",
        b"\xff" * 12,
        b"\x81" + bytes(11),
    ],
)
def test_a_size_that_is_no_number_is_damage(folder: Path, size: bytes) -> None:
    (fault,) = walked(folder, header(b"a.jpg", size) + PADDING + END).faults
    assert fault.problem is Problem.SOURCE_DAMAGED


@pytest.mark.parametrize("size", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"00000002001\0"])
def test_a_size_past_the_end_is_a_cut_member(folder: Path, size: bytes) -> None:
    found = walked(folder, header(b"a.jpg", size) + PADDING + PADDING)
    (member,) = found.members
    assert member.size == 2 * BLOCK
    assert member.fault
    assert member.fault.problem is Problem.SOURCE_TRUNCATED


@pytest.mark.parametrize(
    "size", [b"\x80" + bytes(10) + b"\1", b"          1 ", b"1\0 garbage", b"1"]
)
def test_sizes_as_various_writers_spell_them(folder: Path, size: bytes) -> None:
    found = walked(folder, header(b"a.jpg", size) + padded(b"1") + END)
    assert [(m.size, m.head) for m in found.members] == [(1, b"1")]


def test_members_of_more_than_8_gib_are_stepped_over(tmp_path: Path) -> None:
    size = 9 * 1024**3
    path = tmp_path / "big.tar"
    for first in (
        header(b"a.bin", b"\x80" + size.to_bytes(11, "big")),
        extended(b"x", pax(("size", b"%d" % size))) + header(b"a.bin", 0),
    ):
        with path.open("wb") as file:
            file.write(first)
            file.seek(size, 1)  # a hole: nothing that takes room, or time to read
            file.write(header(b"b.jpg", 0) + END)
        with LocalStorage().open(str(path)) as reader:
            found = walk(reader, file="big.tar", version="1")
        assert [(m.name, m.offset, m.size) for m in found.members] == [
            ("a.bin", len(first), size),
            ("b.jpg", len(first) + size + BLOCK, 0),
        ]
        assert not found.faults


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (b"1", "hard link"),
        (b"2", "symbolic link"),
        (b"3", "character device"),
        (b"4", "block device"),
        (b"6", "fifo"),
        (b"S", "sparse"),
        (b"D", "folder listing"),
        (b"M", "volume"),
        (b"Z", "unknown kind 'Z'"),
        (b"\xfe", "unknown kind 'þ'"),
    ],
)
def test_what_is_no_file_is_unsafe_by_kind(folder: Path, kind: bytes, said: str) -> None:
    data = header(b"a.jpg", 0, kind) + header(b"b.jpg", 0) + END
    odd, plain = walked(folder, data).members
    assert odd.fault
    assert odd.fault.problem is Problem.UNSAFE_MEMBER
    assert said in odd.fault.detail
    assert not plain.fault


def test_folders_labels_and_global_headers_are_counted_not_listed(folder: Path) -> None:
    data = (
        extended(b"g", pax(("comment", b"x")))
        + header(b"label", 0, b"V")
        + header(b"d", 0, b"5")
        + header(b"old/", 0, b"\0")
        + header(b"a.jpg", 0, b"\0")
        + END
    )
    found = walked(folder, data)
    assert [m.name for m in found.members] == ["a.jpg"]
    assert found.ignored == 4


def test_pax_path_and_size_win_over_the_header(folder: Path) -> None:
    data = (
        extended(b"x", pax(("path", "ä.jpg".encode()), ("size", b"3"), ("hdrcharset", b"BINARY")))
        + header(b"short", 0)
        + padded(b"abc")
        + header(b"next.jpg", 0)
        + END
    )
    found = walked(folder, data)
    assert [(m.name, m.size, m.offset) for m in found.members] == [
        ("ä.jpg", 3, 3 * BLOCK),
        ("next.jpg", 0, 5 * BLOCK),
    ]


@pytest.mark.parametrize(
    "records",
    [
        b"0 a=b\n",
        b"5 a=b\n",
        b"7 a=b\n",
        b"9999999 a=b\n",
        b"6 a=bX",
        b"6 =ab\n",
        b"-1 a=b\n",
        b"00000014aab=c\n",
        b"6 a=b\n\0\0x",
        pax(("size", b"-1")),
        pax(("size", b"")),
        pax(("size", b"9" * 40)),
        b"\xff" * 100,
    ],
)
def test_pax_records_that_make_no_sense_are_damage(folder: Path, records: bytes) -> None:
    (fault,) = walked(folder, extended(b"x", records) + header(b"a.jpg", 0) + END).faults
    assert (fault.offset, fault.problem) == (0, Problem.SOURCE_DAMAGED)


@pytest.mark.parametrize("record", [("path", b"x"), ("size", b"1"), ("GNU.sparse.major", b"1")])
def test_a_global_header_cannot_move_or_rename_all_members(
    folder: Path, record: tuple[str, bytes]
) -> None:
    (fault,) = walked(folder, extended(b"g", pax(record)) + header(b"a.jpg", 0) + END).faults
    assert record[0] in fault.detail


def test_extended_headers_are_bounded_in_number_and_size(folder: Path) -> None:
    member = header(b"a.jpg", 0) + END
    one = extended(b"x", pax(("comment", b"x")))
    assert not walked(folder, one * MAX_EXTENDED + member).faults
    (fault,) = walked(folder, one * (MAX_EXTENDED + 1) + member).faults
    assert "in a row" in fault.detail
    big = extended(b"L", b"n" * MAX_EXTENDED_SIZE)
    assert not walked(folder, big + member).faults
    (fault,) = walked(folder, extended(b"L", b"n" * (MAX_EXTENDED_SIZE + 1)) + member).faults
    assert fault.problem is Problem.SOURCE_DAMAGED
    (fault,) = walked(folder, header(b"L", b"\x80" + b"\x7f" * 11, b"L")).faults
    assert fault.problem is Problem.SOURCE_DAMAGED


@pytest.mark.parametrize("tail", [b"", END])
def test_an_extended_header_without_a_member_is_a_fault(folder: Path, tail: bytes) -> None:
    assert len(walked(folder, extended(b"x", pax(("path", b"x"))) + tail).faults) == 1


def test_many_tiny_pax_records_take_linear_time(folder: Path) -> None:
    records = b"6 a=b\n" * (MAX_EXTENDED_SIZE // 6)
    assert not walked(folder, extended(b"x", records) + header(b"a.jpg", 0) + END).faults


def test_the_ustar_prefix_counts_only_in_ustar(folder: Path) -> None:
    for magic, expected in (
        (b"ustar\x0000", "folder/a.jpg"),
        (b"ustar  \0", "a.jpg"),
        (b"", "a.jpg"),
    ):
        block = bytearray(header(b"a.jpg", 0, magic=magic))
        block[345:351] = b"folder"
        assert [m.name for m in walked(folder, seal(block) + END).members] == [expected]


def test_a_tar_is_told_by_its_first_block() -> None:
    assert is_tar(header(b"a.jpg", 0))
    assert not is_tar(header(b"a.jpg", 0)[:-1])
    assert not is_tar(bytes(BLOCK))
    assert not is_tar(b"\xff\xd8\xff" + bytes(BLOCK))


def walked_on(folder: Path, data: bytes) -> Walk:
    path = folder / "x.tar"
    path.write_bytes(data)
    with LocalStorage().open(str(path)) as reader:
        return walk_on(reader, file="x.tar", version="1")


@given(tars())
@settings(deadline=None, max_examples=50)
def test_walking_on_finds_the_same_where_nothing_is_damaged(folder: Path, data: bytes) -> None:
    assert walked_on(folder, data) == walked(folder, data)


def three_members() -> bytes:
    return b"".join(
        header(f"{name}.jpg".encode(), len(data), magic=b"ustar\x0000") + padded(data)
        for name, data in (("a", b"1" * 700), ("b", b"2" * 900), ("c", b"3" * 100))
    )


def test_what_lies_behind_a_bad_header_is_found_by_walking_on(folder: Path) -> None:
    data = bytearray(three_members() + END)
    at = BLOCK + 2 * BLOCK  # the header of b
    data[at] ^= 1
    found = walked_on(folder, bytes(data))
    assert [member.name for member in found.members] == ["a.jpg", "c.jpg"]
    (fault,) = found.faults
    onward = at + BLOCK + 2 * BLOCK
    assert (fault.offset, fault.problem) == (at, Problem.SOURCE_DAMAGED)
    assert fault.read_on
    assert f"read on at byte {onward}" in fault.detail
    assert found.read_to == len(data)


@pytest.mark.parametrize("gone", [1, 300, 512, 1000])
def test_a_hole_of_any_size_is_walked_over(gone: int, folder: Path) -> None:
    whole = three_members() + END
    hole = BLOCK + 100  # inside the data of a
    found = walked_on(folder, whole[:hole] + whole[hole + gone :])
    assert [member.name for member in found.members][-1] == "c.jpg"
    assert len(found.faults) == 1


def test_garbage_between_two_archives_is_walked_over(folder: Path) -> None:
    data = three_members() + END + b"garbage!" * 100 + three_members() + END
    found = walked_on(folder, data)
    assert [member.name for member in found.members] == ["a.jpg", "b.jpg", "c.jpg"] * 2
    assert [fault.read_on for fault in found.faults] == [True]
