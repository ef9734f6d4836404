"""Samples that all have the same members, and json of one schema with fixed types.

What loaders that guess types from a few samples need. Nothing is invented but empty text: a sample
without a caption gets an empty one, and text that a json lacks is empty. What else not every json
has, or not of one type, is left out of the members; their bytes stand in the sidecar as they were.
"""

from __future__ import annotations

import base64
import codecs
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pixsieve import json_types
from pixsieve.errors import RunError, SourceChangedError
from pixsieve.export.members import Sibling, named
from pixsieve.schema import ORIGINALS
from pixsieve.scorers.inspection import MAX_TEXT_BYTES, UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pixsieve.export.contents import Contents
    from pixsieve.sources import SourceFiles

ORIGINAL_JSON, ORIGINAL_TXT = ORIGINALS.names
_WAY_OUT = "or leave them as they are with members='as_found'"
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """What every sample will have beside its image.

    Attributes:
        members: Extensions in their order.
        json: The schema of json members, a type of :mod:`pixsieve.json_types` in which nothing is
            uneven or mixed; ``None`` if there are none.
        originals: Columns of the sidecar that hold members as they were.
        notes: What differs from what was found.
    """

    members: tuple[str, ...]
    json: Any
    originals: tuple[str, ...]
    notes: tuple[str, ...]


def uniform_of(found: Contents) -> Uniform:
    """Return what every sample of an export can have.

    Raises:
        RunError: some samples lack members that cannot be made up.
    """
    _check(found)
    schema = None if found.json_type is None else schema_of(_of_all(found))
    members = [*(("txt",) if "txt" in found.members else ()), *(("json",) if schema else ())]
    originals = []
    if "json" in found.members:
        originals.append(ORIGINAL_JSON)
    if found.unread.get("txt"):
        originals.append(ORIGINAL_TXT)
    return Uniform(
        members=(*members, *(name for name in found.members if name not in ("txt", "json"))),
        json=schema,
        originals=tuple(originals),
        notes=tuple(_notes(found, schema)),
    )


def exported(found: Contents, uniform: Uniform) -> Contents:
    """Return what the samples will be made of."""
    paths = () if uniform.json is None else json_types.paths(uniform.json)
    kinds = {path: {str(_told(kind)): found.samples} for path, kind in paths}
    return replace(
        found,
        members=dict.fromkeys(sorted(uniform.members), found.samples),
        json=None if uniform.json is None else json_types.plain(uniform.json),
        json_uneven=(),
        json_type=uniform.json,
        json_kinds={} if uniform.json is None else {"": {"object": found.samples}} | kinds,
        unread={},
    )


def _told(kind: Any) -> Any:
    if isinstance(kind, (dict, list)):
        return "object" if isinstance(kind, dict) else "list"
    return json_types.plain(kind)


def _check(found: Contents) -> None:
    if large := found.unread.get("large"):
        msg = (
            f"members='uniform': {large:,} of {found.samples:,} samples have a .json of more than "
            f"{MAX_TEXT_BYTES:,} bytes, which is not read; make these smaller, {_WAY_OUT}"
        )
        raise RunError(msg)
    odd = {
        name: count
        for name, count in found.members.items()
        if name not in ("txt", "json") and count < found.samples
    }
    if odd:
        listed = ", ".join(f".{name} in {count:,}" for name, count in list(odd.items())[:_SHOWN])
        if len(odd) > _SHOWN:
            listed += f" and {len(odd) - _SHOWN} more"
        name, count = next(iter(odd.items()))
        verb = "LIKE" if 2 * count >= found.samples else "NOT LIKE"
        msg = (
            f"members='uniform': not all of the {found.samples:,} samples have the same members, "
            f"and these cannot be made up: {listed}; leave the other samples out with a filter, "
            f"such as \"extensions {verb} '%{name}%'\", {_WAY_OUT}"
        )
        raise RunError(msg)


def _of_all(found: Contents) -> Any:
    """Return the type of the json of all samples: those without one have an empty object."""
    kind = found.json_type
    every = sum(found.json_kinds.get("", {}).values())
    return kind if every == found.samples else json_types.merge(kind, {})


# -- schema -----------------------------------------------------------------------------------


def schema_of(kind: Any) -> Any:
    """Return the schema that documents of a type can all be written by.

    It is ``None`` if they have nothing in common. Text is never missing from it: ``""`` stands for
    text that some lack.
    """
    return _fixed(kind) if isinstance(kind, dict) else None


