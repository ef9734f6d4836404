"""Drop the images that a list names, such as one that another tool made of duplicates."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pixsieve.errors import PlanError, SourceError, SourceNotFoundError, nearest
from pixsieve.select import against
from pixsieve.select.base import Verdicts
from pixsieve.stage import SelectStage, check_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pixsieve.select.base import Rows

_Name = Literal["image_id", "original_key"]
_NAMES: tuple[_Name, ...] = ("image_id", "original_key")
_PARTNERS = ("duplicate_of", "max_id")
"""Columns that say whose duplicate an id is; the second is NeMo Curator's."""
_SHOWN = 5
_BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class ImageDuplicatesRemovalStage(SelectStage):
    """Drops the images whose ids stand in Parquet files, as NeMo Curator's stage of this name does.

    An id, compared as text (a whole number as its digits), means the image with this ``image_id``,
    or else the one with this ``original_key``. Keys are unique in their source alone: where several
    images have the key, none is dropped, and a note names it; ids that mean no image are counted
    and the first ones named. The list is held, at about 60 bytes an id, with the partners twice
    that. The evidence is the id, by which name it was found, and the partner where the list has one
    (``duplicate_of`` or ``max_id``), who is also in ``duplicate_of`` if it is the ``image_id`` of
    an image here that the list does not drop, too. The reason is ``listed_duplicate``.

    Args:
        removal_parquets_dir: A Parquet file, or a folder of them, of any depth.
        duplicate_id_field: The column of ids.
        match: What ids are compared with, where only one of ``"image_id"`` and ``"original_key"``
            is meant; ``None`` for both in turn.
        verbose: Accepted for Curator's scripts and without effect, as is the next.
        num_workers_per_node: See above.
    """

    removal_parquets_dir: str
    _: KW_ONLY
    duplicate_id_field: str = "id"
    match: _Name | None = None
    verbose: bool = False
    num_workers_per_node: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not str(self.removal_parquets_dir):
            msg = "ImageDuplicatesRemovalStage: removal_parquets_dir is empty; name a folder"
            raise PlanError(msg)

    def reads(self) -> tuple[str, ...]:
        return _NAMES

    def check(self, columns: pa.Schema) -> None:  # noqa: ARG002
        for file in _files(self.removal_parquets_dir):
            self._check_file(file)

    def digests(self) -> tuple[str, ...]:
        return against.contents(_files(self.removal_parquets_dir))

    def without_places(self) -> Self:
        """Say that there is a list, not where; its digest says which it is."""
        return dataclasses.replace(
            self, removal_parquets_dir="list", verbose=False, num_workers_per_node=None
        )

    def decide(self, rows: Rows) -> Verdicts:
        ids, partners = self._listed()
        found = np.zeros(len(ids), np.bool_)
        drop: list[NDArray[np.int64]] = []
        at: list[NDArray[np.int64]] = []
        by: list[str] = []
        notes: list[str] = []
        for name in _NAMES if self.match is None else (self.match,):
            numbers, places = _matches(rows, name, ids, found)
            times = np.bincount(places, minlength=len(ids))
            found |= times > 0
            several = np.flatnonzero(times > 1)
            if len(several):
                notes.append(
                    f"{len(several):,} ids are the {name} of several images each, of which none "
                    f"is dropped: {_shown(ids, several)}"
                )
            stands = rows.kept[numbers] & (times[places] == 1)
            drop.append(numbers[stands])
            at.append(places[stands])
            by += [name] * int(stands.sum())
        numbers, places = np.concatenate(drop), np.concatenate(at)
        missing = np.flatnonzero(~found)
        listed = " or ".join(_NAMES if self.match is None else (self.match,))
        if len(ids) and len(missing) == len(ids):
            notes.append(
                f"warning: none of the {len(ids):,} ids is the {listed} of an image here: "
                f"{_shown(ids, missing)}"
            )
        elif len(missing):
            notes.append(
                f"{len(missing):,} of {len(ids):,} ids are the {listed} of no image here: "
                f"{_shown(ids, missing)}"
            )
        order = np.argsort(numbers, kind="stable")
        _, once = np.unique(numbers[order], return_index=True)  # named by its id and by its key
        order = order[once]
        twin = partners.take(pa.array(places[order]))
        evidence = [
            json.dumps(
                {"id": name, "match": by[place]} | ({} if partner is None else {"partner": partner})
            )
            for name, place, partner in zip(
                ids.take(pa.array(places[order])).to_pylist(),
                order.tolist(),
                twin.to_pylist(),
                strict=True,
            )
        ]
        gone = numbers[order]
        return Verdicts(
            drop=gone,
            reason="listed_duplicate",
            evidence=pa.array(evidence, pa.string()),
            duplicate_of=_if_here(rows, twin, gone),
            notes=(f"{len(order):,} dropped by a list of {len(ids):,} ids", *notes),
        )

    def _check_file(self, file: Path) -> None:
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            msg = f"{file} cannot be read as Parquet: {error}; mend the list, or remove the file"
            raise SourceError(msg) from error
        name = self.duplicate_id_field
        if name not in schema.names:
            msg = (
                f"ImageDuplicatesRemovalStage: {file} has no column {name!r}"
                f"{nearest(name, schema.names)}; name the column of ids as duplicate_id_field, "
                f"one of: {', '.join(schema.names)}"
            )
            raise PlanError(msg)
        kind = schema.field(name).type
        if pa.types.is_nested(kind):
            msg = (
                f"ImageDuplicatesRemovalStage: {file} has {name!r} as {kind}; "
                "expected text or whole numbers"
            )
            raise PlanError(msg)

    def _listed(self) -> tuple[pa.Array, pa.Array]:
        """Return each id once, sorted, and its partner, the first by name where lists differ."""
        pieces = [pa.table({"id": pa.array([], pa.string()), "partner": pa.array([], pa.string())})]
        for file in _files(self.removal_parquets_dir):
            self._check_file(file)
            pieces += self._read(file)
        table = pa.concat_tables(pieces)
        table = table.group_by("id").aggregate([("partner", "min")]).sort_by("id")
        return table["id"].combine_chunks(), table["partner_min"].combine_chunks()

    def _read(self, path: Path) -> Iterator[pa.Table]:
        try:
            with pq.ParquetFile(path) as file:
                have = file.schema_arrow.names
                partner = next((name for name in _PARTNERS if name in have), None)
                names = [self.duplicate_id_field, *([partner] if partner else [])]
                for batch in file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False):
                    ids = _text(batch[self.duplicate_id_field])
                    twins = _text(batch[partner]) if partner else pa.nulls(len(ids), pa.string())
                    table = pa.table({"id": ids, "partner": twins})
                    yield table.filter(table["id"].is_valid())
        except (OSError, pa.ArrowException) as error:
            msg = f"{path} cannot be read as Parquet: {error}; mend the list, or remove the file"
            raise SourceError(msg) from error


