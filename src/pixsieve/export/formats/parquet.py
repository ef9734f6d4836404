"""Parquet with images in it, as Hugging Face's ``datasets`` and the hub's viewer take it.

Source of the format: ``datasets``' ``Image`` feature, a struct of ``bytes`` and ``path``, which the
schema's metadata tells under ``huggingface``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve.export.formats.base import Format
from pixsieve.export.formats.card import card
from pixsieve.export.formats.columns import (
    IMAGE,
    beside,
    check_sizes,
    check_splits,
    file_name,
    tables_of,
)
from pixsieve.storage import LocalStorage
from pixsieve.storage.portable import convert

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pixsieve.export.finished import About, Dataset, Shard

GROUP_ROWS = 100
"""Rows of a row group, at most: what readers fetch for one sample of a shuffled set."""
GROUP_BYTES = 64 * 1024 * 1024
"""Image bytes of a row group, at most; a larger image has one of its own."""
_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class ParquetFormat(Format):
    """One file for each shard: ``image`` first, then all columns of the sidecar as they are.

    Images are neither compressed again nor in statistics; the pages of all columns are indexed, so
    that a reader can fetch single rows.
    """

    name = "parquet"
    own = r"README\.md|.+-[0-9]{5,}-of-[0-9]{5,}\.parquet"

    def write_shard(self, about: About, shard: Shard, folder: Path) -> list[str]:
        check_sizes(about, shard)
        schema = _schema(about.columns)
        name = file_name(shard, ".parquet")
        blobs = [f"{IMAGE}.bytes"]
        rest = [path for path in _leaves(schema) if path not in blobs]
        with (
            LocalStorage().create(str(folder / name)) as sink,
            pq.ParquetWriter(
                pa.PythonFile(sink, "w"),
                schema,
                version="2.6",
                compression=dict.fromkeys(rest, "zstd") | dict.fromkeys(blobs, "none"),
                use_dictionary=rest,
                write_statistics=rest,
                write_page_index=True,
            ) as writer,
        ):
            for table, images in tables_of(about, shard, GROUP_BYTES, GROUP_ROWS):
                image = pa.StructArray.from_arrays(
                    [pa.array(images, pa.binary()), table["member_name"].combine_chunks()],
                    fields=list(_IMAGE_TYPE),
                )
                columns = zip(table.columns, list(schema)[1:], strict=True)
                group = [image, *(convert(column, field.type) for column, field in columns)]
                writer.write_table(pa.table(group, schema=schema), row_group_size=GROUP_ROWS)
        return [name]

    def finish(self, dataset: Dataset, written: Sequence[Sequence[str]], folder: Path) -> list[str]:
        del written
        check_splits(dataset)
        text = card(dataset, lambda shards: [file_name(shard, ".parquet") for shard in shards])
        with LocalStorage().create(str(folder / "README.md")) as sink:
            sink.write(text)
        return ["README.md"]


def _schema(columns: pa.Schema) -> pa.Schema:
    features = {"info": {"features": {IMAGE: {"_type": "Image"}}}}
    fields = [pa.field(IMAGE, _IMAGE_TYPE), *beside(columns, IMAGE)]
    return pa.schema(fields, metadata={"huggingface": json.dumps(features)})


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the paths of the columns in the file, of which nested ones have several parts."""
    sink = pa.BufferOutputStream()
    pq.write_metadata(schema, sink)
    parquet = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    return [parquet.column(number).path for number in range(len(parquet))]
