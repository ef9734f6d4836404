"""What people read on the dataset card."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.export.dataset import DROPPED, MANIFEST
from pixsieve.export.indexes import markdown
from pixsieve.export.indexes.columns import meaning
from pixsieve.export.indexes.patterns import collapse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pixsieve.export.finished import Dataset, Shard

_LICENSES = ("license", "licence")
_MOST_ROWS = 25
"""Inputs and licences beyond are counted, not listed."""
_STEP = 1000


def body(dataset: Dataset, splits: Mapping[str, Sequence[Shard]]) -> str:
    """Return the card's Markdown below its front matter.

    Args:
        dataset: The export.
        splits: Shards of each split by its name on the card.
    """
    return "\n\n".join(_paragraphs(dataset, splits))


def _paragraphs(dataset: Dataset, splits: Mapping[str, Sequence[Shard]]) -> Iterator[str]:
    card = dataset.card
    yield f"# {markdown.text(card.get('pretty_name') or dataset.name)}"
    if card.get("description"):
        yield card["description"].strip()
    size = sum(shard.tar.size for shard in dataset.shards)
    shards = _number(len(dataset.shards), "tar")
    yield (
        f"{_number(dataset.samples, 'image')} in {shards}, {_bytes(size)}. "
        + _members(dataset)
        + " Beside each tar lies a Parquet file with a row for each of its samples, in the order "
        "of the tar."
    )
    yield "![Some of the images](samples.jpg)"
    yield from _splits(splits)
    yield from _loading(splits)
    yield from _provenance(dataset)
    yield from _columns(dataset)
    yield from _licences(dataset)
    if card.get("citation"):
        yield "## Citation"
        yield markdown.block(card["citation"].strip(), "")


def _members(dataset: Dataset) -> str:
    contents = dataset.contents
    images = [f"{markdown.code(name)} ({count:,})" for name, count in contents.images.items()]
    text = f"The images are {', '.join(images)}."
    others = [
        markdown.code(name) + ("" if count == contents.samples else f" ({count:,})")
        for name, count in contents.members.items()
    ]
    return text + (f" Other members: {', '.join(others)}." if others else "")


def _splits(splits: Mapping[str, Sequence[Shard]]) -> Iterator[str]:
    rows = []
    for name, shards in splits.items():
        split = shards[0].split
        told = markdown.code(name)
        if split is not None and split != name:
            told += f" (in columns and file names: {markdown.code(split)})"
        count = sum(shard.samples for shard in shards)
        size = sum(shard.tar.size for shard in shards)
        rows.append([told, f"{count:,}", f"{len(shards):,}", _bytes(size)])
    yield "## Splits"
    yield markdown.table(["split", "images", "tars", "size"], rows)


def _loading(splits: Mapping[str, Sequence[Shard]]) -> Iterator[str]:
    first = collapse([shard.tar.name for shard in next(iter(splits.values()))])[0]
    names = ", ".join(splits)
    yield "## Loading"
    yield "With `FOLDER` as the path of this folder, or as the dataset's name on the hub:"
    yield markdown.block(
        f'from datasets import load_dataset\n\ndata = load_dataset("FOLDER")  # {names}', "python"
    )
    yield "The tars as a stream:"
    yield markdown.block(
        f'import webdataset\n\ndata = webdataset.WebDataset("FOLDER/{first}").decode("pil")',
        "python",
    )
    yield (
        "The rows alone, in which `member_offset` and `member_size` say where in its tar each "
        "image lies:"
    )
    yield markdown.block(
        'import polars\n\nrows = polars.read_parquet("FOLDER/*.parquet")', "python"
    )


def _provenance(dataset: Dataset) -> Iterator[str]:
    yield "## How it was made"
    yield f"By pixsieve, from {_number(dataset.counts['indexed'], 'sample')} of these sources:"
    shown = [
        [markdown.code(source["path"]), f"{source['samples']:,}", markdown.code(source["sha256"])]
        for source in dataset.inputs[:_MOST_ROWS]
    ]  # fmt: skip
    yield markdown.table(["source", "samples", "SHA-256 of keys and contents"], shown)
    if len(dataset.inputs) > _MOST_ROWS:
        yield f"… and {len(dataset.inputs) - _MOST_ROWS:,} more, which `{MANIFEST}` lists."
    yield "What became of them:"
    funnel = [
        [markdown.code(row["stage"]), markdown.text(row["status"]), markdown.code(row["reason"]),
         f"{row['count']:,}"]
        for row in dataset.reasons
    ]  # fmt: skip
    kept = ["", "**kept**", "", f"**{dataset.samples:,}**"]
    yield markdown.table(["stage", "status", "reason", "samples"], [*funnel, kept])
    yield f"`{DROPPED}` has a row for each sample that is not here. The recipe, with all filters:"
    yield markdown.block(dataset.recipe.rstrip("\n"), "yaml")


def _columns(dataset: Dataset) -> Iterator[str]:
    yield "## Columns of the rows"
    yield markdown.table(
        ["column", "type", "meaning"],
        [
            [markdown.code(field.name), markdown.code(_type(field)), markdown.text(meaning(field))]
            for field in dataset.columns
        ],
    )


def _type(field: pa.Field) -> str:
    """Return a type without the names that lists give to what is in them."""
    return re.sub(r"<(item|element): ", "<", str(field.type))


def _licences(dataset: Dataset) -> Iterator[str]:
    card = dataset.card
    yield "## Licences and privacy"
    if card.get("license"):
        name = card.get("license_name") or card["license"]
        link = f" ({markdown.text(card['license_link'])})" if card.get("license_link") else ""
        yield f"The dataset's licence is {markdown.text(name)}{link}."
    column = license_column(dataset.columns)
    if column is None:
        yield "Each image keeps the licence that it came with; the rows have no column of it."
    else:
        yield f"Licences of the images, by the column {markdown.code(column)}:"
        counts = _counted(dataset, column)
        rows = [
            [markdown.text("not known" if name is None else name), f"{count:,}"]
            for name, count in counts[:_MOST_ROWS]
        ]
        more = sum(count for _, count in counts[_MOST_ROWS:])
        if more:
            rows.append([f"{len(counts) - _MOST_ROWS:,} others", f"{more:,}"])
        yield markdown.table(["licence", "images"], rows)
    yield dataset.privacy


def license_column(columns: pa.Schema) -> str | None:
    """Return the column of text that has the licence of each image, if there is one."""
    for field in columns:
        role = (field.metadata or {}).get(b"role")
        if pa.types.is_string(field.type) and (
            role == b"license" or field.name.lower() in _LICENSES
        ):
            return str(field.name)
    return None


def _counted(dataset: Dataset, column: str) -> list[tuple[str | None, int]]:
    """Return the values of a column with their numbers, the most frequent first."""
    counts = Counter[str | None]()
    for shard in dataset.shards:
        for found in pc.value_counts(dataset.sidecar(shard, [column])[column]).to_pylist():
            counts[found["values"]] += found["counts"]
    return sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def _bytes(size: float) -> str:
    if size < _STEP:
        return _number(int(size), "byte")
    for unit in ("kB", "MB", "GB"):
        size /= _STEP
        if size < _STEP:
            return f"{size:.3g} {unit}"
    return f"{size / _STEP:,.4g} TB"
