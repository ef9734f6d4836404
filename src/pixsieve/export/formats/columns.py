"""A sidecar's columns and rows as other formats take them: named, typed and cut alike in all."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.errors import RunError
from pixsieve.storage.portable import original, portable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixsieve.export.finished import About, Dataset, Shard

IMAGE = "image"
"""The column of the image's bytes, in every format."""
UNSPLIT = "train"
"""What readers that want a split are told of samples that have none."""
MAX_IMAGE = 2**31 - 2**26
"""Bytes of an image, at most: all formats, or their readers, count a sample in 31 bits."""


class Kind(NamedTuple):
    """What the values of a column are.

    Attributes:
        word: Of a value, or of each value of a list.
        list: Whether there are lists of them.
        length: Of each list, if all have the same.
    """

    word: Literal["text", "bytes", "int", "float", "bool"]
    list: bool = False
    length: int | None = None


def kind_of(column: pa.DataType) -> Kind | None:
    """Return what a column's values are; ``None`` for what few formats know, such as times."""
    types = pa.types
    if types.is_dictionary(column):
        return kind_of(column.value_type)
    if types.is_fixed_size_list(column) or types.is_list(column) or types.is_large_list(column):
        inner = kind_of(column.value_type)
        if inner is None or inner.list:
            return None
        length = column.list_size if types.is_fixed_size_list(column) else None
        return Kind(inner.word, list=True, length=length)
    if types.is_string(column) or types.is_large_string(column) or types.is_string_view(column):
        return Kind("text")
    if types.is_binary(column) or types.is_large_binary(column) or types.is_binary_view(column):
        return Kind("bytes")
    if types.is_fixed_size_binary(column):
        return Kind("bytes")
    if types.is_boolean(column):
        return Kind("bool")
    if types.is_integer(column):
        return Kind("int")
    return Kind("float") if types.is_floating(column) else None


def names_beside(columns: pa.Schema, *taken: str) -> list[str]:
    """Return the columns' names in a format that has some of its own.

    A name that the format needs for itself gets underscores at its end.
    """
    found: list[str] = []
    for name in columns.names:
        while name in taken:
            name += "_"  # noqa: PLW2901
        taken += (name,)
        found.append(name)
    return found


def beside(columns: pa.Schema, *taken: str) -> list[pa.Field]:
    """Return the columns by their names in a format, as every reader of Parquet maps them."""
    names = names_beside(columns, *taken)
    return [portable(field.with_name(name)) for name, field in zip(names, columns, strict=True)]


def plain(columns: pa.Schema) -> dict[str, tuple[str, Kind]]:
    """Return name in the format and kind of the columns that a format of plain values can hold."""
    kinds = [kind_of(original(field).type) for field in columns]
    named = zip(columns.names, names_beside(columns, IMAGE), kinds, strict=True)
    return {name: (other, kind) for name, other, kind in named if kind is not None}


def check_sizes(about: About, shard: Shard) -> None:
    """Check that every image can be held.

    Raises:
        RunError: one is too large.
    """
    table = about.sidecar(shard, ["key", "member_size"])
    most = pc.max(table["member_size"]).as_py()
    if most is not None and most > MAX_IMAGE:
        key = table["key"][pc.index(table["member_size"], most).as_py()]
        msg = (
            f"{shard.tar.name}: the image {str(key)!r} has {most} bytes, other formats than tar "
            f"hold at most {MAX_IMAGE}; drop it with FilterStage('byte_size <= {MAX_IMAGE}'), or "
            "leave out formats"
        )
        raise RunError(msg)


def runs(sizes: Sequence[int], most_bytes: int, most_rows: int | None = None) -> Iterator[int]:
    """Yield how many rows go together, one run after the other.

    Args:
        sizes: Bytes of each row.
        most_bytes: Of a run of several rows; a larger row is a run of its own.
        most_rows: Of a run.
    """
    rows = size = 0
    for each in sizes:
        if rows and (size + each > most_bytes or rows == most_rows):
            yield rows
            rows = size = 0
        rows, size = rows + 1, size + each
    if rows:
        yield rows


def rows_of(about: About, shard: Shard) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield a shard's rows, with the columns and names of :func:`plain`, and their images."""
    columns = plain(about.columns)
    for row, data in about.images(shard, list(columns)):
        yield {other: row[name] for name, (other, _) in columns.items()}, data


def pieces_of(
    about: About, shard: Shard, most_bytes: int
) -> Iterator[Iterator[tuple[dict[str, Any], bytes]]]:
    """Yield what :func:`rows_of` does in runs, each of which must be used before the next one."""
    sizes = about.sidecar(shard, ["member_size"])["member_size"].to_pylist()
    rows = rows_of(about, shard)
    for count in runs(sizes, most_bytes):
        yield itertools.islice(rows, count)


def tables_of(
    about: About, shard: Shard, most_bytes: int, most_rows: int
) -> Iterator[tuple[pa.Table, list[bytes]]]:
    """Yield runs of a shard's rows, all columns, with the bytes of their images."""
    table = about.sidecar(shard).combine_chunks()
    found = about.images(shard, ["key"])
    start = 0
    for count in runs(table["member_size"].to_pylist(), most_bytes, most_rows):
        yield table.slice(start, count), [data for _, data in itertools.islice(found, count)]
        start += count


def file_name(shard: Shard, ending: str) -> str:
    """Return a shard's file name as readers find splits in: ``train-00000-of-00003.parquet``."""
    number, of = shard.split_number, shard.split_shards
    return f"{shard.split or UNSPLIT}-{number:05d}-of-{of:05d}{ending}"


def check_splits(dataset: Dataset) -> None:
    """Check that samples without a split cannot be taken for those of one.

    Raises:
        RunError: a split has the name that stands for none.
    """
    if None in dataset.splits and UNSPLIT in dataset.splits:
        msg = (
            f"some samples have the split {UNSPLIT!r} and some have none, which other formats "
            "cannot tell apart; give every sample a split, or none"
        )
        raise RunError(msg)
