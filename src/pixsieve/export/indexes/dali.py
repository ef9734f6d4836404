"""Where the members of a tar lie, for NVIDIA DALI's ``readers.webdataset``."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pixsieve.export.indexes.base import Index

if TYPE_CHECKING:
    from pixsieve.export.finished import Members


class DaliIndex(Index):
    """``X.idx`` beside ``X.tar``: the bytes that DALI's own ``wds2idx`` writes.

    A line of text for each sample, in tar order: extension, offset of the first data byte, size in
    bytes and name of each of its members, all divided by single blanks. The first line is the
    version of the format and the number of samples. Without this file DALI looks through every tar
    when it starts.

    Source: ``wds2idx`` of DALI 2.4, format v1.2.
    """

    name = "dali"
    suffix = ".idx"

    def of_shard(self, members: Members) -> bytes:
        """Return the index of a tar."""
        places = [
            f"{name.partition('.')[2]} {offset} {size} {name}"
            for name, offset, size in zip(
                members.names, members.offsets, members.sizes, strict=True
            )
        ]
        lines = [" ".join(places[start:stop]) for start, stop in pairwise(members.borders)]
        return "\n".join([f"v1.2 {len(members.keys)}", *lines, ""]).encode()
