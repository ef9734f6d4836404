"""Files of a source are opened a bounded number at a time, and a change of any is noticed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pixsieve.errors import SourceChangedError
from pixsieve.sources import SourceFiles
from pixsieve.sources.spool import unpacked_version
from pixsieve.storage import LocalStorage

STORAGE = LocalStorage()


def fill(folder: Path, count: int) -> list[tuple[str, str]]:
    """Write files and return their names and versions."""
    places = []
    for n in range(count):
        path = folder / f"{n}.jpg"
        path.write_bytes(b"%03d" % n)
        places.append((path.name, STORAGE.stat(str(path)).version))
    return places


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_files_are_open_at_once_and_all_can_be_read_again(tmp_path: Path) -> None:
    places = fill(tmp_path, 200)
    before = open_files()
    with SourceFiles(str(tmp_path), STORAGE, str(tmp_path / "spool"), limit=8) as files:
        for n, place in [*enumerate(places), *enumerate(places)]:
            assert files.open(*place).read(0, 3) == b"%03d" % n
            assert open_files() <= before + 8
    assert open_files() == before


def test_a_reader_stays_open_while_few_others_are_opened(tmp_path: Path) -> None:
    places = fill(tmp_path, 8)
    with SourceFiles(str(tmp_path), STORAGE, str(tmp_path / "spool"), limit=8) as files:
        first = files.open(*places[0])
        for place in places[1:]:
            files.open(*place)
        assert first.read(0, 3) == b"000"
        assert files.open(*places[0]) is first


@pytest.mark.parametrize("change", ["rewrite", "remove"])
@pytest.mark.parametrize("moment", ["before", "making room", "leaving"])
def test_a_change_is_noticed_on_opening_on_making_room_and_on_leaving(
    tmp_path: Path, change: str, moment: str
) -> None:
    places = fill(tmp_path, 2)

    def happen() -> None:
        path = tmp_path / "0.jpg"
        if change == "remove":
            path.unlink()
        else:
            path.write_bytes(b"other")

    def read() -> None:
        with SourceFiles(str(tmp_path), STORAGE, str(tmp_path / "spool"), limit=1) as files:
            if moment == "before":
                happen()
            files.open(*places[0])
            happen()
            if moment == "making room":
                files.open(*places[1])
                pytest.fail("opened another")

    with pytest.raises(SourceChangedError, match=r"0\.jpg (changed|vanished)"):
        read()


def test_a_compressed_source_that_changes_is_noticed_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(b"x" * 600))
    version = unpacked_version(STORAGE.stat(str(path)).version, 600)

    def read() -> None:
        with SourceFiles(str(tmp_path), STORAGE, str(tmp_path / "spool")) as files:
            assert files.open("a.tar.gz", version).read(599, 1) == b"x"
            path.write_bytes(b"other")

    with pytest.raises(SourceChangedError, match=r"a\.tar\.gz changed"):
        read()


def test_an_error_of_the_caller_is_not_hidden_by_a_changed_file(tmp_path: Path) -> None:
    places = fill(tmp_path, 1)

    def read() -> None:
        with SourceFiles(str(tmp_path), STORAGE, str(tmp_path / "spool")) as files:
            files.open(*places[0])
            (tmp_path / "0.jpg").unlink()
            raise KeyError

    with pytest.raises(KeyError):
        read()
