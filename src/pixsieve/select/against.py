"""Earlier datasets and lists, which new data is compared with.

It is the folder of a dataset that pixsieve exported (its manifest says which sidecars are its), a
Parquet file, or a folder of these. All have ``image_id``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve.errors import PlanError, SourceError, SourceNotFoundError
from pixsieve.storage.portable import original, originals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_MANIFEST = "manifest.json"
_BATCH_ROWS = 65_536
_ID = "image_id"


def read(path: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield ``image_id`` and the named columns, at most 65,536 rows at a time.

    They have the types that the stages gave them which made them.

    Raises:
        SourceNotFoundError: there is nothing at the path.
        SourceError: a file is damaged, or lacks a column.
    """
    names = list(dict.fromkeys((_ID, *columns)))
    for file in files(path):
        try:
            with pq.ParquetFile(file) as opened:
                have = opened.schema_arrow.names
                absent = [name for name in names if name not in have]
                if absent:
                    msg = f"{file} has no column {absent[0]!r}; it has: {', '.join(have)}"
                    raise SourceError(msg)
                for batch in opened.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
                    yield originals(pa.Table.from_batches([batch]).select(names))
        except (OSError, pa.ArrowException) as error:
            msg = f"{file} cannot be read as Parquet: {error}; export it anew, or name another file"
            raise SourceError(msg) from error


def schema(path: str) -> pa.Schema:
    """Return the columns that all of its files have, as the first one has them; errors as above."""
    found: list[pa.Schema] = []
    for file in files(path):
        try:
            found.append(pq.read_schema(file))
        except (OSError, pa.ArrowException) as error:
            msg = f"{file} cannot be read as Parquet: {error}; export it anew, or name another file"
            raise SourceError(msg) from error
    common = [each for each in found[0] if all(each.name in other.names for other in found)]
    return pa.schema([original(each) for each in common])


def check(stage: str, path: str, columns: pa.Schema, parameter: str = "against") -> None:
    """Raise ``PlanError`` unless the columns are there, beside ``image_id``, with their types.

    ``stage`` and ``parameter`` are what the message names.
    """
    have = schema(path)
    for wanted in [pa.field(_ID, pa.string()), *columns]:
        if wanted.name not in have.names:
            names = ", ".join(have.names)
            msg = f"{stage}: {parameter}={path!r} has no column {wanted.name!r}; it has: {names}"
            raise PlanError(msg)
        kind = have.field(wanted.name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if kind != wanted.type and not _as_good(kind, wanted.type):
            msg = (
                f"{stage}: {parameter}={path!r} has {wanted.name!r} as {kind}, "
                f"expected {wanted.type}; name a dataset that the same stages made"
            )
            raise PlanError(msg)


def _as_good(kind: pa.DataType, wanted: pa.DataType) -> bool:
    text = (pa.types.is_string, pa.types.is_large_string)
    return any(is_text(kind) for is_text in text) and pa.types.is_string(wanted)


def digests(path: str) -> tuple[str, ...]:
    """Return what changes with the content: the manifest's SHA-256, or those of the files."""
    folder = Path(path)
    return contents([folder / _MANIFEST] if (folder / _MANIFEST).is_file() else files(path))


def contents(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the SHA-256 of each file, sorted: their names decide nothing.

    Raises:
        SourceError: a file cannot be read.
    """
    found = []
    for file in paths:
        try:
            with file.open("rb") as data:
                found.append(hashlib.file_digest(data, "sha256").hexdigest())
        except OSError as error:
            msg = f"{file} cannot be read: {error}"
            raise SourceError(msg) from error
    return tuple(sorted(found))


def name(path: str) -> str:
    """Return the name of the folder or file, without where it lies."""
    return Path(path).name or Path(path).resolve().name


def files(path: str) -> list[Path]:
    """Return the Parquet files, in order; errors as :func:`read`."""
    folder = Path(path)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        msg = (
            f"{path} is not there; expected a dataset's folder, a Parquet file or a folder of them "
            "(the recipe in a dataset leaves out where it lay: name it there)"
        )
        raise SourceNotFoundError(msg)
    manifest = folder / _MANIFEST
    if manifest.is_file():
        try:
            shards = json.loads(manifest.read_bytes())["shards"]
            found = [folder / shard["sidecar"] for shard in shards]
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"{manifest} is no dataset's manifest ({error!r}); name the Parquet files instead"
            raise SourceError(msg) from error
    else:
        found = sorted(folder.glob("*.parquet"))
    if not found:
        msg = f"{path} has no Parquet file; expected a dataset's folder, or a folder of such files"
        raise SourceNotFoundError(msg)
    return found
