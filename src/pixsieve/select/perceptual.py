"""Drop images that look like a better one, by their perceptual hashes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.errors import PlanError
from pixsieve.select import against, groups, hamming, policy
from pixsieve.select.base import Verdicts
from pixsieve.select.hamming import Hashes
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

REASON = "perceptual_duplicate"
GROUP = "perceptual_group"
_USUAL = ("phash", "dhash", "pdq")
_LIMITS = {"phash": 6, "dhash": 5, "pdq": 32}
_LIMITS_BESIDE_PDQ = {"phash": 8, "dhash": 16, "pdq": 44}
_LIMIT_OF_A_WORD = 4  # of other hashes, for each 64 bits
_WORD = 64
_WIDTHS = (8, 16, 24, 32)
_MOST = 4  # a limit is at most the bits divided by this


@dataclass(frozen=True, slots=True, kw_only=True)
class PerceptualDeduplicationStage(SelectStage):
    """Drops images that are like a better one in every perceptual hash that there is.

    Two images are duplicates if each of their hashes differs in at most its limit of bits. All of
    several hashes must agree, so that each may differ more than it could alone. No such pair is
    missed. Groups are built round the image that stays: each image that is dropped is a duplicate
    of the one that is named, which stays. Images without a hash stay.

    The usual limits are 8 of 64 bits of ``phash``, 16 of 64 of ``dhash`` and 44 of 256 of ``pdq``;
    without ``pdq`` 6 and 5, and 32 for ``pdq`` alone, which takes 47 CPU s for a million images.
    Over 200 photographs they find every one that was saved again (quality 30 to 95), resized (25 to
    200 %), made darker or grey, 97 % at brightness 1.4 and 99 % with small text or 2 % cropped
    (without ``pdq`` 82, 99 and 83 %), and call no two of the photographs, 150 pages of text and 150
    charts alike; the nearest two charts differ in 48 bits of ``pdq``. These hashes do not find
    larger crops.

    Needs columns of hashes, such as those of ``PerceptualHashStage(pdq=True)``.

    Args:
        columns: Hashes to compare; ``None`` for those of ``phash``, ``dhash`` and ``pdq`` that are
            there.
        max_distance: Bits of 64 in which each hash differs at most, in proportion for longer ones
            (four times as many of PDQ's 256); or by name the bits of each hash, such as
            ``{"phash": 8, "pdq": 40}``. At most a quarter of the bits. ``None`` for the usual ones.
            Searching a million takes 0.5 CPU s at 4, 2.3 at 6, 14 at 8.
        keep: Ordered keys of what is better, such as ``("resolution desc", "file_size")``; ``None``
            for the usual ones. See :mod:`pixsieve.select.policy`.
        merge: Columns of text of which the kept image takes over what those dropped for it have, as
            ``merged_caption`` for ``caption``.
        against: An earlier dataset, or a Parquet file or a folder of them, with ``image_id`` and
            the same columns: what is a duplicate of one of its images is dropped.
        action: ``"drop"``, or ``"group"``: drop nothing and add ``perceptual_group``, the smallest
            id of all images that are linked by pairs, for splits; null for images in no pair.
    """

    columns: tuple[str, ...] | None = None
    max_distance: int | dict[str, int] | None = None
    keep: tuple[str, ...] | None = None
    merge: tuple[str, ...] = ()
    against: str | None = None
    action: Literal["drop", "group"] = "drop"

    def __post_init__(self) -> None:
        check_fields(self)
        told = None
        if isinstance(self.max_distance, int) and not 0 <= self.max_distance <= _WORD // _MOST:
            told = f"max_distance is {self.max_distance}; expected 0 to {_WORD // _MOST} bits of 64"
        elif self.columns is not None and len(set(self.columns)) < max(1, len(self.columns)):
            told = f"columns is {self.columns}; name each hash once, or leave it out"
        elif self.action == "group" and (self.merge or self.against is not None):
            told = 'action="group" drops nothing; leave merge and against out'
        if told:
            msg = f"PerceptualDeduplicationStage: {told}"
            raise PlanError(msg)

    def reads(self) -> tuple[str, ...]:
        named = (*(self.columns or ()), *policy.named(self.keep), *self.merge)
        return tuple(dict.fromkeys(("image_id", *named)))

    def adds(self) -> pa.Schema:
        if self.action == "drop":
            return pa.schema(groups.merged_fields(self.merge))
        return pa.schema([groups.group_field(GROUP)])

    def check(self, columns: pa.Schema) -> None:
        fields = self._fields(columns)
        self._limits(fields)
        groups.check_merge(type(self).__name__, self.merge, columns)
        policy.columns(self.keep, columns)
        if self.against is not None:
            against.check(type(self).__name__, self.against, pa.schema(fields))

    def warnings(self, columns: pa.Schema) -> tuple[str, ...]:
        if [each.name for each in self._fields(columns)] != ["phash"]:
            return ()
        return (
            "phash alone calls different charts and pages of text alike; compare dhash or pdq, too",
        )

    def digests(self) -> tuple[str, ...]:
        return () if self.against is None else against.digests(self.against)

    def without_places(self) -> Self:
        """Name the earlier dataset without where it lies; its digest says which it is."""
        if self.against is None:
            return self
        return dataclasses.replace(self, against=against.name(self.against))

    def decide(self, rows: Rows) -> Verdicts:
        fields = self._fields(rows.columns)
        names = [each.name for each in fields]
        ranks = policy.ranks(rows, self.keep)
        numbers, words = _read(rows, fields)
        order = np.argsort(ranks[numbers])
        numbers = numbers[order]
        for at, column in enumerate(words):  # one after the other: they are most of the memory
            words[at] = column[order]
        limits = self._limits(fields)
        if self.action == "group":
            hashes = Hashes(columns=tuple(words), limits=limits)
            return Verdicts(reason=REASON, columns={GROUP: _groups(rows, numbers, hashes)})
        earlier = None
        fixed = 0
        if self.against is not None:
            ids, theirs = _earlier(self.against, fields)
            earlier = groups.Earlier(name=against.name(self.against), ids=ids)
            fixed = len(ids)
            numbers = np.concatenate([len(rows) + np.arange(fixed), numbers])
            words = [np.concatenate(pair) for pair in zip(theirs, words, strict=True)]
        hashes = Hashes(columns=tuple(words), limits=limits)
        keeper = hamming.keepers(hashes, fixed)
        gone = np.flatnonzero(keeper >= 0)
        gone = gone[np.argsort(numbers[gone])]
        distances = hashes.distances(gone, keeper[gone])
        leaders = groups.Leaders(
            dropped=numbers[gone],
            keeper=numbers[keeper[gone]],
            rank=ranks[numbers[gone]],
        )
        told = _evidence(names, distances, limits)
        return groups.verdicts(rows, leaders, REASON, told, self.merge, earlier)

    def _fields(self, columns: pa.Schema) -> list[pa.Field]:
        """Return the columns of hashes that are compared.

        Raises:
            PlanError: there are none, or a named one is no hash.
        """
        have = [
            each.name
            for each in columns
            if pa.types.is_fixed_size_binary(each.type) and each.type.byte_width in _WIDTHS
        ]
        wanted = self.columns
        if wanted is None:
            wanted = tuple(name for name in _USUAL if name in have)
        absent = [name for name in wanted if name not in have]
        if absent or not wanted:
            what = (
                f"columns names {absent[0]!r}, which is no hash" if absent else "there is no hash"
            )
            msg = (
                f"PerceptualDeduplicationStage: {what}; there are: {', '.join(have) or 'none'}. "
                "Add PerceptualHashStage() before it"
            )
            raise PlanError(msg)
        return [columns.field(name) for name in wanted]

    def _limits(self, fields: list[pa.Field]) -> tuple[int, ...]:
        """Return in how many bits each hash differs at most.

        Raises:
            PlanError: one that is named is not compared, is not given, or has too many bits.
        """
        names = [each.name for each in fields]
        bits = {each.name: 8 * each.type.byte_width for each in fields}
        given = self.max_distance
        if given is None:
            usual = _LIMITS_BESIDE_PDQ if "pdq" in names and len(names) > 1 else _LIMITS
            of_words = {name: _LIMIT_OF_A_WORD * bits[name] // _WORD for name in names}
            return tuple(usual.get(name, of_words[name]) for name in names)
        if isinstance(given, int):
            return tuple(given * bits[name] // _WORD for name in names)
        if set(given) != set(names):
            msg = (
                f"PerceptualDeduplicationStage: max_distance is for {', '.join(given)}; expected "
                f"one for each of {', '.join(names)}, or columns=... that names those to compare"
            )
            raise PlanError(msg)
        for name, limit in given.items():
            if not 0 <= limit <= bits[name] // _MOST:
                msg = (
                    f"PerceptualDeduplicationStage: max_distance of {name} is {limit}; expected 0 "
                    f"to {bits[name] // _MOST} of its {bits[name]} bits"
                )
                raise PlanError(msg)
        return tuple(given[name] for name in names)


def _read(rows: Rows, fields: list[pa.Field]) -> tuple[NDArray[np.int64], list[NDArray[np.uint64]]]:
    """Return the kept rows that have all hashes: numbers (n,), and for each hash (n, words)."""
    numbers = [np.empty(0, np.int64)]
    words = [[_words(pa.nulls(0, each.type))] for each in fields]
    for batch in rows.batches([each.name for each in fields]):
        there = batch.kept.copy()
        for each in fields:
            there &= batch.columns[each.name].is_valid().to_numpy()
        at = np.flatnonzero(there)
        numbers.append(batch.first + at)
        for each, found in zip(fields, words, strict=True):
            found.append(_words(batch.columns[each.name].combine_chunks().take(pa.array(at))))
    return np.concatenate(numbers), [np.concatenate(found) for found in words]


def _words(column: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return binary values without nulls as words of 64 bits: uint64 (n, words)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    width = column.type.byte_width
    if not len(column):
        return np.empty((0, width // 8), np.uint64)
    data = np.frombuffer(column.buffers()[1], np.uint64, offset=0)
    first = column.offset * width // 8
    return data[first : first + len(column) * width // 8].reshape(len(column), -1).copy()


def _earlier(path: str, fields: list[pa.Field]) -> tuple[pa.Array, list[NDArray[np.uint64]]]:
    """Return ids and hashes of an earlier dataset, by id: the order of files decides nothing."""
    ids = [pa.array([], pa.string())]
    words = [[_words(pa.nulls(0, each.type))] for each in fields]
    for table in against.read(path, [each.name for each in fields]):
        there = np.ones(len(table), np.bool_)
        for each in fields:
            there &= table[each.name].is_valid().to_numpy()
        whole = table.filter(pa.array(there))
        ids.append(whole["image_id"].cast(pa.string()).combine_chunks())
        for each, found in zip(fields, words, strict=True):
            found.append(_words(whole[each.name].cast(each.type)))
    names = pa.concat_arrays([_array(each) for each in ids])
    order = pc.sort_indices(names).to_numpy()
    return names.take(pa.array(order)), [np.concatenate(found)[order] for found in words]


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _evidence(
    names: list[str], distances: list[NDArray[np.int64]], limits: tuple[int, ...]
) -> Iterator[dict[str, object]]:
    """Yield for each dropped row in how many bits it differs from what stays, and the limits."""
    limit = dict(zip(names, limits, strict=True))
    for apart in zip(*(each.tolist() for each in distances), strict=True):
        bits = dict(zip(names, apart, strict=True))
        yield {"method": "hamming", "distance": bits, "max_distance": limit}


def _groups(rows: Rows, numbers: NDArray[np.int64], hashes: Hashes) -> pa.Array:
    """Return for every row the smallest id of its component; null for rows in no pair."""
    labels = hamming.components(hashes)
    member = np.bincount(labels, minlength=len(labels))[labels] > 1
    order = np.flatnonzero(member)
    order = order[np.argsort(numbers[order])]
    numbers, labels = numbers[order], labels[order]
    ids = rows.take(numbers, ("image_id",))["image_id"].combine_chunks()
    by_id = pc.sort_indices(ids).to_numpy()
    _, first, group = np.unique(labels[by_id], return_index=True, return_inverse=True)
    at = np.full(len(rows), -1, np.int64)
    at[numbers[by_id]] = by_id[first[group]]
    return ids.take(pa.array(at, mask=at < 0))
