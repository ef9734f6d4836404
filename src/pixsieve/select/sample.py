"""Keep a part of the samples: at random, by weight, by group, or spread over what there is."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.errors import PlanError, RunError
from pixsieve.select import keys
from pixsieve.select.base import Verdicts
from pixsieve.select.evidence import Values
from pixsieve.select.kmeans import SAMPLE_PER_CENTROID, kmeans, likenesses
from pixsieve.select.top import first
from pixsieve.select.values import (
    Groups,
    check_number,
    check_scalar,
    check_there,
    groups,
    numbers,
    told,
)
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

_REASON = "not_sampled"
_BLOCK = 4096
_LISTED = 10
"""Groups that notes name one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleStage(SelectStage):
    """Keeps some of the samples that are kept so far; which ones follows from ids and the seed.

    So the choice depends on no order of rows, and a sample that stays does so, too, when others are
    appended, unless they take its place.

    - ``count`` or ``fraction`` alone: uniformly at random, without replacement.
    - ``weight``: by a column of numbers from 0 up; null and 0 are never taken. The smallest
      ``-log(u) / weight`` are kept, with u uniform: Efraimidis, Spirakis, "Weighted random sampling
      with a reservoir", Information Processing Letters 97, 2006.
    - ``per``: by groups of a column (null is one). ``count`` is then the most of each group, and
      ``fraction`` that of each; ``quotas`` has a count for some values, and of others nothing is
      kept. With ``balance``, ``count`` or ``fraction`` is of the whole, and groups get equal
      numbers as far as they reach: the smaller ones stay whole, and the others share the rest.
    - ``diversity="farthest_first"``: each next sample is the one whose embedding is farthest, by
      the cosine, from all that are kept, so that rare kinds come first (Gonzalez, "Clustering to
      minimize the maximum intercluster distance", 1985). Takes count x rows x dimensions
      multiplications: 10,000 of a million embeddings of 512 numbers are hours.
    - ``diversity="one_per_cell"``: of each cell of k-means with ``count`` cells, the one nearest to
      its middle. There may be fewer cells than were asked for.

    With diversity, rows without a usable embedding (null, zero, not finite) are not kept, and
    embeddings are held as float16 in a temporary file that is 2 bytes x rows x dimensions large.

    Notes say what was asked for and what there was, and for groups their entropy before and after,
    in bits and as a share of the largest possible. The reason is ``not_sampled``; the evidence is
    what was asked for, and the row's weight and group if these count.

    Args:
        count: How many to keep.
        fraction: Which part of the kept samples, rounded; either this, ``count`` or ``quotas``.
        weight: A column of weights.
        per: A column of groups, such as ``class_name`` or a cluster.
        quotas: How many of each value of ``per``, by the value as text.
        balance: Whether groups of ``per`` share the whole equally.
        diversity: How to spread over embeddings; with ``count`` or ``fraction`` alone.
        column: The embeddings.
        seed: Seed of this stage; ``None`` takes the pipeline's.
    """

    count: int | None = None
    fraction: float | None = None
    weight: str | None = None
    per: str | None = None
    quotas: dict[str, int] | None = None
    balance: bool = False
    diversity: Literal["farthest_first", "one_per_cell"] | None = None
    column: str = "embedding"
    seed: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        fault = self._fault()
        if fault:
            msg = f"SampleStage: {fault}"
            raise PlanError(msg)

    def _fault(self) -> str | None:
        given = [
            name for name in ("count", "fraction", "quotas") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            return f"expected one of count, fraction and quotas, found {found}"
        if self.count is not None and self.count < 1:
            return f"count is {self.count}; expected 1 or more"
        if self.fraction is not None and not 0 < self.fraction <= 1:
            return f"fraction is {self.fraction:g}; expected above 0, up to 1"
        for name in ("quotas", "balance"):
            if getattr(self, name) and self.per is None:
                return f"{name} needs per, the column of groups"
        if self.quotas is not None:
            if self.balance:
                return "quotas and balance both say how many of each group; leave one out"
            if not self.quotas or min(self.quotas.values()) < 0:
                return f"quotas is {self.quotas!r}; expected a count of 0 or more for some values"
        if self.diversity is not None and (self.per is not None or self.weight is not None):
            return "diversity goes by embeddings alone; leave per and weight out"
        return None

    def reads(self) -> tuple[str, ...]:
        more = [name for name in (self.weight, self.per) if name is not None]
        if self.diversity is not None:
            more.append(self.column)
        return tuple(dict.fromkeys(("image_id", *more)))

    def check(self, columns: pa.Schema) -> None:
        if self.weight is not None:
            check_number(columns, self.weight, "SampleStage: weight")
        if self.per is not None:
            check_scalar(columns, self.per, "SampleStage: per")
        if self.diversity is not None:
            check_there(columns, self.column, "SampleStage: diversity")
            kind = columns.field(self.column).type
            if not (pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)):
                msg = f"SampleStage: diversity: the column {self.column!r} holds {kind}; "
                raise PlanError(msg + "expected embeddings")

    def decide(self, rows: Rows) -> Verdicts:
        kept = np.flatnonzero(rows.kept)
        if not len(kept):
            return Verdicts(reason=_REASON)
        uniform = self._uniform(rows)
        if self.diversity is not None:
            stays, notes = self._spread(rows, uniform)
        else:
            stays, notes = self._drawn(rows, kept, uniform)
        return Verdicts(
            drop=kept[~stays],
            reason=_REASON,
            evidence=Values(
                self._asked(), tuple(name for name in self.reads()[1:] if name != self.column)
            ),
            notes=(f"keeps {int(stays.sum()):,} of {len(kept):,}", *notes),
        )

    def _asked(self) -> dict[str, str | int | float]:
        """Return what was asked for, as evidence has it."""
        asked: dict[str, str | int | float] = {}
        if self.count is not None:
            asked["count"] = self.count
        elif self.fraction is not None:
            asked["fraction"] = self.fraction
        else:
            quotas = sorted((self.quotas or {}).items())
            asked["quotas"] = ", ".join(f"{value}: {count}" for value, count in quotas)
        if self.diversity is not None:
            asked["diversity"] = self.diversity
        return asked

    def _uniform(self, rows: Rows) -> NDArray[np.uint64]:
        """Return a uniform number for each kept row."""
        seed = rows.seed if self.seed is None else self.seed
        found = [
            keys.uniform(batch.columns["image_id"].filter(pa.array(batch.kept)), seed)
            for batch in rows.batches(("image_id",))
            if batch.kept.any()
        ]
        return np.concatenate(found)

    def _whole(self, total: int) -> int:
        """Return how many are asked for of ``total``."""
        return self.count if self.count is not None else _part(total, self.fraction or 0)

    def _drawn(
        self, rows: Rows, kept: NDArray[np.int64], uniform: NDArray[np.uint64]
    ) -> tuple[NDArray[np.bool_], list[str]]:
        """Return which of the kept rows stay, of each group those that come first."""
        notes: list[str] = []
        total = len(kept)
        grouped = Groups(
            codes=np.zeros(total, np.int32), counts=np.array([total], np.int64), names=["all"]
        )
        if self.per is not None:
            grouped = groups(rows, self.per)
        order: NDArray[np.uint64] | NDArray[np.float64] = uniform
        there = grouped.counts
        if self.weight is not None:
            weights = _weights(rows, self.weight)
            chance = (uniform.astype(np.float64) + 0.5) / 2.0**64
            with np.errstate(divide="ignore"):
                order = np.where(weights > 0, -np.log(chance) / weights, np.inf)
            there = np.bincount(grouped.codes[weights > 0], minlength=len(there))
            without = int((weights == 0).sum())
            if without:
                notes.append(f"{without:,} have no {self.weight} above 0 and are never taken")
        if self.per is None:
            asked = np.array([self._whole(total)])
            if asked[0] > there[0]:
                notes.append(f"asked {asked[0]:,}, there were {there[0]:,}")
        else:
            asked = self._each(grouped, there)
            notes += self._short(grouped, there, asked)
        stays = first(rows, kept, order, grouped.codes, np.minimum(asked, there))
        if self.per is not None:
            left = np.bincount(grouped.codes[stays], minlength=len(there))
            before, after = _entropy(grouped.counts), _entropy(left)
            most = math.log2(len(there)) if len(there) > 1 else 0.0
            notes.append(
                f"entropy over {len(there):,} values of {self.per}: {before:.2f} bits before, "
                f"{after:.2f} after, at most {most:.2f}"
                + (f" ({before / most:.0%}, {after / most:.0%})" if most else "")
            )
        return stays, notes

    def _each(self, grouped: Groups, there: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many are asked for of each group."""
        if self.quotas is not None:
            wanted = [self.quotas.get(_text(name), 0) for name in grouped.names]
            return np.array(wanted, np.int64)
        if self.balance:
            return _leveled(there, self._whole(int(grouped.counts.sum())))
        if self.count is not None:
            return np.full(len(there), self.count, np.int64)
        parts = np.floor(grouped.counts * (self.fraction or 0) + 0.5)
        return np.asarray(parts, np.int64)

    def _short(
        self, grouped: Groups, there: NDArray[np.int64], asked: NDArray[np.int64]
    ) -> list[str]:
        """Say of which groups there are fewer than were asked for."""
        if self.quotas is not None:
            have = {
                _text(name): count
                for name, count in zip(grouped.names, there.tolist(), strict=True)
            }
            notes = [
                f"asked {quota:,} of {value!r}, there were {have.get(value, 0):,}"
                for value, quota in sorted(self.quotas.items())
                if have.get(value, 0) < quota
            ]
            more = len(notes) - _LISTED
            return notes[:_LISTED] + ([f"{more:,} more values fell short"] if more > 0 else [])
        if self.balance:
            whole = self._whole(int(grouped.counts.sum()))
            most = int(asked.max())
            notes = [f"groups of {self.per} share {whole:,}: at most {most:,} each"]
            if int(there.sum()) < whole:
                notes.append(f"asked {whole:,}, there were {int(there.sum()):,}")
            return notes
        fewer = np.flatnonzero(there < asked)
        if not len(fewer):
            return []
        named = [f"{told(grouped.names[at])}: {there[at]:,}" for at in fewer[:_LISTED].tolist()]
        dots = ", ..." if len(fewer) > _LISTED else ""
        count = "what was asked" if self.count is None else f"{self.count:,}"
        listed = f"{', '.join(named)}{dots}"
        return [f"{len(fewer):,} groups of {self.per} have fewer than {count} ({listed})"]

    def _spread(
        self, rows: Rows, uniform: NDArray[np.uint64]
    ) -> tuple[NDArray[np.bool_], list[str]]:
        """Return which of the kept rows stay, by their embeddings."""
        # Vectors lie in the order of their keys: sums and ties follow from that order alone.
        order = np.argsort(uniform, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        count = self._whole(len(order))
        notes: list[str] = []
        with tempfile.TemporaryDirectory(prefix="pixsieve-") as folder:
            vectors, usable = _vectors(rows, self.column, place, Path(folder) / "vectors")
            unusable = len(order) - int(usable.sum())
            if unusable:
                notes.append(f"{unusable:,} have no usable {self.column} and are not kept")
            if self.diversity == "farthest_first":
                chosen = _farthest(vectors, usable, count)
            else:
                seed = rows.seed if self.seed is None else self.seed
                chosen = _of_cells(vectors, usable, count, seed)
            del vectors
        if len(chosen) < count:
            what = "cells" if self.diversity == "one_per_cell" else "with an embedding"
            notes.append(f"asked {count:,}, there were {len(chosen):,} {what}")
        stays = np.zeros(len(order), np.bool_)
        stays[order[chosen]] = True
        return stays, notes


def _part(total: int, fraction: float) -> int:
    return math.floor(total * fraction + 0.5)


def _text(name: object) -> str:
    """Return a group's value as quotas name it."""
    if isinstance(name, bool):
        return str(name).lower()
    return "" if name is None else str(name)


def _weights(rows: Rows, column: str) -> NDArray[np.float64]:
    """Return each kept row's weight; null and NaN are 0."""
    found = []
    for batch in rows.batches((column,)):
        values = np.nan_to_num(
            numbers(batch.columns[column]), nan=0.0, posinf=np.inf, neginf=-np.inf
        )
        wrong = np.flatnonzero(batch.kept & ((values < 0) | np.isinf(values)))
        if len(wrong):
            at = rows.take(wrong[:1] + batch.first, ("image_id",))["image_id"][0].as_py()
            msg = (
                f"SampleStage: {column} of {at} is {values[wrong[0]]:g}, which is no weight; "
                "expected numbers from 0 up: filter first, or weigh by another column"
            )
            raise RunError(msg)
        found.append(values[batch.kept])
    return np.concatenate(found)


def _leveled(there: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return how many of each group: as equal as they reach, ``total`` together if they do.

    What does not divide goes to the first of the groups that have more, one each.
    """
    total = min(total, int(there.sum()))
    sizes = np.sort(there)
    # With the level at a group's size: all of the smaller ones, and as many of each larger one.
    filled = np.concatenate(([0], np.cumsum(sizes)[:-1])) + sizes * np.arange(len(sizes), 0, -1)
    smaller = int(np.searchsorted(filled, total, side="right"))
    if smaller == len(sizes):
        return there.copy()
    level, rest = divmod(total - int(sizes[:smaller].sum()), len(sizes) - smaller)
    asked = np.minimum(there, level)
    asked[np.flatnonzero(there > level)[:rest]] += 1
    return asked


def _entropy(counts: NDArray[np.int64]) -> float:
    """Return the entropy of how rows lie over groups, in bits."""
    parts = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(abs(-(parts * np.log2(parts)).sum()))


def _vectors(
    rows: Rows, column: str, place: NDArray[np.int64], path: Path
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Write the kept rows' embeddings, of length 1, at their places; return them, and which are."""
    dim = rows.columns.field(column).type.list_size
    shape = (-(-len(place) // _BLOCK) * _BLOCK, dim)  # whole blocks; see kmeans.BLOCK
    vectors = np.memmap(path, np.float16, "w+", shape=shape)
    usable = np.zeros(len(place), np.bool_)
    done = 0
    for batch in rows.batches((column,)):
        array = batch.columns[column].filter(pa.array(batch.kept)).combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
        flat = pc.fill_null(array, pa.scalar([0.0] * dim, array.type)).flatten()
        values = np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, dim)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
        here = place[done : done + len(values)]
        good = np.isfinite(lengths) & (lengths > 0)
        usable[here] = good
        vectors[here[good]] = values[good] / lengths[good, None]
        done += len(values)
    return vectors, usable


def _farthest(
    vectors: NDArray[np.float16], usable: NDArray[np.bool_], count: int
) -> NDArray[np.int64]:
    """Return the places of a farthest-first traversal, from the first usable vector on."""
    likeness = np.full(len(vectors), np.inf, np.float32)
    likeness[np.flatnonzero(usable)] = -np.inf
    chosen: list[int] = []
    for _ in range(min(count, int(usable.sum()))):
        at = int(np.argmin(likeness))
        chosen.append(at)
        newest = vectors[at].astype(np.float32)
        for start in range(0, len(vectors), _BLOCK):
            run = slice(start, start + _BLOCK)
            near = vectors[run].astype(np.float32) @ newest
            np.maximum(likeness[run], near, out=likeness[run])
        likeness[at] = np.inf
    return np.array(chosen, np.int64)


def _of_cells(
    vectors: NDArray[np.float16], usable: NDArray[np.bool_], count: int, seed: int
) -> NDArray[np.int64]:
    """Return the places of the vectors that are nearest to the middle of each cell."""
    there = np.flatnonzero(usable)
    if not len(there) or not count:
        return there[:0]
    sample = vectors[there[: count * SAMPLE_PER_CENTROID]].astype(np.float32)
    centroids = kmeans(sample, count, seed)
    best = np.full(len(centroids), -np.inf, np.float32)
    chosen = np.full(len(centroids), -1, np.int64)
    for start in range(0, len(there), _BLOCK):
        places = there[start : start + _BLOCK]
        for _, dots in likenesses(vectors[places].astype(np.float32), centroids):
            cells = dots.argmax(axis=1)
            near = dots[np.arange(len(places)), cells]
            # Of each cell the nearest, the first of equals.
            order = np.lexsort((-near, cells))
            heads = order[np.flatnonzero(np.diff(cells[order], prepend=-1))]
            nearer = heads[near[heads] > best[cells[heads]]]
            best[cells[nearer]] = near[nearer]
            chosen[cells[nearer]] = places[nearer]
    return np.sort(chosen[chosen >= 0])
