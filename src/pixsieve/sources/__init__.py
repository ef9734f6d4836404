"""Where samples come from: shards of a source, the samples in them, and their bytes."""

from __future__ import annotations

from pixsieve.sources.access import SourceFiles
from pixsieve.sources.base import IndexOptions, KeySplit, SourceShard, image_id
from pixsieve.sources.find import find_shards
from pixsieve.sources.index import IndexResult, index_shard

__all__ = [
    "IndexOptions",
    "IndexResult",
    "KeySplit",
    "SourceFiles",
    "SourceShard",
    "find_shards",
    "image_id",
    "index_shard",
]
