"""Canonical digests of frozen values: the only place where plans and units of work are hashed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from enum import Enum
from pathlib import PurePath

FORMAT_VERSION = 1
"""Part of every fingerprint of cached work: raise it when a table's or a step's meaning changes."""


def canonical(value: object) -> object:
    """Return ``value`` as plain JSON data in which equal values look equal.

    Dataclasses become objects that name their class, so that two stages with equal fields differ;
    classes of other packages with their module, since two may have one name.

    Raises:
        TypeError: for anything whose content cannot be told, such as a function or an open file.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"@": _class_name(type(value)), **fields}
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((canonical(item) for item in value), key=json.dumps)
    if isinstance(value, PurePath):
        return value.as_posix()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    msg = f"a {type(value).__name__} has no canonical form; stages may hold plain values only"
    raise TypeError(msg)


def _class_name(kind: type) -> str:
    ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return kind.__qualname__ if ours else f"{kind.__module__}:{kind.__qualname__}"


def fingerprint(*values: object) -> str:
    """Return the SHA-256 of the canonical form of ``values``: 64 hexadecimal digits."""
    text = json.dumps(
        [FORMAT_VERSION, *map(canonical, values)],
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()
