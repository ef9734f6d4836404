"""Tars that any program reads, at the offsets that are said, the same bytes on every run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import RunError, SourceChangedError
from pixsieve.export import tar
from pixsieve.export.stream import BUFFER, GAP, TarStream
from pixsieve.sources import SourceFiles
from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SIZES = st.sampled_from(
    [0, 1, 511, 512, 513, 9_215, 9_216, 9_217, 10_240, BUFFER - 512, BUFFER - 1, BUFFER, BUFFER + 1]
) | st.integers(0, 2000)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", fullmatch=True)


def noise(size: int, seed: int = 0) -> bytes:
    block = hashlib.shake_128(seed.to_bytes(8, "big")).digest(4096)
    return (block * (size // len(block) + 1))[:size]


class Places(SourceFiles):
    """Source files that note each read: file, offset, lengths."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), LocalStorage(), str(root / "spool"))
        self.reads: list[tuple[str, int, tuple[int, ...]]] = []

    def open(self, file: str, version: str):
        reader, reads = super().open(file, version), self.reads

        class Noting:
            def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
                reads.append((file, offset, tuple(map(len, buffers))))
                reader.read_into(buffers, offset)

        return Noting()


class Source:
    """Files below a folder, and the means to copy from them."""

    def __init__(self, root: Path, **files: bytes) -> None:
        self.root = root
        for name, data in files.items():
            (root / name).write_bytes(data)

    def version(self, name: str) -> str:
        return LocalStorage().stat(str(self.root / name)).version

    @contextlib.contextmanager
    def stream(self) -> Iterator[tuple[TarStream, io.BytesIO, Places]]:
        sink = io.BytesIO()
        with Places(self.root) as files:
            yield TarStream(sink, files), sink, files


def members(data: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        return [(m.name, archive.extractfile(m).read()) for m in archive]


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(st.tuples(NAMES, SIZES, st.booleans()), max_size=5))
def test_other_programs_read_back_what_was_written(
    wanted: list[tuple[str, int, bool]], tmp_path_factory: pytest.TempPathFactory
):
    source = Source(tmp_path_factory.mktemp("tar"), blob=noise(2 * BUFFER))
    expected, made = [], []
    for _ in range(2):
        with source.stream() as (stream, sink, _):
            expected, offsets = [], []
            for number, (name, size, copied) in enumerate(wanted):
                start = number * 7
                data = noise(2 * BUFFER)[start : start + size]
                if copied:
                    offsets.append(stream.copy(name, "blob", source.version("blob"), start, size))
                else:
                    offsets.append(stream.add(name, data))
                expected.append((name, data))
            assert stream.finish() == len(sink.getvalue())
        made.append(sink.getvalue())
        for offset, (_, data) in zip(offsets, expected, strict=True):
            assert sink.getvalue()[offset : offset + len(data)] == data
    assert made[0] == made[1]
    assert members(made[0]) == expected
    assert len(made[0]) % tar.RECORD == 0
    assert made[0].endswith(bytes(2 * tar.BLOCK))
    taken = sum(tar.member_bytes(size) for _, size, _ in wanted)
    assert len(made[0]) == taken + tar.trailer(taken)
    assert not any(made[0][taken:])


@pytest.mark.skipif(not shutil.which("tar"), reason="there is no tar program")
def test_gnu_tar_lists_and_extracts_without_a_word(tmp_path: Path):
    wanted = [("a.jpg", noise(513)), ("a.txt", b""), ("x" * 96 + ".jpg", noise(BUFFER + 1))]
    with Source(tmp_path).stream() as (stream, sink, _):
        for name, data in wanted:
            stream.add(name, data)
        stream.finish()
    (tmp_path / "made.tar").write_bytes(sink.getvalue())
    command = ["tar", "--utc", "--full-time", "-tvf", str(tmp_path / "made.tar")]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["-rw-r--r--", "0/0", str(len(data)), "1970-01-01", "00:00:00", name]
        for name, data in wanted
    ]
    (tmp_path / "out").mkdir()
    command = ["tar", "-xf", str(tmp_path / "made.tar"), "-C", str(tmp_path / "out")]
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
    for name, data in wanted:
        assert (tmp_path / "out" / name).read_bytes() == data


def test_headers_are_plain_ustar_without_a_trace_of_the_machine():
    block = tar.header("key.jpg", 1000)
    with tarfile.open(fileobj=io.BytesIO(block + bytes(1024 + 1024)), mode="r:") as archive:
        (info,) = archive
    assert (info.name, info.size, info.type) == ("key.jpg", 1000, tarfile.REGTYPE)
    assert (info.mode, info.uid, info.gid, info.mtime) == (0o644, 0, 0, 0)
    assert (info.uname, info.gname, info.linkname, info.pax_headers) == ("", "", "", {})
    assert block[257:265] == b"ustar\x0000"


