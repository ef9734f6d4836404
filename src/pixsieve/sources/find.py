"""From what the user names (folders, files, globs, brace lists) to the shards of a source."""

from __future__ import annotations

import fnmatch
import heapq
import itertools
import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import braceexpand

from pixsieve.errors import SourceNotFoundError, UsageError, nearest
from pixsieve.sources.base import IndexOptions, SourceShard
from pixsieve.sources.files import TEXT_EXTENSIONS, LooseFiles
from pixsieve.sources.group import IMAGE_EXTENSIONS, split_name
from pixsieve.sources.spool import is_compressed
from pixsieve.sources.tar import is_tar
from pixsieve.storage import storage_for
from pixsieve.storage.base import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pixsieve.storage.base import Storage

TAR_SUFFIXES = (
    *(".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst"),
    *(".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
)
"""Files so named are tars, whatever they hold; others only if they are named and hold one. Those of
bzip2 and xz are told as sources that cannot be read."""

MAX_BRACES = 1_000_000
"""Paths that one brace list may stand for."""

_MAGIC = re.compile(r"[*?[]")


def find_shards(
    path_or_paths: str | Sequence[str],
    storage: Storage,
    options: IndexOptions | None = None,
    output: str | None = None,
) -> tuple[str, Iterator[SourceShard]]:
    """Find the shards of a source, in an order that depends on their names only.

    What is named twice is read once. Folders are searched with all below them, for tars and loose
    files; files beside a tar that go with it (``00000.parquet``, ``00000_stats.json``) are no
    samples and are left out.

    Args:
        path_or_paths: A folder, a file, a glob (``**`` for any folders), a brace list, or a list of
            these. What exists under the very name is taken as it is.
        storage: Where all this is.
        options: Where keys end decides which loose files must stay together.
        output: Folder that tars will be written to; it must not be one that is read.

    Returns:
        The root that all names are relative to (the folder, the tars' folder, or what all have in
        common), and the shards, which are found one by one while they are asked for.

    Raises:
        SourceNotFoundError: a name, or a pattern, stands for nothing.
        UsageError: nothing was named, or something that cannot be, or ``output`` lies in it.
    """
    named = (
        [path_or_paths] if isinstance(path_or_paths, (str, os.PathLike)) else list(path_or_paths)
    )
    if not named:
        msg = "no input is named; give a folder, a tar, a glob or a list of these"
        raise UsageError(msg)
    places = [place for name in named for place in _expand(os.fspath(name), storage)]
    if output is not None:
        _check_apart(places, os.path.realpath(output))
    root = posixpath.commonpath([place.base for place in places])
    streams = [_rebased(root, place, storage) for place in places if place.parts is not None]
    single = sorted(
        (_single(root, place, storage) for place in places if place.parts is None), key=_path_order
    )
    found = heapq.merge(single, *streams, key=_path_order)
    return root, _shards(root, found, LooseFiles(root, options or IndexOptions()))


@dataclass(frozen=True, slots=True)
class _Place:
    """Something named: ``name`` as given, in the absolute folder ``base``.

    ``parts`` are patterns for the parts of paths below ``base``: none for all of them, ``None`` for
    one file, whose name is ``file``.
    """

    name: str
    base: str
    parts: tuple[str, ...] | None
    file: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    info: ObjectInfo
    tar: bool


def _expand(name: str, storage: Storage) -> Iterator[_Place]:
    storage_for(name)  # refuses what no store can hold
    try:
        name.encode()
    except UnicodeEncodeError:
        msg = f"{name!r} is not valid UTF-8; rename it"
        raise UsageError(msg) from None
    if "{" in name and not Path(name).exists():
        try:
            expanded = list(itertools.islice(braceexpand.braceexpand(name), MAX_BRACES + 1))
        except ValueError as error:
            msg = (
                f"{name}: the braces cannot be understood ({error}); expected like {{00000..00009}}"
            )
            raise UsageError(msg) from error
        if len(expanded) > MAX_BRACES:
            msg = f"{name} stands for more than {MAX_BRACES} paths; name their folder instead"
            raise UsageError(msg)
    else:
        expanded = [name]
    for path in expanded:
        yield _place(name, path, storage)


def _place(name: str, path: str, storage: Storage) -> _Place:
    absolute = os.path.abspath(path)  # noqa: PTH100 - Path.absolute() keeps ".."
    if Path(absolute).is_dir():
        return _Place(name, absolute, ())
    if _MAGIC.search(path) and not Path(absolute).exists():
        parts = absolute.split("/")
        literal = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
        return _Place(name, "/".join(parts[:literal]) or "/", tuple(parts[literal:]))
    folder, file = posixpath.split(absolute)
    try:
        storage.stat(absolute)
    except SourceNotFoundError:
        given = path if path == name else f"{path} (of {name})"
        msg = f"{given} does not exist{_nearest(folder, file, storage)}"
        raise SourceNotFoundError(msg) from None
    return _Place(name, folder, None, file)


def _check_apart(places: Iterable[_Place], output: str) -> None:
    """Refuse an output whose tars the next run would find in its source."""
    for place in places:
        base = os.path.realpath(place.base)
        if place.parts is None or posixpath.commonpath([base, output]) != base:
            continue
        below = [*Path(output).relative_to(base).parts, "x.tar"]
        if not place.parts or _matches(below, _patterns(place)):
            msg = (
                f"the output {output} lies inside the source {place.name}, so the next run would "
                "read it; choose a folder beside it"
            )
            raise UsageError(msg)


def _patterns(place: _Place) -> list[re.Pattern[str] | None]:
    return [
        None if part == "**" else re.compile(fnmatch.translate(part)) for part in place.parts or ()
    ]


def _nearest(folder: str, file: str, storage: Storage) -> str:
    if not Path(folder).is_dir():
        return f"; there is no folder {folder}"
    listed = itertools.islice(storage.list(folder), 10_000)
    return nearest(file, {info.path.partition("/")[0] for info in listed})


def _rebased(root: str, place: _Place, storage: Storage) -> Iterator[_Found]:
    """Everything that a folder or a glob stands for, relative to ``root``."""
    patterns = _patterns(place)
    prefix = posixpath.relpath(place.base, root) + "/"
    prefix = "" if prefix == "./" else prefix
    listed = (
        _Found(ObjectInfo(prefix + info.path, info.size, info.version), _is_called_tar(info.path))
        for info in (storage.list(place.base) if Path(place.base).is_dir() else ())
        if not patterns or _matches(info.path.split("/"), patterns)
    )
    first = next(listed, None)
    if first is None:
        what = "no file matches" if patterns else "there is no file in"
        msg = f"{what} {place.name}; looked in {place.base} (hidden files are left out)"
        raise SourceNotFoundError(msg)
    return itertools.chain([first], listed)


def _matches(parts: Sequence[str], patterns: Sequence[re.Pattern[str] | None]) -> bool:
    """Tell whether the patterns match a path or a folder that it is in."""
    if not patterns:
        return True
    if not parts:
        return False
    if patterns[0] is None:
        return _matches(parts, patterns[1:]) or _matches(parts[1:], patterns)
    return bool(patterns[0].match(parts[0])) and _matches(parts[1:], patterns[1:])


def _single(root: str, place: _Place, storage: Storage) -> _Found:
    path = posixpath.join(place.base, place.file)
    found = storage.stat(path)
    relative = posixpath.relpath(path, root)
    tar = _is_called_tar(path)
    known = IMAGE_EXTENSIONS | TEXT_EXTENSIONS
    if not tar and split_name(path, last=True)[1] not in known:
        with storage.open(path) as reader:
            first = reader.read(0, min(found.size, 512))
        tar = is_tar(first) or is_compressed(first)
    return _Found(ObjectInfo(relative, found.size, found.version), tar)


def _is_called_tar(path: str) -> bool:
    return path.lower().endswith(TAR_SUFFIXES)


def _path_order(found: _Found) -> tuple[list[str], bool]:
    return found.info.path.split("/"), not found.tar


def _shards(root: str, found: Iterable[_Found], loose: LooseFiles) -> Iterator[SourceShard]:
    previous = None
    for item in found:
        info = item.info
        if info.path == previous:
            continue
        previous = info.path
        if not item.tar or info.version.startswith("unsafe:"):
            yield from loose.add(info)
        else:
            yield from loose.pass_tar(info)
            yield SourceShard(kind="tar", id=info.path, root=root, files=(info,))
    yield from loose.finish()
