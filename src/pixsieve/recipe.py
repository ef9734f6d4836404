"""Recipes: a pipeline written down as YAML.

::

    name: photos
    seed: 0
    stages:
      - ImageReaderStage: {path_or_paths: photos/}
      - FilterStage: {where: "least(width, height) >= 256"}
      - ExactDeduplicationStage
      - ImageWriterStage: {output_dir: out/}

A stage is a name, or a name with its fields; fields that are left out have their defaults. Names
are those of :mod:`pixsieve.stages`, those that installed packages give in the entry point group
``pixsieve.stages``, and ``module:Class``. Relative paths start at the recipe's own folder; where
that is not the working directory, the pipeline has them as absolute paths. A recipe is data: YAML
tags, anchors and aliases are refused, and every value must have the very type of its field.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import inspect
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import msgspec
import yaml

from pixsieve import stages as builtin
from pixsieve.errors import RecipeError, StorageError, UsageError, nearest
from pixsieve.pipeline import Pipeline
from pixsieve.stage import Stage
from pixsieve.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pixsieve.pipeline import Plan

_T = TypeVar("_T")

ENTRY_POINTS = "pixsieve.stages"
"""Entry point group in which packages name their stages."""

_KEYS = ("name", "seed", "stages")
_PATHS = frozenset(
    {
        "path_or_paths", "file_paths", "output_dir", "removal_parquets_dir", "earlier", "against",
    }
)  # fmt: skip
"""Fields that hold paths."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SPELLED = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)")
_DEPTH = 16
"""Levels of lists and mappings in each other; a stage's field needs no more than five."""
_LONGEST = 60
"""Characters of a value that a message quotes."""


