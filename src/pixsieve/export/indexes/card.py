"""The dataset card: what Hugging Face's ``load_dataset`` goes by, and what people read."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import yaml

from pixsieve.errors import PlanError, nearest
from pixsieve.export.indexes import samples
from pixsieve.export.indexes.base import Index
from pixsieve.export.indexes.card_text import body
from pixsieve.export.indexes.features import features
from pixsieve.export.indexes.patterns import tars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pixsieve.export.finished import Dataset, Shard
    from pixsieve.export.indexes.base import Desk

_LISTS = (
    "language", "task_categories", "task_ids", "tags", "annotations_creators", "language_creators",
    "multilinguality", "source_datasets",
)  # fmt: skip
_WORDS = ("license", "license_name", "license_link", "pretty_name", "paperswithcode_id")
_BODY = ("description", "homepage", "citation", "creator", "version", "date_published")
KEYS = (*_WORDS, *_LISTS, *_BODY)
"""What a writer's ``card`` may say; ``description`` is Markdown, lists have commas."""

_TAGS = "image, webdataset"
_DECIMALS = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M",
             "100M<n<1B", "1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T")  # fmt: skip
_ALL = "all"
_HUB_NAME = re.compile(r"[A-Za-z0-9_]+")
_SEAL = re.compile(rb"\n<!-- pixsieve ([0-9a-f]{16}) -->\n\Z")


class CardIndex(Index):
    """``README.md`` with ``samples.jpg``: the card of the dataset.

    Its front matter names the tars of each split, declares the columns in them, and says how many
    samples there are, so that ``datasets.load_dataset(FOLDER)`` reads them: without it, the
    sidecars would be taken for the dataset. Its last line has a digest, by which a card is known
    that somebody has written into.

    Source: the metadata of dataset cards as huggingface_hub and datasets 5.0 read it.
    """

    name = "card"
    version = 2
    files = ("README.md", "samples.jpg")

    def of_dataset(self, dataset: Dataset, desk: Desk) -> dict[str, bytes | Path]:
        """Return the card and the picture in it."""
        matter = yaml.safe_dump(
            front_matter(dataset), sort_keys=False, allow_unicode=True, width=100
        )
        text = f"---\n{matter}---\n\n" + body(dataset, hub_splits(dataset)) + "\n"
        data = text.encode(errors="replace")
        seal = f"\n<!-- pixsieve {_digest(data)} -->\n".encode()
        return {"README.md": data + seal, "samples.jpg": samples.picture(dataset, desk.guard)}

    def is_edited(self, data: bytes) -> bool:
        """Tell whether a ``README.md`` is none that was written here, or was changed since.

        Of a picture nobody can tell.
        """
        if data.startswith(b"\xff\xd8"):
            return False
        seal = _SEAL.search(data)
        return seal is None or seal[1].decode() != _digest(data[: seal.start()])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def check(card: Mapping[str, str]) -> None:
    """Raise ``PlanError`` if a writer's ``card`` says what no card has."""
    for key in card:
        if key not in KEYS:
            msg = f"card has {key!r}; expected any of {', '.join(KEYS)}{nearest(key, KEYS)}"
            raise PlanError(msg)


def front_matter(dataset: Dataset) -> dict[str, Any]:
    """Return what the card says to programs."""
    card = {"pretty_name": dataset.name, "tags": _TAGS} | dict(dataset.card)
    told: dict[str, Any] = {key: card[key] for key in _WORDS if card.get(key)}
    told |= {key: listed(card[key]) for key in _LISTS if card.get(key)}
    splits = hub_splits(dataset)
    sizes = {name: sum(shard.tar.size for shard in shards) for name, shards in splits.items()}
    return told | {
        "size_categories": [size_category(dataset.samples)],
        "configs": [
            {
                "config_name": "default",
                "default": True,
                "data_files": [
                    {"split": name, "path": _paths(name, splits)} for name, shards in splits.items()
                ],
            }
        ],
        "dataset_info": {
            "config_name": "default",
            "features": features(dataset.contents),
            "splits": [
                {
                    "name": name,
                    "num_bytes": sizes[name],
                    "num_examples": sum(shard.samples for shard in shards),
                }
                for name, shards in splits.items()
            ],
            "download_size": sum(sizes.values()),
            "dataset_size": sum(sizes.values()),
        },
    }


def listed(value: str) -> list[str]:
    """Return the words of a list with commas."""
    return [word for part in value.split(",") if (word := part.strip())]


def hub_splits(dataset: Dataset) -> dict[str, list[Shard]]:
    """Return the shards of each split by the name that it has on the card.

    Names there have letters, digits and ``_``, so another character becomes that, and ``all`` means
    all of them; where a name is taken, a number follows. What has no split is in ``train``.
    """
    splits = dataset.splits
    valid = {split for split in splits if split is not None and _HUB_NAME.fullmatch(split)}
    valid -= {_ALL}
    taken = valid | {_ALL}
    found: dict[str, list[Shard]] = {}
    for split, shards in splits.items():
        name = "train" if split is None else split
        if split is not None and split not in valid:
            name = plain = re.sub(r"[^A-Za-z0-9_]", "_", split)
            number = 2
            while name in taken:
                name, number = f"{plain}_{number}", number + 1
            taken.add(name)
        found.setdefault(name, []).extend(shards)
    return found


def size_category(samples: int) -> str:
    """Return the hub's word for a number of samples."""
    return _DECIMALS[min(max(len(str(samples)) - 3, 0), len(_DECIMALS) - 1)]


def _paths(name: str, splits: Mapping[str, Sequence[Shard]]) -> str | list[str]:
    others = [shard for other, shards in splits.items() if other != name for shard in shards]
    found = tars(splits[name], others)
    return found[0] if len(found) == 1 else found
