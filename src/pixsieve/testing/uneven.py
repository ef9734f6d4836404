"""Samples whose members and json come and go, and change type: what loaders stumble over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pixsieve.testing import images

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 24
LATE = 8
"""A sample behind those from which loaders guess."""
EVEN = 12
_NO_UNIT, _HUGE = 9, 7

Files = dict[str, bytes]


def even_files() -> Files:
    """Make samples ``000.jpg`` to ``011.jpg`` that all have the same members and json types."""
    files = {}
    for number in range(EVEN):
        files[f"{number:03d}.jpg"] = images.photo(number, 48, 40)
        files[f"{number:03d}.txt"] = f"Bild {number}".encode()
        files[f"{number:03d}.json"] = _json(number)
    return files


def _json(number: int, **changed: Any) -> bytes:
    """Return a document; ``...`` leaves a key out."""
    found = {"a": number, "f": number + 0.5, "l": ["t"], "s": f"x{number}"} | changed
    return json.dumps({key: value for key, value in found.items() if value is not ...}).encode()


def _late(**changed: Any) -> Callable[[Files], Files]:
    return lambda files: files | {f"{LATE:03d}.json": _json(LATE, **changed)}


def _early(**changed: Any) -> Callable[[Files], Files]:
    return lambda files: files | {f"{n:03d}.json": _json(n, **changed) for n in range(6)}


def _without(files: Files, extension: str, numbers: range) -> Files:
    gone = {f"{number:03d}.{extension}" for number in numbers}
    return {name: data for name, data in files.items() if name not in gone}


def _in_format(files: Files, kind: str, numbers: range) -> Files:
    found = {
        f"{number:03d}.{kind.lower()}": images.photo(number, 48, 40, kind) for number in numbers
    }
    return _without(files, "jpg", numbers) | found


ONE = range(LATE, LATE + 1)
FAULTS: dict[str, Callable[[Files], Files]] = {
    "text that some lack": lambda files: _without(files, "txt", range(6)),
    "json that some lack": lambda files: _without(files, "json", range(6)),
    "a member that one has": lambda files: files | {f"{LATE:03d}.bin": b"abc"},
    "text that is not UTF-8": lambda files: files | {f"{LATE:03d}.txt": b"caf\xe9"},
    "json that is none": lambda files: files | {f"{LATE:03d}.json": b"{ cut of"},
    "numbers, whole at first": _late(a=1.5),
    "a number that becomes text": _late(a="text"),
    "documents that are no objects": lambda files: files | {f"{LATE:03d}.json": b"[1]"},
    "null at first": _early(s=None),
    "null later": _late(s=None),
    "a list, empty at first": _early(l=[]),
    "a key that comes": _late(new=5),
    "a key that goes": _late(a=...),
    "images of two formats": lambda files: _in_format(files, "PNG", ONE),
    "WebP": lambda files: _in_format(files, "WEBP", range(EVEN)),
    "one grey image": lambda files: files | {"003.jpg": images.photo(3, 48, 40, mode="L")},
}
"""One fault each, made of :func:`even_files`."""


def uneven_files(*, some_without_json: bool = False) -> Files:
    """Make samples ``000.jpg`` to ``023.jpg`` with ``.txt`` and ``.json`` that differ.

    Args:
        some_without_json: Some have no json, or one that is none. Else each has an object.
    """
    files = {}
    for number in range(COUNT):
        key = f"{number:03d}"
        kind = {5: "PNG", 17: "WEBP"}.get(number, "JPEG")
        extension = {"PNG": "png", "WEBP": "webp", "JPEG": "jpg"}[kind]
        files[f"{key}.{extension}"] = images.photo(number, 48, 40, kind)
        files[f"{key}.txt"] = f"Bild {number}, grün".encode()
        files[f"{key}.json"] = json.dumps(_document(number), ensure_ascii=False).encode()
    for number in (1, 13, 20):
        del files[f"{number:03d}.txt"]
    files["002.txt"] = b""
    files["014.txt"] = b"caf\xe9 \xff"
    if some_without_json:
        del files["003.json"], files["015.json"]
        files["004.json"] = b'{"width": NaN}'
        files["016.json"] = b"{ cut of"
        files["018.json"] = b'{"name": "caf\xe9"}'
        files["019.json"] = b"data:text/plain;base64,AAAA"
    return files


def _document(number: int) -> dict[str, Any]:
    late = number > COUNT // 2
    found: dict[str, Any] = {
        "width": 100 + number,
        "name": f"näme \u2028 {number}",
        "score": number if number % 3 else number + 0.25,  # int and float
        "safe": number % 2 == 0,
        "tags": ["a", "b"][: 1 + number % 2],
        "size": {"x": number, "y": number / 2, "unit": "px"},
        "boxes": [{"at": [1, 2.5], "label": "cat"}, {"at": [3, 4], "label": "dog"}],
        "license": None if number % 4 == 0 else "CC0",  # text that some have as null
        "error": None,  # null in all
        "maybe": ["x"] if late else [],  # lists that are empty at first
        "nothing": [],
        "empty": {},
        "kind": "text" if late else number,  # of two types
        "huge": 2**64 if number == _HUGE else 1,
        "id": 2**60 + number,
    }
    if late:
        found["extra"] = 5  # a key that comes later
    else:
        found["early"] = 1.5  # one that goes
    if number == _NO_UNIT:
        del found["size"]["unit"]
        found["boxes"] = [{"label": "cat", "at": [1, 2]}]
        found["title"] = "text that one has"
    return {key: found[key] for key in sorted(found, reverse=number % 2 == 0)}
