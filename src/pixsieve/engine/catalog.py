"""Which tables of a workspace belong together.

What the last run there indexed, scored and decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from pixsieve.engine.ledger import Workspace
    from pixsieve.select.base import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Tables with the same rows in the same order; paths are relative to the workspace.

    Attributes:
        index: The index tables, one after the other.
        families: For each column family its tables, one after the other; the inspection is the
            first.
        columns: Of json fields and scores the number of the family, and the name.
        selection: The selection table.
    """

    FILE: ClassVar[str] = "ledger/catalog.json"

    index: tuple[str, ...]
    families: tuple[tuple[str, ...], ...]
    columns: tuple[tuple[int, str], ...]
    selection: str


def write_catalog(
    workspace: Workspace, parts: Sequence[Part], added: Sequence[pa.Schema], selection: str
) -> None:
    """Note what belongs together.

    ``added`` are the columns beyond the fixed ones, of each family.
    """

    def relative(path: str) -> str:
        return Path(path).relative_to(workspace.root).as_posix()

    catalog = Catalog(
        index=tuple(dict.fromkeys(relative(part.index) for part in parts)),
        families=tuple(
            tuple(relative(part.families[number]) for part in parts) for number in range(len(added))
        ),
        columns=tuple(
            (number, name) for number, columns in enumerate(added) for name in columns.names
        ),
        selection=selection,
    )
    with LocalStorage().create(str(workspace.root / Catalog.FILE), durable=False) as sink:
        sink.write(msgspec.json.encode(catalog))
