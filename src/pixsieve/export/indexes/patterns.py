"""Many file names in few words: brace ranges and globs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pixsieve.export.finished import Dataset, Shard

_NUMBERS = re.compile(r"(\d+)")


def sidecars(dataset: Dataset) -> str:
    """Return a glob that all sidecars match and no other file, also where ``*`` takes slashes."""
    stems = {_stem(shard) for shard in dataset.shards}
    between = "" if stems == {f"{dataset.prefix}-{dataset.hash}"} else "*"
    return f"{dataset.prefix}-{between}{dataset.hash}-*.parquet"


def tars(shards: Iterable[Shard], others: Iterable[Shard]) -> list[str]:
    """Return globs that match the tars of these shards and none of the others, in their order.

    Where a glob would match a tar of the others, the names of the tars stand instead.
    """
    foreign = {f"{_stem(shard)}-" for shard in others}
    found = dict.fromkeys(f"{_stem(shard)}-" for shard in shards)
    plain = {stem for stem in found if any(other.startswith(stem) for other in foreign)}
    if not plain:
        return [f"{stem}*.tar" for stem in found]
    return [shard.tar.name for shard in shards]


def _stem(shard: Shard) -> str:
    """Return a tar's name up to its number."""
    return shard.tar.name.rpartition("-")[0]


def collapse(names: Sequence[str]) -> list[str]:
    """Write runs of names that differ in one number, which counts up by one, as brace ranges.

    ``["a-08.tar", "a-09.tar", "b.tar"]`` is ``["a-{08..09}.tar", "b.tar"]``. Energon's tool does
    the same, in which order and with which names the ranges are spelled out again.
    """
    parts = [_NUMBERS.split(name) for name in names]  # text, number, text, ..., text
    found: list[str] = []
    start = 0
    while start < len(names):
        at: int | None = None
        stop = start + 1
        while stop < len(names):
            counts = _counts_up(parts[stop - 1], parts[stop])
            if counts is None or counts != (at or counts):
                break
            at, stop = counts, stop + 1
        if at is None:
            found.append(names[start])
        else:
            first, last = parts[start], parts[stop - 1]
            span = f"{{{first[at]}..{last[at]}}}"
            found.append("".join([*first[:at], span, *first[at + 1 :]]))
        start = stop
    return found


def _counts_up(before: Sequence[str], after: Sequence[str]) -> int | None:
    """Return the place of the one number that is by one larger, in as many digits."""
    if len(before) != len(after) or before[::2] != after[::2]:
        return None
    pairs = zip(before, after, strict=True)
    places = [place for place, (old, new) in enumerate(pairs) if place % 2 and int(old) != int(new)]
    if len(places) != 1:
        return None
    old, new = before[places[0]], after[places[0]]
    return places[0] if len(old) == len(new) and int(new) == int(old) + 1 else None
