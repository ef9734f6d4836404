"""All pairs of hashes that differ in few bits, exactly, and what follows from them.

Rows come best first, so that of two row numbers the smaller one is the better one. A row may have
several hashes; two rows are near if each of their hashes is within its limit.

**Search.** Bits are dealt to b blocks. Of two hashes within t bits, at least m = b - t blocks are
equal, so sorting by each choice of m blocks puts every near pair into a run of equal keys at least
once. b and m are those of the least cost by estimate, from the number of rows and from how much the
bits of a sample vary; bits that never vary are left out. A hash of several words of 64 bits is
searched in groups of bits with limits t_i, sum(t_i + 1) = t + 1: one group at least is within its
own. (The pigeonhole principle, as in Manku, Jain, Das Sarma, "Detecting near-duplicates for web
crawling", WWW 2007, and Norouzi, Punjani, Fleet, "Fast exact search in Hamming space with
multi-index hashing", TPAMI 2014.)

**Dense places.** Equal rows are made one first. Of each row only the best :data:`LISTED` near rows
are held. Within a long run rows are compared with the best ones first, and a row with so many near
rows is done with: a blob in which all are near costs its length, not its square. A long run whose
rows are far from each other is searched anew by its other bits. A row whose listed rows all turn
out to go is searched for again among what is left, so that the result is that of all pairs.

Memory: a copy of the hashes, about 40 bytes a row, and 8 bytes for each pair that is held. On one
core, with 5 % of planted pairs, 1 million rows take 0.5 CPU s at t = 4, 2.3 at 6 and 14 at 8;
10 million take 14 at 4: 25 times as long for ten times as many. Only where many rows share one hash
and their other hashes are far apart, but within wide limits, all pairs of these are compared, at
about 5 ns each.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pixsieve.select.components import linked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

LISTED = 8
"""Better rows that are held of each row."""
_WORD = 64
_LONG_RUN = 64
_CHUNK = 1 << 18  # pairs that are looked at together: bounds the memory
_HELD = 1 << 21  # pairs that wait before they are thinned out
_MOST_ROWS = 1024  # that are compared with all others of a long run at once
_SAMPLE = 4096
_SORT_COST, _PAIR_COST, _GRID_COST = 1.0, 2.0, 0.1
"""Of a row in a sort, of a pair of equal keys, whose hashes lie anywhere, and of one in a grid."""
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: Knuth's multiplicative hashing
_FEW = 1 / 16
_MOST_EQUAL = 6  # blocks that are asked to be equal
_ROUNDS = 64
_STAYS, _GOES = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """Rows with one or more hashes each, the best row first.

    Attributes:
        columns: For each hash its words, uint64 (n, words).
        limits: For each hash in how many bits near rows differ at most.
    """

    columns: tuple[Words, ...]
    limits: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.columns[0])

    def distances(
        self, one: NDArray[np.int64], other: NDArray[np.int64]
    ) -> list[NDArray[np.int64]]:
        """Return for each hash in how many bits pairs of rows differ, (pairs,)."""
        return [_distance(words, one, other) for words in self.columns]


def keepers(hashes: Hashes, fixed: int = 0) -> NDArray[np.int64]:
    """Go through the rows from the best one on: each that is near to one that stays goes.

    Args:
        hashes: Of the rows, best first.
        fixed: So many rows at the beginning stay anyhow, whatever is near to them.

    Returns:
        For each row the best one of those that stay and are near to it, -1 if it stays: (n,).
    """
    heads, head = _collapsed(hashes, fixed)
    distinct = _taken(hashes, heads)
    fixed_heads = int(np.searchsorted(heads, fixed))
    found = _settled(distinct, fixed_heads)
    of_head = np.where(found < 0, heads, heads[found])
    result = of_head[head]
    itself = np.arange(len(hashes))
    result[(result == itself) | (itself < fixed)] = -1
    return result


def components(hashes: Hashes) -> NDArray[np.int64]:
    """Return for each row the smallest number of all rows that near pairs link it to, (n,)."""
    heads, head = _collapsed(hashes, 0)
    distinct = _taken(hashes, heads)
    labels = np.arange(len(heads))
    wanted = np.ones(len(heads), np.bool_)
    while wanted.any():
        search = _Search(distinct, wanted, labels=labels)
        better, worse = search.run(np.arange(len(heads)))
        labels = linked(labels, better, worse)
        wanted = search.more
    return heads[labels][head]


def _collapsed(hashes: Hashes, fixed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first ones of equal rows, ascending, and for each row which of these is its own.

    Fixed rows are no such first one for others: a better fixed one may be near to these.
    """
    count = len(hashes)
    mixed = np.zeros(count, np.uint64)
    for words in hashes.columns:
        for at in range(words.shape[1]):
            mixed = (mixed ^ words[:, at]) * _MIX
            mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    equal = np.zeros(count, np.bool_)
    equal[1:] = mixed[order[1:]] == mixed[order[:-1]]
    del mixed
    for words in hashes.columns:
        again = np.flatnonzero(equal)
        equal[again] = (words[order[again]] == words[order[again - 1]]).all(axis=1)
    equal[1:] &= (order[1:] >= fixed) == (order[:-1] >= fixed)
    starts = np.flatnonzero(~equal)
    first = np.empty(count, np.int64)
    first[order] = np.repeat(order[starts], np.diff(np.append(starts, count)))
    heads, head = np.unique(first, return_inverse=True)
    return heads, head.astype(np.int64, copy=False)


