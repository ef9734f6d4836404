"""The list of sidecars, for LitData's ``ParquetLoader``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pixsieve.export.indexes.base import Index

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.export.finished import Dataset
    from pixsieve.export.indexes.base import Desk


class LitdataIndex(Index):
    """``index.json``: what litdata's ``index_parquet_dataset`` writes, but for two things.

    Sidecars are sorted by name, where the tool takes them as the file system lists them; and
    ``updated_at``, the time for the tool, is a number made of the export's digest. LitData looks at
    that to see whether its cache is of another version.

    Source: litdata 0.2.76.
    """

    name = "litdata"
    files = ("index.json",)

    def of_dataset(self, dataset: Dataset, desk: Desk) -> dict[str, bytes | Path]:  # noqa: ARG002
        """Return the list of sidecars."""
        shards = sorted(dataset.shards, key=lambda shard: shard.sidecar.name)
        index = {
            "chunks": [
                {
                    "chunk_bytes": shard.sidecar.size,
                    "chunk_size": shard.samples,
                    "dim": None,
                    "filename": shard.sidecar.name,
                }
                for shard in shards
            ],
            "config": {
                "chunk_bytes": None,
                "chunk_size": None,
                "compression": None,
                "data_format": [str(field.type) for field in dataset.columns],
                "data_spec": None,
                "encryption": None,
                "item_loader": "ParquetLoader",
                "types": None,
            },
            "updated_at": f"{int(dataset.plan_sha256[:8], 16)}.0",
        }
        return {"index.json": json.dumps(index, sort_keys=True).encode()}
