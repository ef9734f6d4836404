"""Which rows are pairs, and which of each pair goes, out of core: tasks of semantic deduplication.

Rows of the table have their numbers; those of an earlier dataset come behind them. All files are
those of :mod:`pixsieve.select.spill`, with these arrays:

- *ranks*: ``rank`` of every row, the earlier dataset's below 0.
- *found*: ``worse``, ``better``, ``cosine``, ``cut``, as in
  :class:`~pixsieve.select.neighbours.Pairs`; ``copy``, ``copy_of``: rows with the same vector as a
  better one.
- *lists*: pairs again, and ``ncc``, NaN where it is not known yet; ``wanted``, rows whose pictures
  are to be compared.
- *settled*: lists; ``open``, rows that must be asked again, and ``gone``, rows that go; of groups,
  ``label_row`` and ``label``.
- *pictures*: ``row``, ``picture``.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pixsieve.select import neighbours, spill, template
from pixsieve.select.neighbours import DROPPED, OPEN, Limits, Pairs, Side, unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Scope

_CACHED_BYTES = 1 << 26
"""Vectors of a cell that are held as float32; those of a larger one are read for each block."""
_TASK_PRODUCTS = 2.5e10
"""Multiplications that a task of a search takes: half a second."""


@dataclass(frozen=True, slots=True)
class _Vectors:
    """Vectors that lie in several files: which file, and at which position."""

    files: Sequence[NDArray[np.floating]]
    file: NDArray[np.int32]
    position: NDArray[np.int64]

    def take(self, at: NDArray[np.int64]) -> NDArray[np.floating]:
        file, position = self.file[at], self.position[at]
        found = np.empty((len(at), self.files[0].shape[1]), self.files[0].dtype)
        for number in np.unique(file).tolist():
            here = file == number
            found[here] = self.files[number][position[here]]
        return found


@dataclass(frozen=True, slots=True)
class _Members:
    """Rows in a cell, or visiting it."""

    row: NDArray[np.int64]
    cell: NDArray[np.int32]
    digest: NDArray[np.uint64]
    file: NDArray[np.int32]
    position: NDArray[np.int64]

    def at(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> _Members:
        return _Members(
            self.row[chosen],
            self.cell[chosen],
            self.digest[chosen],
            self.file[chosen],
            self.position[chosen],
        )


def ranges(assigned: Sequence[str], cells: int, dim: int) -> list[tuple[int, int]]:
    """Return runs of cells, (low, high), that cost about as much to search."""
    members, visits = np.zeros(cells), np.zeros(cells)
    for path in assigned:
        found = spill.read(path)
        members += np.bincount(found["cell"].astype(np.int64), minlength=cells)
        visits += np.bincount(found["visited"].astype(np.int64), minlength=cells)
    cost = np.cumsum(dim * members * (members / 2 + visits))
    task = np.minimum((cost / _TASK_PRODUCTS).astype(np.int64), cells)
    borders = [0, *(np.flatnonzero(np.diff(task)) + 1).tolist(), cells]
    return list(itertools.pairwise(borders))


def find(
    assigned: Sequence[str],
    ranks: str,
    cells: tuple[int, int],
    limits: Limits,
    own: int,
    settled: str | None,
    path: str,
) -> None:
    """Write what is *found* in a run of cells.

    Args:
        assigned: What :func:`pixsieve.select.cells.assign` left.
        ranks: See above.
        cells: The first one, and the one behind the last.
        limits: Which pairs are listed.
        own: Rows of the table; those behind are an earlier dataset's and are dropped for nothing.
        settled: What is settled; then only open rows ask, and those that go are left out.
        path: Where it goes.
    """
    files = [spill.read(each) for each in assigned]
    rank = spill.read(ranks)["rank"]
    members, visitors = _of(files, cells, "cell"), _of(files, cells, "visited")
    asks = labels = None
    if settled is not None:
        known = spill.read(settled)
        gone = known["gone"]
        members = members.at(~_within(members.row, gone))
        visitors = visitors.at(~_within(visitors.row, gone))
        asks = known["open"]
        if len(known["label"]):
            labels = (known["label_row"], known["label"])
    pieces: list[Pairs] = []
    copies: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    vectors = [file["vector"] for file in files]
    for cell in range(*cells):
        here, there = (_better_first(each, cell, rank) for each in (members, visitors))
        asking = here if asks is None else here.at(_within(here.row, asks))
        guests = there if asks is None else there.at(_within(there.row, asks))
        here, same = _without_copies(here)
        there, _ = _without_copies(there)
        if asks is not None:
            same = (same[0][_within(same[0], asks)], same[1][_within(same[0], asks)])
        own_copies = same[0] < own
        copies.append((same[0][own_copies], same[1][own_copies]))
        asking = asking.at((asking.row < own) & ~_within(asking.row, np.sort(same[0])))
        guests = guests.at((guests.row < own) & _within(guests.row, np.sort(there.row)))
        home, visiting = (_side(each, rank, vectors, labels) for each in (here, there))
        ask, guest = (
            one if len(some.row) == len(one.row) else _side(some, rank, vectors, labels)
            for some, one in ((asking, home), (guests, visiting))
        )
        pieces += [
            neighbours.scan(ask, home, limits),
            neighbours.scan(ask, visiting, limits),
            neighbours.scan(guest, home, limits),
        ]
    pairs = neighbours.joined(pieces)
    none = np.empty(0, np.int64)
    spill.write(
        path,
        {
            "worse": pairs.worse,
            "better": pairs.better,
            "cosine": pairs.cosine,
            "cut": pairs.cut,
            "copy": np.concatenate([none, *(each[0] for each in copies)]),
            "copy_of": np.concatenate([none, *(each[1] for each in copies)]),
        },
    )


def _of(files: Sequence[dict[str, NDArray[Any]]], cells: tuple[int, int], by: str) -> _Members:
    """Return the rows that are in a run of cells, or visit it, cell by cell."""
    pieces = []
    for number, file in enumerate(files):
        low, high = np.searchsorted(file[by], cells)
        position = np.arange(low, high) if by == "cell" else file["visitor"][low:high]
        pieces.append(
            (
                file["row"][position],
                file[by][low:high],
                file["digest"][position],
                np.full(high - low, number, np.int32),
                position,
            )
        )
    columns = [np.concatenate([piece[at] for piece in pieces]) for at in range(5)]
    return _Members(*columns).at(np.argsort(columns[1], kind="stable"))


def _better_first(members: _Members, cell: int, rank: NDArray[np.int64]) -> _Members:
    """Return those of one cell, in order of rank."""
    low, high = np.searchsorted(members.cell, (cell, cell + 1))
    here = members.at(np.arange(low, high))
    return here.at(np.argsort(rank[here.row], kind="stable"))


def _without_copies(
    members: _Members,
) -> tuple[_Members, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the best-ranked of those with equal vectors, and the others, with the best of each."""
    _, first, group = np.unique(members.digest, return_index=True, return_inverse=True)
    if len(first) == len(members.row):
        none = np.empty(0, np.int64)
        return members, (none, none)
    best = first[group]
    others = np.flatnonzero(best != np.arange(len(best)))
    return members.at(np.sort(first)), (members.row[others], members.row[best[others]])


