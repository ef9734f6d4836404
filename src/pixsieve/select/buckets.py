"""Put images of like shape together: aspect-ratio and resolution buckets for diffusion training."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError
from pixsieve.select.base import Verdicts
from pixsieve.select.evidence import Values
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

_COLUMNS = ("width", "height")
_MOST = 1000
"""Buckets that there may be: shards hold one each."""
_LISTED = 20
"""Buckets that notes name one by one, the fullest ones."""

Size = tuple[int, int]
"""Width and height, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketStage(SelectStage):
    """Gives each kept image the bucket that it is cropped least for; a shard holds one bucket.

    A bucket is a size for training, such as ``1152x896`` (width by height). For a resolution r,
    there is one for each width that is a multiple of ``step``: the height is the largest multiple
    with at most r * r pixels; and each turned by a quarter. That is the rule of NovelAI ("NovelAI
    Improvements on Stable Diffusion", 2022); with 1024 it gives those sizes of SDXL's list that are
    as large as can be (Podell et al., "SDXL", 2023, appendix I).

    An image goes to the bucket whose aspect ratio is nearest to its own, by the logarithm; of
    equally near ones to the narrower. With several resolutions, it is that of the largest one to
    which it need not be enlarged, where it is scaled until it covers the bucket. Pixels stay as
    they are; scaling and cropping are the loader's.

    Images smaller than their bucket of the smallest resolution stay and are counted, or are
    dropped, with their width and height as the evidence.

    Args:
        resolution: Side of the square with as many pixels, or several; multiples of ``step``.
        step: What widths and heights are multiples of, in pixels.
        max_ratio: Longer side by shorter side of the longest buckets.
        buckets: (width, height) of each bucket, instead of the three above.
        too_small: What happens to images that would have to be enlarged.
    """

    resolution: int | tuple[int, ...] = 1024
    step: int = 64
    max_ratio: float = 2.0
    buckets: tuple[Size, ...] | None = None
    too_small: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.buckets is not None:
            if (self.resolution, self.step, self.max_ratio) != (1024, 64, 2.0):
                msg = "BucketStage: buckets stand for themselves; leave resolution, step, max_ratio"
                raise PlanError(msg)
            if not self.buckets or min(itertools.chain(*self.buckets)) < 1:
                msg = f"BucketStage: buckets is {self.buckets!r}; expected sizes of 1 or more"
                raise PlanError(msg)
            shapes: dict[float, Size] = {}
            for width, height in self.buckets:
                other = shapes.setdefault(width / height, (width, height))
                if other != (width, height):
                    msg = (
                        f"BucketStage: {_name(other)} and {_name((width, height))} have one shape; "
                        "expected one bucket a shape (resolution takes several)"
                    )
                    raise PlanError(msg)
        elif self.step < 1 or not 1 <= self.max_ratio < float("inf"):
            msg = (
                f"BucketStage: step is {self.step} and max_ratio {self.max_ratio:g}; "
                "expected 1 or more of both"
            )
            raise PlanError(msg)
        else:
            for side in self._resolutions():
                if side < 1 or side % self.step:
                    msg = (
                        f"BucketStage: the resolution {side} is no multiple of step={self.step}; "
                        f"expected such as {max(round(side / self.step), 1) * self.step}"
                    )
                    raise PlanError(msg)
        count = sum(len(level) for level in self._levels())
        if not count:
            msg = "BucketStage: resolution is empty; expected such as 1024, or several"
            raise PlanError(msg)
        if count > _MOST:
            msg = (
                f"BucketStage: that makes {count} buckets; expected at most {_MOST}: a larger step"
            )
            raise PlanError(msg)

    def reads(self) -> tuple[str, ...]:
        return _COLUMNS

    def decide(self, rows: Rows) -> Verdicts:
        levels = self._levels()
        starts = np.cumsum([0, *map(len, levels)])
        sizes = [size for level in levels for size in level]
        found = np.full(len(rows), -1, np.int16)
        small: list[NDArray[np.int64]] = []
        for batch in rows.batches(_COLUMNS):
            kept = np.flatnonzero(batch.kept)
            width, height = (
                batch.columns[name].fill_null(0).to_numpy()[kept].astype(np.int64)
                for name in _COLUMNS
            )
            chosen = np.full(len(kept), -1, np.int64)
            for start, level in zip(starts[::-1][1:], reversed(levels), strict=True):
                nearest, covers = _nearest(width, height, level)
                # The smallest resolution takes what is left.
                take = (chosen < 0) & (covers | (start == 0))
                chosen[take] = start + nearest[take]
                if start == 0:
                    small.append(batch.first + kept[take & ~covers])
            found[batch.first + kept] = chosen
        enlarged = np.concatenate([np.empty(0, np.int64), *small])
        drop = enlarged if self.too_small == "drop" else enlarged[:0]
        found[drop] = -1
        counts = np.bincount(found[found >= 0], minlength=len(sizes))
        total = max(int(counts.sum()), 1)
        used = np.flatnonzero(counts)
        place = np.full(len(sizes) + 1, -1, np.int16)
        place[used] = np.arange(len(used))
        names = [_name(sizes[at]) for at in used.tolist()]
        listed = np.sort(np.argsort(-counts[used], kind="stable")[:_LISTED]).tolist()
        numbers = counts[used].tolist()
        notes = [f"{names[at]}: {numbers[at]:,} ({numbers[at] / total:.1%})" for at in listed]
        if len(names) > len(listed):
            rest = total - sum(numbers[at] for at in listed)
            notes.append(
                f"{len(names) - len(listed):,} more buckets: {rest:,} ({rest / total:.1%})"
            )
        if len(enlarged):
            told = "dropped" if len(drop) else "kept, and have to be enlarged"
            notes.append(f"{len(enlarged):,} are smaller than their bucket: {told}")
        indices = place[found]
        return Verdicts(
            drop=drop,
            reason="too_small_for_bucket",
            evidence=Values({}, _COLUMNS),
            bucket=pa.DictionaryArray.from_arrays(
                pa.array(indices, mask=indices < 0), pa.array(names, pa.string())
            ),
            notes=tuple(notes),
        )

    def _resolutions(self) -> list[int]:
        given = (self.resolution,) if isinstance(self.resolution, int) else self.resolution
        return sorted(set(given))

    def _levels(self) -> list[list[Size]]:
        """Return the buckets of each resolution, the smallest first, from narrow to wide."""
        if self.buckets is not None:
            sizes = {(width, height) for width, height in self.buckets}
            return [sorted(sizes, key=lambda size: size[0] / size[1])]
        return [self._level(side) for side in self._resolutions()]

    def _level(self, side: int) -> list[Size]:
        found = {(side, side)}
        for width in itertools.count(side + self.step, self.step):
            height = side * side // width // self.step * self.step
            if not height or width > height * self.max_ratio:
                break
            found |= {(width, height), (height, width)}
            if len(found) > _MOST:
                break
        return sorted(found, key=lambda size: size[0] / size[1])


def _nearest(
    width: NDArray[np.int64], height: NDArray[np.int64], level: list[Size]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return for each image the nearest of a row of buckets, and whether it covers that one."""
    sizes = np.array(level)
    shapes = sizes[:, 0] / sizes[:, 1]
    # Of two neighbours, the border is the geometric mean of their ratios; on it is narrower.
    borders = np.sqrt(shapes[1:] * shapes[:-1])
    found = np.searchsorted(borders, width / np.maximum(height, 1), side="left")
    return found, (width >= sizes[found, 0]) & (height >= sizes[found, 1])


def _name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
