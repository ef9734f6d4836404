"""Columns and types of a dataset as Hugging Face's ``webdataset`` reader sees its tars.

That reader guesses them from the first five samples unless the dataset card declares them, and then
fails, or loses what comes later, where samples differ: in image formats, in members, in what their
json has. So the card declares them, from all samples.

Source: datasets 5.0, ``packaged_modules/webdataset`` and ``Features._from_yaml_list``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixsieve.export.contents import Contents

_IMAGES = frozenset({"avif", "bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"})
_TEXTS = frozenset({"txt", "text", "transcript"})
_NUMBERS = frozenset({"cls", "cls2", "index", "inx", "id"})
_DECODED = frozenset({"json", "jsn", "ten", "tb", "mp", "msg", "npy", "npz", "cbor", "pth"})
"""Extensions whose members the reader turns into values, of types that nobody has looked at."""
_COMPRESSED = frozenset({"bz2", "gz", "lz4", "xz", "zst"})
_TYPES = {"string": "string", "int": "int64", "float": "float64", "bool": "bool"}


def features(contents: Contents) -> list[dict[str, Any]]:
    """Return the ``features`` of a card: images, text and json first, then the rest by name.

    A member that is not here is not a column, but does no harm: arrays, whose shapes would have to
    be known, and in json what has no one type, or no value in any sample.
    """
    images = {extension: {"dtype": "image"} for extension in contents.images}
    others = {
        extension: found
        for extension in sorted(contents.members, key=lambda name: (_FIRST.get(name, 2), name))
        if extension not in images and (found := _of_member(extension, contents)) is not None
    }
    keys = {name: {"dtype": "string"} for name in ("__key__", "__url__")}
    return [{"name": name, **feature} for name, feature in (images | others | keys).items()]


_FIRST = {"txt": 0, "json": 1}


def _of_member(extension: str, contents: Contents) -> dict[str, Any] | None:
    if extension == "json":
        return of_json(contents.json)
    stem, _, kind = extension.rpartition(".")
    if kind in _COMPRESSED:  # unpacked by the reader, which then looks at what stands before
        kind = stem.rpartition(".")[2]
        if kind in _IMAGES:
            return {"dtype": "binary"}
    if kind in _IMAGES:
        return {"dtype": "image"}
    if kind in _TEXTS:
        return {"dtype": "string"}
    if kind in _NUMBERS:
        return {"dtype": "int64"}
    return None if kind in _DECODED else {"dtype": "binary"}


def of_json(kind: Any) -> dict[str, Any] | None:
    """Return the feature of a json type, ``None`` where there is no type that all values have.

    Lists of plain values are ``sequence``, which all versions of datasets read alike.
    """
    if isinstance(kind, dict):
        fields = [
            {"name": name, **found}
            for name, inner in kind.items()
            if (found := of_json(inner)) is not None
        ]
        return {"struct": fields} if fields else None
    if isinstance(kind, list):
        item = of_json(kind[0])
        if item is None:
            return None
        if "struct" in item:
            return {"list": item["struct"]}
        return {"sequence": item.get("dtype", item)}
    dtype = _TYPES.get(kind)
    return None if dtype is None else {"dtype": dtype}
