"""Image files in folders by class, as torchvision's and Hugging Face's ImageFolder read them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve.export.formats.base import Format
from pixsieve.export.formats.card import card
from pixsieve.export.formats.columns import IMAGE, beside
from pixsieve.export.formats.folder import scratch
from pixsieve.storage import LocalStorage, tables
from pixsieve.storage.local import sync_folder
from pixsieve.storage.portable import convert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixsieve.export.finished import About, Dataset, Shard

METADATA = "metadata.parquet"
NO_CLASS = "_none"
"""Folder of images without a class, which both readers want in some folder.

No class has it, as a leading ``_`` is written as ``%5F``.
"""
_FILES = (METADATA, "README.md")
_FILE_NAME = "file_name"
_PLAIN = frozenset(" -_.,()+=@'")
_LONGEST = 200  # of a folder's name in bytes; file systems take 255


class ImagefolderFormat(Format):
    """``SPLIT/CLASS/KEY.jpg``, and beside the classes ``metadata.parquet`` with all columns.

    Without splits the classes stand in the folder itself.
    """

    name = "imagefolder"

    own = r"README\.md|([^/]+/)?metadata\.parquet"

    def owned(self, folder: Path) -> Iterator[Path]:
        """Yield the tables, and before them the images that they name."""
        for table in sorted(folder.rglob(METADATA)):
            for name in tables.read_table(str(table), [_FILE_NAME])[_FILE_NAME].to_pylist():
                path = table.parent / name
                if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                    yield path
        yield from super().owned(folder)

    def write_shard(self, about: About, shard: Shard, folder: Path) -> list[str]:
        rows = about.images(shard, ["class_name", "member_name"])
        names = []
        with scratch(folder, f"{shard.number:05d}") as made:
            moved = {}
            for row, data in rows:
                name = Path(shard.split or "") / folder_of(row["class_name"]) / row["member_name"]
                names.append(str(name))
                path = made / row["member_name"]
                path.write_bytes(data)
                moved[path] = folder / name
            os.sync()  # one for all: what gets its final name is on the medium
            parents = {target.parent for target in moved.values()}
            for parent in parents:
                parent.mkdir(parents=True, exist_ok=True)
            for path, target in moved.items():
                path.rename(target)
            for parent in parents:
                sync_folder(parent)
        return names

    def finish(self, dataset: Dataset, written: Sequence[Sequence[str]], folder: Path) -> list[str]:
        schema = _schema(dataset.columns)
        files = []
        for split, shards in dataset.splits.items():
            place = Path(split or "")
            files.append(str(place / METADATA))
            with (
                LocalStorage().create(str(folder / files[-1])) as sink,
                pq.ParquetWriter(pa.PythonFile(sink, "w"), schema, **tables.DATASET) as writer,
            ):
                for shard in shards:
                    names = [str(Path(name).relative_to(place)) for name in written[shard.number]]
                    columns = zip(dataset.sidecar(shard).columns, list(schema)[1:], strict=True)
                    rows = [names, *(convert(column, field.type) for column, field in columns)]
                    writer.write_table(pa.table(rows, schema=schema))
        images = [f"*/*.{extension}" for extension in sorted(dataset.contents.images)]

        def patterns(shards: Sequence[Shard]) -> list[str]:
            splits = dict.fromkeys(shard.split or "" for shard in shards)
            return [str(Path(split) / name) for split in splits for name in (METADATA, *images)]

        with LocalStorage().create(str(folder / "README.md")) as sink:
            sink.write(card(dataset, patterns))
        return [*files, "README.md"]

    def is_listed(self, name: str) -> bool:
        return Path(name).name in _FILES


def folder_of(class_name: str | None) -> str:
    """Return the folder of a class: another one for each, and safe on every file system.

    What is not a letter, a digit or plain punctuation becomes ``%`` and its bytes in hexadecimal.
    """
    if class_name is None:
        return NO_CLASS
    last = len(class_name) - 1
    name = "".join(
        char
        if (char.isalnum() or char in _PLAIN)
        and not (at == 0 and char in "_. ")
        and not (at == last and char in ". ")
        and not (char == "." and class_name in _FILES)
        else "".join(f"%{byte:02X}" for byte in char.encode())
        for at, char in enumerate(class_name)
    )
    if len(name.encode()) <= _LONGEST and name:
        return name
    digest = hashlib.sha256(class_name.encode()).hexdigest()[:16]
    return f"{name.encode()[: _LONGEST - 20].decode(errors='ignore')}%{digest}"


def _schema(columns: pa.Schema) -> pa.Schema:
    name = pa.field(_FILE_NAME, pa.string(), nullable=False)
    return pa.schema([name, *beside(columns, _FILE_NAME, IMAGE)])
