"""The card of a format's folder, by which ``datasets.load_dataset`` finds splits and files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

from pixsieve.export.formats.columns import UNSPLIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pixsieve.export.finished import Dataset


def card(dataset: Dataset, files: Mapping[str | None, Sequence[str]]) -> bytes:
    """Return ``README.md`` with the files, or patterns of files, of each split.

    Names of splits are letters, digits and ``_`` there; others become ``_``.
    """
    splits = [
        {"split": re.sub(r"\W", "_", split or UNSPLIT), "path": list(paths)}
        for split, paths in files.items()
    ]
    front = {"configs": [{"config_name": "default", "data_files": splits}]}
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    counts = "".join(
        f"- {split or UNSPLIT}: {sum(shard.samples for shard in shards)} images\n"
        for split, shards in dataset.splits.items()
    )
    return f"---\n{text}---\n\n# {dataset.name}\n\n{counts}".encode()