def load(path: str | Path) -> Pipeline:
    """Read a recipe from a file.

    Raises:
        UsageError: there is no such file, or (``RecipeError``) what is wrong, in which line.
        StorageError: the file cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        msg = f"{path}: there is no such recipe"
        raise UsageError(msg) from None
    except IsADirectoryError:
        msg = (
            f"{path} is a folder, expected a recipe; to export a folder: pixsieve export {path} OUT"
        )
        raise UsageError(msg) from None
    except OSError as error:
        msg = f"cannot read the recipe {path}: {error.strerror}"
        raise StorageError(msg) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        msg = f"{path}:{line}: not UTF-8; save the recipe as UTF-8"
        raise RecipeError(msg) from None
    return loads(text, str(path), path.parent)


def loads(text: str, source: str = "recipe.yaml", folder: Path | None = None) -> Pipeline:
    """Read a recipe from text.

    Args:
        text: The recipe.
        source: What messages call it.
        folder: Where relative paths start, which makes them absolute; ``None``, and the working
            directory as ``Path()``, leave them as they are.

    Raises:
        RecipeError: what is wrong, in which line.
    """
    reader = _Reader(source, folder)
    top = reader.fields(reader.parse(text), "a recipe")
    for key, (mark, _) in top.items():
        if key not in _KEYS:
            reader.fail(mark, f"{key!r} is no key of a recipe{nearest(key, _KEYS)}{_one_of(_KEYS)}")
    if "stages" not in top:
        reader.fail(0, f"the key 'stages' is missing{_one_of(_KEYS)}")
    pipeline = Pipeline()
    if "name" in top:
        pipeline.name = reader.convert(top["name"][1], str, "name")
    if "seed" in top:
        pipeline.seed = reader.convert(top["seed"][1], int, "seed")
    listed = top["stages"][1]
    if not isinstance(listed, yaml.SequenceNode) or not listed.value:
        empty = isinstance(listed, yaml.SequenceNode)
        found = "an empty list" if empty else _shown(reader.value(listed))
        reader.fail(listed, f"stages: expected a list of stages, found {found}")
    for node in listed.value:
        pipeline.add_stage(reader.stage(node), place=reader.place(node))
    return pipeline


def parse_stages(sources: Sequence[str], stages: Sequence[str]) -> Pipeline:
    """Return a pipeline of sources and of stages that are spelled as in a recipe's list.

    Raises:
        RecipeError: what is wrong with a stage.
    """
    paths = sources[0] if len(sources) == 1 else tuple(sources)
    pipeline = Pipeline(name="scores").add_stage(builtin.ImageReaderStage(paths))
    for number, text in enumerate(stages, 1):
        reader = _Reader(f"stage {number}", None)
        node = reader.parse(text)
        pipeline.add_stage(reader.stage(node), place=reader.place(node))
    return pipeline


def dumps(pipeline: Pipeline | Plan) -> str:
    """Return a pipeline as a recipe, the same text for equal ones; ``loads`` gives an equal one.

    Fields that have their defaults are left out. A stage that a script defines at its top level can
    be written, as ``__main__:Class``, but not loaded.

    Raises:
        UsageError: a field's value is none that a recipe can hold.
    """
    lines = [_line({"name": pipeline.name}), _line({"seed": pipeline.seed}), "stages:"]
    for stage in pipeline.stages:
        label = stage_name(type(stage))
        values = {
            field.name: _plain(getattr(stage, field.name), f"{label}.{field.name}")
            for field in _fields(type(stage))
            if not _is_default(field, getattr(stage, field.name))
        }
        lines.append(f"  - {_line({label: values}) if values else _line(label)}")
    return "\n".join([*lines, ""])


def stage_name(kind: type[Stage]) -> str:
    """Return what a recipe calls a kind of stage."""
    if _builtin().get(kind.__name__) is kind:
        return kind.__name__
    spelled = f"{kind.__module__}:{kind.__qualname__}"
    names = [
        entry.name
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)
        if entry.value == spelled and entry.name not in _builtin()
    ]
    return next((name for name in names if len(_announced(name)) == 1), spelled)


def find_stage(name: str) -> type[Stage]:
    """Return the kind of stage that a recipe calls ``name``.

    Raises:
        UsageError: there is none, with the names that there are, or it cannot be imported.
    """
    known = _builtin()
    if name in known:
        return known[name]
    announced = _announced(name)
    if len(announced) > 1:
        each = " or ".join(f"{value} ({package})" for value, package in sorted(announced.items()))
        msg = f"several packages have a stage {name!r}; spell out which one: {each}"
        raise UsageError(msg)
    if announced:
        ((spelled, package),) = announced.items()
        return _imported(spelled, f"{name!r} of the package {package}")
    if not _SPELLED.fullmatch(name):
        names = sorted({*known, *importlib.metadata.entry_points(group=ENTRY_POINTS).names})
        msg = f"there is no stage {name!r}{nearest(name, names)}{_one_of(names)}, or module:Class"
        raise UsageError(msg)
    return _imported(name, repr(name))


def _imported(spelled: str, called: str) -> type[Stage]:
    place = _SPELLED.fullmatch(spelled)
    if place is None:
        msg = f"the stage {called} is announced as {spelled!r}; expected module:Class"
        raise UsageError(msg)
    module, attributes = place.groups()
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except Exception as error:  # what others wrote may raise anything
        absent = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        way_out = "put its folder on PYTHONPATH" if absent else f"try: python -c 'import {module}'"
        told = f"{type(error).__name__}: {error}; {way_out}"
        msg = f"the stage {called} cannot be imported: {told}"
        raise UsageError(msg) from error
    if lack := _lack(found):
        msg = f"{called} is no stage: {lack}"
        raise UsageError(msg)
    return found  # type: ignore[no-any-return]  # _lack() has looked


def _announced(name: str) -> dict[str, str]:
    """Return what packages announce as stage ``name``, and which package does."""
    return {
        entry.value: entry.dist.name if entry.dist else entry.value.partition(":")[0]
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    }


def _shadowed(name: str) -> str:
    """Say how to spell a package's stage that has the name of one of pixsieve's own."""
    if name not in _builtin():
        return ""
    return "".join(
        f"; that of the package {package} is spelled {value}"
        for value, package in sorted(_announced(name).items())
    )


def _builtin() -> dict[str, type[Stage]]:
    found = {name: getattr(builtin, name) for name in builtin.__all__}
    return {name: value for name, value in found.items() if _is_stage(value)}


def _is_stage(value: object) -> TypeGuard[type[Stage]]:
    return not _lack(value)


def _lack(value: object) -> str:
    """Say what a value lacks to be a kind of stage that can be made, if anything."""
    if not isinstance(value, type):
        return f"it is a {type(value).__name__}; expected a class"
    if not issubclass(value, Stage):
        return "expected a subclass of ScoreStage or SelectStage"
    if inspect.isabstract(value):
        return f"it lacks {' and '.join(f'{name}()' for name in sorted(value.__abstractmethods__))}"
    if not hasattr(value, "__dataclass_fields__"):  # is_dataclass() confuses type checkers here
        return "it lacks the line @dataclass(frozen=True, slots=True, kw_only=True)"
    return ""


def _fields(kind: type[Stage]) -> Iterator[dataclasses.Field[Any]]:
    """Yield the fields that the stage's constructor takes."""
    return (field for field in dataclasses.fields(kind) if field.init)  # type: ignore[arg-type]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if _is_required(field):
        return False
    default = (
        field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    )
    return type(value) is type(default) and bool(value == default)