@given(NAMES, st.integers(0, tar.MAX_SIZE))
def test_a_header_is_that_of_the_standard_library(name: str, size: int):
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    ours, theirs = tar.header(name, size), info.tobuf(tarfile.USTAR_FORMAT)
    for start, end in ((0, 148), (156, 329), (345, 512)):  # device numbers: zero here, none there
        assert ours[start:end] == theirs[start:end]
    read = tarfile.TarInfo.frombuf(ours, "utf-8", "strict")  # checks the sum
    assert (read.name, read.size, read.devmajor, read.devminor) == (name, size, 0, 0)


@pytest.mark.parametrize(("name", "size"), [("x" * 101, 1), ("x", 8**11), ("x", -1)])
def test_what_does_not_fit_a_header_is_refused(name: str, size: int):
    with pytest.raises(RunError, match="does not fit a ustar header"):
        tar.header(name, size)


def test_sizes_are_told_before_a_byte_is_written():
    for size in (0, 1, 511, 512, 513):
        assert tar.member_bytes(size) == len(tar.header("x", size)) + size + tar.padding(size)
        assert tar.member_bytes(size) % tar.BLOCK == 0
    for length in range(0, 3 * tar.RECORD, tar.BLOCK):
        end = tar.trailer(length)
        assert end >= 2 * tar.BLOCK
        assert (length + end) % tar.RECORD == 0
        assert end < tar.RECORD + 2 * tar.BLOCK


def test_neighbours_are_read_in_one_go_and_what_lies_between_is_left_out(tmp_path: Path):
    data = noise(200_000)
    source = Source(tmp_path, a=data)
    far = 3 * GAP + 300
    places = [(0, 100), (100, 50), (151, 60), (211 + GAP, 70), (281 + 2 * GAP, 1), (far, 9)]
    with source.stream() as (stream, sink, files):
        for number, (start, size) in enumerate(places):
            stream.copy(f"{number}", "a", source.version("a"), start, size)
        stream.finish()
    assert [found for _, found in members(sink.getvalue())] == [
        data[start : start + size] for start, size in places
    ]
    assert files.reads == [
        ("a", 0, (100, 50, 1, 60, GAP, 70, GAP, 1)),
        ("a", far, (9,)),  # too far away to be read with the others
    ]


def test_steps_back_overlaps_and_other_files_start_another_read(tmp_path: Path):
    one, two = noise(5000, 1), noise(5000, 2)
    source = Source(tmp_path, a=one, b=two)
    places = [
        ("a", 900, 100),
        ("a", 0, 10),
        ("b", 10, 10),
        ("b", 15, 10),
        ("b", 25, 5),
        ("a", 30, 1),
    ]
    with source.stream() as (stream, sink, files):
        for number, (file, start, size) in enumerate(places):
            stream.copy(f"{number}", file, source.version(file), start, size)
        stream.finish()
    content = {"a": one, "b": two}
    assert [found for _, found in members(sink.getvalue())] == [
        content[file][start : start + size] for file, start, size in places
    ]
    assert [(file, start) for file, start, _ in files.reads] == [
        ("a", 900), ("a", 0), ("b", 10), ("b", 15), ("a", 30),
    ]  # fmt: skip


def test_a_member_larger_than_the_buffer_passes_through_it(tmp_path: Path):
    data = noise(3 * BUFFER + 77)
    source = Source(tmp_path, a=data)
    with source.stream() as (stream, sink, files):
        stream.add("small", b"x")
        stream.copy("large", "a", source.version("a"), 5, len(data) - 5)
        stream.copy("none", "a", source.version("a"), 0, 0)
        stream.finish()
    assert members(sink.getvalue()) == [("small", b"x"), ("large", data[5:]), ("none", b"")]
    assert max(sum(lengths) for _, _, lengths in files.reads) <= BUFFER


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 60_000), st.integers(0, 9000)), max_size=12
    )
)
def test_any_order_of_places_gives_their_bytes(
    places: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
):
    content = {"a": noise(70_000, 1), "b": noise(70_000, 2)}
    source = Source(tmp_path_factory.mktemp("places"), **content)
    with source.stream() as (stream, sink, _):
        for number, (file, start, size) in enumerate(places):
            stream.copy(f"{number}", file, source.version(file), start, size)
        stream.finish()
    assert [found for _, found in members(sink.getvalue())] == [
        content[file][start : start + size] for file, start, size in places
    ]


def test_a_source_that_changed_since_it_was_indexed_is_noticed(tmp_path: Path):
    source = Source(tmp_path, a=noise(100))
    version = source.version("a")
    (tmp_path / "a").write_bytes(noise(100, 1) + b"x")
    with source.stream() as (stream, _, _):
        stream.copy("x", "a", version, 0, 50)
        with pytest.raises(SourceChangedError, match="changed after it was listed"):
            stream.finish()