def _files(path: str) -> list[Path]:
    """Return the Parquet files, in order."""
    folder = Path(path)
    if folder.is_file():
        return [folder]
    found = sorted(each for each in folder.rglob("*.parquet") if each.is_file())
    if not found:
        there = "has no Parquet file" if folder.is_dir() else "is not there"
        msg = (
            f"removal_parquets_dir={str(path)!r} {there}; expected a folder of lists of ids "
            "(the recipe in a dataset leaves out where it lay: name it there)"
        )
        raise SourceNotFoundError(msg)
    return found


def _text(column: pa.Array) -> pa.Array:
    """Return ids as text; whole numbers that are stored as floats without a point."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):  # what tools make of whole numbers with gaps
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_finite(column), column, None)
        whole = pc.equal(pc.floor(column), column)
        column = pc.if_else(
            whole,
            pc.cast(pc.if_else(whole, column, None), pa.int64(), safe=False).cast(pa.string()),
            column.cast(pa.string()),
        )
    return column.cast(pa.string())


def _matches(
    rows: Rows, name: str, ids: pa.Array, found: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows whose ``name`` is an id that was not found yet, and the places of the ids."""
    numbers, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for batch in rows.batches((name,)):
        at = pc.fill_null(pc.index_in(batch.columns[name], ids, skip_nulls=True), -1)
        place = at.to_numpy().astype(np.int64)
        here = np.flatnonzero(place >= 0)
        here = here[~found[place[here]]]
        numbers.append(here + batch.first)
        places.append(place[here])
    return np.concatenate(numbers), np.concatenate(places)


def _if_here(rows: Rows, names: pa.Array, gone: NDArray[np.int64]) -> pa.Array:
    """Return the names that are an image_id of a row that is not gone; null for the others."""
    known = pc.unique(names).drop_null()
    there = np.zeros(len(known), np.bool_)
    if len(known):
        found, places = _matches(rows, "image_id", known, there)
        there[places[~np.isin(found, gone)]] = True
    kept = known.filter(pa.array(there))
    return pc.if_else(pc.is_in(names, kept, skip_nulls=True), names, pa.scalar(None, pa.string()))


def _shown(ids: pa.Array, places: NDArray[np.int64]) -> str:
    first: Sequence[str] = ids.take(pa.array(places[:_SHOWN])).to_pylist()
    return ", ".join(map(repr, first)) + (", ..." if len(places) > _SHOWN else "")