def _plain(value: object, what: str) -> object:
    """Return a field's value as YAML can hold it."""
    if isinstance(value, Enum):
        return _plain(value.value, what)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {_plain(key, what): _plain(item, what) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, what) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    msg = (
        f"{what} is a {type(value).__name__}; "
        "a recipe can hold text, numbers, booleans, lists and mappings"
    )
    raise UsageError(msg)


def _line(value: object) -> str:
    """Return a value as one line of YAML; a mapping of one key without its braces."""
    if isinstance(value, dict) and len(value) == 1:
        ((key, item),) = value.items()
        return f"{_line(key)}: {_line(item) if not isinstance(item, dict) else _flow(item)}"
    return _flow(value)


def _flow(value: object) -> str:
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        width=sys.maxsize,
        sort_keys=False,
        allow_unicode=True,
    )
    return str(text).removesuffix("\n").removesuffix("\n...")


class _Dumper(yaml.SafeDumper):
    """Writes each value out in full, on one line."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns YAML nodes into values; knows what to call the recipe in messages."""

    source: str
    folder: Path | None

    def fail(self, where: yaml.Node | int, message: str) -> typing.NoReturn:
        """Raise what is wrong at a node, or in a line counted from 0."""
        msg = f"{self.place(where)}: {message}"
        raise RecipeError(msg)

    def place(self, where: yaml.Node | int) -> str:
        """Return the file and the line of a node, or of a line counted from 0."""
        line = where if isinstance(where, int) else _line_of(where.start_mark)
        return f"{self.source}:{line + 1}"

    def parse(self, text: str) -> yaml.Node:
        """Return the document, after a look at all that a recipe may not hold."""
        try:
            self._check(yaml.parse(text, yaml.SafeLoader))
            node = yaml.compose(text, yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = _line_of(error.problem_mark or error.context_mark)
            self.fail(line, f"not YAML: {error.problem or error.context}")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position)
            found = printable(text[error.position])
            self.fail(line, f"the character {found} may not stand in YAML; write it as an escape")
        if node is None:
            self.fail(0, f"the recipe is empty{_one_of(_KEYS)}")
        return node

    def _check(self, events: Iterable[yaml.Event]) -> None:
        depth = 0
        for event in events:
            line = _line_of(event.start_mark)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                self.fail(line, "anchors (&) and aliases (*) are not for recipes; quote text")
            if tag := getattr(event, "tag", None):
                self.fail(line, f"YAML tags such as {tag!r} are not for recipes; quote text")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                self.fail(line, f"more than {_DEPTH} lists and mappings in each other")

    def fields(self, node: yaml.Node, what: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return a mapping's keys with the nodes of key and value."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(
                node, f"{what} is a mapping of keys to values, found {_shown(self.value(node))}"
            )
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = self.value(key)
            if not isinstance(name, str):
                self.fail(key, f"{what}: the key is {_shown(name)}, expected text")
            if name in found:
                first = found[name][0].start_mark.line + 1
                self.fail(key, f"{what}: the key {name!r} is there twice, first in line {first}")
            found[name] = (key, value)
        return found

    def stage(self, node: yaml.Node) -> Stage:
        """Return the stage that an item of the list describes."""
        name_node, fields = node, None
        if isinstance(node, yaml.MappingNode):
            if len(node.value) != 1:
                keys = ", ".join(str(self.value(key)) for key, _ in node.value) or "none"
                self.fail(
                    node,
                    f"expected one stage with its fields, found a mapping with the keys: {keys}; "
                    "indent a stage's fields below its name",
                )
            ((name_node, fields),) = node.value
        name = self.value(name_node)
        if not isinstance(name, str):
            self.fail(name_node, f"expected the name of a stage, found {_shown(name)}")
        kind = self._guard(node, "", lambda: find_stage(name))
        given = {} if fields is None else self.fields(fields, name)
        known = {field.name: field for field in _fields(kind)}
        hints = self._hints(node, name, kind)
        values = {}
        for key, (mark, value) in given.items():
            if key not in known:
                listed = _one_of(known) if known else "; it has no fields"
                cut = isinstance(value, yaml.ScalarNode) and not (value.value or value.style)
                hint = nearest(key, known) or ("; a value with a comma needs quotes" if cut else "")
                self.fail(mark, f"{name} has no field {key!r}{hint}{listed}{_shadowed(name)}")
            values[key] = self.convert(value, hints[key], f"{name}.{key}")
            if key in _PATHS:
                values[key] = self._resolved(values[key])
        for key, field in known.items():
            if _is_required(field) and key not in given:
                expected = _expected(hints[key])
                self.fail(node, f"{name} needs the field {key!r} ({expected}), which is missing")
        return self._guard(node, f"{name}: ", lambda: kind(**values))

    def convert(self, node: yaml.Node, hint: Any, what: str) -> Any:
        """Return a node's value as the type of its field."""
        value = self.value(node, what)
        try:
            return _frozen(msgspec.convert(value, hint, strict=True))
        except msgspec.ValidationError:
            choice = nearest(value, _choices(hint)) if isinstance(value, str) else ""
            self.fail(node, f"{what}: expected {_expected(hint)}, found {_shown(value)}{choice}")
        except TypeError:
            self.fail(node, f"{what} is of a type that cannot stand in a recipe; leave it out")

    def value(self, node: yaml.Node, what: str = "") -> Any:
        """Return what a node says, in plain values."""
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, what) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            prefix = what or "a mapping"
            return {
                key: self.value(item, what) for key, (_, item) in self.fields(node, prefix).items()
            }
        kind = node.tag.rpartition(":")[2]
        if kind in ("str", "merge", "value"):
            return node.value
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (ValueError, OverflowError) as error:
            self.fail(node, f"{node.value!r} is no {kind}: {error}; quote it if it is text")

    def _hints(self, node: yaml.Node, name: str, kind: type[Stage]) -> dict[str, Any]:
        try:
            return typing.get_type_hints(kind)
        except NameError as error:
            self.fail(
                node,
                f"{name} cannot be used in a recipe: {error} (import it outside of TYPE_CHECKING)",
            )

    def _guard(self, node: yaml.Node, prefix: str, call: Callable[[], _T]) -> _T:
        """Give what a stage says against its values the place in the recipe."""
        try:
            return call()
        except ValueError as error:  # a UsageError is one, and what a user's own stage would raise
            told = str(error)
            self.fail(node, told if told.startswith(prefix) else f"{prefix}{told}")

    def _resolved(self, value: Any) -> Any:
        if self.folder is None or value is None:
            return value
        if not isinstance(value, str):
            return tuple(self._resolved(each) for each in value)
        if _SCHEME.match(value) or self.folder == Path():
            return value
        joined = self.folder.absolute() / value
        return f"{joined}/" if value.endswith("/") else str(joined)


