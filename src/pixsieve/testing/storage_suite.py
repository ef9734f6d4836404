"""What every store must do: subclass :class:`StorageTests` in a test module and give it a store.

::

    class TestMyStorage(StorageTests):
        @pytest.fixture
        def storage(self): return MyStorage()

        @pytest.fixture
        def root(self): return "my://bucket/empty-folder"
"""
# ruff: noqa: S101 - these are tests

from __future__ import annotations

import pickle
import posixpath
from typing import TYPE_CHECKING

import pytest

from pixsieve.errors import SourceChangedError, SourceNotFoundError, StorageError

if TYPE_CHECKING:
    from pixsieve.storage import Storage


class StorageTests:
    """Properties that the rest of pixsieve relies on."""

    @pytest.fixture
    def storage(self) -> Storage:
        """Return the store to be tested."""
        raise NotImplementedError

    @pytest.fixture
    def root(self) -> str:
        """Return the path of an empty folder in it."""
        raise NotImplementedError

    def put(self, storage: Storage, root: str, name: str, data: bytes) -> str:
        """Write an object through the store and return its path."""
        path = posixpath.join(root, name)
        self.make_folder(posixpath.dirname(path))
        with storage.create(path) as sink:
            sink.write(data)
        return path

    def make_folder(self, path: str) -> None:
        """Make a folder with those above it; stores without folders need not."""

    @pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
    def test_what_is_written_is_read_back(self, storage: Storage, root: str, size: int) -> None:
        data = bytes(range(256)) * (size // 256 + 1)
        path = self.put(storage, root, "object", data[:size])
        assert storage.stat(path).size == size
        with storage.open(path) as reader:
            assert reader.info == storage.stat(path)
            assert reader.read(0, size) == data[:size]

    def test_all_that_is_written_is_appended(self, storage: Storage, root: str) -> None:
        path = posixpath.join(root, "object")
        with storage.create(path, durable=False) as sink:
            sink.write(b"one")
            sink.write(b"")
            sink.write(bytearray(b"two"))
            sink.write(memoryview(b"-three-")[1:-1])
        with storage.open(path) as reader:
            assert reader.read(0, reader.info.size) == b"onetwothree"

    @pytest.mark.parametrize(("offset", "size"), [(0, 0), (0, 3), (7, 3), (9, 1), (10, 0)])
    def test_any_range_can_be_read(
        self, storage: Storage, root: str, offset: int, size: int
    ) -> None:
        path = self.put(storage, root, "object", b"0123456789")
        with storage.open(path) as reader:
            assert reader.read(offset, size) == b"0123456789"[offset : offset + size]
            buffer = bytearray(size)
            reader.read_into([buffer], offset)
            assert buffer == b"0123456789"[offset : offset + size]

    def test_buffers_are_filled_one_after_the_other(self, storage: Storage, root: str) -> None:
        data = bytes(number % 251 for number in range(20_000))
        path = self.put(storage, root, "object", data)
        sizes = [number % 7 for number in range(5000)]  # many, and some of no size
        buffers = [bytearray(size) for size in sizes]
        with storage.open(path) as reader:
            reader.read_into(buffers, 11)
            assert b"".join(buffers) == data[11 : 11 + sum(sizes)]
            block = memoryview(bytearray(30))
            reader.read_into([block[20:], block[:5]], 100)
            assert bytes(block) == data[110:115] + bytes(15) + data[100:110]
            reader.read_into([], 0)

    @pytest.mark.parametrize(("offset", "size"), [(0, 11), (10, 1), (50, 1)])
    def test_bytes_that_are_not_there_are_an_error(
        self, storage: Storage, root: str, offset: int, size: int
    ) -> None:
        path = self.put(storage, root, "object", b"0123456789")
        with storage.open(path) as reader:
            with pytest.raises(SourceChangedError, match="object"):
                reader.read(offset, size)
            with pytest.raises(SourceChangedError, match="object"):
                reader.read_into([bytearray(size)], offset)

    def test_an_object_appears_whole_and_at_the_end(self, storage: Storage, root: str) -> None:
        path = posixpath.join(root, "object")
        with storage.create(path) as sink:
            sink.write(b"x" * 1_000_000)
            assert list(storage.list(root)) == []
            with pytest.raises(SourceNotFoundError):
                storage.stat(path)
        assert [info.path for info in storage.list(root)] == ["object"]

    @pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SourceNotFoundError])
    def test_a_failure_leaves_nothing_and_passes(
        self, storage: Storage, root: str, error: type[BaseException]
    ) -> None:
        path = posixpath.join(root, "object")
        message = "the caller's"
        for before in (None, b"before"):
            if before is not None:
                self.put(storage, root, "object", before)
            with pytest.raises(error, match=message), storage.create(path) as sink:  # noqa: PT012
                sink.write(b"half")
                raise error(message)
            if before is None:
                assert list(storage.list(root)) == []
            else:
                with storage.open(path) as reader:
                    assert reader.read(0, reader.info.size) == before

    def test_objects_made_together_appear_when_all_are_whole(
        self, storage: Storage, root: str
    ) -> None:
        names = ["z.tar", "a.parquet"]
        paths = [posixpath.join(root, name) for name in names]
        with storage.create_together(paths) as sinks:
            for sink, name in zip(sinks, names, strict=True):
                sink.write(name.encode())
                assert list(storage.list(root)) == []
        for path, name in zip(paths, names, strict=True):
            with storage.open(path) as reader:
                assert reader.read(0, reader.info.size) == name.encode()

    def test_a_failure_leaves_none_of_the_objects_made_together(
        self, storage: Storage, root: str
    ) -> None:
        paths = [posixpath.join(root, name) for name in ("one", "two")]
        with pytest.raises(KeyError), storage.create_together(paths) as sinks:  # noqa: PT012
            sinks[0].write(b"whole")
            raise KeyError
        assert list(storage.list(root)) == []
        self.put(storage, root, "object", b"no folder")
        paths.append(posixpath.join(root, "object", "below"))
        with pytest.raises(StorageError, match="below"), storage.create_together(paths):
            pass
        assert [info.path for info in storage.list(root)] == ["object"]

    def test_an_object_can_be_written_anew(self, storage: Storage, root: str) -> None:
        path = self.put(storage, root, "object", b"a longer first one")
        self.put(storage, root, "object", b"second")
        with storage.open(path) as reader:
            assert reader.read(0, reader.info.size) == b"second"

    def test_objects_are_listed_by_the_parts_of_their_paths(
        self, storage: Storage, root: str
    ) -> None:
        names = ["a/b/c", "a/b.c", "a.b", "b", "ä/1", "Z", "a/b-c/d", "with space/x", "10", "9"]
        for name in names:
            self.put(storage, root, name, name.encode())
        found = list(storage.list(root))
        assert [info.path for info in found] == sorted(names, key=lambda name: name.split("/"))
        assert [info.size for info in found] == [len(info.path.encode()) for info in found]
        for info in found:
            assert info.version == storage.stat(posixpath.join(root, info.path)).version

    def test_hidden_objects_are_not_listed(self, storage: Storage, root: str) -> None:
        for name in (".hidden", "a/.hidden", ".folder/a", "a/b"):
            self.put(storage, root, name, b"x")
        assert [info.path for info in storage.list(root)] == ["a/b"]

    def test_what_is_not_there_is_named(self, storage: Storage, root: str) -> None:
        path = posixpath.join(root, "missing")
        with pytest.raises(SourceNotFoundError, match="missing"):
            storage.stat(path)
        with pytest.raises(SourceNotFoundError, match="missing"):
            storage.open(path)

    def test_a_change_is_noticed(self, storage: Storage, root: str) -> None:
        path = self.put(storage, root, "object", b"one")
        with storage.open(path) as reader:
            reader.check_unchanged()
            before = storage.stat(path).version
            self.put(storage, root, "object", b"another one")
            assert storage.stat(path).version != before
            with pytest.raises(SourceChangedError, match="object"):
                reader.check_unchanged()

    def test_a_store_can_be_sent_to_another_process(self, storage: Storage, root: str) -> None:
        path = self.put(storage, root, "object", b"one")
        sent: Storage = pickle.loads(pickle.dumps(storage))  # noqa: S301 - made in this line
        assert sent.stat(path) == storage.stat(path)

    def test_a_failure_to_write_is_one_line_with_the_path(
        self, storage: Storage, root: str
    ) -> None:
        self.put(storage, root, "object", b"no folder")
        path = posixpath.join(root, "object", "below")
        with pytest.raises(StorageError) as failed, storage.create(path) as sink:
            sink.write(b"x")
        assert path in str(failed.value)
        assert "\n" not in str(failed.value)