def _taken(hashes: Hashes, rows: NDArray[np.int64]) -> Hashes:
    if len(rows) == len(hashes):
        return hashes
    columns = tuple(words[rows] for words in hashes.columns)
    return Hashes(columns=columns, limits=hashes.limits)


def _settled(hashes: Hashes, fixed: int) -> NDArray[np.int64]:
    """Return the keeper of each row, -1 for those that stay."""
    count = len(hashes)
    state = np.zeros(count, np.int8)
    state[:fixed] = _STAYS
    open_ = state == 0
    more = np.zeros(count, np.bool_)
    better, worse = np.empty(0, np.int64), np.empty(0, np.int64)
    while open_.any():
        search = _Search(hashes, open_)
        found = search.run(np.flatnonzero(state != _GOES))
        stale = open_[worse]
        better = np.concatenate([better[~stale], found[0]])
        worse = np.concatenate([worse[~stale], found[1]])
        more[open_] = search.more[open_]
        _settle(state, better, worse, more)
        waits = np.zeros(count, np.bool_)
        waits[worse[state[better] != _GOES]] = True
        open_ = (state == 0) & more & ~waits
    keeper = np.full(count, count, np.int64)
    decisive = (state[worse] == _GOES) & (state[better] == _STAYS)
    np.minimum.at(keeper, worse[decisive], better[decisive])
    keeper[keeper == count] = -1
    return keeper


def _settle(
    state: NDArray[np.int8],
    better: NDArray[np.int64],
    worse: NDArray[np.int64],
    more: NDArray[np.bool_],
) -> None:
    """Decide what the pairs decide: a row with ``more`` near rows than are listed stays open."""
    undecided = state[worse] == 0
    better, worse = better[undecided], worse[undecided]
    for _ in range(_ROUNDS):
        state[worse[state[better] == _STAYS]] = _GOES
        left = (state[worse] == 0) & (state[better] != _GOES)
        better, worse = better[left], worse[left]
        waits = more.copy()
        waits[worse] = True
        stays = (state == 0) & ~waits
        if not stays.any():
            return
        state[stays] = _STAYS
    order = np.lexsort((better, worse))
    better, worse = better[order], worse[order]
    starts = np.flatnonzero(np.append(True, np.diff(worse) != 0)[: len(worse)])
    groups = np.split(better, starts[1:]) if len(worse) else []
    for row, near in zip(worse[starts].tolist(), groups, strict=True):
        states = state[near]
        if (states == _STAYS).any():
            state[row] = _GOES
        elif (states == _GOES).all() and not more[row]:
            state[row] = _STAYS


