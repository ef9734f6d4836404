"""Give every sample a side: training, validation, test, without leaks between them."""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.errors import PlanError
from pixsieve.select import against
from pixsieve.select.base import Verdicts
from pixsieve.select.components import linked
from pixsieve.select.keys import mix64
from pixsieve.select.values import check_scalar, groups, hashed, told
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DIGEST_TEXT = 16
"""Digits of a SHA-256 that tell images apart: 64 bits."""
_NONE = np.uint64(2**64 - 1)
_OF_EARLIER = ("original_sha256", "split")


@dataclass(frozen=True, slots=True)
class SplitStage(SelectStage):
    """Divides the kept samples into splits; related ones are never divided.

    **Groups.** Rows stay together that share the bytes of their image, a value of any column of
    ``by``, or a value of a column that an earlier deduplication added to say which images are alike
    (its metadata has ``role=duplicate_group``), also by way of others. Null holds nothing together.

    **By hash**, the default: a group's side follows from a hash of it and the seed alone. Shares
    are met up to chance, and data that comes or goes moves nothing else. What is hashed is the
    group's value in the first column of ``by`` that has one in it, else the digest of its image; of
    several, the one with the smallest hash. So appended data can move what was there in one case
    only: it joins groups that were apart (a copy that belongs to two persons), or comes to a group
    of several images that ``by`` has no value for. ``earlier`` prevents that, too.

    **Exact**: groups are dealt in the order of their hashes, so that each split has its share of
    the samples as nearly as groups allow: single samples by largest remainder, and no group could
    be moved to bring the numbers nearer. The borders then depend on all samples: nothing can be
    both exact and stable under appended data, except with ``earlier``, which makes it so.

    Notes say what was asked for and what it came to. The order of splits is by share, the largest
    first, and by name. Takes about 50 bytes a row, 90 with ``by`` or exact shares.

    Args:
        shares: The share of each split by its name; above 0, and 1 together. Names are of
            ``a-z 0-9 _ -``, 32 at most.
        by: Column, or columns, whose equal values hold rows together: a person, video or product.
        stratify: A column of classes that each is divided by the shares; implies ``exact``. A group
            is of the class that most of its rows have; of equally many, the one whose value has the
            smallest hash.
        exact: Whether shares are met exactly instead of up to chance.
        earlier: An earlier dataset, or a Parquet file with ``image_id``, ``original_sha256`` and
            ``split``. What has a side there (by its id, else by its bytes) keeps it, and so does
            every group with such a sample; if they were on several sides, the new ones join the
            larger part. With ``exact``, what is new fills up the shares of the whole.
        seed: Seed of this stage; ``None`` takes the pipeline's.
    """

    shares: dict[str, float]
    _: KW_ONLY
    by: str | tuple[str, ...] | None = None
    stratify: str | None = None
    exact: bool = False
    earlier: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.shares:
            msg = 'SplitStage: shares is empty; expected such as {"train": 0.9, "val": 0.1}'
            raise PlanError(msg)
        for name, share in self.shares.items():
            if not _NAME.fullmatch(name):
                msg = (
                    f"SplitStage: the split {name!r} cannot be part of a file's name; "
                    "expected up to 32 of a-z, 0-9, _ and -, the first a letter or digit"
                )
                raise PlanError(msg)
            if not 0 < share <= 1:
                msg = f"SplitStage: the share of {name!r} is {share:g}; expected above 0, up to 1"
                raise PlanError(msg)
        total = sum(self.shares.values())
        if abs(total - 1) > 1e-9:  # noqa: PLR2004
            msg = f"SplitStage: the shares come to {total:g}; expected 1"
            raise PlanError(msg)
        twice = [name for name in self._by() if self._by().count(name) > 1]
        if twice:
            msg = f"SplitStage: by names {twice[0]!r} twice; name each column once"
            raise PlanError(msg)

    def reads(self) -> tuple[str, ...]:
        more = (self.stratify,) if self.stratify is not None else ()
        return tuple(dict.fromkeys(("image_id", "sha256", *self._by(), *more)))

    def check(self, columns: pa.Schema) -> None:
        for name in self._by():
            check_scalar(columns, name, "SplitStage: by")
        if self.stratify is not None:
            check_scalar(columns, self.stratify, "SplitStage: stratify")
        if self.earlier is not None:
            wanted = pa.schema([(name, pa.string()) for name in _OF_EARLIER])
            against.check("SplitStage", self.earlier, wanted, "earlier")
            _check_splits(self.earlier, tuple(self.shares))

    def digests(self) -> tuple[str, ...]:
        return () if self.earlier is None else against.digests(self.earlier)

    def without_places(self) -> Self:
        """Say that there is an earlier dataset, not where; its digest says which it is."""
        return self if self.earlier is None else dataclasses.replace(self, earlier="earlier")

    def decide(self, rows: Rows) -> Verdicts:
        names = sorted(self.shares, key=lambda name: (-self.shares[name], name))
        shares = np.array([self.shares[name] for name in names])
        kept = np.flatnonzero(rows.kept)
        old, base = _sides(rows, len(kept), self.earlier, names)
        seed = rows.seed if self.seed is None else self.seed
        labels, keys = self._groups(rows, base, seed)
        sizes = np.bincount(labels, minlength=len(keys))
        fixed, several = _settled(labels, old, len(keys), len(names))
        strata = None
        if self.stratify is not None:
            strata = groups(rows, self.stratify)
        if self.exact or strata is not None:
            codes = np.zeros(len(kept), np.int32) if strata is None else strata.codes
            dealer = _Dealer(shares, labels, sizes, keys, codes)
            chosen = dealer.deal(old, fixed)
        else:
            chosen = np.where(fixed >= 0, fixed, _by_hash(keys, shares))
        sides = np.where(old >= 0, old, chosen[labels])
        counts = np.bincount(sides, minlength=len(names))
        notes = [
            f"{name}: asked {share:.2%}, got {count / len(kept):.2%} ({count:,} of {len(kept):,})"
            if len(kept)
            else f"{name}: asked {share:.2%} of no sample at all"
            for name, share, count in zip(names, shares.tolist(), counts.tolist(), strict=True)
        ]
        if self.exact or strata is not None:
            notes.append(_off(counts, _rounded(len(kept) * shares, len(kept)), sizes))
        elif (largest := int(sizes.max(initial=0))) > max(1, len(kept) * shares.min()):
            notes.append(f"one group has {largest:,} of {len(kept):,} samples: no split divides it")
        if strata is not None and len(kept):
            named = [told(name) for name in strata.names]
            notes.append(_worst(strata.codes, sides, shares, names, named, str(self.stratify)))
        if self.earlier is not None:
            notes.append(f"{int((old >= 0).sum()):,} of {len(kept):,} keep their earlier side")
            if several.any():
                joined = int((several[labels] & (old < 0)).sum())
                notes.append(
                    f"{int(several.sum()):,} groups have earlier sides that differ: what was there "
                    f"keeps its own, {joined:,} new samples join the larger part"
                )
        split = np.full(len(rows), -1, np.int16)
        split[kept] = sides
        indices = pa.array(split, mask=split < 0)
        return Verdicts(
            split=pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string())),
            notes=tuple(notes),
        )

    def _by(self) -> tuple[str, ...]:
        if self.by is None:
            return ()
        return (self.by,) if isinstance(self.by, str) else tuple(self.by)

    def _groups(
        self, rows: Rows, images: NDArray[np.uint64], seed: int
    ) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
        """Return the number of each kept row's group, and each group's hash, ascending.

        Args:
            rows: All rows.
            images: A hash of each kept row's image, (n,).
            seed: Of the hashes.
        """
        count = len(images)
        labels = _joined(np.arange(count), images, None)
        for name in _duplicate_groups(rows.columns):
            values, valid = _column(rows, name, count)
            labels = _joined(labels, values, np.flatnonzero(valid))
        named = []
        for place, name in enumerate(self._by()):
            values, valid = _column(rows, name, count)
            members = np.flatnonzero(valid)
            labels = _joined(labels, values, members)
            # Equal values of two columns are two things.
            named.append((mix64(values[members] + np.uint64(place + 1)), members))
        least = np.full(count, _NONE)
        np.minimum.at(least, labels, images)
        for values, members in reversed(named):
            there = labels[members]
            least[there] = _NONE
            np.minimum.at(least, there, values)
        is_root = labels == np.arange(count)  # a label is the first row of its group
        codes = (np.cumsum(is_root, dtype=np.int32) - 1)[labels]
        del labels
        keys = mix64(least[is_root] ^ mix64(np.array([seed % 2**64], np.uint64)))
        del least
        order = np.argsort(keys, kind="stable")
        place_of = np.empty(len(order), np.int32)
        place_of[order] = np.arange(len(order), dtype=np.int32)
        return place_of[codes], keys[order]


