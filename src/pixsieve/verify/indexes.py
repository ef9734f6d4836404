"""Index files beside a tar, compared with the tar as it was walked.

They tell loaders where a tar's members lie. A loader that goes by a stale one reads other bytes
without a word, so each offset, size, name and count is compared, whoever wrote the file.

Formats: DALI's ``wds2idx`` (v1.1 and v1.2); Megatron-Energon 7, ``X.tar.idx`` and the tables of
``index.sqlite``.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pixsieve.verify.sidecars import split_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pixsieve.verify.tars import Member

META = ".nv-meta"
SQLITE = f"{META}/index.sqlite"
_DALI_HEAD = re.compile(r"v1\.(?P<version>[12]) (?P<samples>[0-9]+)")
_HIDDEN = re.compile(r"__[^/]*__($|/)")  # as Energon passes over members
_LONGEST = 160

Complain = Callable[[str, str, str, str | None], None]
"""Takes a rule, a file, a message and the sample that it is about, if it is about one."""


class Group(NamedTuple):
    """Neighbouring members of one key, as a loader groups them."""

    key: str
    members: list[Member]


def check_beside(
    folder: Path,
    tar: str,
    members: Sequence[Member],
    end: int,
    energon_number: int | None,
    complain: Complain,
) -> None:
    """Compare all index files that tell of one tar with its members.

    Args:
        folder: Where they lie.
        tar: Name of the tar.
        members: All of its regular files, in order.
        end: Where the blocks start that end the tar.
        energon_number: The tar's number in Energon's database; ``None``: it has none.
        complain: Takes what is wrong.
    """
    dali = f"{tar.removesuffix('.tar')}.idx"
    if (folder / dali).is_file():
        _check_dali(folder / dali, dali, members, complain)
    energon = f"{tar}.idx"
    samples = energon_groups(members)
    if (folder / energon).is_file():
        _check_energon(folder / energon, energon, samples, end, complain)
    if energon_number is not None and (folder / SQLITE).is_file():
        try:
            with opened(folder / SQLITE) as database:
                _check_database(database, tar, energon_number, samples, end, complain)
        except UNREADABLE as error:
            complain("index-energon", SQLITE, f"cannot be read for {tar}: {error}", None)


def energon_groups(members: Iterable[Member]) -> list[Group]:
    """Return a tar's samples as Energon sees them; it passes over ``__names__`` and hidden ones."""

    def key_of(member: Member) -> str | None:
        key, _ = split_name(member.name)
        dotted = "." in member.name.rpartition("/")[2]
        hidden = not key or key.endswith("/") or _HIDDEN.match(member.name)
        return key if dotted and not hidden else None

    seen = (member for member in members if key_of(member) is not None)
    return [Group(str(key), list(run)) for key, run in itertools.groupby(seen, key_of)]


UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a database that is damaged raises."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database to be read only; nothing is made beside it, and nothing in it is run.

    Raises:
        sqlite3.Error: it is none, or its samples are in no plain tables.
    """
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        database.execute("PRAGMA trusted_schema = OFF")
        tables = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
        plain = {name for name, text in tables if str(text).startswith("CREATE TABLE")}
        if lacks := {"samples", "sample_parts"} - plain:
            msg = f"there is no table {min(lacks)}"
            raise sqlite3.DatabaseError(msg)
        yield database


# -- DALI -------------------------------------------------------------------------------------


def _check_dali(path: Path, name: str, members: Sequence[Member], complain: Complain) -> None:
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    head = _DALI_HEAD.fullmatch(lines[0].rstrip())
    if head is None:
        complain("index-dali", name, f"starts with {_short(lines[0])}, expected v1.2 COUNT", None)
        return
    samples = _dali_groups(members)
    found = [line for line in lines[1:] if line]
    for says, count in (("states", int(head["samples"])), ("lists", len(found))):
        if count != len(samples):
            text = f"{says} {count:,} samples, the tar has {len(samples):,}"
            complain("index-dali", name, text, None)
    for line, (key, parts) in zip(found, samples, strict=False):
        expected = _dali_line(parts, named=head["version"] == "2")
        if line.rstrip("\r") != expected and line.split() != expected.split():
            text = f"says {_short(line)}, the tar says {_short(expected)}"
            complain("index-dali", name, text, key)


def _dali_groups(members: Iterable[Member]) -> list[Group]:
    """Return samples as wds2idx groups them: names without a dot lose their last letter."""

    def key_of(member: Member) -> str:
        key, extension = split_name(member.name)
        return key if extension or member.name.endswith(".") else key[:-1]

    seen = (member for member in members if key_of(member).rpartition("/")[2])
    return [Group(key, list(run)) for key, run in itertools.groupby(seen, key_of)]


def _dali_line(members: Iterable[Member], *, named: bool) -> str:
    parts: list[str] = []
    for member in members:
        extension = split_name(member.name)[1] or member.name
        parts += [extension, str(member.offset), str(member.size), *([member.name] * named)]
    return " ".join(parts)


# -- Energon ----------------------------------------------------------------------------------


def _check_energon(
    path: Path, name: str, samples: Sequence[Group], end: int, complain: Complain
) -> None:
    data = path.read_bytes()
    if len(data) % 8:
        complain("index-energon", name, f"has {len(data):,} bytes, expected a multiple of 8", None)
        return
    found = np.frombuffer(data, "<u8")
    if len(found) != len(samples) + 1:
        text = f"lists {len(found) - 1:,} samples, the tar has {len(samples):,}"
        complain("index-energon", name, text, None)
        return
    starts = np.array([*(group.members[0].header for group in samples), end], np.uint64)
    for at in np.flatnonzero(found != starts).tolist():
        key = samples[at].key if at < len(samples) else None
        text = f"says byte {int(found[at]):,}, the tar says {int(starts[at]):,}"
        complain("index-energon", name, text, key)


def _check_database(
    database: sqlite3.Connection,
    tar: str,
    number: int,
    samples: Sequence[Group],
    end: int,
    complain: Complain,
) -> None:
    starts = [*(group.members[0].header for group in samples), end]
    rows = [
        (group.key, place, start, stop - start)
        for place, (group, (start, stop)) in enumerate(
            zip(samples, itertools.pairwise(starts), strict=True)
        )
    ]
    parts = [
        (place, split_name(member.name)[1], member.offset, member.size)
        for place, group in enumerate(samples)
        for member in group.members
    ]
    for table, columns, order, expected in (
        ("samples", "sample_key, sample_index, byte_offset, byte_size", "sample_index", rows),
        (
            "sample_parts",
            "sample_index, part_name, content_byte_offset, content_byte_size",
            "sample_index, content_byte_offset",
            parts,
        ),
    ):
        query = f"SELECT {columns} FROM {table} WHERE tar_file_id = ? ORDER BY {order} LIMIT ?"  # noqa: S608  # names from above
        found = database.execute(query, (number, 2 * len(expected) + 1))
        _compare_rows(found, expected, tar, complain)


def _compare_rows(
    found: Iterator[tuple[object, ...]],
    expected: Sequence[tuple[object, ...]],
    tar: str,
    complain: Complain,
) -> None:
    """Report the first row that differs, and numbers that do: what follows is often shifted."""
    differs, count = "", 0
    for count, row in enumerate(found, 1):
        if not differs and (count > len(expected) or row != expected[count - 1]):
            said = expected[count - 1] if count <= len(expected) else "no such row"
            differs = f"{tar}: has {_short(str(row))}, the tar says {_short(str(said))}"
    if count != len(expected):
        differs = f"{tar}: has {count:,} rows, expected {len(expected):,}. {differs}".rstrip(". ")
    if differs:
        complain("index-energon", SQLITE, differs, None)


def _short(text: str) -> str:
    return repr(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")