def _line_of(mark: Any) -> int:
    """Return a mark's line, counted from 0."""
    return mark.line if mark else 0


def _frozen(value: Any) -> Any:
    """Return lists as tuples: stages are compared and hashed."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


def _one_of(names: Iterable[str]) -> str:
    return f"; expected one of: {', '.join(names)}"


def _choices(hint: Any) -> list[str]:
    """Return the texts that a type allows, if it names them."""
    if typing.get_origin(hint) is typing.Literal:
        return [choice for choice in typing.get_args(hint) if isinstance(choice, str)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(hint) for choice in _choices(part)]
    return []


_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
}


def _expected(hint: Any) -> str:
    """Return a type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_expected, args))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping of {_expected(args[0])} to {_expected(args[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list of {_expected(args[0])}"
    return str(getattr(hint, "__name__", hint))


def _shown(value: object) -> str:
    """Return a value in words, on one line and not too long."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, (list, tuple)):
        return f"a list ({', '.join(map(_shown, value[:3]))}{', ...' if len(value) > 3 else ''})"  # noqa: PLR2004
    if isinstance(value, dict):
        return f"a mapping ({', '.join(map(str, value))})"
    if isinstance(value, str):
        text = printable(value)
        return f"the text '{text[:_LONGEST]}{'...' if len(text) > _LONGEST else ''}'"
    return f"the {type(value).__name__} {value}"
