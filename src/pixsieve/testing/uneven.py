"""Samples whose members and json come and go, and change type: what loaders stumble over."""

from __future__ import annotations

import json
from typing import Any

from pixsieve.testing import images

COUNT = 24


def uneven_files(*, some_without_json: bool = False) -> dict[str, bytes]:
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
        "huge": 2**64 if number == 7 else 1,
        "id": 2**60 + number,
    }
    if late:
        found["extra"] = 5  # a key that comes later
    else:
        found["early"] = 1.5  # one that goes
    if number == 9:
        del found["size"]["unit"]
        found["boxes"] = [{"label": "cat", "at": [1, 2]}]
        found["title"] = "text that one has"
    return {key: found[key] for key in sorted(found, reverse=number % 2 == 0)}
