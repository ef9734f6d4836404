"""A Lance dataset, written by its own library, ``pylance``."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pyarrow as pa

from pixsieve.export.formats.base import Format
from pixsieve.export.formats.columns import IMAGE, check_sizes, names_beside, tables_of
from pixsieve.export.formats.folder import check_library, put, scratch
from pixsieve.storage.portable import convert, original

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pixsieve.export.finished import About, Dataset, Shard

STORAGE_VERSION = "2.1"
"""Of the data files: always the same, whatever the library takes by itself."""
_RUN_BYTES = 64 * 1024 * 1024
_RUN_ROWS = 1024
_ENCODING = "lance-encoding:compression"
_COMMITTED = ("_versions", "_transactions")


class LanceFormat(Format):
    """A fragment with one data file for each shard, in one version that is committed last.

    Columns have the types that they had before they became a sidecar's: vectors have a fixed
    length, so that Lance can index them.

    Data files are the same in each run, and so are their names. What the commit writes holds its
    time and a random id, as the format wants it: the dataset's manifest does not list that.
    """

    name = "lance"
    own = r"data/shard-[0-9]{5,}\.lance|(_versions|_transactions)/[^/]+"

    def check(self) -> None:
        check_library(self.name, "pylance", "lance")

    def write_shard(self, about: About, shard: Shard, folder: Path) -> list[str]:
        from lance.file import LanceFileWriter  # noqa: PLC0415  # heavy

        check_sizes(about, shard)
        schema = _schema(about.columns)
        name = f"data/shard-{shard.number:05d}.lance"
        with scratch(folder, f"{shard.number:05d}") as made:
            path = made / "data.lance"
            with LanceFileWriter(str(path), schema, version=STORAGE_VERSION) as writer:
                for table, images in tables_of(about, shard, _RUN_BYTES, _RUN_ROWS):
                    writer.write_batch(_rows(table, images, schema).combine_chunks())
            put({path: folder / name})
        return [name]

    def finish(self, dataset: Dataset, written: Sequence[Sequence[str]], folder: Path) -> list[str]:
        from lance import LanceDataset, LanceOperation  # noqa: PLC0415  # heavy
        from lance.fragment import DataFile, FragmentMetadata, LanceFragment  # noqa: PLC0415

        schema = _schema(dataset.columns)
        with scratch(folder, "commit") as made:
            row = _rows(dataset.sidecar(dataset.shards[0]).slice(0, 1), [b""], schema)
            like = LanceFragment.create(
                made / "fields", row, data_storage_version=STORAGE_VERSION
            ).files[0]
            fragments = [
                FragmentMetadata(
                    id=number,
                    files=[
                        DataFile(
                            name.removeprefix("data/"),
                            like.fields,
                            like.column_indices,
                            like.file_major_version,
                            like.file_minor_version,
                            (folder / name).stat().st_size,
                        )
                    ],
                    physical_rows=shard.samples,
                )
                for number, (shard, (name,)) in enumerate(zip(dataset.shards, written, strict=True))
            ]
            LanceDataset.commit(made / "set", LanceOperation.Overwrite(schema, fragments))
            # What a run left that ended here; versions go first, they lead to transactions.
            for part in _COMMITTED:
                shutil.rmtree(folder / part, ignore_errors=True)
            files = {
                path: folder / path.relative_to(made / "set")
                for part in reversed(_COMMITTED)
                for path in sorted((made / "set" / part).iterdir())
            }
            put(files)
        return [str(path.relative_to(folder)) for path in files.values()]

    def is_listed(self, name: str) -> bool:
        return name.startswith("data/")


def _schema(columns: pa.Schema) -> pa.Schema:
    names = names_beside(columns, IMAGE)
    named = [original(each).with_name(name) for name, each in zip(names, columns, strict=True)]
    image = _compressed(pa.field(IMAGE, pa.large_binary(), nullable=False), "none")
    return pa.schema([image, *map(_compressed, named)])


def _compressed(field: pa.Field, by: str = "zstd") -> pa.Field:
    """Return a field that says how its values, and those in it, are compressed.

    By itself Lance compresses text with FSST, whose table of symbols is made of a random sample.
    """
    kind = field.type
    if pa.types.is_list(kind):
        return field.with_type(pa.list_(_compressed(kind.value_field, by)))
    if pa.types.is_struct(kind):
        return field.with_type(pa.struct([_compressed(inner, by) for inner in kind]))
    if not pa.types.is_primitive(kind) and not pa.types.is_fixed_size_list(kind):
        return field.with_metadata({**(field.metadata or {}), _ENCODING: by})
    return field


def _rows(sidecar: pa.Table, images: list[bytes], schema: pa.Schema) -> pa.Table:
    columns = [pa.chunked_array([images], pa.large_binary()), *sidecar.columns]
    kinds = zip(columns, schema, strict=True)
    return pa.table([convert(column, field.type) for column, field in kinds], schema=schema)
