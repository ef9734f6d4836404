"""The database of all samples, for Megatron-Energon's random access."""

from __future__ import annotations

import contextlib
import sqlite3
from itertools import pairwise
from typing import TYPE_CHECKING

from pixsieve.errors import StorageError
from pixsieve.export import tar
from pixsieve.export.finished import MEMBER_COLUMNS, members_of
from pixsieve.export.indexes.base import Index
from pixsieve.export.indexes.energon import META

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pixsieve.export.finished import Dataset, Members
    from pixsieve.export.indexes.base import Desk

_TABLES = """
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL,
    sample_key TEXT NOT NULL UNIQUE,
    sample_index INTEGER NOT NULL,
    byte_offset INTEGER,
    byte_size INTEGER
);
CREATE TABLE sample_parts (
    tar_file_id INTEGER,
    sample_index INTEGER,
    part_name TEXT,
    content_byte_offset INTEGER,
    content_byte_size INTEGER
);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq
    ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full
    ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""


class EnergonSqliteIndex(Index):
    """``.nv-meta/index.sqlite``: the tables, rows and indexes that ``energon prepare`` writes.

    Energon needs it to find samples by key: for joins, ``energon mount`` and media metadata; plain
    loading goes without. It belongs to the files of :class:`EnergonIndex`. The file's own bytes
    differ from the tool's, which depend on the order in which its workers end. It is written a
    shard at a time, so memory does not follow the number of samples.

    Source: Megatron-Energon 7.4.1, which calls the tables subject to change.
    """

    name = "energon_sqlite"
    files = (f"{META}/index.sqlite",)

    def of_dataset(self, dataset: Dataset, desk: Desk) -> dict[str, bytes | Path]:
        """Return the database, made in the folder for such."""
        path = desk.scratch / "index.sqlite"
        try:
            _write(path, dataset)
        except sqlite3.OperationalError as error:  # such as a disk that is full
            raise StorageError(f"cannot write {path}: {error}") from error
        return {f"{META}/index.sqlite": path}


def _write(path: Path, dataset: Dataset) -> None:
    shards = sorted(dataset.shards, key=lambda shard: shard.tar.name)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        # What fails is made anew, in a new file: nothing has to be rolled back.
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        database.executescript(_TABLES)
        for number, shard in enumerate(shards):
            members = members_of(dataset.sidecar(shard, MEMBER_COLUMNS))
            database.execute("BEGIN")
            database.executemany(
                "INSERT INTO samples VALUES (?, ?, ?, ?, ?)", _samples(number, members)
            )
            database.executemany(
                "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", _parts(number, members)
            )
            database.execute("COMMIT")
        database.executescript(_INDEXES)


def _samples(number: int, members: Members) -> Iterator[tuple[int, str, int, int, int]]:
    """Yield tar, key, place in it, offset of the first header, bytes up to the next sample."""
    starts = [members.offsets[at] - tar.BLOCK for at in members.borders[:-1]]
    spans = pairwise([*starts, members.end])
    for place, (key, (start, stop)) in enumerate(zip(members.keys, spans, strict=True)):
        yield number, key, place, start, stop - start


def _parts(number: int, members: Members) -> Iterator[tuple[int, int, str, int, int]]:
    """Yield tar, place of the sample in it, part, offset of its first data byte, size in bytes."""
    for place, (start, stop) in enumerate(pairwise(members.borders)):
        for at in range(start, stop):
            part = members.names[at].partition(".")[2]
            yield number, place, part, members.offsets[at], members.sizes[at]
