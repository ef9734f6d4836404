"""What one reading of a sample tells: digests, header, whether it decodes, caption, json fields."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from pixsieve import image, json_types, schema
from pixsieve.schema import Problem
from pixsieve.sources.reader import JSON_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from typing_extensions import Buffer

MAX_TEXT_BYTES = 1024 * 1024
"""Captions and json with more bytes travel with their sample, but are not read into columns."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading a json member raises that is none."""
NOT_UTF8 = "txt: not UTF-8"
"""What ``metadata_problem`` starts with where the ``.txt`` member is not UTF-8."""

_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "int64": (int,),
    "double": (float, int),
    "bool": (bool,),
}
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectOptions:
    """How samples are inspected; part of the fingerprint of the cached result.

    Attributes:
        decode: Formats whose images must decode completely; of others only the header is read.
        decode_turned: The same for images that are not upright as they are stored.
        first_frame: Accept images with several frames.
        caption_field: json field that is the caption where there is no ``.txt`` member.
        json_fields: json field to type name, in the order of the columns.
        limits: Bounds on what is decoded.
        encode: Format that images of another one will be encoded as, so that they must fit it.
    """

    decode: frozenset[str]
    first_frame: bool
    caption_field: str | None
    json_fields: tuple[tuple[str, str], ...]
    limits: image.ImageLimits
    encode: str | None = None
    decode_turned: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Columns of the inspection: :data:`pixsieve.schema.INSPECTION` and the json fields."""
        extra = [pa.field(name, JSON_TYPES[kind]) for name, kind in self.json_fields]
        return pa.schema([*schema.INSPECTION, *extra])


@dataclass(slots=True)
class Facts:
    """One row of the inspection while it is being made."""

    sha256: str | None = None
    siblings_sha256: str | None = None
    extensions: str | None = None
    json_type: str | None = None
    header: image.ImageHeader | None = None
    caption: str | None = None
    fields: dict[str, object] | None = None
    metadata_problem: str | None = None
    problem: Problem | None = None
    problem_detail: str | None = None


def inspect_image(facts: Facts, data: bytes | memoryview, options: InspectOptions) -> None:
    """Fill in what the image's bytes tell, short of decoding them."""
    facts.sha256 = hashlib.sha256(data).hexdigest()
    try:
        facts.header = header = image.probe(data, options.limits)
        if header.frames > 1 and not options.first_frame:
            facts.problem = Problem.ANIMATED
            facts.problem_detail = f"{header.frames} frames; animated='first_frame' takes the first"
        elif options.encode not in (None, header.format):
            image.check_encodable(header, str(options.encode))
    except image.ImageProblemError as problem:
        facts.problem, facts.problem_detail = problem.problem, problem.detail


def inspect_siblings(
    facts: Facts, members: Iterable[tuple[str, Buffer]], options: InspectOptions
) -> None:
    """Fill in what the other members tell. ``members`` are (extension, bytes) in source order."""
    digest = hashlib.sha256()
    texts: dict[str, Buffer] = {}
    extensions = []
    for extension, data in members:
        extensions.append(extension)
        size = memoryview(data).nbytes
        digest.update(f"{extension}\0{size}\0".encode())
        digest.update(data)
        if extension in ("txt", "json"):
            texts.setdefault(extension, data)
    facts.siblings_sha256 = digest.hexdigest()
    facts.extensions = " ".join(sorted(extensions))
    if "txt" in texts:
        facts.caption = _text(facts, texts["txt"])
    if "json" in texts:
        document = _document(facts, texts["json"], options)
        facts.fields = {
            name: _typed(facts, document, name, kind) for name, kind in options.json_fields
        }
        if "txt" not in texts and options.caption_field is not None:
            caption = _typed(facts, document, options.caption_field, "string")
            facts.caption = caption if isinstance(caption, str) else None


def inspection_table(facts: Sequence[Facts], options: InspectOptions) -> pa.Table:
    """Return the facts as a table with the schema of ``options``."""
    headers = [fact.header for fact in facts]
    columns: dict[str, list[object]] = {
        "sha256": [fact.sha256 for fact in facts],
        "siblings_sha256": [fact.siblings_sha256 for fact in facts],
        "extensions": [fact.extensions for fact in facts],
        "json_type": [fact.json_type for fact in facts],
        "caption": [fact.caption for fact in facts],
        "metadata_problem": [fact.metadata_problem for fact in facts],
        "problem": [fact.problem for fact in facts],
        "problem_detail": [fact.problem_detail for fact in facts],
    }
    for name in ("format", "width", "height", "mode", "exif_orientation", "frames"):
        columns[name] = [None if header is None else getattr(header, name) for header in headers]
    for name, _ in options.json_fields:
        columns[name] = [None if fact.fields is None else fact.fields.get(name) for fact in facts]
    wanted = options.schema
    return pa.table([pa.array(columns[f.name], f.type) for f in wanted], schema=wanted)


def _text(facts: Facts, data: Buffer) -> str | None:
    view = memoryview(data)
    if view.nbytes > MAX_TEXT_BYTES:
        _note(facts, f"txt: {view.nbytes} bytes, at most {MAX_TEXT_BYTES} are read")
        return None
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError as error:
        _note(facts, f"{NOT_UTF8} at byte {error.start}")
        return None


def _document(facts: Facts, data: Buffer, options: InspectOptions) -> Mapping[str, object]:
    """Return the json object that a member holds: an empty one where it holds none."""
    view = memoryview(data)
    if view.nbytes > MAX_TEXT_BYTES:
        _note(facts, f"json: {view.nbytes} bytes, at most {MAX_TEXT_BYTES} are read")
        return {}
    try:
        document = msgspec.json.decode(view)
        facts.json_type = json_types.text_of(document)
    except UNREADABLE as error:
        _note(facts, f"json: {error}")
        if bytes(view[: len(codecs.BOM_UTF8)]) == codecs.BOM_UTF8:  # loaders read it all the same
            with contextlib.suppress(*UNREADABLE):
                document = msgspec.json.decode(view[len(codecs.BOM_UTF8) :])
                facts.json_type = json_types.text_of(document)
        return {}
    if not isinstance(document, dict):
        if options.json_fields or options.caption_field:
            _note(facts, f"json: expected an object, found {type(document).__name__}")
        return {}
    return document


def _typed(facts: Facts, document: Mapping[str, object], name: str, kind: str) -> object:
    value = document.get(name)
    if value is None:
        return None
    found = type(value).__name__
    if isinstance(value, _PYTHON_TYPES[kind]) and (kind == "bool") == isinstance(value, bool):
        if kind == "double":
            with contextlib.suppress(OverflowError):
                return float(value)  # type: ignore[arg-type]
        elif kind != "int64" or value in _INT64:
            return value
        found = "a larger number"
    _note(facts, f"json field {name!r}: expected {kind}, found {found}")
    return None


def _note(facts: Facts, text: str) -> None:
    facts.metadata_problem = (
        text if facts.metadata_problem is None else f"{facts.metadata_problem}; {text}"
    )
