"""Columns of tables that lie beside the source's tars, such as those of img2dataset and LAION."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import posixpath
import re
from collections import OrderedDict
from collections.abc import Mapping  # noqa: TC003  # recipes ask for the types
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve.errors import PlanError, SourceError, SourceNotFoundError, nearest
from pixsieve.stage import ScoreStage, check_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pixsieve.stage import ImageBatch

_PLAIN: dict[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    **{str(kind): kind for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())},
    **{str(kind): kind for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    "half": pa.float16(),
    "float": pa.float32(),
    "double": pa.float64(),
    "binary": pa.binary(),
}
_LIST = re.compile(r"list<(?P<item>\w+)>")
_VECTOR = re.compile(r"(?P<item>\w+)\[(?P<length>[0-9]{1,6})\]")
_TAR = re.compile(r"\.(tar|tgz|tzst)(\.[a-z0-9]+)?$", re.IGNORECASE)
_HELD = 2
"""Tables that a worker holds: rows come tar by tar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarStage(ScoreStage):
    """Adds columns of the Parquet tables beside the source's tars: of ``X.parquet`` for ``X.tar``.

    A row belongs to the sample with its ``key`` (or, without such a column, with the key that its
    ``member_name`` starts with). Where several rows have one key, that with the image's ``sha256``
    counts, else the first. What has no row has nulls.

    Args:
        folder: Where the names of the tars start: the folder that was given to the reader.
        columns: Each column to take over and its type: ``string``, ``bool``, ``int8`` to
            ``uint64``, ``half``, ``float``, ``double``, ``binary``, a list of these as
            ``list<float>``, vectors as ``float[512]``, bytes of one length as ``binary[8]``.
        prefix: What the names of the columns begin with here: those of pixsieve's own columns are
            taken.
        key_column: The column of keys, if it is neither of the above.
        missing: What a tar without a readable table means: an ``"error"``, or ``"null"`` in all of
            its rows.
        beside: The table of each tar that has one of another name.
    """

    folder: str
    columns: Mapping[str, str] = field(hash=False)
    prefix: str = ""
    key_column: str | None = None
    missing: Literal["error", "null"] = "error"
    beside: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", os.fspath(self.folder))
        check_fields(self)
        if not self.columns:
            msg = 'SidecarStage: columns is empty; expected such as {"similarity": "double"}'
            raise PlanError(msg)
        for name, kind in self.columns.items():
            if type_named(kind) is None:
                msg = (
                    f"SidecarStage: {name!r} has the type {kind!r}; expected one of "
                    f"{', '.join(_PLAIN)}, or of these list<TYPE> or TYPE[LENGTH]"
                    f"{nearest(kind, _PLAIN)}"
                )
                raise PlanError(msg)

    def reads(self) -> tuple[str, ...]:
        return ("original_path", "original_key", "sha256")

    def adds(self) -> pa.Schema:
        metadata = {"source": "the table beside the tar"}
        return pa.schema(
            [
                pa.field(self.prefix + name, type_named(kind), metadata=metadata)
                for name, kind in self.columns.items()
            ]
        )

    def check(self, columns: pa.Schema) -> None:  # noqa: ARG002
        if not any(self._tables()):
            msg = (
                f"SidecarStage: no tar in {self.folder!r} has a Parquet table beside it (the "
                "recipe in a dataset leaves out where they lay: name the folder there)"
            )
            raise SourceNotFoundError(msg)

    def digests(self) -> tuple[str, ...]:
        """Return a digest of all tables, with their names."""
        digest = hashlib.sha256()
        for name in self._tables():
            with Path(self.folder, name).open("rb") as file:
                digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        return (digest.hexdigest(),)

    def without_places(self) -> Self:
        """Say that there are tables, not where; their digest says which they are."""
        return dataclasses.replace(self, folder="tables")

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema = self.adds()
        held: OrderedDict[str, _Table | None] = OrderedDict()

        def table_of(tar: str) -> _Table | None:
            if tar not in held:
                held[tar] = self._open(tar)
                if len(held) > _HELD:
                    held.popitem(last=False)
            return held[tar]

        def score(batch: ImageBatch) -> pa.RecordBatch:
            asked = zip(*(batch.rows[name].to_pylist() for name in self.reads()), strict=True)
            pieces = [schema.empty_table()]
            for tar, rows in itertools.groupby(asked, lambda row: row[0]):
                table, names = table_of(tar), [row[1:] for row in rows]
                pieces.append(
                    pa.table([pa.nulls(len(names), each.type) for each in schema], schema=schema)
                    if table is None
                    else table.rows(names)
                )
            found = pa.concat_tables(pieces).combine_chunks()
            arrays = [column.combine_chunks() for column in found.columns]
            return pa.RecordBatch.from_arrays(arrays, schema=schema)

        return score

    def sidecar_of(self, tar: str) -> str:
        """Return the name of a tar's table."""
        return self.beside.get(tar) or f"{_TAR.sub('', tar)}.parquet"

    def _tables(self) -> Iterator[str]:
        """Yield the tables that lie beside tars, in order."""
        found = set(self.beside.values())
        for place, folders, files in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            below = os.path.relpath(place, self.folder)
            tars = (posixpath.normpath(posixpath.join(below, n)) for n in files if _TAR.search(n))
            found |= {self.sidecar_of(tar) for tar in tars}
        yield from sorted(name for name in found if Path(self.folder, name).is_file())

    def _open(self, tar: str) -> _Table | None:
        path = Path(self.folder, self.sidecar_of(tar))
        try:
            return _Table.read(path, self)
        except (OSError, ValueError, pa.ArrowException) as error:
            if self.missing == "null":
                return None
            msg = f"{tar} has no table {path} that can be read: {error}; mend or remove it"
            raise SourceError(msg) from error