def _duplicate_groups(columns: pa.Schema) -> list[str]:
    return [
        each.name
        for each in columns
        if (each.metadata or {}).get(b"role") == b"duplicate_group"
        and not pa.types.is_nested(each.type)
    ]


def _column(rows: Rows, name: str, count: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Return a hash of each kept row's value in a column, and whether it has one."""
    values, valid = np.empty(count, np.uint64), np.empty(count, np.bool_)
    done = 0
    for batch in rows.batches((name,)):
        hashes, there = hashed(batch.columns[name])
        here = int(batch.kept.sum())
        values[done : done + here] = hashes[batch.kept]
        valid[done : done + here] = there[batch.kept]
        done += here
    return values, valid


def _images(ids: NDArray[np.uint64], digests: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return a hash of each image's bytes by its SHA-256; where there is none, that of its id."""
    found, valid = hashed(pc.utf8_slice_codeunits(digests, 0, _DIGEST_TEXT))
    return np.where(valid, found, ids)


def _sides(
    rows: Rows, count: int, earlier: str | None, names: Sequence[str]
) -> tuple[NDArray[np.int16], NDArray[np.uint64]]:
    """Return for each kept row its earlier side, or -1, and a hash of its image."""
    known = None if earlier is None else _Earlier(earlier, names)
    old, images = np.full(count, -1, np.int16), np.empty(count, np.uint64)
    done = 0
    for batch in rows.batches(("image_id", "sha256")):
        ids, _ = hashed(batch.columns["image_id"])
        here = _images(ids, batch.columns["sha256"])
        run = slice(done, done + int(batch.kept.sum()))
        images[run] = here[batch.kept]
        if known is not None:
            old[run] = known.sides(ids, here)[batch.kept]
        done = run.stop
    return old, images


def _check_splits(path: str, names: Sequence[str]) -> None:
    """Raise ``PlanError`` unless an earlier dataset has splits, and none but these."""
    found = {
        name
        for table in against.read(path, ("split",))
        for name in pc.unique(table["split"].cast(pa.string())).drop_null().to_pylist()
    }
    if not found:
        msg = f"SplitStage: the earlier dataset {path} has no splits; leave earlier out"
        raise PlanError(msg)
    if strange := sorted(found - set(names)):
        msg = (
            f"SplitStage: the earlier dataset {path} has a split {strange[0]!r}, which shares "
            f"does not name ({', '.join(names)}); give it a share, or leave earlier out"
        )
        raise PlanError(msg)


class _Earlier:
    """The sides that an earlier export gave; 20 bytes for each of its samples."""

    def __init__(self, path: str, names: Sequence[str]) -> None:
        ids, images, sides = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)], []
        sides.append(np.empty(0, np.int16))
        for table in against.read(path, _OF_EARLIER):
            split = table["split"].cast(pa.string())
            side = pc.fill_null(pc.index_in(split, pa.array(names, pa.string())), -1)
            side = side.to_numpy().astype(np.int16)
            given = side >= 0
            here, _ = hashed(table["image_id"])
            ids.append(here[given])
            images.append(_images(here, table["original_sha256"])[given])
            sides.append(side[given])
        side = np.concatenate(sides)
        self._ids = _sorted(np.concatenate(ids), side)
        self._images = _sorted(np.concatenate(images), side)

    def sides(self, ids: NDArray[np.uint64], images: NDArray[np.uint64]) -> NDArray[np.int16]:
        """Return the earlier side of samples: by their ids, else by their images; else -1."""
        by_id = _found(self._ids, ids)
        return np.where(by_id >= 0, by_id, _found(self._images, images))


