"""Whether two pictures show the same, from their thumbnails: the check behind near-duplicates.

The measure is normalised cross-correlation (J. P. Lewis, "Fast Normalized Cross-Correlation",
1995): one picture, shrunk, is laid on every place of the other, as it is and mirrored, and the best
agreement counts. So an image is found again after resaving, scaling, cropping, mirroring, a change
of brightness, or a line of text over it. Three levels make that cheap:

1. coarse: 16 x 16 cells of the shrunk picture's local contrast, against 217 windows of the other
   one; all partners of a picture are one matrix product, and most pairs end here;
2. half size: the best window's neighbourhood;
3. full size: the neighbourhood of that.

Shrinking goes down to 0.7 of the side, one pixel at a time at the end, which finds what lies
between steps of 0.05 (a crop of 2 %).

**Graphics.** Pages, charts and the like are mostly ground of one grey. Two of them share what does
not tell them apart, margins and axes: of 11,175 pairs of different charts with one layout, 13 agree
above 0.85, up to 0.885. Where at least 40 % of both pictures is one grey, what is missing
from 1 therefore counts twice: 0.925 is needed for 0.85. The price: most pages and charts that are
cut by 10 % are not found. What thumbnails do not show, they do not tell apart: copies of one form
are the same, whatever is filled in.

Measured at 0.85 on 200 photographs, 150 pages and 150 charts: no false pair (at most 0.817, 0.740
and 0.770); of the photographs' changed copies 0.995 or more are found after resaving at quality 30
to 95, scaling to 25 to 200 %, cropping to 25 % off each side, mirroring, brightness, contrast, a
line of text; 0.905 with a border of 4 % round them.

Sums are of whole numbers that the floats hold exactly, so no result depends on a BLAS, its threads
or on which pairs are asked for together.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pixsieve.errors import PlanError

if TYPE_CHECKING:
    from numpy.typing import NDArray

THRESHOLD = 0.85
"""From it up, pictures count as the same."""

SIDE = 96
"""Pixels to a side that pictures are compared at; thumbnails of another size are resampled."""

_LEAST_SIZE, _MOST_SIZE = 8, 256
_HALF = SIDE // 2
_CELLS = 16
_SIDES = (96, 91, 86, 82, 77, 72, 67)  # steps of about 0.05
_LEAST_SIDE = 66
_STEP = 4  # pixels between windows of one side, at most
_CONTRAST = 5  # half-size pixels to each side that local contrast is taken against
_EVIDENT = 0.97  # in place: no better one is looked for
_ALIGNED = 0.9  # coarse agreement in place: windows are not tried
_FLAT = 1.0  # grey levels of standard deviation: less is noise
_SMOOTH = 1.0  # the same of the local contrast: less says nothing at the coarse level
_FLAT_DIFFERENCE = 2.0
_GROUND_SHARE = 0.4
_GROUND_LEVELS = 4
_GROUND_FACTOR = 2.0
_COARSE_UNIT = 4000.0  # its square is exact in a float32
_UNIT = 2.0**20
_PARTNERS = 256  # pairs that stay in a core's cache
_REFINED = 16
_PICTURES = 512


def ncc(
    thumbnails: NDArray[np.uint8],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    threshold: float = THRESHOLD,
) -> NDArray[np.float32]:
    """Return how well the pictures of each pair agree at best, -1 to 1, rounded to 4 digits.

    Each value depends on its two pictures and the threshold alone, and not on their order. From the
    threshold up it is the refined one. Below, it is that of the level at which the pair was given
    up, and below the threshold for certain.

    Where a picture's grey has a standard deviation below 1 it is flat: two flat ones agree (1) if
    their means differ by at most 2, and a flat one with another never does (0).

    CPU time per pair: 6 microseconds where it is given up at once, 0.1 milliseconds where it is a
    plain copy, about 1 where it is looked at closely (1 in 6 pairs of pages or fewer, unless text
    fills them). Per picture 0.2 milliseconds, and 0.9 if it
    has pairs that are no plain copies. Memory per picture: 1 kB beside its thumbnail.

    Args:
        thumbnails: uint8 (n, size, size) or (n, size * size), as
            :class:`~pixsieve.scorers.thumbnail.ThumbnailStage` makes them.
        first: int64 (pairs,): of each pair the one picture, a row of ``thumbnails``.
        second: The other one.
        threshold: From where on a value has to be right.

    Returns:
        float32 (pairs,).

    Raises:
        PlanError: The thumbnails are not squares of 8 to 256 pixels.
    """
    used, numbers = np.unique(np.concatenate([first, second]), return_inverse=True)
    pictures = _Pictures(_squares(thumbnails, used))
    ends = numbers.reshape(2, -1)
    flat = pictures.flat[ends]
    means = pictures.mean[ends]
    same = flat.all(axis=0) & (np.abs(means[0] - means[1]) <= _FLAT_DIFFERENCE)
    found = same.astype(np.float64)
    rest = np.flatnonzero(~flat.any(axis=0))
    factor = np.where(pictures.ground[ends[:, rest]].all(axis=0), _GROUND_FACTOR, 1)
    plain = _agreement(pictures, ends[:, rest], 1 - (1 - threshold) / factor)
    found[rest] = np.clip(1 - (1 - plain) * factor, -1, 1)
    rounded: NDArray[np.float32] = np.round(found, 4).astype(np.float32)
    return rounded


def _squares(thumbnails: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the rows' thumbnails as uint8 (rows, 96, 96)."""
    pixels = thumbnails[0].size if len(thumbnails) else SIDE * SIDE
    size = round(pixels**0.5)
    if size * size != pixels or not _LEAST_SIZE <= size <= _MOST_SIZE:
        msg = (
            f"thumbnails have {pixels} pixels; expected squares of {_LEAST_SIZE} to {_MOST_SIZE} "
            "pixels a side, as ThumbnailStage makes them"
        )
        raise PlanError(msg)
    squares = thumbnails.reshape(-1, size, size)[rows]
    if size == SIDE:
        return squares
    resampled = np.empty((len(rows), SIDE, SIDE), np.uint8)
    for row, square in enumerate(squares):
        picture = Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        resampled[row] = np.asarray(picture)
    return resampled


