"""Which rows are pairs, and which of each pair goes, out of core: tasks of semantic deduplication.

Rows of the table have their numbers; those of an earlier dataset come behind them. All files are
those of :mod:`pixsieve.select.spill`, with these arrays:

- *ranks*: ``rank`` of every row, the earlier dataset's below 0; ``place`` of those of the table, by
  cell.
- *found*: ``worse``, ``better``, ``cosine``, ``cut``, as in
  :class:`~pixsieve.select.neighbours.Pairs`, by ``place`` of the worse row; ``copy``, ``copy_of``:
  rows with the same vector as a better one, by ``copy_place``.
- *lists*: the pairs of rows that ask, in a run of places; ``wanted``, all rows in them.
- *pictures*: ``row``, ``picture``.
- *settled*: ``gone``, rows that go, and ``open``, those that must be asked again; the pairs of
  those that go with better ones that they agree with, and ``ncc``.
- *groups*: ``gone``, which is empty, and ``open``, as above; ``row`` and ``label``.

The last two have ``crowded``, too: the number of rows whose lists were cut at first.
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
    from collections.abc import Sequence

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
        if "label" in known:
            labels = (known["row"], known["label"])  # copies are linked by now
    pieces: list[Pairs] = []
    copies: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    vectors = [file["vector"] for file in files]
    for cell in range(*cells):
        here, there = (_better_first(each, cell, rank) for each in (members, visitors))
        asking = here if asks is None else here.at(_within(here.row, asks))
        guests = there if asks is None else there.at(_within(there.row, asks))
        here, same = _without_copies(here, limits)
        there, _ = _without_copies(there, limits)
        if asks is not None:
            same = (same[0][_within(same[0], asks)], same[1][_within(same[0], asks)])
        own_copies = (same[0] < own) & (labels is None)
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
    copy = np.concatenate([none, *(each[0] for each in copies)])
    copy_of = np.concatenate([none, *(each[1] for each in copies)])
    place = spill.read(ranks)["place"]
    pairs = pairs.at(np.argsort(place[pairs.worse], kind="stable"))
    order = np.argsort(place[copy], kind="stable")
    _write(
        path,
        pairs,
        place=place[pairs.worse],
        copy=copy[order],
        copy_place=place[copy[order]],
        copy_of=copy_of[order],
    )


def _write(path: str, pairs: Pairs, **more: NDArray[Any]) -> None:
    columns = {each.name: getattr(pairs, each.name) for each in dataclasses.fields(pairs)}
    spill.write(path, {**columns, **more})


def _read(path: str) -> tuple[Pairs, dict[str, NDArray[Any]]]:
    known = spill.read(path)
    columns = {each.name: known[each.name] for each in dataclasses.fields(Pairs)}
    return Pairs(**columns), known


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
    members: _Members, limits: Limits
) -> tuple[_Members, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the best-ranked of those with equal vectors, and the others, with the best of each.

    Where so many are equal that no list would hold them all; fewer are compared as any rows are,
    since their pictures may differ.
    """
    _, first, group, counts = np.unique(
        members.digest, return_index=True, return_inverse=True, return_counts=True
    )
    own = np.arange(len(group))
    best = np.where(counts[group] > limits.first + limits.nearest, first[group], own)
    others = np.flatnonzero(best != own)
    return members.at(best == own), (members.row[others], members.row[best[others]])


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
    found: Sequence[str], ranks: str, limits: Limits, bounds: tuple[int, int], path: str
) -> None:
    """Write the *lists* of a run of places, with those of copies.

    Neighbours share neighbours, so that rows of a cell are looked at together later on.

    Args:
        found: What :func:`find` left.
        ranks: See above.
        limits: Which pairs are listed.
        bounds: The first place, and the one behind the last.
        path: Where it goes.
    """
    rank, place = (spill.read(ranks)[name] for name in ("rank", "place"))
    files = [_read(each) for each in found]
    copies = [slice(*np.searchsorted(file["copy_place"], bounds)) for _, file in files]
    none = np.empty(0, np.int64)
    copy, copy_of = (
        np.concatenate(
            [none, *(file[name][at] for (_, file), at in zip(files, copies, strict=True))]
        )
        for name in ("copy", "copy_of")
    )
    asking = copy_of[copy_of < len(place)]
    also = np.setdiff1d(place[asking], np.arange(*bounds))
    pieces = []
    for pairs, file in files:
        low, high = np.searchsorted(file["place"], bounds)
        pieces += [pairs.at(np.arange(low, high)), pairs.at(_runs(file["place"], also)[0])]
    lists = neighbours.merged(neighbours.joined(pieces), rank.__getitem__, limits)
    lists = _with_copies(lists, copy, copy_of)
    here = place[lists.worse]
    lists = lists.at((here >= bounds[0]) & (here < bounds[1]))
    lists = lists.at(np.lexsort((rank[lists.better], place[lists.worse])))
    _write(path, lists, wanted=np.unique(np.concatenate([lists.worse, lists.better])))


