"""What the samples of an export are made of, which decides who can load it."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pixsieve import image, json_types
from pixsieve.export.members import Sibling, named
from pixsieve.export.transform import target_of
from pixsieve.scorers.inspection import MAX_TEXT_BYTES, NOT_UTF8

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pixsieve.export.transform import ImageTransformStage
    from pixsieve.export.writer import ImageWriterStage

Kinds = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the samples of an export are made of.

    Attributes:
        samples: How many there are.
        images: Extension of images, as exported, and how many samples have it.
        members: Likewise of all other members.
        json: The type of all json members together, without what is uneven: such as
            ``{"a": "int", "b": ["string"], "c": {"x": "float"}}``; leaves are ``string``, ``int``,
            ``float``, ``bool``, ``null`` and ``mixed``. ``None`` if there are none that can be
            read.
        json_uneven: Paths in it, such as ``c.x``, of what some of them lack, or have as null; of
            lists that are empty in some, or have nulls, ``b[]``.
        json_type: The same with the marks of :mod:`pixsieve.json_types`.
        json_kinds: Path to how many json members have what there; ``uneven`` is a list's item that
            only some of its items have.
        grey: How many ``jpg`` and ``png`` have one channel, also such as have a palette.
        unread: How many members cannot be read as what they are: ``txt`` that is not UTF-8,
            ``json`` that is not JSON; ``large`` is json beyond what is read at all.
    """

    samples: int
    images: dict[str, int]
    members: dict[str, int]
    json: Any = None
    json_uneven: tuple[str, ...] = field(default=())
    json_type: Any = None
    json_kinds: Kinds = field(default_factory=dict)
    grey: int = 0
    unread: dict[str, int] = field(default_factory=dict)


def tally(
    plan: pa.Table, writer: ImageWriterStage, transform: ImageTransformStage | None = None
) -> Contents:
    """Return what the samples of a plan table will be made of, as they are found."""
    groups, large = _grouped(plan)
    images, members = Counter[str](), Counter[str]()
    types, unread, grey = Counter[str](), Counter[str](), 0
    for group in groups.to_pylist():
        samples = group["count_all"]
        siblings = group["extensions"].split("/") if group["members"] else []
        target = target_of(group["format"], writer, transform)
        extension = image.FORMATS[target]
        images[extension] += samples
        copied = target == group["format"] and transform is None
        if extension in _DECODED and group["mode"] in _GREY[copied]:
            grey += samples
        for name, _ in named([Sibling(each, "", "", 0, 0) for each in siblings], extension):
            members[name] += samples
        if group["json_type"] is not None:
            types[group["json_type"]] += samples
        elif "json" in siblings:
            unread["json"] += samples
        if group["not_utf8"]:
            unread["txt"] += samples
    if large:
        unread["large"] = large
    return _contents(len(plan), images, members, grey, unread, *_json(types))


_GREY = {
    True: frozenset({"1", "F", "I", "I;16", "L", "P"}),
    False: frozenset({"1", "F", "I", "I;16", "L"}),
}
"""Modes of one channel where images are copied, and where they may be encoded anew."""
_DECODED = ("jpg", "png")  # by every loader


def _grouped(plan: pa.Table) -> tuple[pa.Table, int]:
    """Return the combinations that there are, with counts; and how many json are too large."""
    lists = plan["siblings"].combine_chunks()
    borders = np.concatenate(([0], np.cumsum(lists.value_lengths().to_numpy())))
    flat = lists.flatten()
    names = pa.ListArray.from_arrays(pa.array(borders, pa.int32()), flat.field("extension"))
    sizes = flat.field("size").to_numpy(zero_copy_only=False)
    is_json = pc.equal(flat.field("extension"), "json").to_numpy(zero_copy_only=False)
    problem = plan["metadata_problem"].combine_chunks()
    found = pa.table(
        {
            "format": plan["format"].combine_chunks(),
            "mode": plan["mode"].combine_chunks(),
            "members": lists.value_lengths(),
            "extensions": pc.binary_join(names, "/"),  # which no extension has in it
            "json_type": plan["json_type"].combine_chunks(),
            "not_utf8": pc.fill_null(pc.starts_with(problem, NOT_UTF8), fill_value=False),
        }
    )
    groups = found.group_by(found.column_names, use_threads=False).aggregate([([], "count_all")])
    return groups, int((sizes[is_json] > MAX_TEXT_BYTES).sum())


def _json(types: Mapping[str, int]) -> tuple[Any, Kinds]:
    """Return the merged type of documents, and what they have at each path."""
    if not types:
        return None, {}
    parsed = [(json_types.parse(text), types[text]) for text in sorted(types)]
    merged = functools.reduce(json_types.merge, (kind for kind, _ in parsed))
    kinds: dict[str, Counter[str]] = {}
    for kind, samples in parsed:
        for path, inner in (("", kind), *json_types.paths(kind)):
            kinds.setdefault(path, Counter())[_word(inner)] += samples
    return merged, {path: dict(found) for path, found in kinds.items()}


def _word(kind: Any) -> str:
    if json_types.is_uneven(kind):
        return "uneven"
    if isinstance(kind, dict):
        return "object"
    return "list" if isinstance(kind, list) else str(json_types.plain(kind))


def together(found: Iterable[Contents]) -> Contents:
    """Return what the samples of several tables are made of."""
    samples, grey, merged = 0, 0, None
    images, members, unread = Counter[str](), Counter[str](), Counter[str]()
    kinds: dict[str, Counter[str]] = {}
    for each in found:
        samples += each.samples
        grey += each.grey
        images.update(each.images)
        members.update(each.members)
        unread.update(each.unread)
        if each.json_type is not None:
            known = merged is not None
            merged = json_types.merge(merged, each.json_type) if known else each.json_type
        for path, words in each.json_kinds.items():
            kinds.setdefault(path, Counter()).update(words)
        if len(kinds) > _MANY:
            kinds = _of_type(merged, kinds)
    return _contents(samples, images, members, grey, unread, merged, kinds)


_MANY = 10_000


def _of_type(merged: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of paths that a type still has: ids that are keys are merged away."""
    known = {"", *(path for path, _ in json_types.paths(merged))}
    return {path: kinds[path] for path in sorted(kinds) if path in known}


def _contents(
    samples: int,
    images: Mapping[str, int],
    members: Mapping[str, int],
    grey: int,
    unread: Mapping[str, int],
    merged: Any,
    kinds: Mapping[str, Mapping[str, int]],
) -> Contents:
    kept = {} if merged is None else _of_type(merged, kinds)
    paths = [] if merged is None else json_types.paths(merged)
    return Contents(
        samples=samples,
        images=dict(sorted(images.items())),
        members=dict(sorted(members.items())),
        json=None if merged is None else json_types.plain(merged),
        json_uneven=tuple(
            path for path, kind in paths if json_types.is_uneven(kind) or kind == json_types.NULL
        ),
        json_type=merged,
        json_kinds={path: dict(sorted(words.items())) for path, words in kept.items()},
        grey=grey,
        unread=dict(sorted(unread.items())),
    )