_Known = tuple["NDArray[np.uint64]", "NDArray[np.int16]"]


def _sorted(values: NDArray[np.uint64], sides: NDArray[np.int16]) -> _Known:
    order = np.lexsort((sides, values))
    return values[order], sides[order]


def _found(known: _Known, values: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Return the side of each value; of several the first of the splits; -1 for none."""
    hashes, sides = known
    at = np.minimum(np.searchsorted(hashes, values), len(hashes) - 1)
    return np.where(hashes[at] == values, sides[at], np.int16(-1))


def _joined(
    labels: NDArray[np.int64], values: NDArray[np.uint64], members: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Return labels that are equal where they were, or where ``members`` (or all) share a value."""
    if members is None:
        order = np.argsort(values, kind="stable")
    else:
        order = members[np.argsort(values[members], kind="stable")]
    again = np.flatnonzero(values[order[1:]] == values[order[:-1]]) + 1
    if not len(again):
        return labels
    ones, others = labels[order[again]], labels[order[again - 1]]
    del order, again
    return linked(np.arange(len(labels)), ones, others)[labels]


def _by_hash(keys: NDArray[np.uint64], shares: NDArray[np.float64]) -> NDArray[np.int16]:
    """Return the side of each group: uniform hashes, cut at the cumulated shares."""
    borders = [int(border * 2**64) for border in itertools.accumulate(shares.tolist())][:-1]
    cuts = np.array([min(border, 2**64 - 1) for border in borders], np.uint64)
    return np.searchsorted(cuts, keys, side="right").astype(np.int16)


def _settled(
    labels: NDArray[np.int32], old: NDArray[np.int16], count: int, sides: int
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Return the side that each group has from before, or -1, and whether it had several."""
    fixed = np.full(count, -1, np.int16)
    if not (old >= 0).any():
        return fixed, np.zeros(count, np.bool_)
    most, kinds = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for side in range(sides):
        have = np.bincount(labels[old == side], minlength=count)
        kinds += have > 0
        fixed[have > most] = side
        most = np.maximum(most, have)
    return fixed, kinds > 1


def _rounded(wanted: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Return whole numbers that sum to ``total``, by largest remainder; the first of equal ones."""
    whole = np.floor(wanted + 1e-9).astype(np.int64)
    whole[np.argsort(-(wanted - whole), kind="stable")[: total - int(whole.sum())]] += 1
    return whole


class _Dealer:
    """Deals groups to splits, class by class, so that the shares are met.

    Groups are in the order of their hashes.
    """

    def __init__(
        self,
        shares: NDArray[np.float64],
        labels: NDArray[np.int32],
        sizes: NDArray[np.int64],
        keys: NDArray[np.uint64],
        codes: NDArray[np.int32],
    ) -> None:
        self._shares = shares
        self._labels = labels
        self._sizes = sizes
        self._strata = _majority(labels, codes, len(keys))

    def deal(self, old: NDArray[np.int16], fixed: NDArray[np.int16]) -> NDArray[np.int16]:
        """Return the side of each group; ``old`` and ``fixed`` are those that are given."""
        chosen = fixed.copy()
        splits = len(self._shares)
        own = old >= 0
        side = np.where(own, old, fixed[self._labels])
        given = side >= 0
        classes = int(self._strata.max(initial=-1)) + 1
        where = self._strata[self._labels[given]] * splits + side[given]
        had = np.bincount(where, minlength=classes * splits).reshape(classes, splits)
        totals = np.bincount(self._strata, self._sizes, minlength=classes).astype(np.int64)
        free = np.flatnonzero(fixed < 0)
        if classes > 1:
            free = free[np.argsort(self._strata[free], kind="stable")]
        ends = np.cumsum(np.bincount(self._strata[free], minlength=classes))
        behind = np.zeros(splits)  # what splits lack so far; later classes make up for it
        for number in range(classes):
            here = free[ends[number - 1] if number else 0 : ends[number]]
            wanted = totals[number] * self._shares
            target = _with_debts(wanted, behind, int(totals[number]))
            room = np.maximum(target - had[number], 0)
            sizes = self._sizes[here]
            new = int(sizes.sum())
            if int(room.sum()) != new:
                room = _rounded(room * (new / max(int(room.sum()), 1)), new)
            dealt = _dealt(sizes, room)
            chosen[here] = dealt
            got = had[number] + np.bincount(dealt, sizes, minlength=splits).astype(np.int64)
            behind += wanted - got
        return chosen


def _with_debts(
    wanted: NDArray[np.float64], behind: NDArray[np.float64], total: int
) -> NDArray[np.int64]:
    """Return whole numbers near ``wanted``; what is left of ``total`` goes to who lacks most."""
    whole = np.floor(wanted + 1e-9).astype(np.int64)
    most = np.argsort(-(wanted - whole + behind).round(9), kind="stable")
    whole[most[: total - int(whole.sum())]] += 1
    return whole


def _majority(labels: NDArray[np.int32], codes: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Return the class that most rows of each group have; of several the first."""
    width = int(codes.max(initial=0)) + 1
    if width == 1:
        return np.zeros(count, np.int64)
    pairs, numbers = np.unique(labels.astype(np.int64) * width + codes, return_counts=True)
    group, code = pairs // width, pairs % width
    order = np.lexsort((code, -numbers, group))
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.asarray(code[order[first]], np.int64)


def _dealt(sizes: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.int16]:
    """Return the side of each of a row of groups, so that sides come to ``room`` rows each.

    The row is cut where the middle of a group passes a border; then groups are moved from sides
    with too many rows to such with too few, as long as that brings them nearer.
    """
    borders = np.cumsum(room)[:-1]
    middles = 2 * np.cumsum(sizes) - sizes
    sides = np.searchsorted(2 * borders, middles, side="right").astype(np.int16)
    while True:
        got = np.bincount(sides, sizes, minlength=len(room)).astype(np.int64)
        move = _move(sizes, sides, got - room)
        if move is None:
            return sides
        groups_, side = move
        sides[groups_] = side


def _move(
    sizes: NDArray[np.int64], sides: NDArray[np.int16], off: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int] | None:
    """Return groups to move, and where to, so that less is ``off``; ``None`` if none can be."""
    for giver in np.argsort(-off, kind="stable").tolist():
        if off[giver] <= 0:
            return None
        members = np.flatnonzero(sides == giver)
        kinds = np.unique(sizes[members])
        for taker in np.argsort(off, kind="stable").tolist():
            too_many, too_few = int(off[giver]), -int(off[taker])
            if too_few <= 0:
                break
            left = np.abs(too_many - kinds) + np.abs(too_few - kinds)
            best = int(np.argmin(left)) if len(kinds) else -1
            if best < 0 or left[best] >= too_many + too_few:
                continue
            size = int(kinds[best])
            count = max(1, min(too_many, too_few) // size)
            return members[sizes[members] == size][-count:], taker
    return None


def _off(counts: NDArray[np.int64], target: NDArray[np.int64], sizes: NDArray[np.int64]) -> str:
    """Say how far groups kept the splits from exact shares."""
    most = int(np.abs(counts - target).max(initial=0))
    if most == 0:
        return "the shares are exact within one sample"
    return (
        f"as near as groups allow: {most:,} samples off the exact share at most; "
        f"the largest group has {int(sizes.max(initial=0)):,}"
    )


def _worst(
    codes: NDArray[np.int32],
    sides: NDArray[np.int64],
    shares: NDArray[np.float64],
    names: Sequence[str],
    classes: Sequence[str],
    column: str,
) -> str:
    """Say which class is furthest from its shares, in samples."""
    flat = np.bincount(codes * len(names) + sides, minlength=len(classes) * len(names))
    counts = flat.reshape(len(classes), len(names))
    totals = counts.sum(axis=1)
    off = np.abs(counts - totals[:, None] * shares).round(6)
    at, side = divmod(int(np.argmax(off)), len(names))
    return (
        f"over {len(classes):,} values of {column}: furthest off is {classes[at]} in {names[side]} "
        f"with {counts[at, side]:,} of its {totals[at]:,}, asked {totals[at] * shares[side]:,.2f}"
    )