def _runs(
    groups: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where in sorted groups the wanted ones are, run after run, and their lengths."""
    low, high = (np.searchsorted(groups, wanted, side) for side in ("left", "right"))
    counts = high - low
    at = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    return at, counts


def _with_copies(pairs: Pairs, copy: NDArray[np.int64], of: NDArray[np.int64]) -> Pairs:
    """List each copy with the row that it is one of, and with that one's neighbours."""
    if not len(copy):
        return pairs
    at, counts = _runs(pairs.worse, of)
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


def wanted(lists: Sequence[str], bounds: tuple[int, int]) -> NDArray[np.int64]:
    """Return the rows in any list, of a run of rows, ascending."""
    found = [np.empty(0, np.int64)]
    for each in lists:
        rows = spill.read(each)["wanted"]
        found.append(rows[slice(*np.searchsorted(rows, bounds))])
    return np.unique(np.concatenate(found))


def pictures(
    scope: Scope, column: str, bounds: tuple[int, int], lists: Sequence[str], path: str
) -> None:
    """Write the *pictures* of the rows in lists, of a run of rows, as far as they have any."""
    numbers = wanted(lists, bounds)
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
    whole = column.drop_null().combine_chunks()
    if not len(whole):
        return there, np.empty((0, width), np.uint8)
    flat = np.frombuffer(whole.buffers()[1], np.uint8)
    return there, flat.reshape(-1, width)[whole.offset : whole.offset + len(whole)]


def confirm(
    lists: str, pictured: Sequence[str], bounds: tuple[int, int], threshold: float, path: str
) -> None:
    """Write ``ncc`` of a run of listed pairs: how alike their pictures are, -1 if one has none."""
    pairs, _ = _read(lists)
    worse, better = pairs.worse[slice(*bounds)], pairs.better[slice(*bounds)]
    rows, places = np.unique(np.concatenate([worse, better]), return_inverse=True)
    there, pixels = _pixels([spill.read(each) for each in pictured], rows)
    one, other = places[: len(worse)], places[len(worse) :]
    ncc = np.full(len(worse), -1.0)
    both = np.flatnonzero(there[one] & there[other])
    ncc[both] = template.ncc(pixels, one[both], other[both], threshold)
    spill.write(path, {"ncc": ncc})


def settle(
    lists: Sequence[str],
    confirmed: Sequence[Sequence[str]] | None,
    threshold: float,
    ranks: str,
    before: str | None,
    path: str,
) -> None:
    """Write what is *settled*.

    Args:
        lists: What :func:`gather` left.
        confirmed: What :func:`confirm` left for each of them; ``None`` if cosine alone decides.
        threshold: Of ``ncc``.
        ranks: See above.
        before: What was settled before; the lists are of rows that were open.
        path: Where it goes.
    """
    rank = spill.read(ranks)["rank"]
    pairs, ncc = _agreed(lists, confirmed, threshold)
    agreed = np.ones(len(pairs), np.bool_)
    if confirmed is not None:
        others = _in_doubt(lists, confirmed, threshold, np.unique(pairs.worse))
        agreed = np.append(agreed, np.zeros(len(others), np.bool_))
        ncc = np.append(ncc, np.zeros(len(others)))
        pairs = neighbours.joined([pairs, others])
    order = np.lexsort((rank[pairs.better], pairs.worse))
    pairs, agreed, ncc = pairs.at(order), agreed[order], ncc[order]
    rows, states = neighbours.settle(pairs, agreed, rank.__getitem__)
    gone = rows[states == DROPPED]
    told = agreed & _within(pairs.worse, gone)
    pairs, ncc = pairs.at(told), ncc[told]
    if before is not None:
        earlier, known = _read(before)
        pairs = neighbours.joined([earlier, pairs])
        ncc = np.append(known["ncc"], ncc)
        gone = np.union1d(known["gone"], gone)
    crowded = _crowded(lists, before)
    _write(path, pairs, ncc=ncc, gone=gone, open=rows[states == OPEN], crowded=crowded)


def _agreed(
    lists: Sequence[str], confirmed: Sequence[Sequence[str]] | None, threshold: float
) -> tuple[Pairs, NDArray[np.float64]]:
    """Return the pairs of duplicates in lists, and the ncc of each."""
    pieces, nccs = [], [np.empty(0)]
    for number, each in enumerate(lists):
        pairs, _ = _read(each)
        ncc = np.ones(len(pairs)) if confirmed is None else _ncc(confirmed[number])
        pieces.append(pairs.at(ncc >= threshold))
        nccs.append(ncc[ncc >= threshold])
    return neighbours.joined(pieces), np.concatenate(nccs)


def _ncc(confirmed: Sequence[str]) -> NDArray[np.float64]:
    return np.concatenate([np.empty(0), *(spill.read(each)["ncc"] for each in confirmed)])


def _in_doubt(
    lists: Sequence[str],
    confirmed: Sequence[Sequence[str]],
    threshold: float,
    movable: NDArray[np.int64],
) -> Pairs:
    """Return listed pairs that are no duplicates, where others may come instead of the better row.

    That is if the list was cut, and the better row goes itself.
    """
    pieces = []
    for each, known in zip(lists, confirmed, strict=True):
        pairs, _ = _read(each)
        pieces.append(
            pairs.at((_ncc(known) < threshold) & pairs.cut & _within(pairs.better, movable))
        )
    return neighbours.joined(pieces)


def keepers(settled: str) -> tuple[Pairs, NDArray[np.float64]]:
    """Return each row that goes with the best one that stays and that it agrees with; and ncc.

    In the order of the rows.
    """
    pairs, known = _read(settled)
    at = np.flatnonzero(
        ~_within(pairs.better, known["gone"]) & ~_within(pairs.better, known["open"])
    )
    at = at[np.argsort(pairs.worse[at], kind="stable")]  # those of a row are in order of rank
    at = at[np.diff(pairs.worse[at], prepend=-1) != 0]
    return pairs.at(at), known["ncc"][at]


def group(
    lists: Sequence[str],
    confirmed: Sequence[Sequence[str]] | None,
    threshold: float,
    before: str | None,
    path: str,
) -> None:
    """Write *groups*: ``label`` is the smallest row that each ``row`` is linked to.

    Where cosine alone decides, rows whose lists were cut are ``open``: they may have pairs in other
    groups.
    """
    pairs, _ = _agreed(lists, confirmed, threshold)
    worse, better = pairs.worse, pairs.better
    if before is not None:
        known = spill.read(before)
        worse, better = np.append(worse, known["row"]), np.append(better, known["label"])
    rows, label = neighbours.components(worse, better)
    none = np.empty(0, np.int64)
    asked = np.unique(pairs.worse[pairs.cut]) if confirmed is None else none
    crowded = _crowded(lists, before)
    groups = {"row": rows, "label": label, "open": asked, "gone": none, "crowded": crowded}
    spill.write(path, groups)


def _crowded(lists: Sequence[str], before: str | None) -> NDArray[np.int64]:
    """Return how many rows' lists were cut at first."""
    if before is not None:
        found: NDArray[np.int64] = spill.read(before)["crowded"]
        return found
    cut = [spill.read(each) for each in lists]
    return np.array([sum(len(np.unique(each["worse"][each["cut"]])) for each in cut)], np.int64)
