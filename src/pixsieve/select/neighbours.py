"""Pairs of vectors that are alike, and which of them go: the numeric part, without any file.

Everything is written in terms of rows with a rank, 0 for the best. Of a pair, the worse row *asks*
and the better one *answers*: a row is listed with better ones only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pixsieve.select.components import linked

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ASKING = 256
"""Rows that ask in one matrix product: few, since half of what a block on the diagonal gives is
of no use."""
ANSWERING = 4096
SLACK = 1e-5
"""Cosines that are this close to a limit in float32 are computed again in float64, so that rounding
decides nothing. (The error is below 1e-6 for 1280 numbers.)"""
KEPT, OPEN, DROPPED = 0, 1, 2
"""What is known of a row: it stays; not settled yet; it goes."""
_WAITING = 1 << 20
_EXACT_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Which of a row's neighbours are listed.

    Attributes:
        least: Cosine that a neighbour has at least.
        first: The best-ranked neighbours, so many.
        nearest: And the most similar ones, so many.
    """

    least: float
    first: int
    nearest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Rows that are compared with others, in ascending order of rank.

    Attributes:
        row: (n,) int64 numbers of the rows.
        rank: (n,) int64, ascending.
        vectors: Gives the vectors at ascending positions, (m, d), as they are stored.
        units: Gives the same as float32 of length 1.
        label: (n,) int64; pairs with equal labels are passed over. ``None``: none are.
    """

    row: NDArray[np.int64]
    rank: NDArray[np.int64]
    vectors: Callable[[NDArray[np.int64]], NDArray[np.floating]]
    units: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    label: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of rows, n of them.

    Attributes:
        worse: Row numbers of those that ask, int64.
        better: Row numbers of those that answer, int64.
        cosine: float64.
        cut: Whether the row that asks has neighbours that are not listed.
    """

    worse: NDArray[np.int64]
    better: NDArray[np.int64]
    cosine: NDArray[np.float64]
    cut: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.worse)

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Pairs:
        """Return the chosen ones."""
        return Pairs(
            worse=self.worse[chosen],
            better=self.better[chosen],
            cosine=self.cosine[chosen],
            cut=self.cut[chosen],
        )


def joined(pieces: list[Pairs]) -> Pairs:
    """Return pairs one after the other."""
    empty = np.empty(0, np.int64)
    return Pairs(
        worse=np.concatenate([empty, *(each.worse for each in pieces)]),
        better=np.concatenate([empty, *(each.better for each in pieces)]),
        cosine=np.concatenate([np.empty(0), *(each.cosine for each in pieces)]),
        cut=np.concatenate([np.empty(0, np.bool_), *(each.cut for each in pieces)]),
    )


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return rows divided by their length, float32; rows without one become not finite or zero."""
    wide = vectors.astype(np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wide /= length[:, None]
    return wide


def cosines(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosine of each row with the row at its place in the other, (n,) float64."""
    found = np.empty(len(one))
    for start in range(0, len(one), _EXACT_ROWS):
        a, b = (each[start : start + _EXACT_ROWS].astype(np.float64) for each in (one, other))
        lengths = np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b)
        found[start : start + len(a)] = np.einsum("ij,ij->i", a, b) / np.sqrt(lengths)
    return np.minimum(found, 1)


def scan(asking: Side, answering: Side, limits: Limits) -> Pairs:
    """Return each row's neighbours among better-ranked ones, as far as they are listed.

    Matrix products in float32 find them, block by block in order of rank; memory follows the
    blocks and the lists. Where no most similar ones are wanted, a row that has enough asks no more:
    a million equal images cost what one block costs.
    """
    lists = _Lists(asking, answering, limits)
    for start in range(0, len(answering.rank), ANSWERING):
        stop = min(start + ANSWERING, len(answering.rank))
        begin = int(np.searchsorted(asking.rank, answering.rank[start], "right"))
        who = begin + np.flatnonzero(lists.floor[begin:] < np.inf)
        if len(who):
            columns = answering.units(np.arange(start, stop))
            for low in range(0, len(who), ASKING):
                _compare(lists, who[low : low + ASKING], start, columns)
            lists.cut()
    return lists.pairs()


