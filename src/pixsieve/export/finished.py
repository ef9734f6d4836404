"""A finished export as index files and other formats see it: its shards, and what is known of it.

All of it is read back from the sidecars and tars that stand in the output, so that whatever is made
of it holds exactly what they hold.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pixsieve.export import tar
from pixsieve.export.dataset import PRIVACY
from pixsieve.storage import LocalStorage, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pixsieve.export.contents import Contents
    from pixsieve.export.files import FileRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A finished shard.

    Attributes:
        tar: Its tar.
        sidecar: Its sidecar.
        split: Of all its samples.
        bucket: Of all its samples.
        samples: How many it has.
        number: Its place among all shards, from 0.
        split_number: Its place among those of its split.
        split_shards: How many shards its split has.
    """

    tar: FileRecord
    sidecar: FileRecord
    split: str | None
    bucket: str | None
    samples: int
    number: int
    split_number: int
    split_shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is known of a finished export as a whole.

    Attributes:
        folder: Where it lies.
        name: The pipeline's.
        prefix: First part of its files' names.
        hash: The part of the names that changes with the content.
        plan_sha256: Digest of all that tars and sidecars hold.
        samples: How many it has.
        columns: Of every sidecar.
        contents: What the samples are made of.
        counts: Indexed, kept, dropped, failed.
        reasons: Of what was dropped or failed: ``stage``, ``status``, ``reason``, ``count``.
        inputs: ``path``, ``samples`` and ``sha256`` of each source.
        recipe: Text of ``recipe.yaml``.
        card: What the user wants to be told on the dataset card, such as ``license``.
        privacy: What is done with metadata in images.
    """

    folder: Path
    name: str
    prefix: str
    hash: str
    plan_sha256: str
    samples: int
    columns: pa.Schema
    contents: Contents
    counts: Mapping[str, int]
    reasons: Sequence[Mapping[str, Any]]
    inputs: Sequence[Mapping[str, Any]]
    recipe: str
    card: Mapping[str, str] = field(default_factory=dict)
    privacy: str = PRIVACY

    def __reduce__(self) -> tuple[object, ...]:
        """Return how to make it again.

        A schema that is pickled forgets how the elements of lists are called.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        columns = values.pop("columns").serialize().to_pybytes()
        return _made_again, (type(self), values, columns)

    def sidecar(self, shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a shard, in tar order."""
        return tables.read_table(str(self.folder / shard.sidecar.name), columns)

    def images(
        self, shard: Shard, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield each sidecar row, or what ``columns`` name of it, with the bytes of its image."""
        rows = self.sidecar(shard, columns)
        places = self.sidecar(shard, ["member_offset", "member_size"])
        offsets, sizes = (places[name].to_pylist() for name in places.column_names)
        with LocalStorage().open(str(self.folder / shard.tar.name)) as reader:
            found = (row for batch in rows.to_batches(256) for row in batch.to_pylist())
            for row, offset, size in zip(found, offsets, sizes, strict=True):
                yield row, reader.read(offset, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset(About):
    """A finished export with its shards in order."""

    shards: tuple[Shard, ...]

    @property
    def about(self) -> About:
        """All of it but the shards: what a unit of work over one of them is told."""
        names = About.__dataclass_fields__
        return About(**{name: getattr(self, name) for name in names})

    @property
    def splits(self) -> dict[str | None, tuple[Shard, ...]]:
        """The shards of each split, in the order of the export."""
        return {
            split: tuple(shards)
            for split, shards in itertools.groupby(self.shards, lambda shard: shard.split)
        }


def _made_again(kind: type[About], values: dict[str, Any], columns: bytes) -> About:
    return kind(**values, columns=pa.ipc.read_schema(pa.py_buffer(columns)))


class Members(NamedTuple):
    """Where the members of a shard's tar lie, in tar order.

    Attributes:
        keys: Of n samples.
        borders: n + 1 numbers: the members of sample i are ``[borders[i]:borders[i + 1]]``.
        names: Of m members.
        offsets: First data bytes of m members; the header is the 512 bytes before.
        sizes: Bytes of data of m members.
        end: Where the blocks start that end the tar.
    """

    keys: list[str]
    borders: list[int]
    names: list[str]
    offsets: list[int]
    sizes: list[int]
    end: int


MEMBER_COLUMNS = ("key", "members", "member_sizes")


def members_of(sidecar: pa.Table) -> Members:
    """Return where a shard's members lie, by its sidecar's :data:`MEMBER_COLUMNS`.

    A tar holds nothing but these members, one behind the other, so their sizes say it all.
    """
    names = sidecar["members"].combine_chunks()
    sizes = sidecar["member_sizes"].combine_chunks().flatten().to_numpy()
    ends = np.cumsum(tar.BLOCK + sizes + (-sizes % tar.BLOCK))
    starts = np.concatenate(([0], ends[:-1])) if len(ends) else ends
    return Members(
        keys=sidecar["key"].to_pylist(),
        borders=[0, *np.cumsum(names.value_lengths().to_numpy()).tolist()],
        names=names.flatten().to_pylist(),
        offsets=(starts + tar.BLOCK).tolist(),
        sizes=sizes.tolist(),
        end=int(ends[-1]) if len(ends) else 0,
    )