class _Pictures:
    """What is known of each picture by itself."""

    def __init__(self, squares: NDArray[np.uint8]) -> None:
        count = len(squares)
        self.squares = squares
        self.whole = np.empty((count, _CELLS * _CELLS), np.float32)
        self.mean, self.flat = np.empty(count), np.empty(count, np.bool_)
        self.smooth, self.ground = np.empty(count, np.bool_), np.empty(count, np.bool_)
        for start in range(0, count, _PICTURES):
            part = slice(start, start + _PICTURES)
            grey = squares[part].reshape(-1, SIDE * SIDE).astype(np.float64)
            self.mean[part] = grey.mean(axis=1)
            self.flat[part] = grey.std(axis=1) < _FLAT
            contrast = _contrast(squares[part])
            self.smooth[part] = contrast.reshape(-1, _HALF * _HALF).std(axis=1) < 4 * _SMOOTH
            self.whole[part] = _windows(contrast, 0)
            self.ground[part] = _ground_share(squares[part]) >= _GROUND_SHARE


def _ground_share(squares: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the share of pixels within some levels of the commonest grey, for each picture."""
    counts = np.stack([np.bincount(square.ravel(), minlength=256) for square in squares])
    below = np.pad(counts.cumsum(axis=1), ((0, 0), (1, 0)))
    low = np.maximum(np.arange(256) - _GROUND_LEVELS, 0)
    high = np.minimum(np.arange(256) + _GROUND_LEVELS + 1, 256)
    share: NDArray[np.float64] = (below[:, high] - below[:, low]).max(axis=1) / SIDE**2
    return share


def _halved(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return sums of 2 x 2 pixels, whole numbers: float32 (n, 48, 48)."""
    wide = squares.astype(np.float32)
    rows = wide[:, ::2] + wide[:, 1::2]
    sums: NDArray[np.float32] = rows[:, :, ::2] + rows[:, :, 1::2]
    return sums


def _contrast(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return half-size pictures less the mean around each pixel, in quarters of a grey level.

    What is left tells pictures apart far better than their light and shade do: of the pairs of
    different photographs, 1 in 1000 agrees above 0.5, where 1 in 5 does with it.
    """
    halved = _halved(squares)
    reach = 2 * _CONTRAST + 1
    edges = ((0, 0), (_CONTRAST, _CONTRAST), (_CONTRAST, _CONTRAST))
    sums = np.pad(halved, edges, "edge").astype(np.float64).cumsum(axis=1).cumsum(axis=2)
    sums = np.pad(sums, ((0, 0), (1, 0), (1, 0)))
    around = sums[:, reach:, reach:] - sums[:, :-reach, reach:]
    around -= sums[:, reach:, :-reach] - sums[:, :-reach, :-reach]
    left: NDArray[np.float32] = halved - np.rint(around / reach**2).astype(np.float32)
    return left


def _starts(side: int) -> NDArray[np.int64]:
    """Return where windows of a side begin, along one axis."""
    room = SIDE - side
    return np.unique(np.rint(np.linspace(0, room, -(-room // _STEP) + 1)).astype(np.int64))


def _overlaps(edges: NDArray[np.int64], pixel: int, pixels: int) -> NDArray[np.float32]:
    """Return how much of each pixel lies between neighbouring edges: (edges - 1, pixels)."""
    begins = pixel * np.arange(pixels)
    low = np.maximum(edges[:-1, None], begins)
    high = np.minimum(edges[1:, None], begins + pixel)
    shared: NDArray[np.float32] = np.maximum(high - low, 0).astype(np.float32)
    return shared


@functools.cache
def _sampling(level: int) -> NDArray[np.float32]:
    """Return the weights of half-size pixels in the cells of a side's windows, along one axis.

    In units of 1/32 of a pixel, of which a window's cell spans as many as the window has pixels.
    """
    side = _SIDES[level]
    cells = np.arange(_CELLS + 1)
    edges = [start * _CELLS + side * cells for start in _starts(side).tolist()]
    return np.concatenate([_overlaps(each, 2 * _CELLS, _HALF) for each in edges])


@functools.cache
def _places() -> NDArray[np.int64]:
    """Return side, top and left of every window: (windows, 3)."""
    return np.array(
        [
            (side, top, left)
            for side in _SIDES
            for top in _starts(side).tolist()
            for left in _starts(side).tolist()
        ]
    )


def _windows(contrast: NDArray[np.float32], level: int) -> NDArray[np.float32]:
    """Return the cells of each picture's windows of a side: (pictures * windows, 256).

    They have mean 0 and norm 4000, rounded to whole numbers; 0 where a window has no contrast.
    """
    weights = _sampling(level)
    along = len(weights) // _CELLS
    cells = (weights @ contrast @ weights.T).reshape(-1, along, _CELLS, along, _CELLS)
    flat = cells.transpose(0, 1, 3, 2, 4).reshape(-1, _CELLS * _CELLS).astype(np.float64)
    flat -= np.rint(flat.mean(axis=1))[:, None]  # whole numbers still
    count = _CELLS * _CELLS
    total = flat.sum(axis=1)
    norm = np.sqrt(np.maximum(np.einsum("wc,wc->w", flat, flat) - total**2 / count, 0))
    least = 4 * _SIDES[level] ** 2 * (_SMOOTH / 4) * count**0.5
    scale = np.divide(_COARSE_UNIT, norm, out=np.zeros_like(norm), where=norm >= least)
    unit = (flat - (total / count)[:, None]) * scale[:, None]
    whole: NDArray[np.float32] = np.rint(unit).astype(np.float32)
    return whole


def _bank(square: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return all windows of a picture, then all of them mirrored: (2 * windows, 256)."""
    contrast = _contrast(square[None])
    found = np.concatenate([_windows(contrast, level) for level in range(len(_SIDES))])
    mirrored = found.reshape(-1, _CELLS, _CELLS)[:, :, ::-1].reshape(found.shape)
    return np.concatenate([found, mirrored])


def _agreement(
    pictures: _Pictures, ends: NDArray[np.int64], needed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the plain agreement of pairs of pictures that are not flat.

    Args:
        pictures: All of them.
        ends: Numbers of each pair's pictures: (2, pairs).
        needed: What each pair must reach to count: (pairs,).
    """
    windows = len(_places())
    count = ends.shape[1]
    whole, mirrored = _in_place(pictures, ends)
    aligned = whole >= _ALIGNED
    evident = np.zeros(count, np.bool_)
    rows = np.flatnonzero(aligned)
    laid = _laid(pictures, ends[:, rows], mirrored[rows])
    evident[rows] = laid >= np.maximum(needed[rows], _EVIDENT)
    coarse = np.tile(whole, (2, 1))
    window = np.tile(mirrored * windows, (2, 1))
    rows = np.flatnonzero(~aligned)
    both = _coarse(pictures, ends[:, rows].ravel(), ends[::-1, rows].ravel())
    coarse[:, rows], window[:, rows] = (each.reshape(2, -1) for each in both)
    found: NDArray[np.float64] = coarse.max(axis=0)
    limit = np.minimum(2 * needed - 1.2, 0.7)
    undecided = ~evident & (aligned | (found >= limit) | pictures.smooth[ends].any(axis=0))
    found[undecided] = -1
    found[aligned] = laid
    for way in range(2):
        # Both ways where they are equal, as they are where the one whole lies on the other.
        rows = np.flatnonzero(undecided & (coarse[way] >= coarse[1 - way]))
        rows = rows[np.argsort(window[way, rows] % windows, kind="stable")]
        for start in range(0, len(rows), _REFINED):
            part = rows[start : start + _REFINED]
            value = _refined(
                pictures.squares[ends[way, part]],
                pictures.squares[ends[1 - way, part]],
                window[way, part],
                needed[part],
            )
            found[part] = np.maximum(found[part], value)
    return found


def _in_place(
    pictures: _Pictures, ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the coarse agreement of whole pictures, and 1 where it is that of one mirrored."""
    found = np.empty((2, ends.shape[1]))
    for start in range(0, ends.shape[1], _PARTNERS):
        part = slice(start, start + _PARTNERS)
        one, other = pictures.whole[ends[0, part]], pictures.whole[ends[1, part]]
        found[0, part] = np.einsum("pc,pc->p", one, other)
        turned = other.reshape(-1, _CELLS, _CELLS)[:, :, ::-1].reshape(other.shape)
        found[1, part] = np.einsum("pc,pc->p", one, turned)
    best: NDArray[np.float64] = found.max(axis=0) / _COARSE_UNIT**2
    return best, found.argmax(axis=0)


def _laid(
    pictures: _Pictures, ends: NDArray[np.int64], mirrored: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the correlation of whole pictures at full size."""
    found = np.empty(ends.shape[1])
    for start in range(0, len(found), _PARTNERS):
        part = slice(start, start + _PARTNERS)
        one, other = (pictures.squares[each[part]].astype(np.float64) for each in ends)
        other = np.where(mirrored[part, None, None] == 1, other[:, :, ::-1], other)
        sums = [np.einsum("pyx->p", each) for each in (one, other)]
        products = [
            np.einsum("pyx,pyx->p", a, b) for a, b in ((one, other), (one, one), (other, other))
        ]
        n = SIDE**2
        spread = np.sqrt(products[1] - sums[0] ** 2 / n) * np.sqrt(products[2] - sums[1] ** 2 / n)
        found[part] = (products[0] - sums[0] * sums[1] / n) / spread
    return found


def _coarse(
    pictures: _Pictures, room: NDArray[np.int64], shape: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each pair's best coarse agreement of a whole picture with a window of another one.

    Args:
        pictures: All of them.
        room: Numbers of the pictures of which windows are taken: (pairs,).
        shape: Numbers of those that are shrunk: (pairs,).

    Returns:
        The agreement, and the window's number; behind the last one come mirrored ones.
    """
    value, window = np.empty(len(room)), np.empty(len(room), np.int64)
    order = np.argsort(room, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(room[order])) + 1) if len(room) else ():
        bank = _bank(pictures.squares[room[rows[0]]])
        for start in range(0, len(rows), _PARTNERS):
            part = rows[start : start + _PARTNERS]
            found = pictures.whole[shape[part]] @ bank.T
            window[part] = found.argmax(axis=1)
            value[part] = found.max(axis=1)
    return value / _COARSE_UNIT**2, window


def _refined(
    rooms: NDArray[np.uint8],
    shapes: NDArray[np.uint8],
    windows: NDArray[np.int64],
    needed: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the best correlation near the windows: at half size, and where it is near, at full.

    Args:
        rooms: The pictures of which windows are taken: uint8 (pairs, 96, 96).
        shapes: Those that are shrunk.
        windows: Their numbers, as :func:`_coarse` gives them.
        needed: What the correlation must reach to count.
    """
    count = len(_places())
    shapes = np.where((windows >= count)[:, None, None], shapes[:, :, ::-1], shapes)
    places = _places()[windows % count]
    places[:, 0] += 1  # an odd side is rounded up
    places //= 2
    found, places = _search(_halved(rooms), _halved(shapes), places, 2)
    near = np.flatnonzero(found >= needed - 0.2)
    if len(near):
        whole = [each[near].astype(np.float32) for each in (rooms, shapes)]
        found[near], _ = _search(whole[0], whole[1], 2 * places[near], 1)
    return found


def _search(
    rooms: NDArray[np.float32], shapes: NDArray[np.float32], places: NDArray[np.int64], reach: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the best correlation within ``reach`` pixels of side, top and left, and its place.

    Args:
        rooms: Whole numbers: float32 (pairs, size, size).
        shapes: The pictures that are shrunk to the sides, each pixel the mean of what it covers.
        places: Side, top and left in pixels: (pairs, 3).
        reach: Pixels.
    """
    size = rooms.shape[1]
    best, at = np.full(len(rooms), -1.0), places.copy()
    wide = rooms.astype(np.float64)
    powers = wide * wide
    least, most = places[:, 0].min() - reach, places[:, 0].max() + reach
    for side in range(max(least, _LEAST_SIDE * size // SIDE), min(most, size) + 1):
        rows = np.flatnonzero(np.abs(places[:, 0] - side) <= reach)
        if not len(rows):
            continue
        pixels = side * side
        offsets = np.arange(min(2 * reach + 1, size - side + 1))
        span = len(offsets)
        corner = places[rows, 1:] + (places[rows, :1] - side) // 2 - span // 2
        corner = np.clip(corner, 0, size - side - span + 1)
        near = _neighbourhood(wide, rows, corner, side, span)
        shape = _templates(shapes[rows], side)
        products = np.concatenate(
            [near[:, :, down * side : down * side + pixels] @ shape for down in range(span)], axis=2
        )  # by left, then top
        tops, lefts = (_bands(corner[:, axis, None] + offsets, side, size) for axis in (0, 1))
        sums, power = (lefts @ (tops @ each[rows]).mT for each in (wide, powers))
        power = power - sums**2 / pixels
        spread = np.sqrt(np.maximum(power, 0)) * _UNIT
        least_power = pixels * (_FLAT * (SIDE // size) ** 2) ** 2
        values = np.divide(
            products, spread, out=np.zeros_like(products), where=power >= least_power
        ).reshape(len(rows), -1)
        chosen = values.argmax(axis=1)
        value = values[np.arange(len(rows)), chosen]
        better = value > best[rows]
        won, chosen = rows[better], chosen[better]
        best[won] = value[better]
        at[won, 0] = side
        at[won, 1:] = corner[better] + np.stack([chosen % span, chosen // span], axis=1)
    return best, at


def _neighbourhood(
    rooms: NDArray[np.float64],
    rows: NDArray[np.int64],
    corner: NDArray[np.int64],
    side: int,
    span: int,
) -> NDArray[np.float64]:
    """Return for each place to the left all rows of pixels: (rows, span, (side + span - 1) * side).

    The window that is so many rows down is a run of them.
    """
    high = side + span - 1
    found = np.empty((len(rows), span, high, side))
    for target, row, (top, left) in zip(found, rows.tolist(), corner.tolist(), strict=True):
        for right in range(span):
            target[right] = rooms[row, top : top + high, left + right : left + right + side]
    return found.reshape(len(rows), span, high * side)


def _templates(shapes: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """Return pictures shrunk to a side, with mean 0 and norm 2**20: (n, side * side, 1)."""
    weights = _shrinking(side, shapes.shape[1])
    found = (weights @ shapes @ weights.T).reshape(len(shapes), -1).astype(np.float64)
    found -= np.rint(found.mean(axis=1))[:, None]  # whole numbers still
    total = found.sum(axis=1)
    norm = np.sqrt(np.maximum(np.einsum("nc,nc->n", found, found) - total**2 / side**2, 0))
    found -= (total / side**2)[:, None]
    found *= np.divide(_UNIT, norm, out=np.zeros_like(norm), where=norm > 0)[:, None]
    return np.rint(found, out=found)[:, :, None]


@functools.cache
def _shrinking(side: int, size: int) -> NDArray[np.float32]:
    """Return the weights of ``size`` pixels in each of ``side`` that they are shrunk to."""
    return _overlaps(size * np.arange(side + 1), side, size)


def _bands(starts: NDArray[np.int64], side: int, size: int) -> NDArray[np.float64]:
    """Return 1 from each start on for a side's length, else 0: (rows, starts, size)."""
    distance = np.arange(size) - starts[:, :, None]
    return ((distance >= 0) & (distance < side)).astype(np.float64)
