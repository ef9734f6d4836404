"""Say of each image which of the clusters of its kind it is in."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from pixsieve.errors import PlanError
from pixsieve.schema import RESERVED
from pixsieve.select import cells, spill
from pixsieve.select.base import Task, Verdicts
from pixsieve.select.cells import Source
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.select.base import Rows, Scope
    from pixsieve.stage import Rounds

ROWS_PER_CLUSTER = 1000
"""Of the automatic number, on average: concepts for balance, not groups of duplicates."""
MOST_CLUSTERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStage(SelectStage):
    """Adds ``cluster``: which images look alike, by spherical k-means over their embeddings.

    For balance and diversity, such as ``SampleStage(per="cluster", ...)``. The mean of all vectors
    is taken off first: features of one model have a large part in common, which says nothing.
    Clusters are numbered from the largest one, 0. Images without a vector that has a direction are
    in none (null).

    Args:
        n_clusters: How many; ``"auto"`` is one for each 1000 images, at least 2, at most 10,000.
            There are fewer where fewer images differ.
        column: The embedding.
        name: Of the column that is added.
        seed: For the sample that k-means learns from; ``None`` is the pipeline's.
    """

    n_clusters: int | Literal["auto"] = "auto"
    column: str = "embedding"
    name: str = "cluster"
    seed: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.n_clusters != "auto" and self.n_clusters < 1:
            msg = f'ClusterStage: n_clusters is {self.n_clusters}; expected 1 or more, or "auto"'
            raise PlanError(msg)
        if not self.name or self.name in RESERVED:
            msg = f"ClusterStage: name={self.name!r} is no free name of a column; take another one"
            raise PlanError(msg)

    def reads(self) -> tuple[str, ...]:
        return ("image_id", self.column)

    def adds(self) -> pa.Schema:
        about = {
            "scale": "0 and more",
            "unit": "number of the cluster, the largest first",
            "better": "neither",
            "source": f"spherical k-means over {self.column}",
        }
        return pa.schema([pa.field(self.name, pa.int32(), metadata=about)])

    def check(self, columns: pa.Schema) -> None:
        cells.dimensions("ClusterStage", self.column, columns)

    def rounds(self, scope: Scope) -> Rounds:
        rows = scope.rows()
        kept = int(rows.kept.sum())
        if not kept:
            return
        usual = min(max(kept // ROWS_PER_CLUSTER, 2), MOST_CLUSTERS)
        k = usual if self.n_clusters == "auto" else self.n_clusters
        seed = scope.seed if self.seed is None else self.seed
        middles = yield from cells.centroid_rounds(scope, self.column, k, seed, kept, center=True)
        dim = scope.columns.field(self.column).type.list_size
        yield [
            Task(
                name=f"label {number}",
                work=functools.partial(
                    cells.label, scope, self.column, Source(start=start, stop=stop), middles
                ),
            )
            for number, (start, stop) in enumerate(cells.slices(len(rows), dim))
        ]

    def decide(self, rows: Rows) -> Verdicts:
        found = np.full(len(rows), -1, np.int32)
        for each in map(spill.read, rows.found):
            found[each["row"]] = each["cell"]
        there = found >= 0
        sizes = np.bincount(found[there])
        used = np.argsort(-sizes, kind="stable")
        number = np.empty(len(sizes), np.int32)
        number[used] = np.arange(len(sizes))
        found[there] = number[found[there]]
        return Verdicts(
            columns={self.name: pa.array(found, mask=~there)},
            notes=tuple(_notes(sizes, rows, there)),
        )


def _notes(sizes: NDArray[np.int64], rows: Rows, there: NDArray[np.bool_]) -> list[str]:
    """Say how even the clusters are, and how many images are in none."""
    sizes = sizes[sizes > 0]
    notes = []
    if len(sizes):
        share = sizes / sizes.sum()
        even = float(np.exp(-(share * np.log(share)).sum()))
        notes.append(
            f"{len(sizes)} clusters of {sizes.min()} to {sizes.max()} images, as diverse as "
            f"{even:.1f} equal ones (exponential of the entropy)"
        )
    lost = int(rows.kept.sum() - there.sum())
    if lost:
        notes.append(f"{lost} images without a vector that has a direction are in no cluster")
    return notes
