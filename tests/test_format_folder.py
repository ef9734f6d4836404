"""What a library writes gets its name when it is whole."""

from __future__ import annotations

import pytest

from pixsieve.errors import SourceChangedError, StorageError
from pixsieve.export.formats.folder import put, scratch


def test_files_move_and_the_hidden_folder_goes(tmp_path):
    with scratch(tmp_path, "name") as made:
        assert made.parent == tmp_path
        assert made.name.startswith(".name.")
        assert made.name.endswith(".tmp")
        (made / "a").write_bytes(b"whole")
        put({made / "a": tmp_path / "sub" / "b"})
    assert [path.name for path in tmp_path.rglob("*")] == ["sub", "b"]
    assert (tmp_path / "sub" / "b").read_bytes() == b"whole"


def test_nothing_is_left_of_what_fails(tmp_path):
    def write():
        with scratch(tmp_path, "name") as made:
            (made / "a").write_bytes(b"half")
            put({made / "a": tmp_path / "a", made / "missing": tmp_path / "b"})

    with pytest.raises(StorageError, match="cannot write"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_is_told_already_stays_as_it_is(tmp_path):
    def write():
        with scratch(tmp_path, "name"):
            raise SourceChangedError("gone")

    with pytest.raises(SourceChangedError, match="gone"):
        write()
