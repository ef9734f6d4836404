"""Which tables of a workspace belong together.

What runs there have indexed and scored, and what the last of them decided.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from pixsieve.engine.output import CONTROL
from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pixsieve.engine.ledger import Workspace
    from pixsieve.select.base import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Columns that were computed together.

    Attributes:
        identity: Fingerprint of what computed them.
        names: Of json fields and scores.
        tables: Paths of its tables, one after the other: the rows of a source, in order.
    """

    identity: str
    names: tuple[str, ...]
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is known of a tar, or of all loose files below a root.

    Attributes:
        name: Its path; a number for loose files.
        index: Paths of its index tables, one after the other.
        bounds: Where the tables of each family are cut: (first row, row behind the last).
        families: The inspection is the first.
    """

    name: str
    index: tuple[str, ...]
    bounds: tuple[tuple[int, int], ...]
    families: tuple[Family, ...]

    @property
    def rows(self) -> int:
        return sum(stop - start for start, stop in self.bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All sources that a workspace knows; paths are relative to it.

    Attributes:
        sources: Those of the last run first, in its order.
        decided: How many of them the last run had.
        selection: Its selection table, with the rows of these sources.
    """

    FILE: ClassVar[str] = "ledger/catalog.json"

    sources: tuple[Source, ...]
    decided: int
    selection: str


def write_catalog(
    workspace: Workspace,
    root: str,
    parts: Sequence[Part],
    added: Sequence[tuple[str, Sequence[str]]],
    selection: str,
) -> None:
    """Add to what a workspace knows.

    Sources that are there with the same samples keep their other scores; other sources keep all
    but columns that now mean something else.

    Args:
        workspace: Where the tables lie.
        root: Where the names of sources start.
        parts: What a run has measured.
        added: Of each family its identity, and its columns beyond the fixed ones.
        selection: Path of the run's selection table.
    """
    before = {source.name: source for source in _earlier(workspace).sources}
    mine = list(_sources(workspace, root, parts, added))
    meaning = {name: identity for identity, names in added for name in names}
    sources = [_with_more(source, before.pop(source.name, None), workspace) for source in mine]
    sources += [_without_others(source, meaning) for source in before.values()]
    catalog = Catalog(sources=tuple(sources), decided=len(mine), selection=selection)
    with LocalStorage().create(str(workspace.root / Catalog.FILE), durable=False) as sink:
        sink.write(msgspec.json.encode(catalog))


def find_workspace(folder: Path) -> Path | None:
    """Return where the working state of a folder lies, if it is a workspace or an output."""
    places = (folder, folder / CONTROL)
    return next((place for place in places if (place / Catalog.FILE).is_file()), None)


def read_catalog(workspace: Path) -> Catalog:
    """Return the catalog of a workspace.

    Raises:
        OSError: there is none.
        msgspec.MsgspecError: it is damaged.
    """
    return msgspec.json.decode((workspace / Catalog.FILE).read_bytes(), type=Catalog)


def _earlier(workspace: Workspace) -> Catalog:
    """Return the catalog of earlier runs: an empty one where there is none that can be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return read_catalog(workspace.root)
    return Catalog(sources=(), decided=0, selection="")


def _sources(
    workspace: Workspace,
    root: str,
    parts: Iterable[Part],
    added: Sequence[tuple[str, Sequence[str]]],
) -> Iterator[Source]:
    def relative(path: str) -> str:
        return Path(path).relative_to(workspace.root).as_posix()

    loose = itertools.count()  # tars may stand between loose files
    for source, run in itertools.groupby(parts, lambda part: part.source):
        those = list(run)
        yield Source(
            name=f"{root}/{source or next(loose)}",
            index=tuple(dict.fromkeys(relative(part.index) for part in those)),
            bounds=tuple((part.start, part.stop) for part in those),
            families=tuple(
                Family(
                    identity=identity,
                    names=tuple(names),
                    tables=tuple(relative(part.families[number]) for part in those),
                )
                for number, (identity, names) in enumerate(added)
            ),
        )


def _with_more(source: Source, before: Source | None, workspace: Workspace) -> Source:
    """Return the source with the scores that earlier runs gave the same samples."""
    if before is None or (before.index, before.bounds) != (source.index, source.bounds):
        return source
    known = {name.lower() for family in source.families for name in family.names}
    more = [
        family
        for family in before.families[1:]
        if known.isdisjoint(map(str.lower, family.names))
        and all((workspace.root / table).is_file() for table in family.tables)
    ]
    return replace(source, families=(*source.families, *more))


def _without_others(source: Source, meaning: Mapping[str, str]) -> Source:
    """Return the source without columns whose name has another meaning by now."""
    first, *scores = source.families
    kept = [f for f in scores if all(meaning.get(n, f.identity) == f.identity for n in f.names)]
    return replace(source, families=(first, *kept))