def _fixed(kind: Any) -> Any:
    """Return the type without what some lack; ``None`` if some lack it."""
    if json_types.required(kind) == "string":
        return "string"
    if json_types.is_uneven(kind) or kind in (json_types.NULL, json_types.MIXED):
        return None
    if isinstance(kind, list):
        # an item that is "" for null would change the list
        item = None if json_types.is_uneven(kind[0]) else _fixed(kind[0])
        return None if item is None else [item]
    if isinstance(kind, dict):
        fields = {key: _fixed(inner) for key, inner in kind.items()}
        return {key: inner for key, inner in fields.items() if inner is not None} or None
    return kind


def normalised(document: object, schema: Mapping[str, Any]) -> bytes:
    """Return a document as it is written by a schema that has what all have in common.

    Raises:
        ValueError: the schema is of other documents.
    """
    try:
        return _write(document, schema).encode()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = "the document does not fit the schema"
        raise ValueError(msg) from error


def _write(value: Any, kind: Any) -> str:
    if kind == "string":
        return json.dumps("" if value is None else str(value), ensure_ascii=False)
    if isinstance(kind, dict):
        fields = (
            f"{json.dumps(key, ensure_ascii=False)}:"
            f"{_write(value.get(key) if inner == 'string' else value[key], inner)}"
            for key, inner in kind.items()
        )
        return f"{{{','.join(fields)}}}"
    if isinstance(kind, list):
        return f"[{','.join(_write(item, kind[0]) for item in value)}]"
    if kind == "bool":
        return "true" if value else "false"
    return str(value) if kind in ("int", "long") else _float(float(value))


def _float(value: float) -> str:
    """Return a number with a point, by which every reader takes it for a float."""
    if not math.isfinite(value):
        raise TypeError(value)
    text = repr(value)
    if "." in text:
        return text
    digits, mark, exponent = text.partition("e")
    return f"{digits}.0{mark}{exponent}"


# -- members ----------------------------------------------------------------------------------


class Beside(NamedTuple):
    """The members of a sample beside its image.

    Attributes:
        members: Extension, and where the bytes lie, or the bytes.
        originals: By column, what a member was.
    """

    members: list[tuple[str, Sibling | bytes]]
    originals: dict[str, str]


def beside(
    siblings: Sequence[Sibling],
    taken: str,
    caption: str | None,
    uniform: Uniform | None,
    files: SourceFiles,
) -> Beside:
    """Return what a sample has beside its image.

    Args:
        siblings: What it has in the source.
        taken: The image's extension.
        caption: Of the sample: it is the text where there is no ``.txt``.
        uniform: What every sample has; ``None``: all is copied as it is.
        files: Opens the source's files.

    Raises:
        SourceChangedError: a json is not what it was when it was inspected.
    """
    found = named(siblings, taken)
    if uniform is None:
        return Beside([*found], {})
    known = dict(found)
    members: dict[str, Sibling | bytes] = {**known}
    originals = {}
    if ORIGINAL_JSON in uniform.originals:
        document: object = {}
        if (place := known.get("json")) is not None:
            data = _read(place, files)
            originals[ORIGINAL_JSON] = original_text(data, "application/json")
            document = _document(data)
        if uniform.json is not None:
            try:
                members["json"] = normalised(document, uniform.json)
            except ValueError as error:
                msg = (
                    f"{place.file if place else ''}: the json at byte "
                    f"{place.offset if place else 0} is not what it was when it was inspected, "
                    "though the file's size and time are; check the disk and run again"
                )
                raise SourceChangedError(msg) from error
    if "txt" in uniform.members:
        text = known.get("txt")
        if text is None:
            members["txt"] = (caption or "").encode()
        elif caption is None and text.size <= MAX_TEXT_BYTES:
            data = _read(text, files)
            originals[ORIGINAL_TXT] = original_text(data, "text/plain")
            members["txt"] = b""
    return Beside([(name, members[name]) for name in uniform.members], originals)


def _read(place: Sibling, files: SourceFiles) -> bytes:
    return files.open(place.file, place.version).read(place.offset, place.size)


def _document(data: bytes) -> object:
    """Return what a json member holds; an empty object if it is none."""
    try:
        found: object = msgspec.json.decode(data.removeprefix(codecs.BOM_UTF8))
    except UNREADABLE:
        return {}
    return found