@dataclass(slots=True)
class _Plan:
    """Sorts that put every near pair into a run of equal keys: (word, mask of its bits) each."""

    column: int
    keys: list[tuple[int, int]]
    cost: float


@dataclass(slots=True)
class _Search:
    """Finds for the wanted rows the best rows that are near to them.

    Attributes:
        hashes: Of all rows.
        wanted: The rows whose better ones are looked for, (n,).
        labels: Where given, rows of one label are no pair.
        more: For each row whether it may be near to more rows than are listed for it.
    """

    hashes: Hashes
    wanted: NDArray[np.bool_]
    labels: NDArray[np.int64] | None = None
    more: NDArray[np.bool_] = field(init=False)
    _pairs: list[NDArray[np.uint64]] = field(init=False, default_factory=list)
    _waiting: int = field(init=False, default=0)
    _bound: int = field(init=False, default=_HELD)

    def __post_init__(self) -> None:
        self.wanted = self.wanted.copy()
        self.more = np.zeros(len(self.wanted), np.bool_)

    def run(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs (better, worse) of these rows, ascending numbers."""
        free = [[2**_WORD - 1] * words.shape[1] for words in self.hashes.columns]
        self._part(rows, free, None)
        self._thin()
        pairs = self._pairs[0] if self._pairs else np.empty(0, np.uint64)
        low = pairs & np.uint64(2**32 - 1)
        return low.astype(np.int64), (pairs >> np.uint64(32)).astype(np.int64)

    def _part(self, rows: NDArray[np.int64], free: list[list[int]], plan: _Plan | None) -> None:
        """Look for pairs among rows.

        Args:
            rows: Ascending numbers.
            free: For each word of each hash the bits that they are not known to agree in.
            plan: How; ``None`` for the best one.
        """
        if len(rows) <= _LONG_RUN:
            self._run(rows, free)
            return
        plan = plan or self._plan(rows, free)
        if plan is None:
            self._run(rows, free)
            return
        low_bits = max(1, (len(rows) - 1).bit_length())
        low = np.uint64(2**low_bits - 1)
        for number, (word, mask) in enumerate(plan.keys):
            packed = self.hashes.columns[plan.column][rows, word]
            packed &= np.uint64(mask)
            packed *= _MIX
            packed &= ~low
            packed |= np.arange(len(rows), dtype=np.uint64)
            packed.sort()
            rest = [list(words) for words in free]
            rest[plan.column][word] &= ~mask
            self._sorted(rows, packed, low_bits, rest, plan.column if number else None)

    def _sorted(
        self,
        rows: NDArray[np.int64],
        packed: Words,
        low_bits: int,
        free: list[list[int]],
        compared: int | None,
    ) -> None:
        """Compare the rows of each run of equal keys.

        Args:
            rows: Ascending numbers.
            packed: Their keys, with places in the low bits, sorted.
            low_bits: How many.
            free: As for :meth:`_part`.
            compared: The hash of which equal ones were compared by an earlier key, if there was
                one.
        """
        low = np.uint64(2**low_bits - 1)
        same = (packed[1:] ^ packed[:-1]) <= low
        long = (packed[_LONG_RUN:] ^ packed[:-_LONG_RUN]) <= low
        if long.any():
            starts = np.flatnonzero(np.append(True, ~same))
            lengths = np.diff(np.append(starts, len(packed)))
            chosen = lengths > _LONG_RUN
            for start, length in zip(
                starts[chosen].tolist(), lengths[chosen].tolist(), strict=True
            ):
                run = rows[(packed[start : start + length] & low).astype(np.int64)]
                same[start : start + length - 1] = False
                if compared is not None:
                    others = _unlike(self.hashes.columns[compared][run])
                    if len(others) <= _LONG_RUN:
                        self._few(run, others)
                        continue
                self._run(run, free)
        first = np.flatnonzero(same)
        step = 1
        while len(first):
            for at in range(0, len(first), _CHUNK):
                part = first[at : at + _CHUNK]
                one = (packed[part] & low).astype(np.int64)
                other = (packed[part + step] & low).astype(np.int64)
                self._compare(rows[one], rows[other])
            first = first[first + step < len(same)]
            first = first[same[first + step]]
            step += 1

    def _compare(self, better: NDArray[np.int64], worse: NDArray[np.int64]) -> NDArray[np.int64]:
        """Hold those of the pairs that are near; return their worse rows."""
        for words, limit in zip(self.hashes.columns, self.hashes.limits, strict=True):
            near = _distance(words, better, worse) <= limit
            better, worse = better[near], worse[near]
        near = self.wanted[worse]
        if self.labels is not None:
            near &= self.labels[better] != self.labels[worse]
        if not near.all():
            better, worse = better[near], worse[near]
        if len(worse):
            self._pairs.append(worse.astype(np.uint64) << np.uint64(32) | better.astype(np.uint64))
            self._waiting += len(worse)
            if self._waiting > self._bound:
                self._thin()
                self._bound = max(_HELD, 2 * self._waiting)
        return worse

    def _thin(self) -> None:
        """Keep the best listed rows of each row, once each."""
        if not self._pairs:
            return
        pairs = np.concatenate(self._pairs)
        pairs.sort()
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]
        worse = pairs >> np.uint64(32)
        beyond = np.zeros(len(pairs), np.bool_)
        beyond[LISTED:] = worse[LISTED:] == worse[:-LISTED]
        self.more[worse[beyond].astype(np.int64)] = True
        self._pairs = [pairs[~beyond]]
        self._waiting = len(self._pairs[0])

    def _run(self, run: NDArray[np.int64], free: list[list[int]]) -> None:
        """Compare rows with each other, the best ones first, or search them by their other bits."""
        if self.labels is not None:
            labels = self.labels[run]
            commonest = _commonest(labels)
            others = np.flatnonzero(labels != commonest)
            if 2 * len(others) < len(run):
                self._few(run, others)
                return
        at = np.flatnonzero(self.wanted[run])
        counts = np.zeros(len(run), np.int64)
        retired = [np.empty(0, np.int64)]
        start, size = 0, _LONG_RUN
        plan: _Plan | None = None
        while start < len(run) and len(at):
            stop = min(start + size, len(run))
            step = max(1, _CHUNK // (stop - start))
            for begin in range(0, len(at), step):
                part = at[begin : begin + step]
                one, other = self._near(run[start:stop], run[part])
                below = start + one < part[other]
                found = self._compare(run[start + one[below]], run[part[other[below]]])
                counts[part] += np.bincount(np.searchsorted(run[part], found), minlength=len(part))
            full = at[counts[at] >= LISTED]
            self.more[run[full]] = True
            retired.append(run[full])
            at = at[(counts[at] < LISTED) & (at >= stop)]
            start, size = stop, min(2 * size, _MOST_ROWS)
            left = len(at) * (len(run) - start) / 2
            if start >= 4 * _LONG_RUN and left > _CHUNK:
                plan = plan or self._plan(run, free)
                if plan is not None and 2 * plan.cost < left * _GRID_COST:
                    gone = np.concatenate(retired)
                    self.wanted[gone] = False
                    self._part(run, free, plan)
                    self.wanted[gone] = True
                    return

    def _few(self, run: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        """Compare the few rows of a run that have another label or hash than most with all."""
        if not len(others):
            return
        few = np.zeros(len(run), np.bool_)
        few[others] = True
        step = max(1, _CHUNK // max(1, len(others)))
        for start in range(0, len(run), step):
            one, other = self._near(run[start : start + step], run[others])
            one, other = start + one, others[other]
            once = ~few[one] | (one < other)
            one, other = run[one[once]], run[other[once]]
            self._compare(np.minimum(one, other), np.maximum(one, other))

    def _near(
        self, one: NDArray[np.int64], other: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return places in both of all pairs that may be near, by as many hashes as it takes."""
        near = np.ones((len(one), len(other)), np.bool_)
        for words, limit in zip(self.hashes.columns, self.hashes.limits, strict=True):
            apart = np.zeros(near.shape, np.uint16)
            for at in range(words.shape[1]):
                apart += np.bitwise_count(words[one, at][:, None] ^ words[other, at][None, :])
            near &= apart <= limit
            if np.count_nonzero(near) < near.size * _FEW:
                break  # looking at each of these is less work than another hash of all
        places = np.nonzero(near)
        return places[0].astype(np.int64), places[1].astype(np.int64)

    def _plan(self, rows: NDArray[np.int64], free: list[list[int]]) -> _Plan | None:
        """Return the plan of the least cost; ``None`` where comparing all pairs costs less."""
        sample = rows[:: -(-len(rows) // _SAMPLE)]
        best: _Plan | None = None
        least = len(rows) ** 2 / 2 * _GRID_COST
        for column, (words, limit) in enumerate(
            zip(self.hashes.columns, self.hashes.limits, strict=True)
        ):
            varying = [_varying(words[sample, at], masks) for at, masks in enumerate(free[column])]
            for parts in (1, 2, 4):
                found = _planned(len(rows), column, varying, parts, limit)
                if found is not None and found.cost < least:
                    best, least = found, found.cost
        return best


def _distance(words: Words, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return in how many bits pairs of rows differ, (pairs,)."""
    found = np.zeros(len(one), np.int64)
    for at in range(words.shape[1]):
        column = words[:, at]
        found += np.bitwise_count(column[one] ^ column[other])
    return found


def _commonest(labels: NDArray[np.int64] | Words) -> int:
    values, counts = np.unique(labels, return_counts=True)
    return int(values[counts.argmax()])


def _unlike(words: Words) -> NDArray[np.int64]:
    """Return the places of hashes that are not the one whose words are the commonest."""
    usual = [_commonest(words[:, at]) for at in range(words.shape[1])]
    return np.flatnonzero((words != np.array(usual, np.uint64)).any(axis=1))


def _varying(words: Words, free: int) -> list[tuple[float, int]]:
    """Return the free bits that vary, those that tell most first: (bits of collision entropy, bit).

    Two values agree in a bit that is set in a share p of them with probability p^2 + (1 - p)^2.
    """
    found = []
    for bit in range(_WORD):
        if free >> bit & 1:
            share = float(((words >> np.uint64(bit)) & np.uint64(1)).mean())
            if 0 < share < 1:
                found.append((-math.log2(share**2 + (1 - share) ** 2), bit))
    return sorted(found, reverse=True)


def _planned(
    count: int, column: int, varying: Sequence[list[tuple[float, int]]], parts: int, limit: int
) -> _Plan | None:
    """Return the cheapest plan with each word in so many groups of bits, if there is one."""
    groups = [
        (word, bits[part::parts]) for word, bits in enumerate(varying) for part in range(parts)
    ]
    groups = [(word, bits) for word, bits in groups if bits]
    keys: list[tuple[int, int]] = []
    cost = 0.0
    for at, (word, bits) in enumerate(groups):
        within = (limit + 1) // len(groups) + (at < (limit + 1) % len(groups)) - 1
        if within < 0:
            continue
        entropy = sum(each for each, _ in bits)
        choices = [
            (math.comb(within + m, m) * _cost(count, entropy * m / (within + m)), m)
            for m in range(1, _MOST_EQUAL + 1)
            if within + m <= len(bits)
        ]
        if not choices:
            return None
        least, equal = min(choices)
        cost += least
        keys += [(word, mask) for mask in _masks([bit for _, bit in bits], within + equal, equal)]
    return _Plan(column, keys, cost) if keys else None


def _cost(count: int, entropy: float) -> float:
    """Return what a sort by keys of so many bits of entropy costs, with comparing what is equal."""
    return count * _SORT_COST + count**2 / 2 * 2**-entropy * _PAIR_COST


def _masks(bits: Sequence[int], blocks: int, equal: int) -> Iterator[int]:
    """Yield the bits of each choice of ``equal`` of the blocks that the bits are dealt to."""
    each = [sum(1 << bit for bit in bits[block::blocks]) for block in range(blocks)]
    return (sum(chosen) for chosen in itertools.combinations(each, equal))
