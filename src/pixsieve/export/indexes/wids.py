"""The list of tars with their lengths, for wids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pixsieve.export.indexes.base import Index

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.export.finished import Dataset
    from pixsieve.export.indexes.base import Desk


class WidsIndex(Index):
    """``wids.json``: what ``widsindex create --name NAME`` writes, but for ``md5sum``.

    An MD5 of each tar would take longer than the whole export; wids looks at none when it reads,
    and the manifest has the SHA-256 of every tar. Tars are sorted by name, as by the tool.

    Source: wids 0.1.11, ``wids-shard-index-v1``.
    """

    name = "wids"
    files = ("wids.json",)

    def of_dataset(self, dataset: Dataset, desk: Desk) -> dict[str, bytes | Path]:  # noqa: ARG002
        """Return the list of tars."""
        shards = sorted(dataset.shards, key=lambda shard: shard.tar.name)
        index = {
            "__kind__": "wids-shard-index-v1",
            "wids_version": 1,
            "shardlist": [
                {"url": shard.tar.name, "nsamples": shard.samples, "filesize": shard.tar.size}
                for shard in shards
            ],
            "name": dataset.name,
        }
        return {"wids.json": json.dumps(index, indent=2).encode()}