@dataclass(frozen=True, slots=True)
class _Table:
    """The columns of one table, and which rows each key has."""

    table: pa.Table
    places: dict[str, list[int]]
    digests: list[str | None] | None

    @classmethod
    def read(cls, path: Path, stage: SidecarStage) -> Self:
        with pq.ParquetFile(path) as file:
            have = file.schema_arrow.names
            key = next((n for n in (stage.key_column, "key", "member_name") if n in have), None)
            if key is None:
                msg = f"it has no column {stage.key_column or 'key'!r}; it has: {', '.join(have)}"
                raise ValueError(msg)
            wanted = [name for name in stage.columns if name in have]
            more = [name for name in (key, "sha256") if name in have and name not in wanted]
            read = file.read(columns=[*wanted, *more], use_threads=False)
        arrays = []
        for name, field_ in zip(stage.columns, stage.adds(), strict=True):
            kind = field_.type
            arrays.append(pa.nulls(len(read), kind))
            if name in wanted:
                try:
                    arrays[-1] = _taken(read[name], kind)
                except pa.ArrowException:
                    if stage.missing == "error":
                        raise
        keys = read[key].cast(pa.string()).to_pylist()
        places: dict[str, list[int]] = {}
        for place, text in enumerate(keys):
            if text is not None:
                places.setdefault(_key(text) if key == "member_name" else text, []).append(place)
        digests = read["sha256"].to_pylist() if "sha256" in read.column_names else None
        return cls(pa.table(arrays, schema=stage.adds()), places, digests)

    def rows(self, names: list[tuple[str, str | None]]) -> pa.Table:
        """Return the rows of (key, SHA-256 of the image); null where there is none."""
        return self.table.take(pa.array([self._place(*name) for name in names], pa.int64()))

    def _place(self, key: str, digest: str | None) -> int | None:
        places = self.places.get(key)
        if not places:
            return None
        same = (place for place in places if self.digests and self.digests[place] == digest)
        return next(same, places[0])


def _taken(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(kind)


def _key(member: str) -> str:
    folder, slash, last = member.rpartition("/")
    return folder + slash + last.partition(".")[0]


def type_named(text: str) -> pa.DataType | None:
    """Return the type that a text of ``columns`` means, ``None`` if it means none."""
    if text in _PLAIN:
        return _PLAIN[text]
    if (found := _LIST.fullmatch(text)) and found["item"] in _PLAIN:
        return pa.list_(_PLAIN[found["item"]])
    found = _VECTOR.fullmatch(text)
    if found is None or found["item"] not in _PLAIN:
        return None
    if found["item"] == "binary":
        return pa.binary(int(found["length"]))
    return pa.list_(_PLAIN[found["item"]], int(found["length"]))


def name_of_type(kind: pa.DataType) -> str | None:
    """Return how ``columns`` spells a type, ``None`` if it cannot."""
    if pa.types.is_dictionary(kind):
        return name_of_type(kind.value_type)
    if pa.types.is_fixed_size_binary(kind):
        return f"binary[{kind.byte_width}]"
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return "binary"
    if pa.types.is_fixed_size_list(kind):
        item = name_of_type(kind.value_type)
        return f"{item}[{kind.list_size}]" if item in _PLAIN else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = name_of_type(kind.value_type)
        return f"list<{item}>" if item in _PLAIN else None
    return next((name for name, plain in _PLAIN.items() if plain == kind), None)
