"""Work counts as done only where its record and every table that it names still hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pixsieve.engine.ledger import TableRecord, Workspace

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a unit came to."""

    rows: int
    names: tuple[str, ...] = ()
    tables: tuple[TableRecord, ...] = ()


def record(workspace: Workspace, path: str, data: bytes) -> TableRecord:
    (workspace.root / path).write_bytes(data)
    return TableRecord(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "work")
    made.prepare()
    return made


def test_what_was_committed_is_done(workspace: Workspace):
    table = record(workspace, workspace.table_path("k"), b"table")
    value = Found(rows=3, names=("a", "ä"), tables=(table, record(workspace, "plans/x", b"")))
    assert workspace.done("k", Found) is None
    workspace.commit("k", value)
    assert workspace.done("k", Found) == value
    assert workspace.done("other", Found) is None
    assert Workspace(workspace.root).done("k", Found) == value


@pytest.mark.parametrize("data", [b"", b"tabl", b"tablE", b"table+", b"\0" * 5, None])
def test_a_table_that_changed_or_is_gone_is_made_again(workspace: Workspace, data: bytes | None):
    path = workspace.table_path("k")
    value = Found(
        rows=1, tables=(record(workspace, "plans/x", b"x"), record(workspace, path, b"table"))
    )
    workspace.commit("k", value)
    table = workspace.root / path
    table.unlink() if data is None else table.write_bytes(data)
    assert workspace.done("k", Found) is None
    record(workspace, path, b"table")
    assert workspace.done("k", Found) == value


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"null", b'{"rows": "3"}', b'{"names": []}', b"\xff\0", b'{"rows": 3'],
)
def test_a_record_that_cannot_be_read_is_no_record(workspace: Workspace, damage: bytes):
    workspace.commit("k", Found(rows=3))
    (path,) = (workspace.root / "ledger").iterdir()
    path.write_bytes(damage)
    assert workspace.done("k", Found) is None
    workspace.commit("k", Found(rows=4))
    assert workspace.done("k", Found) == Found(rows=4)


def test_no_flip_in_a_record_gives_another_result(workspace: Workspace):
    value = Found(rows=1234, names=("a", "b"))
    workspace.commit("k", value)
    (path,) = (workspace.root / "ledger").iterdir()
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            assert workspace.done("k", Found) in (None, value)


def test_every_flip_of_a_table_is_noticed(workspace: Workspace):
    path = workspace.table_path("k")
    workspace.commit("k", Found(rows=1, tables=(record(workspace, path, b"0123456789"),)))
    for at in range(10):
        data = bytearray(b"0123456789")
        data[at] ^= 1
        (workspace.root / path).write_bytes(data)
        assert workspace.done("k", Found) is None


def test_a_workspace_can_be_moved(workspace: Workspace, tmp_path: Path):
    value = Found(rows=1, tables=(record(workspace, workspace.table_path("k"), b"table"),))
    workspace.commit("k", value)
    moved = workspace.root.rename(tmp_path / "elsewhere")
    assert Workspace(moved).done("k", Found) == value


def test_records_are_written_whole_and_leave_nothing_else(workspace: Workspace):
    for number in range(3):
        workspace.commit("k", Found(rows=number))
    assert [path.name for path in (workspace.root / "ledger").iterdir()] == ["k.json"]
    workspace.prepare()
    assert workspace.done("k", Found) == Found(rows=2)
