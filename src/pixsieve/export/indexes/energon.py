"""What Megatron-Energon wants beside the tars."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import numpy as np
import yaml

from pixsieve.export import tar
from pixsieve.export.indexes.base import Index
from pixsieve.export.indexes.patterns import collapse

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.export.contents import Contents
    from pixsieve.export.finished import Dataset, Members
    from pixsieve.export.indexes.base import Desk

ENERGON_VERSION = "7.4.1"
"""The version whose files these are."""
META = ".nv-meta"


class EnergonIndex(Index):
    """``X.tar.idx`` beside each ``X.tar``, and the folder ``.nv-meta``.

    These are the bytes that ``energon prepare`` writes when it is told the same splits and fields,
    but for ``index.uuid``: a random one for the tool, here one that follows from the export's
    digest. Splits are named as in the manifest; without any, all is ``train``. Samples are
    ``CaptioningSample`` where each has a ``txt``, else ``ImageSample``: a captioning dataset skips
    what has no caption.

    Source: Megatron-Energon 7.4.1. ``X.tar.idx`` holds uint64, little-endian: the offset of each
    sample's first header, and where the blocks start that end the tar.
    """

    name = "energon"
    suffix = ".tar.idx"
    files = (
        f"{META}/.info.json",
        f"{META}/dataset.yaml",
        f"{META}/index.uuid",
        f"{META}/split.yaml",
    )

    def of_shard(self, members: Members) -> bytes:
        """Return where the samples of a tar start, and where the last one ends."""
        firsts = np.array(members.offsets, np.uint64)[members.borders[:-1]] - tar.BLOCK
        return np.append(firsts, np.uint64(members.end)).astype("<u8").tobytes()

    def of_dataset(self, dataset: Dataset, desk: Desk) -> dict[str, bytes | Path]:  # noqa: ARG002
        """Return the files of ``.nv-meta``, but for the database of :mod:`energon_sqlite`."""
        counts = {shard.tar.name: shard.samples for shard in dataset.shards}
        info = {
            "energon_version": ENERGON_VERSION,
            "shard_counts": {name: counts[name] for name in sorted(counts)},
        }
        named: dict[str, list[str]] = {}
        for split, shards in dataset.splits.items():
            named.setdefault(split or "train", []).extend(shard.tar.name for shard in shards)
        parts = {split: collapse(sorted(names)) for split, names in named.items()}
        if parts.keys() == {"train"}:
            parts |= {"val": [], "test": []}
        splits = {"split_parts": parts, "exclude": []}
        files = {
            ".info.json": json.dumps(info, indent=2),
            "dataset.yaml": yaml.safe_dump(sample_type(dataset.contents), sort_keys=False),
            "index.uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, dataset.plan_sha256)),
            "split.yaml": yaml.safe_dump(splits, sort_keys=False),
        }
        return {f"{META}/{name}": text.encode() for name, text in files.items()}


def sample_type(contents: Contents) -> dict[str, object]:
    """Return ``dataset.yaml``: which of Energon's samples these are, and their fields."""
    captioned = contents.members.get("txt") == contents.samples
    fields = {"image": ",".join(contents.images)} | ({"caption": "txt"} if captioned else {})
    name = "CaptioningSample" if captioned else "ImageSample"
    return {
        "sample_type": {"__module__": "megatron.energon", "__class__": name},
        "field_map": fields,
    }
