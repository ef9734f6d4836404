"""Types of json documents: of one, and what those of many have in common.

A type is plain JSON itself, so that it can be kept as a short text:

- ``"string"``, ``"bool"``, ``"int"``, ``"float"``; ``"long"`` for whole numbers that no double
  holds exactly, ``"null"`` where there is nothing else, ``"mixed"`` for values of several types and
  for what is too deep, too wide or too large to be described;
- ``[T]`` for lists with items of the type T, ``["null"]`` if none has any;
- ``{"key": T}`` for objects;
- ``[T, "?"]`` for a T that some have as null or do not have at all.

The same documents give the same type in any order: merging is commutative and associative.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

Type = Any
MAX_DEPTH = 16
"""Lists and objects within each other."""
MAX_KEYS = 1000
"""Of one object, also of many merged ones: what has more maps ids to things."""
MAX_LENGTH = 16 * 1024
"""Characters of one document's type."""
NULL, MIXED = "null", "mixed"
UNEVEN = "?"

_EXACT = 2**53
_LONG = 2**63
_LEAVES = {str: '"string"', bool: '"bool"', float: '"float"', type(None): '"null"'}
_MIXED_TEXT = '"mixed"'
_NULL_TEXT = '"null"'
_WIDER = {frozenset(("int", "long")): "long", frozenset(("int", "float")): "float"}


def text_of(document: object) -> str:
    """Return the type of a document, as ``msgspec.json.decode`` gives it, as text."""
    text = _text(document, 0)
    return text if len(text) <= MAX_LENGTH else _MIXED_TEXT


def parse(text: str) -> Type:
    """Return the type that a text of :func:`text_of` stands for."""
    return msgspec.json.decode(text)


def _text(value: object, depth: int) -> str:
    kind = type(value)
    if (leaf := _LEAVES.get(kind)) is not None:
        return leaf
    if isinstance(value, int):
        if -_EXACT <= value <= _EXACT:
            return '"int"'
        return '"long"' if -_LONG <= value < _LONG else _MIXED_TEXT
    if depth == MAX_DEPTH:
        return _MIXED_TEXT
    if isinstance(value, dict):
        if len(value) > MAX_KEYS:
            return _MIXED_TEXT
        fields = []
        for key in sorted(value):
            item = value[key]
            if (leaf := _LEAVES.get(type(item))) is not None:
                fields.append(_field(key, leaf))
            else:
                fields.append(f"{_quoted(key)}:{_text(item, depth + 1)}")
        return f"{{{','.join(fields)}}}"
    assert isinstance(value, list)  # noqa: S101  # JSON has nothing else
    kinds = set(map(type, value))
    if len(kinds) == 1 and (leaf := _LEAVES.get(next(iter(kinds)))) is not None:
        return f"[{leaf}]"
    texts = {_text(item, depth + 1) for item in value}
    if len(texts) <= 1:
        return f"[{next(iter(texts), _NULL_TEXT)}]"
    return _encode([functools.reduce(merge, map(parse, sorted(texts)))])


@functools.lru_cache(maxsize=4096)
def _field(key: str, leaf: str) -> str:
    return f"{_quoted(key)}:{leaf}"


@functools.lru_cache(maxsize=4096)
def _quoted(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


def _encode(kind: Type) -> str:
    return json.dumps(kind, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def merge(one: Type, two: Type) -> Type:
    """Return the type that has all values of both."""
    if one == two:
        return one
    first, second = required(one), required(two)
    if MIXED in (first, second):
        return MIXED
    uneven = is_uneven(one) or is_uneven(two) or NULL in (first, second)
    if first == second:
        found = first
    elif NULL in (first, second):
        found = second if first == NULL else first
    else:
        found = _merged(first, second)
    return optional(found) if uneven else found


def _merged(one: Type, two: Type) -> Type:
    """Merge what is neither null nor mixed nor uneven."""
    if isinstance(one, dict) and isinstance(two, dict):
        found = {
            key: merge(one[key], two[key])
            if key in one and key in two
            else optional(one[key] if key in one else two[key])
            for key in sorted(one.keys() | two.keys())
        }
        return found if len(found) <= MAX_KEYS else MIXED
    if isinstance(one, list) and isinstance(two, list):
        return [merge(one[0], two[0])]
    if isinstance(one, str) and isinstance(two, str):
        return _WIDER.get(frozenset((one, two)), MIXED)
    return MIXED


def optional(kind: Type) -> Type:
    """Return the type of what some do not have."""
    return kind if kind in (NULL, MIXED) or is_uneven(kind) else [kind, UNEVEN]


def is_uneven(kind: Type) -> bool:
    """Tell whether some do not have it, or have null."""
    return isinstance(kind, list) and len(kind) > 1


def required(kind: Type) -> Type:
    """Return the type of those that have a value."""
    return kind[0] if is_uneven(kind) else kind


def plain(kind: Type) -> Type:
    """Return a type without what is uneven, and with one word for whole numbers."""
    found = required(kind)
    if isinstance(found, dict):
        return {key: plain(inner) for key, inner in found.items()}
    if isinstance(found, list):
        return [plain(found[0])]
    return "int" if found == "long" else found


def paths(kind: Type, above: str = "") -> Iterator[tuple[str, Type]]:
    """Yield each key's path, such as ``a``, ``a.b`` or, of a list's items, ``a[].b``, and its type.

    Items have a path of their own, such as ``a[]``; so have keys that hold a dot or a bracket, as
    they then stand in quotes. The document itself has none, unless it is a list.
    """
    found = required(kind)
    if isinstance(found, list):
        yield f"{above}[]", found[0]
        yield from paths(found[0], f"{above}[]")
    elif isinstance(found, dict):
        for key, inner in found.items():
            path = path_of(key, above)
            yield path, inner
            yield from paths(inner, path)


def path_of(key: str, above: str = "") -> str:
    """Return the path of an object's key, whose own path is ``above``."""
    shown = key if key and not set(key) & set('."[]') else _quoted(key)
    return f"{above}.{shown}" if above else shown
