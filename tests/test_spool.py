"""Compressed tars: the same rows as the plain tar, bounded whatever they unpack to, damage said."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from PIL import Image

from pixsieve.schema import Problem
from pixsieve.sources import IndexOptions, SourceFiles, find_shards, index_shard, spool
from pixsieve.sources.spool import is_compressed, packed_version, spool_path
from pixsieve.storage import LocalStorage
from pixsieve.testing.strategies import Entry, write_tar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.sources import IndexResult

STORAGE = LocalStorage()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def skippable(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def sample_tar() -> bytes:
    noise = random.Random(0)
    members = []
    for n in range(20):
        data = io.BytesIO()
        Image.frombytes("RGB", (64, 64), noise.randbytes(3 * 64 * 64)).save(data, "PNG")
        members += [Entry(f"{n:03}.png", data.getvalue()), Entry(f"{n:03}.txt", b"text %d" % n)]
    return write_tar(members)


TAR = sample_tar()


def index(path: Path) -> IndexResult:
    _, shards = find_shards(str(path), STORAGE)
    (shard,) = shards
    return index_shard(shard, IndexOptions(), STORAGE, str(path.parent / "spool"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tar.gz", gz(TAR)),
        ("a.tgz", gz(TAR[:5000]) + gz(TAR[5000:]) + bytes(100)),
        ("a.tar.gz", b"".join(gz(TAR[n : n + 7]) for n in range(0, len(TAR), 7))),
        ("a.tar.zst", zstd(TAR)),
        ("a.tar", zstd(TAR[:7000]) + skippable(b"note") + zstd(TAR[7000:])),
        ("a.bin", skippable(b"") + zstd(TAR)),
    ],
)
def test_rows_are_those_of_the_plain_tar_and_lead_to_the_same_bytes(
    tmp_path: Path, name: str, data: bytes
) -> None:
    plain, packed = tmp_path / "plain" / "a.tar", tmp_path / "packed" / name
    for path, content in ((plain, TAR), (packed, data)):
        path.parent.mkdir()
        path.write_bytes(content)
    expected, found = index(plain).table.to_pylist(), index(packed).table.to_pylist()
    assert [row["problem"] for row in found] == [None] * 20
    with SourceFiles(str(packed.parent), STORAGE, str(packed.parent / "spool")) as files:
        for row, same in zip(found, expected, strict=True):
            assert row["image_file"] == name
            for key in ("key", "image_offset", "image_size", "image_name"):
                assert row[key] == same[key]
            start, size = row["image_offset"], row["image_size"]
            reader = files.open(row["image_file"], row["image_version"])
            assert reader.read(start, size) == TAR[start : start + size]
            (sibling,) = row["siblings"]
            text = files.open(sibling["file"], sibling["version"])
            assert text.read(sibling["offset"], sibling["size"]) == b"text %d" % int(row["key"])


@pytest.mark.parametrize("pack", [gz, zstd])
@pytest.mark.parametrize("damage", [Path.unlink, lambda place: os.truncate(place, 1000)])
def test_a_spool_that_is_missing_or_cut_is_made_again(
    tmp_path: Path, pack: Callable[[bytes], bytes], damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.tar.xx"
    path.write_bytes(pack(TAR))
    row = index(path).table.slice(0, 1).to_pylist()[0]
    version, size = packed_version(row["image_version"])
    assert (version, size) == (STORAGE.stat(str(path)).version, len(TAR))
    place = Path(spool_path(str(tmp_path / "spool"), path.name, version))
    damage(place)
    with SourceFiles(str(tmp_path), STORAGE, str(tmp_path / "spool")) as files:
        reader = files.open(path.name, row["image_version"])
        assert reader.read(0, len(TAR)) == TAR
    assert place.stat().st_size == len(TAR)


@pytest.mark.parametrize("pack", [gz, zstd])
def test_what_comes_before_a_cut_is_indexed_and_the_cut_is_a_row(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.tar.xx"
    whole = pack(TAR)
    for length in (len(whole) // 2, len(whole) - 1, 10):
        path.write_bytes(whole[:length])
        found = index(path).table.to_pylist()
        assert found[-1]["problem"] == Problem.SOURCE_TRUNCATED
        assert f"after {length} bytes" in found[-1]["problem_detail"]
        sound = [row["key"] for row in found if row["problem"] is None]
        assert sound == [f"{n:03}" for n in range(len(sound))]
        assert len(sound) >= 20 * length // len(whole) - 2


@pytest.mark.parametrize("pack", [gz, zstd])
def test_damage_and_trailing_data_are_rows(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.tar.xx"
    wrong_checksum = bytearray(pack(TAR))
    wrong_checksum[-6 if pack is gz else -2] ^= 1
    for data in (bytes(wrong_checksum), pack(TAR) + b"unknown data"):
        path.write_bytes(data)
        *samples, last = index(path).table.to_pylist()
        assert last["problem"] == Problem.SOURCE_DAMAGED
        assert last["image_file"] == path.name
        assert sum(row["problem"] is None for row in samples) >= 10  # a block is 128 KiB
    path.write_bytes(pack(TAR)[:4] + b"\xff" * 500)
    assert index(path).table.to_pylist()[-1]["problem"] == Problem.SOURCE_DAMAGED


def test_a_compressed_file_that_holds_no_tar_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gz(b"no tar " * 1000))
    (row,) = index(path).table.to_pylist()
    assert (row["problem"], row["image_offset"]) == (Problem.SOURCE_DAMAGED, 0)


@pytest.mark.parametrize("pack", [gz, zstd])
def test_a_bomb_is_refused_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(spool, "FREE_SIZE", 1_000_000)
    path = tmp_path / "a.tar.xx"
    path.write_bytes(pack(TAR + bytes(20_000_000 + 200 * len(TAR))))
    (row,) = index(path).table.to_pylist()
    assert row["problem"] == Problem.SOURCE_DAMAGED
    assert "refused" in row["problem_detail"]
    assert not list((tmp_path / "spool").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_memory_is_bounded_whatever_a_source_unpacks_to(tmp_path: Path) -> None:
    for name, data in (("a.gz", gz(bytes(150_000_000))), ("a.zst", zstd(bytes(150_000_000)))):
        (tmp_path / name).write_bytes(data)
        program = f"""
            import resource
            from pixsieve.sources.spool import unpack
            from pixsieve.storage import LocalStorage
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with LocalStorage().open({str(tmp_path / name)!r}) as reader:
                assert unpack(reader, LocalStorage(), {str(tmp_path / "out")!r}).fault is None
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert int(grown) < 80_000  # KiB
        assert (tmp_path / "out").stat().st_size == 150_000_000


def test_compression_is_told_by_content() -> None:
    assert is_compressed(gz(b""))
    assert is_compressed(zstd(b""))
    assert not is_compressed(TAR)
    assert not is_compressed(b"")