def _compare(
    lists: _Lists, who: NDArray[np.int64], start: int, columns: NDArray[np.float32]
) -> None:
    """Compare rows that ask with a block of better ones."""
    asking, answering = lists.asking, lists.answering
    ranks, asked = answering.rank[start : start + len(columns)], asking.rank[who]
    limit = int(np.searchsorted(ranks, asked[-1]))
    ranks, columns = ranks[:limit], columns[:limit]
    same = None
    if asking.label is not None and answering.label is not None:
        same = asking.label[who][:, None] == answering.label[start : start + limit][None, :]
        if same.all():
            return
    dots = asking.units(who) @ columns.T
    hits = dots >= lists.floor[who][:, None]
    if ranks[-1] >= asked[0]:
        hits &= ranks[None, :] < asked[:, None]
    if same is not None:
        hits &= ~same
    unsure = np.flatnonzero(hits & (dots <= lists.limits.least + SLACK))
    if len(unsure):
        at, column = np.divmod(unsure, limit)
        hits.reshape(-1)[unsure] = lists.exact(who[at], start + column) >= lists.limits.least
    lists.seen[who] += hits.sum(axis=1)
    _thin(hits, dots, lists.limits)
    found = np.flatnonzero(hits)
    if len(found):
        at, column = np.divmod(found, limit)
        lists.add(who[at], start + column, dots.reshape(-1)[found])


def _thin(hits: NDArray[np.bool_], dots: NDArray[np.float32], limits: Limits) -> None:
    """Take away, row by row, what no list will hold: a sort of all of them would be dearer."""
    crowded = np.flatnonzero(hits.sum(axis=1) > limits.first + limits.nearest)
    if not len(crowded):
        return
    here = hits[crowded]
    listed = np.cumsum(here, axis=1, dtype=np.int32) <= limits.first
    if limits.nearest:
        alike = np.where(here, dots[crowded], -np.inf)
        place = alike.shape[1] - limits.nearest
        least = np.partition(alike, place, axis=1)[:, place]
        listed |= alike >= least[:, None]
    hits[crowded] = here & listed


