"""The local file system as a store: what every store does, and what only files can do to one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pixsieve.errors import SourceChangedError, SourceNotFoundError, StorageError, UsageError
from pixsieve.storage import LocalStorage, storage_for
from pixsieve.testing.storage_suite import StorageTests

STORAGE = LocalStorage()


class TestLocalStorage(StorageTests):
    @pytest.fixture
    def storage(self) -> LocalStorage:
        return STORAGE

    @pytest.fixture
    def root(self, tmp_path: Path) -> str:
        (tmp_path / "root").mkdir()
        return str(tmp_path / "root")

    def make_folder(self, path: str) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)


def test_what_is_no_regular_file_of_the_folder_is_listed_as_unsafe(tmp_path: Path):
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    (tmp_path / "outside").write_bytes(b"secret")
    os.mkfifo(root / "fifo")
    (root / "link-inside").symlink_to("file")
    (root / "link-out").symlink_to(tmp_path / "outside")
    (root / "link-up").symlink_to("../outside")
    (root / "link-folder").symlink_to("folder")
    (root / "link-round").symlink_to(".")
    (root / "link-nowhere").symlink_to("missing")
    (root / "link-link").symlink_to("link-out")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        found = {info.path: (info.size, info.version) for info in STORAGE.list(str(root))}
    whole = STORAGE.stat(str(root / "file"))
    assert found.pop("file") == found.pop("link-inside") == (1, whole.version)
    kinds = {"fifo": "fifo", "socket": "socket"}
    assert found == {name: (0, f"unsafe:{kinds.get(name, 'link')}") for name in found}
    assert len(found) == 8


def test_a_folder_that_begins_like_the_root_is_not_inside_it(tmp_path: Path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "file").write_bytes(b"x")
    (tmp_path / "root" / "link").symlink_to("../root-2/file")
    (info,) = STORAGE.list(str(tmp_path / "root"))
    assert info.version == "unsafe:link"


def test_links_inside_a_linked_root_are_followed(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"x")
    (tmp_path / "real" / "link").symlink_to("file")
    (tmp_path / "root").symlink_to("real")
    assert [info.size for info in STORAGE.list(str(tmp_path / "root"))] == [1, 1]


def test_a_name_that_is_no_utf8_is_listed_escaped_and_unsafe(tmp_path: Path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(name, "wb"):  # noqa: PTH123 - a name of bytes
        pass
    (info,) = STORAGE.list(str(tmp_path))
    assert info.path == "caf\\xe9.jpg"
    assert info.version == "unsafe:name that is not UTF-8"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SourceNotFoundError, match="missing does not exist"):
        list(STORAGE.list(str(tmp_path / "missing")))


def test_a_file_that_shrinks_or_vanishes_while_it_is_read_is_noticed(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with STORAGE.open(str(path)) as reader:
        os.truncate(path, 4)
        assert reader.read(0, 4) == b"0123"
        with pytest.raises(SourceChangedError, match=r"file shrank .* byte 9 was expected"):
            reader.read(0, 10)
        with pytest.raises(SourceChangedError, match="file shrank"):
            reader.read_into([bytearray(3), bytearray(3)], 0)
        with pytest.raises(SourceChangedError, match="changed while it was being read"):
            reader.check_unchanged()
        path.unlink()
        with pytest.raises(SourceChangedError, match="vanished while it was being read"):
            reader.check_unchanged()


def test_a_file_of_the_same_size_with_another_time_counts_as_changed(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    with STORAGE.open(str(path)) as reader:
        path.write_bytes(b"two")
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceChangedError):
            reader.check_unchanged()


def test_unfinished_files_are_hidden_and_named_after_what_they_will_be(tmp_path: Path):
    with STORAGE.create(str(tmp_path / "a.tar")):
        (unfinished,) = tmp_path.iterdir()
        assert unfinished.match(".a.tar.????????.tmp")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_a_durable_file_is_synced_before_it_has_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events = []
    sync = os.fsync

    def note(fd: int) -> None:
        what = Path(f"/proc/self/fd/{fd}").readlink()
        size = what.stat().st_size if what.is_file() else None
        events.append((what.name if what != tmp_path else "folder", size))
        events.append(("there", (tmp_path / "a").exists()))
        sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    with STORAGE.create(str(tmp_path / "a")) as sink:
        sink.write(b"12345")
    (unfinished, size), *rest = events
    assert unfinished.startswith(".a.")
    assert size == 5
    assert rest == [("there", False), ("folder", None), ("there", True)]
    events.clear()
    with STORAGE.create(str(tmp_path / "b"), durable=False) as sink:
        sink.write(b"12345")
    assert events == []


def test_errors_carry_their_number_and_no_traceback_of_text(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder: Is a directory") as failed:
        STORAGE.open(str(tmp_path / "folder")).read(0, 1)
    assert failed.value.errno == 21


def test_addresses_without_a_store_are_refused():
    assert isinstance(storage_for("a/b"), LocalStorage)
    assert isinstance(storage_for("/a/b:c"), LocalStorage)
    with pytest.raises(UsageError, match="there is no store for s3:// addresses; copy the data"):
        storage_for("s3://bucket/a")
