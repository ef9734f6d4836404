"""The rows of a table by cells of similar vectors, out of core: tasks of two selection stages.

A sample of all vectors gives the centroids; then each slice of rows is sorted by cell. A row's cell
is the same whatever rows are in its slice.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError
from pixsieve.select import keys, kmeans, spill
from pixsieve.select.base import BATCH_ROWS, Task
from pixsieve.select.neighbours import unit

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows, Scope

EXACT_ROWS = 16_384
"""Up to so many rows all pairs are compared: that takes seconds."""
_SLICE_BYTES = 1 << 27
_WIDTHS = {pa.float16(): 2, pa.float32(): 4, pa.float64(): 8}
_KEYS = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A slice of the vectors to be put into cells.

    Attributes:
        start: Number of its first row.
        stop: Of the one behind its last row.
        path: A file with an array ``vector``, the first of which has the number ``first``; ``None``
            for rows of the table.
        first: See there.
    """

    start: int
    stop: int
    path: str | None = None
    first: int = 0


def dimensions(stage: str, column: str, columns: pa.Schema) -> int:
    """Return how many numbers the vectors of a column have.

    Raises:
        PlanError: there is no such column, or it does not hold vectors.
    """
    vectors = [
        each.name
        for each in columns
        if pa.types.is_fixed_size_list(each.type) and each.type.value_type in _WIDTHS
    ]
    if column not in vectors:
        have = ", ".join(vectors) or "none"
        msg = (
            f"{stage}: column={column!r} is no column of vectors; there are these: {have}. "
            "Add ImageEmbeddingStage() before it"
        )
        raise PlanError(msg)
    size: int = columns.field(column).type.list_size
    return size


