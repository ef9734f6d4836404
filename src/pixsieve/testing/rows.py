"""Rows for selection stages, from a few dicts: a stage of one's own is tested without any image."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pixsieve import schema
from pixsieve.fingerprint import fingerprint
from pixsieve.select.base import FROM_INDEX, Part, Scope, listing_bytes, sample_schema
from pixsieve.sources.base import image_id
from pixsieve.storage import tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pixsieve.select.base import Rows
    from pixsieve.stage import SelectStage

NO_COLUMNS = pa.schema([])


def make_rows(
    folder: Path,
    samples: Sequence[Mapping[str, Any]],
    *,
    added: pa.Schema = NO_COLUMNS,
    per_part: int = 1000,
    seed: int = 0,
) -> Rows:
    """Return what a first selection stage is handed; see :func:`make_parts`."""
    parts = make_parts(folder, samples, added=added, per_part=per_part)
    return make_scope(folder, parts, added=added, seed=seed).rows()


def make_scope(
    folder: Path,
    parts: Sequence[Part],
    *,
    added: pa.Schema = NO_COLUMNS,
    selection: str | None = None,
    seed: int = 0,
) -> Scope:
    """Return what a stage's own tasks are handed, for these parts."""
    listing = folder / f"listing-{fingerprint(parts)}.json"
    listing.write_bytes(listing_bytes(parts, ()))
    return Scope(
        listing=str(listing), columns=sample_schema([added]), selection=selection, seed=seed
    )


def make_parts(
    folder: Path,
    samples: Sequence[Mapping[str, Any]],
    *,
    added: pa.Schema = NO_COLUMNS,
    per_part: int = 1000,
) -> list[Part]:
    """Write the tables of an index and an inspection and return them as parts.

    Args:
        folder: Where the tables go.
        samples: For each row what differs from the default: names of
            :data:`pixsieve.schema.SAMPLE`, of ``added``, of an index table, or ``problem``. An
            ``original_path`` that changes starts another source. ``siblings`` are (extension,
            offset, size), in the file of the image.
        added: Columns beside those of every pipeline, in a family of their own.
        per_part: Rows that a part has at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_defaults(number, sample) for number, sample in enumerate(samples)]
    parts = []
    for at, (source, group) in enumerate(itertools.groupby(rows, lambda row: row["image_file"])):
        located = list(group)
        index = _write(folder / f"index-{at}.parquet", located, schema.INDEX)
        for start in range(0, len(located), per_part):
            stop = min(start + per_part, len(located))
            here = located[start:stop]
            families = [_write(folder / f"read-{at}-{start}.parquet", here, schema.INSPECTION)]
            if added.names:
                families.append(_write(folder / f"added-{at}-{start}.parquet", here, added))
            parts.append(
                Part(source=source, index=index, start=start, stop=stop, families=tuple(families))
            )
    return parts


def _defaults(number: int, sample: Mapping[str, Any]) -> dict[str, Any]:
    given = {FROM_INDEX.get(name, name): value for name, value in sample.items()}
    file, key = given.get("image_file", "a.tar"), given.get("key", f"{number:04d}")
    size = given.get("image_size", 1000)
    row = {
        "image_id": image_id(file, key, given.get("occurrence", 0)),
        "key": key,
        "occurrence": 0,
        "image_name": f"{key}.jpg",
        "image_extension": "jpg",
        "image_file": file,
        "image_offset": 512 + number * 2048,
        "image_size": size,
        "image_version": "1",
        "sha256": hashlib.sha256(f"{file}/{key}".encode()).hexdigest(),
        "siblings_sha256": hashlib.sha256(b"").hexdigest(),
        "format": "jpeg",
        "width": 64,
        "height": 48,
        "mode": "RGB",
        "exif_orientation": 1,
        "frames": 1,
    } | given
    row["siblings"] = [
        {
            "name": f"{key}.{extension}", "extension": extension, "file": file,
            "offset": offset, "size": length, "version": "1",
        }
        for extension, offset, length in given.get("siblings", ())
    ]  # fmt: skip
    if row.get("problem"):
        row |= {"sha256": None, "width": None, "height": None, "format": None, "caption": None}
    return row


def _write(path: Path, rows: Iterable[Mapping[str, Any]], wanted: pa.Schema) -> str:
    rows = list(rows)
    columns = {}
    for field in wanted:
        # An index says what is wrong with a sample, or else its inspection: here the latter.
        absent = field.name.startswith("problem") and wanted is schema.INDEX
        columns[field.name] = [None if absent else row.get(field.name) for row in rows]
    table = pa.table([pa.array(columns[f.name], f.type) for f in wanted], schema=wanted)
    path.write_bytes(tables.table_bytes(table))
    return str(path)


def run_rounds(stage: SelectStage, scope: Scope, folder: Path) -> Rows:
    """Run the tasks of a stage one after the other; return what it decides over.

    Args:
        stage: With tasks of its own.
        scope: The table.
        folder: Where the tasks' files go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rounds = stage.rounds(scope)
    paths: list[str] | None = None
    for number in itertools.count():
        try:
            tasks = next(rounds) if paths is None else rounds.send(paths)
        except StopIteration:
            break
        paths = [str(folder / f"round-{number}-{at}") for at in range(len(tasks))]
        for task, path in zip(tasks, paths, strict=True):
            pickle.loads(pickle.dumps(task)).work(path)  # noqa: S301  # as it is sent to a worker
    return scope.rows(paths or ())
