"""Of images that mean the same, one stays: cosine proposes, the pictures decide."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve.errors import PlanError
from pixsieve.select import against, cells, groups, keys, policy, search, spill
from pixsieve.select.base import BATCH_ROWS, Task, Verdicts
from pixsieve.select.cells import Source
from pixsieve.select.neighbours import Limits
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows, Scope
    from pixsieve.stage import Rounds

REASON = "semantic_duplicate"
PICTURE = "thumbnail"
GROUP = "semantic_group"
EPS = {"ncc": 0.55, None: 0.01}
"""Where ``eps`` is not given: wide where it only proposes."""
LISTED = {"ncc": (4, 12), None: (8, 0)}
"""Neighbours that are listed of each row: the best-ranked and the most similar ones. Where cosine
decides, any that stays will do. Where pictures do, the most similar ones are worth a look; the
best-ranked ones settle groups of many equal images at once."""
SHARE = 0.25
"""A pair in two cells is missed only where more than twice this share of the distance between both
points from one centroid to the other, or where more than ``n_probe`` cells are as near. With 0.5
only the latter are missed, for three times the cost."""
CONFIRMED_PAIRS = 32_768
"""Pairs whose pictures a task compares. A picture is prepared once a task, which costs as much as
some dozen comparisons: 40 MB of pictures and ten seconds where all are of one cell."""
_ROUNDS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticDeduplicationStage(SelectStage):
    """Drops images that are like a better one by their embedding and, by default, by their picture.

    Two images are duplicates if the cosine of their vectors is at least ``1 - eps`` and, with
    ``confirm="ncc"``, the normalised cross-correlation of their thumbnails, over scales and
    mirrored, at least ``ncc_threshold``. Cosine alone calls all text pages, charts and logos alike:
    it is for pruning by topic, as SemDeDup does it. Groups are built round the image that stays:
    each image that is dropped is a duplicate of the one that is named, which stays.

    Vectors are put into cells by k-means and compared within them; those near the border of other
    cells are compared there, too. Up to 16,384 vectors (or with ``n_clusters=1``) all are compared.
    Beyond, of pairs planted among vectors without any structure, the hardest case, 99.6 % are found
    (81 % with ``n_probe=0``), in clustered data 99.98 % (97 %).
    With ``confirm``, each image's picture is compared with those of its most similar images, 12 of
    them, and of the 4 best ones.

    Needs a column of embeddings, and with ``confirm`` that of ``ThumbnailStage()``. Images without
    a vector that has a direction stay; the report has their number.

    Args:
        eps: 1 less the cosine that a pair has at least; ``None`` is 0.55 with ``confirm``, where
            small copies, crops and mirror images must be proposed, and 0.01 without.
        n_clusters: Cells; ``"auto"`` makes the search cheapest.
        which_to_keep: ``"best"`` by ``keep``; ``"hard"`` the farthest from its cell's centroid,
            ``"easy"`` the nearest, as in SemDeDup; ``"random"`` by ``seed``.
        column: The embedding.
        confirm: ``"ncc"``, or ``None`` for cosine alone.
        ncc_threshold: At least so alike are the pictures of duplicates, 1 being equal.
        keep: Ordered keys of what is better, such as ``("resolution desc", "file_size")``; ``None``
            for the usual ones.
        merge: Columns of text. What the images dropped for another one have there is collected for
            that one; ``merge=("caption",)`` adds ``merged_caption``.
        against: An earlier dataset, or a Parquet file or a folder of them, with ``image_id`` and
            the same columns: what is a duplicate of one of its images is dropped.
        action: ``"drop"``, or ``"group"``: drop nothing and add ``semantic_group``, the smallest id
            of all images that are linked by pairs, for splits; null for images in no pair.
        n_probe: Other cells that a vector near their borders is compared in, at most.
        seed: For the sample that k-means learns from, and ``"random"``; ``None`` is the pipeline's.
    """

    eps: float | None = None
    n_clusters: int | Literal["auto"] = "auto"
    which_to_keep: Literal["best", "hard", "easy", "random"] = "best"
    column: str = "embedding"
    confirm: Literal["ncc"] | None = "ncc"
    ncc_threshold: float = 0.85
    keep: tuple[str, ...] | None = None
    merge: tuple[str, ...] = ()
    against: str | None = None
    action: Literal["drop", "group"] = "drop"
    n_probe: int = 3
    seed: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        faults: tuple[tuple[bool, str], ...] = (
            (self.eps is not None and not 0 <= self.eps < 1, "eps is {eps}; expected 0 to below 1"),
            (
                self.n_clusters != "auto" and self.n_clusters < 1,
                'n_clusters is {n_clusters}; expected 1 or more, or "auto"',
            ),
            (self.n_probe < 0, "n_probe is {n_probe}; expected 0 or more"),
            (
                not 0 < self.ncc_threshold <= 1,
                "ncc_threshold is {ncc_threshold}; expected more than 0, up to 1",
            ),
            (
                self.keep is not None and self.which_to_keep != "best",
                "keep says what is best, which_to_keep={which_to_keep!r} does too; leave one out",
            ),
            (
                self.action == "group" and (bool(self.merge) or self.against is not None),
                'action="group" drops nothing; leave merge and against out',
            ),
        )
        for wrong, told in faults:
            if wrong:
                values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
                msg = f"SemanticDeduplicationStage: {told.format_map(values)}"
                raise PlanError(msg)

    def reads(self) -> tuple[str, ...]:
        pictures = (PICTURE,) if self.confirm else ()
        named = (*policy.named(self.keep), *self.merge)
        return tuple(dict.fromkeys(("image_id", self.column, *pictures, *named)))

    def adds(self) -> pa.Schema:
        if self.action == "drop":
            return pa.schema(groups.merged_fields(self.merge))
        return pa.schema([groups.group_field(GROUP)])

    def check(self, columns: pa.Schema) -> None:
        cells.dimensions(type(self).__name__, self.column, columns)
        if self.which_to_keep == "best":
            policy.columns(self.keep, columns)
        if self.confirm and not pa.types.is_fixed_size_binary(columns.field(PICTURE).type):
            msg = (
                f"SemanticDeduplicationStage: the column {PICTURE} is "
                f"{columns.field(PICTURE).type}; expected that of ThumbnailStage()"
            )
            raise PlanError(msg)
        if self.against is not None:
            names = (self.column, PICTURE) if self.confirm else (self.column,)
            wanted = pa.schema([columns.field(name) for name in names])
            against.check("SemanticDeduplicationStage", self.against, wanted)
            _check_model(self.against, columns, self.column)

        groups.check_merge("SemanticDeduplicationStage", self.merge, columns)

    def without_places(self) -> Self:
        if self.against is None:
            return self
        return dataclasses.replace(self, against=against.name(self.against))

    def digests(self) -> tuple[str, ...]:
        return () if self.against is None else against.digests(self.against)

    def rounds(self, scope: Scope) -> Rounds:
        rows = scope.rows()
        kept = int(rows.kept.sum())
        if not kept:
            return
        count, seed = len(rows), scope.seed if self.seed is None else self.seed
        dim = scope.columns.field(self.column).type.list_size
        bounds = cells.slices(count, dim)
        sources = [Source(start=start, stop=stop) for start, stop in bounds]
        others = 0
        earlier: tuple[str, ...] = ()
        if self.against is not None:
            work = functools.partial(_earlier, self.against, self.column)
            earlier = tuple((yield [Task(name="against", work=work)]))
            others = len(spill.read(earlier[0])["vector"])
            sources += [
                Source(start=count + start, stop=count + stop, path=earlier[0], first=count)
                for start, stop in cells.slices(others, dim)
            ]
        wanted = self.n_clusters
        visits = self.n_probe if self.confirm else 1  # the wider eps, the more cells are near
        k = cells.automatic(kept + others, visits) if wanted == "auto" else wanted
        # Cells that are nearer than the threshold would part what is one group. Where pictures are
        # to be compared, cosines are wide and say less, and cells must stay small.
        near = None if self.confirm else self._least()
        middles = yield from cells.centroid_rounds(scope, self.column, k, seed, kept, near=near)
        reach = SHARE * (2 * (1 - self._least())) ** 0.5
        assigned = yield [
            Task(
                name=f"assign {number}",
                work=functools.partial(
                    cells.assign, scope, self.column, source, middles, reach, self.n_probe
                ),
            )
            for number, source in enumerate(sources)
        ]
        work = functools.partial(
            _rank, scope, self.which_to_keep, self.keep, tuple(assigned), earlier, seed
        )
        (ranks,) = yield [Task(name="rank", work=work)]
        found = search.ranges(assigned, len(spill.read(middles)["centroids"]), dim)
        settled: str | None = None
        for _ in range(_ROUNDS):
            settled = yield from self._searched(scope, assigned, ranks, found, settled)
            if not len(spill.read(settled)["open"]):
                break
        assert settled is not None  # noqa: S101  # there is a first round
        work = functools.partial(_conclude, tuple(assigned), earlier, ranks, count, settled)
        yield [Task(name="conclude", work=work)]

    def _searched(
        self,
        scope: Scope,
        assigned: Sequence[str],
        ranks: str,
        runs: Sequence[tuple[int, int]],
        settled: str | None,
    ) -> Generator[Sequence[Task], Sequence[str], str]:
        """Look for pairs of all rows, or of those that are open; return what is settled then."""
        first, nearest = LISTED[self.confirm]
        limits = Limits(least=self._least(), first=first, nearest=nearest)
        count = len(scope.rows())
        found = yield [
            Task(
                name=f"pairs {number}",
                work=functools.partial(
                    search.find, tuple(assigned), ranks, run, limits, count, settled
                ),
            )
            for number, run in enumerate(runs)
        ]
        blocks = [(at, min(at + BATCH_ROWS, count)) for at in range(0, count, BATCH_ROWS)]
        lists = tuple(
            (
                yield [
                    Task(
                        name=f"gather {number}",
                        work=functools.partial(search.gather, tuple(found), ranks, limits, bounds),
                    )
                    for number, bounds in enumerate(blocks)
                ]
            )
        )
        confirmed: tuple[tuple[str, ...], ...] | None = None
        if self.confirm:
            confirmed = yield from self._confirmed(scope, lists)
        if self.action == "group":
            work = functools.partial(search.group, lists, confirmed, self.ncc_threshold, settled)
        else:
            work = functools.partial(
                search.settle, lists, confirmed, self.ncc_threshold, ranks, settled
            )
        (settled,) = yield [Task(name="settle", work=work)]
        return settled

    def _confirmed(
        self, scope: Scope, lists: tuple[str, ...]
    ) -> Generator[Sequence[Task], Sequence[str], tuple[tuple[str, ...], ...]]:
        """Compare the pictures of listed pairs; return the files about each of the lists."""
        waiting = [len(spill.read(each)["worse"]) for each in lists]
        if not any(waiting):
            return tuple(() for _ in lists)
        count = len(scope.rows())
        width = scope.columns.field(PICTURE).type.byte_width
        tasks = [
            Task(
                name=f"pictures {number}",
                work=functools.partial(search.pictures, scope, PICTURE, bounds, lists),
            )
            for number, bounds in enumerate(cells.slices(count, width // 4))
        ]
        if self.against is not None:
            work = functools.partial(_earlier_pictures, self.against, self.column, count, lists)
            tasks.append(Task(name="pictures against", work=work))
        pictured = tuple((yield tasks))
        runs = [
            (number, (start, start + CONFIRMED_PAIRS))
            for number, pairs in enumerate(waiting)
            for start in range(0, pairs, CONFIRMED_PAIRS)
        ]
        found = yield [
            Task(
                name=f"confirm {number}/{run[0]}",
                work=functools.partial(
                    search.confirm, lists[number], pictured, run, self.ncc_threshold
                ),
            )
            for number, run in runs
        ]
        return tuple(
            tuple(path for path, (of, _) in zip(found, runs, strict=True) if of == number)
            for number in range(len(lists))
        )

    def decide(self, rows: Rows) -> Verdicts:
        if not rows.found:
            nothing = {each.name: pa.nulls(len(rows), each.type) for each in self.adds()}
            return Verdicts(reason=REASON, columns=nothing)
        found = spill.read_arrow(rows.found[0])
        notes = tuple(self._notes(found))
        row, keeper = found["row"].to_numpy(), found["keeper"].to_numpy()
        if self.action == "group":
            return Verdicts(columns={GROUP: _names(rows, row, keeper)}, notes=notes)
        return self._verdicts(rows, found, notes)

    def _verdicts(self, rows: Rows, found: dict[str, pa.Array], notes: tuple[str, ...]) -> Verdicts:
        """Return what goes, with the values that decided."""
        leaders = groups.Leaders(
            dropped=found["row"].to_numpy(),
            keeper=found["keeper"].to_numpy(),
            rank=found["rank"].to_numpy(),
        )
        evidence = [{"cosine": round(each, 6)} for each in found["cosine"].to_pylist()]
        method = "semantic"
        if self.confirm:
            method = f"semantic+{self.confirm}"
            for told, ncc in zip(evidence, found["ncc"].to_pylist(), strict=True):
                told["ncc"] = round(ncc, 4)
        earlier = None
        if self.against is not None:
            earlier = groups.Earlier(name=against.name(self.against), ids=found["earlier"])
        eps = EPS[self.confirm] if self.eps is None else self.eps
        verdicts = groups.verdicts(
            rows,
            leaders,
            REASON,
            [{**told, "eps": eps, "method": method} for told in evidence],
            self.merge,
            earlier,
        )
        return dataclasses.replace(verdicts, notes=notes)

    def _least(self) -> float:
        return 1 - (EPS[self.confirm] if self.eps is None else self.eps)

    def _notes(self, found: dict[str, pa.Array]) -> Iterator[str]:
        """Yield what a reader of the report must know."""
        if self.confirm:
            yield (
                f"cosine >= {self._least():g} proposed pairs, thumbnails confirmed them "
                f"(NCC >= {self.ncc_threshold:g})"
            )
            crowded = found["crowded"][0].as_py()
            if crowded:
                first, nearest = LISTED[self.confirm]
                yield (
                    f"{crowded} images have more than {nearest} candidates: the {nearest} most "
                    f"similar and the {first} best were compared"
                )
        else:
            yield f"cosine >= {self._least():g} alone decided; no picture was looked at"
        for name, told in (
            ("lost", "images without a vector that has a direction took no part"),
            ("left", "images stay since their groups were not settled in time"),
        ):
            number = found[name][0].as_py()
            if number:
                yield f"{number} {told}"


def _names(rows: Rows, row: NDArray[np.int64], label: NDArray[np.int64]) -> pa.Array:
    """Return for every row the smallest id of those with its label; null for rows without one."""
    ids = rows.take(row, ("image_id",))["image_id"]
    table = pa.table({"label": label, "id": ids})
    least = table.group_by("label", use_threads=False).aggregate([("id", "min")])
    place = np.full(len(rows), -1, np.int64)
    place[row] = np.searchsorted(np.unique(label), label)
    order = pc.sort_indices(least["label"])
    return least["id_min"].take(order).combine_chunks().take(pa.array(place, mask=place < 0))


def _rank(
    scope: Scope,
    which: str,
    keep: tuple[str, ...] | None,
    assigned: tuple[str, ...],
    earlier: tuple[str, ...],
    seed: int,
    path: str,
) -> None:
    """Write *ranks*: 0 is the best one; those of the earlier dataset are below."""
    rows = scope.rows()
    cell = np.full(len(rows), np.iinfo(np.int32).max, np.int32)
    likeness = np.zeros(len(rows), np.float32)
    for each in map(spill.read, assigned):
        mine = each["row"] < len(rows)
        cell[each["row"][mine]] = each["cell"][mine]
        likeness[each["row"][mine]] = each["likeness"][mine]
    place = np.empty(len(rows), np.int64)
    place[np.argsort(cell, kind="stable")] = np.arange(len(rows))
    if which == "best":
        own = policy.ranks(rows, keep)
    else:
        found = [
            keys.uniform(batch.columns["image_id"], seed) for batch in rows.batches(("image_id",))
        ]
        key = np.concatenate(found)
        sign = {"hard": 1, "easy": -1, "random": 0}[which]
        order = np.lexsort((key, sign * likeness, ~rows.kept))
        own = np.empty(len(rows), np.int64)
        own[order] = np.arange(len(rows))
    others = np.empty(0, np.int64)
    if earlier:
        order = pc.sort_indices(spill.read_arrow(earlier[0])["image_id"]).to_numpy()
        others = np.empty(len(order), np.int64)
        others[order] = np.arange(-len(order), 0)
    spill.write(path, {"rank": np.concatenate([own, others]), "place": place})


def _earlier(dataset: str, column: str, path: str) -> None:
    """Write ``image_id`` and ``vector`` of an earlier dataset, where it has a direction."""
    ids, found = [pa.array([], pa.string())], []
    for table in against.read(dataset, ("image_id", column)):
        vectors, valid = cells.vectors_of(table[column])
        found.append(vectors[valid])
        ids.append(table["image_id"].combine_chunks().filter(pa.array(valid)).cast(pa.string()))
    vectors = np.concatenate(found) if found else np.empty((0, 1), np.float32)
    spill.write(path, {"image_id": pa.concat_arrays(ids), "vector": vectors})


def _conclude(
    assigned: tuple[str, ...],
    earlier: tuple[str, ...],
    ranks: str,
    count: int,
    settled: str,
    path: str,
) -> None:
    """Write what was decided: rows that go, their keepers, and what the report must say.

    ``earlier`` are the ids of keepers in the earlier dataset; their numbers come after all rows.
    """
    known = spill.read(settled)
    lost = sum(int(spill.read(each)["lost"][0]) for each in assigned)
    if "label" in known:
        row, keeper = known["row"], known["label"]
        cosine = ncc = np.empty(0)
    else:
        pairs, ncc = search.keepers(settled)
        row, keeper, cosine = pairs.worse, pairs.better, pairs.cosine
    used, at = np.unique(keeper[keeper >= count], return_inverse=True)
    keeper = keeper.copy()
    keeper[keeper >= count] = count + at
    ids = pa.array([], pa.string())
    if earlier:
        ids = spill.read_arrow(earlier[0])["image_id"].take(pa.array(used - count))
    spill.write(
        path,
        {
            "row": row,
            "keeper": keeper,
            "rank": spill.read(ranks)["rank"][row],
            "cosine": cosine,
            "ncc": ncc,
            "earlier": ids,
            "lost": np.array([lost]),
            "left": np.array([len(known["open"])]),
            "crowded": known["crowded"],
        },
    )


def _earlier_pictures(
    dataset: str, column: str, first: int, lists: tuple[str, ...], path: str
) -> None:
    """Write the *pictures* of the rows in lists that are an earlier dataset's."""
    wanted = search.wanted(lists, (first, np.iinfo(np.int64).max))
    row, found = [np.empty(0, np.int64)], []
    at = first
    for table in against.read(dataset, ("image_id", column, PICTURE)):
        _, valid = cells.vectors_of(table[column])
        number = np.cumsum(valid) - 1 + at
        at += int(valid.sum())
        mine = np.flatnonzero(valid & np.isin(number, wanted))
        there, pixels = search.pixels_of(table[PICTURE].take(pa.array(mine)))
        row.append(number[mine][there])
        found.append(pixels)
    pictures = np.concatenate(found) if found else np.empty((0, 1), np.uint8)
    spill.write(path, {"row": np.concatenate(row), "picture": pictures})


def _check_model(dataset: str, columns: pa.Schema, column: str) -> None:
    """Raise ``PlanError`` unless an earlier dataset's vectors are of the same model."""
    have = against.schema(dataset)
    here, there = (each.field(column).metadata or {} for each in (columns, have))
    for key in (b"digest", b"dim"):
        if here.get(key) != there.get(key):
            told = [(each.get(b"model") or b"unknown").decode() for each in (here, there)]
            msg = (
                f"SemanticDeduplicationStage: {column} of against={dataset!r} was made by another "
                f"model ({told[1]}, here {told[0]}; {key.decode()} differs); embed both alike"
            )
            raise PlanError(msg)