def slices(count: int, dim: int) -> list[tuple[int, int]]:
    """Return (start, stop) of runs of rows whose vectors take about 128 MiB."""
    step = max(1, min(BATCH_ROWS, _SLICE_BYTES // (4 * dim)))
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def automatic(count: int, visits: int) -> int:
    """Return the number of cells that makes a search for pairs among ``count`` vectors cheapest.

    In dot products: training, assigning each vector, and comparing those in a cell with one another
    and with its visitors, where each vector visits so many cells.
    """
    if count <= EXACT_ROWS:
        return 1
    training = kmeans.ITERATIONS * kmeans.SAMPLE_PER_CENTROID
    choices = np.unique((2 ** np.arange(4, 17, 0.125)).astype(np.int64)).astype(np.float64)
    cost = training * choices**2 + count * choices + (0.5 + visits) * count**2 / choices
    return int(choices[cost.argmin()])


def vectors_of(column: pa.ChunkedArray) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Return vectors as they are stored, (n, d), and whether each has a direction.

    Null, zero, infinite and NaN have none.
    """
    whole = column.combine_chunks()
    size = whole.type.list_size
    flat = whole.values.slice(whole.offset * size, len(whole) * size)
    vectors = flat.to_numpy(zero_copy_only=False).reshape(len(whole), size)
    valid = np.asarray(whole.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    return vectors, valid & _with_direction(vectors)


def _with_direction(vectors: NDArray[np.floating]) -> NDArray[np.bool_]:
    squares = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), kmeans.BLOCK):
        wide = vectors[start : start + kmeans.BLOCK].astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            np.einsum("ij,ij->i", wide, wide, out=squares[start : start + len(wide)])
    return (squares > 0) & np.isfinite(squares)


def read(
    rows: Rows, column: str, source: Source, wanted: NDArray[np.bool_] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating], int]]:
    """Yield numbers of rows, their vectors, and how many kept rows have none, piece by piece.

    ``wanted`` says of each row of the source whether it is.
    """
    if source.path is not None:
        low, high = source.start - source.first, source.stop - source.first
        yield np.arange(source.start, source.stop), spill.read(source.path)["vector"][low:high], 0
        return
    for batch in rows.batches((column,), source.start, source.stop):
        asked = batch.kept
        if wanted is not None:
            begin = batch.first - source.start
            asked = asked & wanted[begin : begin + len(asked)]
        numbers = np.flatnonzero(asked)
        read = batch.columns[column]
        if len(numbers) < len(read):
            read = read.take(pa.array(numbers))
        vectors, valid = vectors_of(read)
        lost = len(numbers) - int(valid.sum())
        if lost:
            numbers, vectors = numbers[valid], vectors[valid]
        yield batch.first + numbers, vectors, lost


def sample(
    scope: Scope, column: str, bounds: tuple[int, int], share: float, seed: int, path: str
) -> None:
    """Write the vectors of about that share of a slice of rows, chosen by ids alone."""
    rows = scope.rows()
    most = np.uint64(min(int(share * _KEYS), _KEYS - 1))
    found = [
        keys.uniform(batch.columns["image_id"], seed)
        for batch in rows.batches(("image_id",), *bounds)
    ]
    key = np.concatenate([np.empty(0, np.uint64), *found])
    dim = scope.columns.field(column).type.list_size
    taken = [np.empty((0, dim), np.float32)]
    taken_keys = [np.empty(0, np.uint64)]
    source = Source(start=bounds[0], stop=bounds[1])
    for numbers, vectors, _ in read(rows, column, source, key <= most):
        taken.append(unit(vectors))
        taken_keys.append(key[numbers - bounds[0]])
    spill.write(path, {"key": np.concatenate(taken_keys), "vector": np.concatenate(taken)})


def centroids(
    samples: Sequence[str],
    k: int,
    seed: int,
    center: bool,  # noqa: FBT001
    near: float | None,
    path: str,
) -> None:
    """Write ``centroids``, (k', d), and the ``mean`` that is to be taken off first, (1, d).

    Of centroids with a cosine of ``near`` or more to one another, one stays.
    """
    found = [spill.read(each) for each in samples]
    key = np.concatenate([each["key"] for each in found])
    vectors = np.concatenate([each["vector"] for each in found])
    vectors = vectors[np.argsort(key, kind="stable")].astype(np.float32, copy=False)
    mean = np.zeros((1, vectors.shape[1]), np.float32)
    if center and len(vectors):
        mean[0] = vectors.mean(axis=0, dtype=np.float64)
        vectors = _centred(vectors, mean)
    if len(vectors):
        middles = kmeans.kmeans(vectors, k, seed)
        middles = middles if near is None else _thinned(middles, near)
    else:
        middles = np.eye(1, vectors.shape[1], dtype=np.float32)
    spill.write(path, {"centroids": middles, "mean": mean})


def _thinned(middles: NDArray[np.float32], near: float) -> NDArray[np.float32]:
    """Return those that are not near to one before that is returned."""
    chosen = np.zeros(len(middles), np.bool_)
    for number, middle in enumerate(middles):
        chosen[number] = not (middles[:number][chosen[:number]] @ middle >= near).any()
    return middles[chosen]


def _centred(units: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors of length 1 less the mean, of length 1 again; zero where nothing is left."""
    return np.nan_to_num(unit(units - mean), copy=False, posinf=0, neginf=0)


def label(scope: Scope, column: str, source: Source, middles: str, path: str) -> None:
    """Write ``row`` and ``cell`` of a slice, for rows that have a vector."""
    given = spill.read(middles)
    numbers, cells = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    for row, vectors, _ in read(scope.rows(), column, source):
        units = _centred(unit(vectors), given["mean"].astype(np.float32))
        numbers.append(row)
        cells.append(kmeans.nearest(units, given["centroids"].astype(np.float32)))
    spill.write(path, {"row": np.concatenate(numbers), "cell": np.concatenate(cells)})


def assign(
    scope: Scope, column: str, source: Source, middles: str, reach: float, probes: int, path: str
) -> None:
    """Write a slice of rows in order of their cells, and which other cells each must visit.

    A pair of vectors at a distance of r falls into two cells where the border passes between them.
    The border is at right angles to the line between both centroids, and at least one of the
    two vectors lies within r / 2 of it: that one visits the other cell. Those cells are visited
    that begin within ``reach``, and of them the nearest ``probes``.

    Writes the arrays ``row``, ``cell``, ``likeness`` (dot product with the centroid), ``digest``
    (of the vector's bytes), ``vector`` (as stored); ``visited`` (cells, ascending) and ``visitor``
    (positions in the arrays before); ``lost`` (how many kept rows have no vector).
    """
    middle = np.ascontiguousarray(spill.read(middles)["centroids"], np.float32)
    pieces = list(read(scope.rows(), column, source))
    row = np.concatenate([np.empty(0, np.int64), *(piece[0] for piece in pieces)])
    dim = middle.shape[1]
    stored = pieces[0][1].dtype if pieces else np.dtype(np.float32)
    found = [piece[1] for piece in pieces] or [np.empty((0, dim), stored)]
    vectors = np.concatenate(found) if len(found) > 1 else found[0]
    lost = sum(piece[2] for piece in pieces)
    del pieces, found
    cell = np.empty(len(row), np.int32)
    likeness = np.empty(len(row), np.float32)
    visits: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for first in range(0, len(row), kmeans.BLOCK):
        units = unit(vectors[first : first + kmeans.BLOCK])
        for _, dots in kmeans.likenesses(units, middle):
            at = np.arange(len(dots))
            home = dots.argmax(axis=1)
            best = dots[at, home]
            cell[first : first + len(dots)], likeness[first : first + len(dots)] = home, best
            other = home
            for _ in range(min(probes, len(middle) - 1)):
                dots[at, other] = -np.inf
                other = dots.argmax(axis=1)
                margin = best - dots[at, other]
                near = np.flatnonzero(margin <= 2 * reach)  # no two centroids are further apart
                line = middle[home[near]] - middle[other[near]]
                apart = np.sqrt(np.einsum("ij,ij->i", line, line))
                near = near[margin[near] <= reach * apart]
                visits.append((other[near], first + near))
    order = np.argsort(cell, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    none = np.empty(0, np.int64)
    visited = np.concatenate([none, *(each[0] for each in visits)])
    visitor = place[np.concatenate([none, *(each[1] for each in visits)])]
    by_cell = np.lexsort((visitor, visited))
    vectors = vectors[order]
    spill.write(
        path,
        {
            "row": row[order],
            "cell": cell[order],
            "likeness": likeness[order],
            "digest": digests(vectors),
            "vector": vectors,
            "visited": visited[by_cell].astype(np.int32),
            "visitor": visitor[by_cell],
            "lost": np.array([lost], np.int64),
        },
    )


def digests(vectors: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Return 64 bits of each row's bytes: mixed words, times random odd numbers, added up."""
    width = -(-vectors.shape[1] * vectors.itemsize // 8)
    weights = np.random.PCG64(0).random_raw(width) | np.uint64(1)
    found = np.empty(len(vectors), np.uint64)
    for start in range(0, len(vectors), kmeans.BLOCK):
        block = np.ascontiguousarray(vectors[start : start + kmeans.BLOCK])
        padded = np.zeros((len(block), width * 8), np.uint8)
        padded[:, : block.shape[1] * block.itemsize] = block.view(np.uint8)
        words = padded.view(np.uint64)
        words ^= words >> np.uint64(32)
        words *= np.uint64(0x9E3779B97F4A7C15)
        words ^= words >> np.uint64(29)
        found[start : start + len(block)] = (words * weights).sum(axis=1, dtype=np.uint64)
    return found


def centroid_rounds(
    scope: Scope,
    column: str,
    k: int,
    seed: int,
    kept: int,
    *,
    center: bool = False,
    near: float | None = None,
) -> Generator[Sequence[Task], Sequence[str], str]:
    """Run the tasks that find ``k`` centroids, or fewer; return the path of what they wrote."""
    rows = len(scope.rows())
    dim = scope.columns.field(column).type.list_size
    share = min(1.0, k * kmeans.SAMPLE_PER_CENTROID / max(kept, 1))
    samples = yield [
        Task(
            name=f"sample {number}",
            work=functools.partial(sample, scope, column, bounds, share, seed),
        )
        for number, bounds in enumerate(slices(rows, dim))
    ]
    work = functools.partial(centroids, tuple(samples), k, seed, center, near)
    (path,) = yield [Task(name="centroids", work=work)]
    return path