class _Lists:
    """The neighbours that are listed so far, as positions in both sides."""

    def __init__(self, asking: Side, answering: Side, limits: Limits) -> None:
        self.asking, self.answering, self.limits = asking, answering, limits
        self.floor = np.full(len(asking.rank), limits.least - SLACK, np.float32)
        self.seen = np.zeros(len(asking.rank), np.int64)
        self._pieces: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self._waiting = 0

    def add(
        self, asking: NDArray[np.int64], answering: NDArray[np.int64], dots: NDArray[np.float32]
    ) -> None:
        self._pieces.append((asking, answering, dots))
        self._waiting += len(asking)
        if not self.limits.nearest:
            self.floor[asking[self.seen[asking] >= self.limits.first]] = np.inf
        if self._waiting > _WAITING:
            self.cut()

    def cut(self) -> None:
        """Forget what is beyond the limits."""
        if not self._waiting:
            return
        asking, answering, dots = (
            np.concatenate([piece[at] for piece in self._pieces]) for at in range(3)
        )
        order, keep = _listed(asking, answering, dots, self.limits)
        order = order[keep]
        self._pieces = [(asking[order], answering[order], dots[order])]
        self._waiting = 0
        if self.limits.nearest:
            self._raise(asking[order], dots[order])

    def _raise(self, asking: NDArray[np.int64], dots: NDArray[np.float32]) -> None:
        """Ask no more for what is less alike than enough others are."""
        order = np.lexsort((-dots, asking))
        place = _places(asking[order])
        at = order[place == self.limits.nearest - 1]
        full = self.seen[asking[at]] >= self.limits.first + self.limits.nearest
        at = at[full]
        self.floor[asking[at]] = np.nextafter(dots[at], np.float32(2))

    def pairs(self) -> Pairs:
        self.cut()
        asking, answering = (
            np.concatenate([np.empty(0, np.int64), *(piece[at] for piece in self._pieces)])
            for at in range(2)
        )
        cosine = self.exact(asking, answering)
        listed = np.bincount(asking, minlength=len(self.seen))
        cut = (self.seen > listed) | (self.floor > self.limits.least)
        return Pairs(
            worse=self.asking.row[asking],
            better=self.answering.row[answering],
            cosine=cosine,
            cut=cut[asking],
        ).at(cosine >= self.limits.least)

    def exact(self, asking: NDArray[np.int64], answering: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.empty(len(asking))
        for start in range(0, len(asking), _EXACT_ROWS):
            piece = slice(start, start + _EXACT_ROWS)
            found[piece] = cosines(
                self.asking.vectors(asking[piece]), self.answering.vectors(answering[piece])
            )
        return found


def _places(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each item's place within its group, in sorted groups."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(starts, append=len(groups))
    return np.arange(len(groups)) - np.repeat(starts, lengths)


def _listed(
    asking: NDArray[np.int64],
    rank: NDArray[np.int64],
    cosine: NDArray[np.floating],
    limits: Limits,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return pairs in order of who asks and the other's rank, and which of them are listed."""
    order = np.lexsort((rank, asking))
    asking, cosine = asking[order], cosine[order]
    keep = _places(asking) < limits.first
    if limits.nearest:
        by_cosine = np.lexsort((-cosine, asking))
        keep[by_cosine[_places(asking[by_cosine]) < limits.nearest]] = True
    return order, keep


def merged(
    pairs: Pairs, rank: Callable[[NDArray[np.int64]], NDArray[np.int64]], limits: Limits
) -> Pairs:
    """Return pairs that were found in several places once each, with lists within the limits.

    Args:
        pairs: As found.
        rank: Gives the ranks of rows.
        limits: As for :func:`scan`.

    Returns:
        Pairs in the order of the rows that ask and the ranks of those that answer.
    """
    order = np.lexsort((pairs.better, pairs.worse))
    pairs = pairs.at(order)
    new = (np.diff(pairs.worse, prepend=-1) != 0) | (np.diff(pairs.better, prepend=-1) != 0)
    cut = _any_of(pairs.worse, pairs.cut)
    pairs = pairs.at(new)
    order, keep = _listed(pairs.worse, rank(pairs.better), pairs.cosine, limits)
    pairs = pairs.at(order)
    cut = cut[new][order] | _any_of(pairs.worse, ~keep)
    return Pairs(
        worse=pairs.worse[keep],
        better=pairs.better[keep],
        cosine=pairs.cosine[keep],
        cut=cut[keep],
    )


def _any_of(groups: NDArray[np.int64], flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each item whether any of its group is flagged, in sorted groups."""
    if not len(groups):
        return flags
    starts = np.diff(groups, prepend=groups[0] - 1) != 0
    any_ = np.logical_or.reduceat(flags, np.flatnonzero(starts))
    return np.asarray(any_[np.cumsum(starts) - 1], np.bool_)


def settle(
    pairs: Pairs,
    agreed: NDArray[np.bool_],
    rank: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Say of each row that asks whether it goes: if a better one that it agrees with stays.

    A row whose list was cut, and of which some that are listed go themselves, is left open: its
    list must be made anew without those. The best-ranked open row is settled by that, so it ends.

    Args:
        pairs: Lists, as :func:`merged` returns them.
        agreed: (n,) whether each pair is one of duplicates.
        rank: Gives the ranks of rows.

    Returns:
        The rows that ask, ascending, and :data:`KEPT`, :data:`OPEN` or :data:`DROPPED` for each.
        All other rows stay.
    """
    rows, ends = np.unique(pairs.worse, return_index=True)
    ends = np.append(ends, len(pairs))
    at = np.minimum(np.searchsorted(rows, pairs.better), max(len(rows) - 1, 0))
    if len(rows):
        at[rows[at] != pairs.better] = -1
    states = [KEPT] * (len(rows) + 1)  # the last one is of all that do not ask
    others, yes, starts = at.tolist(), agreed.tolist(), ends.tolist()
    cuts = pairs.cut[ends[:-1]].tolist()
    for row in np.argsort(rank(rows), kind="stable").tolist():
        listed = range(starts[row], starts[row + 1])
        near = {states[others[pair]] for pair in listed if yes[pair]}
        if KEPT in near:
            states[row] = DROPPED
        elif OPEN in near or (cuts[row] and any(states[others[pair]] != KEPT for pair in listed)):
            states[row] = OPEN
    return rows, np.array(states[:-1], np.int8)


def components(
    worse: NDArray[np.int64], better: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that are in any pair, ascending, and the smallest that each is linked to."""
    rows, ends = np.unique(np.concatenate([worse, better]), return_inverse=True)
    one, other = ends[: len(worse)], ends[len(worse) :]
    return rows, rows[linked(np.arange(len(rows)), one, other)]