def original_text(data: bytes, kind: str) -> str:
    """Return bytes as text: as UTF-8 if they are, else as a ``data:`` address of RFC 2397.

    Text that looks like one is made one, too: :func:`original_bytes` gives all bytes back.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = _DATA
    if text.startswith(_DATA):
        return f"{_DATA}{kind}{_BASE64}{base64.b64encode(data).decode()}"
    return text


def original_bytes(text: str) -> bytes:
    """Return the bytes that :func:`original_text` stands for."""
    if text.startswith(_DATA):
        return base64.b64decode(text.partition(_BASE64)[2], validate=True)
    return text.encode()


_DATA, _BASE64 = "data:", ";base64,"


# -- notes ------------------------------------------------------------------------------------


def _notes(found: Contents, schema: Any) -> Iterator[str]:
    """Say what members will not be as they were found."""
    samples = f"of {found.samples:,} samples"
    lacking = {name: found.samples - found.members.get(name, 0) for name in ("txt", "json")}
    if "txt" in found.members and lacking["txt"]:
        yield f"{lacking['txt']:,} {samples} have no .txt: theirs is empty, or their caption"
    if "txt" in found.unread:
        yield (
            f"the .txt of {found.unread['txt']:,} {samples} is not UTF-8: it is empty in the tars, "
            f"and in the sidecar's {ORIGINAL_TXT} as it was"
        )
    if "json" not in found.members:
        return
    if "json" in found.unread:
        yield f"the .json of {found.unread['json']:,} {samples} is not JSON: it counts as {{}}"
    if lacking["json"]:
        yield f"{lacking['json']:,} {samples} have no .json: it counts as {{}}"
    if schema is None:
        kinds = _kinds(found.json_kinds.get("", {}))
        what = f"they are {kinds}" if kinds else "none can be read"
        if kinds == "object":
            what = "they have no key of one type in common"
        yield f".json members are left out of the tars, since {what}; {_KEPT}"
    else:
        yield f".json members are written anew, by one schema; {_KEPT}"
    reasons: dict[str, list[str]] = {}
    for path, why in _changes(_of_all(found), schema, found):
        reasons.setdefault(why, []).append(path)
    for why, paths in reasons.items():
        yield f"json {_listed(paths)}: {why}"


_KEPT = f"as they were, they stand in the sidecar's {ORIGINAL_JSON}"


def _changes(kind: Any, schema: Any, found: Contents, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the paths of what a schema lacks, or has as empty text, and why."""
    if isinstance(kind, list):
        yield from _changes(kind[0], schema[0], found, f"{above}[]")
    if not isinstance(kind, dict):
        return
    for key, inner in kind.items():
        path = json_types.path_of(key, above)
        kept = (schema or {}).get(key)
        if kept is None:
            yield path, f"left out, {_why(path, inner, found)}"
        elif kept == "string" and json_types.is_uneven(inner):
            yield path, f'"" where there is none: {_lacking(path, found)}'
        else:
            yield from _changes(inner, kept, found, path)


def _why(path: str, kind: Any, found: Contents) -> str:
    """Return why not all documents can have what is at a path."""
    if kind == json_types.NULL:
        return "null wherever it is"
    if kind == json_types.MIXED:
        kinds = _kinds(found.json_kinds.get(path, {}))
        return "of several types" + (f": {kinds}" if "," in kinds else "")
    if json_types.is_uneven(kind):
        return _lacking(path, found)
    if isinstance(kind, list):
        item = json_types.required(kind[0])
        if item == json_types.MIXED:
            return "with items of several types"
        if json_types.is_uneven(kind[0]) or item == json_types.NULL:
            words = found.json_kinds.get(f"{path}[]", {})
            count = words.get("null", 0) + words.get("uneven", 0)
            return f"empty, or with nulls, in {count:,} of {found.samples:,} samples"
    return "with nothing in it that all have"


def _lacking(path: str, found: Contents) -> str:
    if "[]" in path:
        return "some items lack it"
    words = found.json_kinds.get(path, {})
    there = sum(count for word, count in words.items() if word != "null")
    return f"{found.samples - there:,} of {found.samples:,} samples lack it"


def _kinds(words: Mapping[str, int]) -> str:
    if len(words) < 2:  # noqa: PLR2004
        return "".join(words)
    ordered = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{_SAID.get(word, word)} in {count:,}" for word, count in ordered)


_SAID = {"mixed": "others", "uneven": "others"}


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(repr(path) for path in paths[:_SHOWN])
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return f"key{'s' if len(paths) > 1 else ''} {shown}{more}"