def _side(
    members: _Members,
    rank: NDArray[np.int64],
    files: Sequence[NDArray[np.floating]],
    labels: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
) -> Side:
    vectors = _Vectors(files, members.file, members.position)
    count = len(members.row)
    units = None
    if count and count * files[0].shape[1] * 4 <= _CACHED_BYTES:
        units = unit(vectors.take(np.arange(count)))
    label = None
    if labels is not None:
        label = members.row.copy()  # of its own, as long as it is in no pair
        joined = _within(members.row, labels[0])
        label[joined] = labels[1][np.searchsorted(labels[0], members.row[joined])]
    return Side(
        row=members.row,
        rank=rank[members.row],
        vectors=vectors.take,
        units=(lambda at: unit(vectors.take(at))) if units is None else units.__getitem__,
        label=label,
    )


def _within(values: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each value whether it is among ascending ones."""
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[at] == values, np.bool_)


def gather(
    found: Sequence[str],
    ranks: str,
    limits: Limits,
    settled: str | None,
    known: bool,  # noqa: FBT001
    path: str,
) -> None:
    """Write the *lists* of what was found, with the copies, and what is settled before.

    Args:
        found: What :func:`find` left.
        ranks: See above.
        limits: Which pairs are listed.
        settled: What is settled so far.
        known: Whether a pair needs no confirmation.
        path: Where it goes.
    """
    files = [spill.read(each) for each in found]
    rank = spill.read(ranks)["rank"]
    pieces = [
        Pairs(worse=each["worse"], better=each["better"], cosine=each["cosine"], cut=each["cut"])
        for each in files
    ]
    pairs = neighbours.merged(neighbours.joined(pieces), rank.__getitem__, limits)
    copy = np.concatenate([each["copy"] for each in files])
    pairs = _with_copies(pairs, copy, np.concatenate([each["copy_of"] for each in files]))
    ncc = np.full(len(pairs), 1 if known else np.nan)
    fresh = np.unique(np.concatenate([pairs.worse, pairs.better]))
    if settled is not None:
        before = spill.read(settled)
        stays = ~_within(before["worse"], before["open"]) | (len(before["label"]) > 0)
        earlier = Pairs(
            worse=before["worse"],
            better=before["better"],
            cosine=before["cosine"],
            cut=before["cut"],
        ).at(stays)
        pairs = neighbours.joined([pairs, earlier])
        ncc = np.concatenate([ncc, before["ncc"][stays]])
    order = np.lexsort((rank[pairs.better], pairs.worse))
    _write_lists(path, pairs.at(order), ncc[order], {"wanted": fresh})


def _write_lists(
    path: str,
    pairs: Pairs,
    ncc: NDArray[np.float64],
    rows: Mapping[str, NDArray[np.int64]],
    agreed: NDArray[np.bool_] | None = None,
) -> None:
    told = {} if agreed is None else {"agreed": agreed}
    spill.write(
        path,
        {
            "worse": pairs.worse,
            "better": pairs.better,
            "cosine": pairs.cosine,
            "cut": pairs.cut,
            "ncc": ncc,
            **rows,
            **told,
        },
    )


def _with_copies(pairs: Pairs, copy: NDArray[np.int64], of: NDArray[np.int64]) -> Pairs:
    """List each copy with the row that it is one of, and with that one's neighbours."""
    if not len(copy):
        return pairs
    low, high = (np.searchsorted(pairs.worse, of, side) for side in ("left", "right"))
    counts = high - low
    at = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    ones = np.ones(len(copy))
    return neighbours.joined(
        [
            pairs,
            Pairs(worse=copy, better=of, cosine=ones, cut=ones.astype(np.bool_)),
            Pairs(
                worse=np.repeat(copy, counts),
                better=pairs.better[at],
                cosine=pairs.cosine[at],
                cut=np.ones(len(at), np.bool_),
            ),
        ]
    )


def _pixels(
    files: Sequence[dict[str, NDArray[Any]]], rows: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Return which of ascending rows have a picture, and the pixels of each, else zeros."""
    there = np.zeros(len(rows), np.bool_)
    pixels = np.zeros((len(rows), files[0]["picture"].shape[1]), np.uint8)
    for file in files:
        if not len(file["row"]):
            continue
        low, high = np.searchsorted(rows, (file["row"][0], file["row"][-1] + 1))
        here = low + np.flatnonzero(_within(rows[low:high], file["row"]))
        there[here] = True
        pixels[here] = file["picture"][np.searchsorted(file["row"], rows[here])]
    return there, pixels


def unconfirmed(lists: str) -> int:
    """Return how many pairs of lists wait for their pictures to be compared."""
    return int(np.isnan(spill.read(lists)["ncc"]).sum())


def pictures(scope: Scope, column: str, bounds: tuple[int, int], lists: str, path: str) -> None:
    """Write the *pictures* of the wanted rows of a slice, as far as they have any."""
    wanted = spill.read(lists)["wanted"]
    low, high = np.searchsorted(wanted, bounds)
    numbers = wanted[low:high]
    size = scope.columns.field(column).type.byte_width
    row, found = [np.empty(0, np.int64)], [np.empty((0, size), np.uint8)]
    if len(numbers):
        for batch in scope.rows().batches((column,), *bounds):
            low, high = np.searchsorted(numbers, (batch.first, batch.first + len(batch.columns)))
            taken = batch.columns[column].take(pa.array(numbers[low:high] - batch.first))
            there, pixels = pixels_of(taken)
            row.append(numbers[low:high][there])
            found.append(pixels)
    spill.write(path, {"row": np.concatenate(row), "picture": np.concatenate(found)})


def pixels_of(column: pa.ChunkedArray) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Return which rows have a picture, and the pixels of those, (n, bytes)."""
    there = np.asarray(column.is_valid().to_numpy(), np.bool_)
    width = column.type.byte_width
    flat = b"".join(column.drop_null().to_pylist())
    return there, np.frombuffer(flat, np.uint8).reshape(-1, width)


def confirm(
    lists: str, pictured: Sequence[str], bounds: tuple[int, int], threshold: float, path: str
) -> None:
    """Write ``ncc`` of a run of the pairs that wait: how alike their pictures are.

    -1 where one has none.
    """
    known = spill.read(lists)
    waiting = np.flatnonzero(np.isnan(known["ncc"]))[slice(*bounds)]
    worse, better = known["worse"][waiting], known["better"][waiting]
    rows, places = np.unique(np.concatenate([worse, better]), return_inverse=True)
    there, pixels = _pixels([spill.read(each) for each in pictured], rows)
    one, other = places[: len(worse)], places[len(worse) :]
    ncc = np.full(len(worse), -1.0)
    both = np.flatnonzero(there[one] & there[other])
    ncc[both] = template.ncc(pixels, one[both], other[both], threshold)
    spill.write(path, {"ncc": ncc})


def settle(lists: str, confirmed: Sequence[str], threshold: float, ranks: str, path: str) -> None:
    """Write what is *settled* by lists whose pairs are confirmed."""
    pairs, ncc = _known(lists, confirmed)
    rank = spill.read(ranks)["rank"]
    rows, states = neighbours.settle(pairs, ncc >= threshold, rank.__getitem__)
    none = np.empty(0, np.int64)
    groups = {"label_row": none, "label": none}
    more = {"open": rows[states == OPEN], "gone": rows[states == DROPPED], **groups}
    _write_lists(path, pairs, ncc, more, agreed=ncc >= threshold)


def group(
    lists: str,
    confirmed: Sequence[str],
    threshold: float,
    known: bool,  # noqa: FBT001
    path: str,
) -> None:
    """Write lists with ``label``, the smallest row that each of ``label_row`` is joined to.

    Where pairs are ``known`` without confirmation, ``open`` are the rows whose lists were cut.
    """
    pairs, ncc = _known(lists, confirmed)
    agreed = ncc >= threshold
    rows, label = neighbours.components(pairs.worse[agreed], pairs.better[agreed])
    none = np.empty(0, np.int64)
    asked = np.unique(pairs.worse[pairs.cut]) if known else none
    more = {"open": asked, "gone": none, "label_row": rows, "label": label}
    pairs = dataclasses.replace(pairs, cut=np.zeros(len(pairs), np.bool_))
    _write_lists(path, pairs, ncc, more, agreed=agreed)


def _known(lists: str, confirmed: Sequence[str]) -> tuple[Pairs, NDArray[np.float64]]:
    given = spill.read(lists)
    pairs = Pairs(
        worse=given["worse"], better=given["better"], cosine=given["cosine"], cut=given["cut"]
    )
    ncc = given["ncc"].copy()
    answers = [np.empty(0), *(spill.read(each)["ncc"] for each in confirmed)]
    ncc[np.isnan(ncc)] = np.concatenate(answers)
    return pairs, ncc


def keepers(settled: str) -> tuple[Pairs, NDArray[np.float64]]:
    """Return each row that goes with the best one that stays and that it agrees with; and ncc."""
    known = spill.read(settled)
    worse, better = known["worse"], known["better"]
    right = known["agreed"] & _within(worse, known["gone"])
    right &= ~_within(better, known["gone"]) & ~_within(better, known["open"])
    at = np.flatnonzero(right)
    at = at[np.diff(worse[at], prepend=-1) != 0]
    pairs = Pairs(
        worse=worse[at], better=better[at], cosine=known["cosine"][at], cut=known["cut"][at]
    )
    return pairs, known["ncc"][at]
