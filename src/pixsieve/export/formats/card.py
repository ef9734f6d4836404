"""The card of a format's folder, by which ``datasets.load_dataset`` finds splits and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from pixsieve.export.indexes import markdown
from pixsieve.export.indexes.card import hub_splits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixsieve.export.finished import Dataset, Shard


def card(dataset: Dataset, paths: Callable[[Sequence[Shard]], list[str]]) -> bytes:
    """Return ``README.md`` with the files, or patterns of files, of each split's shards.

    Splits have the names that they have on the dataset's own card.
    """
    splits = hub_splits(dataset)
    files = [{"split": name, "path": paths(shards)} for name, shards in splits.items()]
    front = {"configs": [{"config_name": "default", "data_files": files}]}
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=1000)
    counts = "".join(
        f"- {name}: {sum(shard.samples for shard in shards)} images\n"
        for name, shards in splits.items()
    )
    return f"---\n{text}---\n\n# {markdown.text(dataset.name)}\n\n{counts}".encode(errors="replace")
