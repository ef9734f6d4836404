"""Files that describe the dataset as a whole for loaders, compared with its shards as they are.

A loader believes what they say of names, numbers and sizes. They are read as their loaders read
them, whoever wrote them; what they name outside the folder is left alone.

Formats: wids 0.1 shard index; Megatron-Energon 7 ``.nv-meta``; LitData's index over Parquet;
Croissant 1.0; Frictionless Data Package. Of the dataset card see ``card``.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import braceexpand
import pyarrow.parquet as pq
import yaml

from pixsieve.verify.indexes import META, SQLITE, UNREADABLE, opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pixsieve.verify.findings import Findings
    from pixsieve.verify.shard import ShardResult

INFO = f"{META}/.info.json"
WIDS = ("wids.json", "shardindex.json")
"""Ours, and what ``widsindex create`` writes unless it is told otherwise."""
_MOST_BYTES = 256 * 1024 * 1024
_MOST_NAMES = 1_000_000
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What is known of the shards, and where findings go.

    Attributes:
        folder: The dataset's.
        own: Whether pixsieve's own contract holds.
        results: Of all shards.
        digests: SHA-256 by name of the files that were read whole.
        listed: Names in the manifest; empty without one.
        findings: Takes what is wrong.
    """

    folder: Path
    own: bool
    results: Sequence[ShardResult]
    digests: Mapping[str, str]
    listed: frozenset[str]
    findings: Findings
    by_tar: dict[str, ShardResult] = field(init=False)
    by_sidecar: dict[str, ShardResult] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_tar", {each.task.tar: each for each in self.results})
        named = {each.task.sidecar: each for each in self.results if each.task.sidecar}
        object.__setattr__(self, "by_sidecar", named)

    @property
    def whole(self) -> bool:
        """Whether every tar was read from end to end."""
        return all(each.parts is not None for each in self.results)

    def samples(self, tar: str) -> int | None:
        """Return how many samples a tar has; None if it is not known."""
        found = self.by_tar.get(tar)
        known = found is not None and (found.parts is not None or found.columns is not None)
        return found.samples if found is not None and known else None

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if it is not in the folder."""
        path = self.folder / name
        return path.stat().st_size if inside(name) and path.is_file() else None

    def is_there(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def complain(self, rule: str, file: str, message: str, member: str | None = None) -> None:
        self.findings.add(rule, file, message, member=member)

    def load_json(self, rule: str, name: str) -> dict[str, Any] | None:
        """Return the JSON object in a file; None if there is none, which is a finding."""
        path = self.folder / name
        try:
            if path.stat().st_size > _MOST_BYTES:
                self.complain(rule, name, f"has more than {_MOST_BYTES:,} bytes")
                return None
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            self.complain(rule, name, f"is no JSON: {error}")
            return None
        if not isinstance(found, dict):
            self.complain(rule, name, f"is a {type(found).__name__}, expected an object")
            return None
        return found

    def load_yaml(self, rule: str, name: str) -> dict[str, Any] | None:
        """Return the YAML mapping in a file; None if there is none, which is a finding."""
        try:
            found = plain_yaml((self.folder / name).read_bytes())
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.complain(rule, name, f"is no YAML: {error}")
            return None
        if not isinstance(found, dict):
            self.complain(rule, name, "is no mapping")
            return None
        return found


class _PlainLoader(yaml.SafeLoader):
    """Takes no aliases: a few lines of them can stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            msg = "has an alias, which is not read"
            raise yaml.YAMLError(msg)
        return super().compose_node(parent, index)


def plain_yaml(data: bytes) -> object:
    """Return what a YAML document holds; raises ``YAMLError`` for aliases, too."""
    return yaml.load(data, _PlainLoader)  # noqa: S506  # a safe loader


def check_described(known: Described) -> None:
    """Check all files of the dataset as a whole that loaders go by, but the card."""
    for name in WIDS:
        if known.is_there(name):
            _check_wids(known, name)
    if known.is_there(INFO):
        _check_energon(known)
    if known.is_there("index.json"):
        _check_litdata(known, "index.json")
    if known.is_there("croissant.json"):
        _check_croissant(known, "croissant.json")
    if known.is_there("datapackage.json"):
        _check_frictionless(known, "datapackage.json")
    _check_complete(known)


def inside(name: object) -> bool:
    """Tell whether a name is a relative path that stays in the folder."""
    if not isinstance(name, str) or not name or "\0" in name or "://" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def items(value: object) -> list[dict[str, Any]]:
    """Return the objects in what should be a list of objects."""
    listed = value if isinstance(value, list) else []
    return [each for each in listed if isinstance(each, dict)]


def shown_names(names: Iterable[str]) -> str:
    """Name the first few."""
    listed = sorted(names)
    more = f" and {len(listed) - _NAMED:,} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more


def _check_complete(known: Described) -> None:
    """Check that what some tars have beside them, all have: loaders want it of each."""
    stems = [tar.removesuffix(".tar") for tar in sorted(known.by_tar)]
    for rule, suffix in (("index-dali", ".idx"), ("index-energon", ".tar.idx")):
        names = [f"{stem}{suffix}" for stem in stems]
        missing = [name for name in names if not known.is_there(name)]
        for name in missing if len(missing) < len(names) else ():
            if name not in known.listed:  # else it is missed already
                known.complain(rule, name, "is not there, though other tars have theirs")


def _compare_names(
    known: Described, rule: str, file: str, named: Iterable[str], there: Iterable[str], what: str
) -> None:
    """Check that a file names everything once and nothing else."""
    counts = Counter(named)
    for name, count in counts.items():
        if count > 1:
            known.complain(rule, file, f"names it {count} times", name)
    lacks, strange = set(there) - counts.keys(), counts.keys() - set(there)
    if lacks:
        known.complain(rule, file, f"does not name {len(lacks):,} {what}: {shown_names(lacks)}")
    if strange:
        text = f"names what is no {what.removesuffix('s')} here: {shown_names(strange)}"
        known.complain(rule, file, text)


# -- wids -------------------------------------------------------------------------------------


def states_md5(folder: Path) -> bool:
    """Tell whether a list for wids states digests of the tars, so that these must be made."""
    for name in WIDS:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads((folder / name).read_bytes())
            entries = items(found.get("shardlist") if isinstance(found, dict) else None)
            if any("md5sum" in entry for entry in entries):
                return True
    return False


def _check_wids(known: Described, name: str) -> None:
    found = known.load_json("index-wids", name)
    if found is None:
        return
    if not isinstance(found.get("shardlist"), list):
        if name in known.listed or "__kind__" in found:
            known.complain("index-wids", name, "has no shardlist")
        return
    if found.get("wids_version") != 1:
        known.complain("index-wids", name, "wids_version is not the number 1")
    named = []
    for entry in items(found["shardlist"]):
        url = entry.get("url")
        if not isinstance(url, str) or "://" in url:
            continue  # it lies elsewhere
        tar = PurePosixPath(url).name  # the tool writes the path that it was given
        named.append(tar)
        result = known.by_tar.get(tar)
        if result is None:
            continue
        stated = [
            ("nsamples", known.samples(tar)),
            *([("filesize", known.size(tar))] if "filesize" in entry else []),
            *([("md5sum", result.md5)] if "md5sum" in entry else []),
        ]
        for key, fact in stated:
            if fact is not None and entry.get(key) != fact:
                text = f"{key} of {tar} is {entry.get(key)!r}, found {fact!r}"
                known.complain("index-wids", name, text)
    _compare_names(known, "index-wids", name, named, known.by_tar, "tars")


# -- Energon ----------------------------------------------------------------------------------


def energon_numbers(folder: Path) -> dict[str, int]:
    """Return the number that each tar has in Energon's database; empty if nothing says it."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads((folder / INFO).read_bytes())
        counts = found.get("shard_counts") if isinstance(found, dict) else None
        if isinstance(counts, dict):
            return {name: number for number, name in enumerate(counts)}
    return {}


def _check_energon(known: Described) -> None:
    rule = "index-energon"
    info = known.load_json(rule, INFO)
    counts = info.get("shard_counts") if info else None
    if not isinstance(counts, dict):
        known.complain(rule, INFO, "has no shard_counts")
        return
    for tar, count in counts.items():
        samples = known.samples(tar)
        if samples is not None and count != samples:
            text = f"counts {count!r} samples in {tar}, found {samples:,}"
            known.complain(rule, INFO, text)
    here = [name for name in counts if "/" not in name]  # of sub-folders nothing is read
    _compare_names(known, rule, INFO, here, known.by_tar, "tars")
    for tar in here:
        if tar in known.by_tar and not known.is_there(f"{tar}.idx"):
            known.complain(rule, INFO, f"{tar}.idx is not there: the set cannot be loaded")
    _check_energon_splits(known, counts)
    _check_energon_fields(known)
    if known.is_there(SQLITE) and known.whole and len(here) == len(counts):
        try:
            with opened(known.folder / SQLITE) as database:
                ((rows,),) = database.execute("SELECT count(*) FROM samples").fetchall()
        except UNREADABLE as error:
            known.complain(rule, SQLITE, f"cannot be read: {error}")
            return
        total = sum(result.samples for result in known.results)
        if rows != total:
            text = f"has {rows:,} samples, the tars have {total:,}"
            known.complain(rule, SQLITE, text)


def _check_energon_splits(known: Described, counts: Mapping[str, object]) -> None:
    name = f"{META}/split.yaml"
    if not known.is_there(name):
        if name not in known.listed:
            known.complain("index-energon", name, "is not there: the set cannot be loaded")
        return
    found = known.load_yaml("index-energon", name)
    if found is None:
        return
    parts = found.get("split_parts")
    if not isinstance(parts, dict):
        known.complain("index-energon", name, "has no split_parts")
        return
    split_of: dict[str, str] = {}
    for split, patterns in parts.items():
        for tar in _expanded(patterns):
            if tar not in counts:
                text = f"{split} has {tar}, which is no tar of {INFO}"
                known.complain("index-energon", name, text)
            elif tar in split_of:
                text = f"{tar} is in {split_of[tar]} and in {split}"
                known.complain("index-energon", name, text)
            split_of.setdefault(tar, str(split))
    excluded = {tar.partition("/")[0] for tar in _expanded(found.get("exclude"))}
    left = counts.keys() - split_of.keys() - excluded
    if left:
        text = f"{len(left):,} tars are in no split: {shown_names(left)}"
        known.complain("index-energon", name, text)
    if not known.own:
        return
    of: dict[str, set[str]] = {}
    for tar, split in split_of.items():
        if tar in known.by_tar:
            # what has no split is in train
            of.setdefault(split, set()).add(known.by_tar[tar].task.split or "train")
    for split, ours in of.items():
        if len(ours) > 1:
            text = f"{split} has tars of the splits {sorted(ours)}"
            known.complain("index-energon", name, text)


def _expanded(patterns: object) -> Iterator[str]:
    count = 0
    for pattern in patterns if isinstance(patterns, list) else ():
        try:
            for name in braceexpand.braceexpand(str(pattern)):
                count += 1
                if count > _MOST_NAMES:
                    return
                yield name
        except ValueError:
            yield str(pattern)


def _check_energon_fields(known: Described) -> None:
    """Check that the fields of the samples are parts that they have."""
    name = f"{META}/dataset.yaml"
    if not known.is_there(name) or not known.whole:
        return
    found = known.load_yaml("index-energon", name)
    fields = found.get("field_map") if found else None
    total = sum(result.samples for result in known.results)
    parts = parts_of(known.results)
    for title, given in fields.items() if isinstance(fields, dict) else ():
        choices = [part.partition("[")[0].strip() for part in str(given).split(",")]
        have = sum(parts.get(part, 0) for part in choices)
        if have < total:
            text = (
                f"{title} is {given!r}: {total - have:,} of {total:,} samples have none, and "
                "Energon passes over them"
            )
            known.complain("index-energon", name, text)


def parts_of(results: Iterable[ShardResult]) -> Counter[str]:
    """Return how many samples have a member of each extension."""
    together: Counter[str] = Counter()
    for result in results:
        together.update(result.parts or {})
    return together


# -- LitData ----------------------------------------------------------------------------------


def _check_litdata(known: Described, name: str) -> None:
    rule = "index-litdata"
    found = known.load_json(rule, name)
    if found is None:
        return
    config, chunks = found.get("config"), found.get("chunks")
    if not isinstance(config, dict) or not isinstance(chunks, list):
        if name in known.listed:
            known.complain(rule, name, "has no chunks and config")
        return  # MDS has a file of this name, too
    if config.get("item_loader") != "ParquetLoader":
        return
    named = []
    for chunk in items(chunks):
        file = chunk.get("filename")
        if not inside(file):
            known.complain(rule, name, f"names {file!r}, which is no file of the folder")
            continue
        named.append(str(file))
        size = known.size(str(file))
        if size is None:
            known.complain(rule, name, f"names {file}, which is not there")
            continue
        for key, fact in (("chunk_bytes", size), ("chunk_size", _rows(known, str(file)))):
            if fact is not None and chunk.get(key) != fact:
                text = f"{key} of {file} is {chunk.get(key)!r}, found {fact:,}"
                known.complain(rule, name, text)
    if known.own:
        _compare_names(known, rule, name, named, known.by_sidecar, "sidecars")
    columns = next((each.columns for each in known.results if each.columns is not None), None)
    types = [kind for _, kind in columns] if columns else None
    if known.own and types is not None and config.get("data_format") != types:
        known.complain(rule, name, "data_format is not the types of the sidecars' columns")


def _rows(known: Described, sidecar: str) -> int | None:
    result = known.by_sidecar.get(sidecar)
    if result is not None:
        return result.checked.rows if result.columns is not None else None
    with contextlib.suppress(Exception):  # not a shard's; whether it can be read is not our matter
        return int(pq.read_metadata(known.folder / sidecar).num_rows)
    return None


# -- Croissant --------------------------------------------------------------------------------


def _check_croissant(known: Described, name: str) -> None:
    rule = "index-croissant"
    found = known.load_json(rule, name)
    if found is None:
        return
    distribution = items(found.get("distribution"))
    ids = [each.get("@id") for each in distribution]
    tars = []
    for each in distribution:
        if each.get("@type") == "cr:FileSet":
            _check_file_set(known, name, each, ids)
        elif inside(each.get("contentUrl")):
            file = str(each["contentUrl"])
            tars += [file] if file.endswith(".tar") else []
            _check_object(known, name, file, each)
    if known.own:
        _compare_names(known, rule, name, tars, known.by_tar, "tars")
    columns = {column for each in known.results for column, _ in each.columns or ()}
    for record in items(found.get("recordSet")):
        for column in _extracted(record):
            if columns and column not in columns:
                text = f"takes the column {column!r}, which no sidecar has"
                known.complain(rule, name, text)


def _check_object(known: Described, name: str, file: str, each: Mapping[str, Any]) -> None:
    size = known.size(file)
    if size is None:
        known.complain("index-croissant", name, f"names {file}, which is not there")
        return
    stated = str(each.get("contentSize", "")).removesuffix("B").strip()
    if stated.isdigit() and int(stated) != size:
        text = f"contentSize of {file} is {stated}, found {size:,}"
        known.complain("index-croissant", name, text)
    digest = known.digests.get(file)
    if digest is not None and "sha256" in each and each["sha256"] != digest:
        text = f"sha256 of {file} is {each['sha256']!r}, found {digest}"
        known.complain("index-croissant", name, text)


def _check_file_set(
    known: Described, name: str, each: Mapping[str, Any], ids: Sequence[object]
) -> None:
    inner = each.get("containedIn")
    refs = [inner] if isinstance(inner, dict) else items(inner)
    for ref in refs:
        if ref.get("@id") not in ids:
            text = f"{each.get('@id')!r} is said to be in {ref.get('@id')!r}, which is not there"
            known.complain("index-croissant", name, text)
    if refs or not known.own:
        return
    given = each.get("includes")
    patterns = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    names = known.by_sidecar.keys() | known.listed
    matched = {file for file in names if any(fnmatch.fnmatch(file, str(p)) for p in patterns)}
    text = f"{each.get('@id')!r} stands for other files than the sidecars"
    if matched != known.by_sidecar.keys():
        known.complain("index-croissant", name, text)


def _extracted(record: Mapping[str, Any]) -> Iterator[str]:
    for each in items(record.get("field")):
        source = each.get("source")
        extract = source.get("extract") if isinstance(source, dict) else None
        column = extract.get("column") if isinstance(extract, dict) else None
        if isinstance(column, str):
            yield column


# -- Frictionless -----------------------------------------------------------------------------


def _check_frictionless(known: Described, name: str) -> None:
    rule = "index-frictionless"
    found = known.load_json(rule, name)
    if found is None:
        return
    named: list[str] = []
    schemas: dict[str, dict[str, Any] | None] = {}
    for resource in items(found.get("resources")):
        given = resource.get("path")
        paths = [str(p) for p in (given if isinstance(given, list) else [given]) if inside(p)]
        named += paths
        for path in paths:
            if known.size(path) is None:
                known.complain(rule, name, f"names {path}, which is not there")
            elif len(paths) == 1:
                _check_resource(known, name, path, resource)
        schema = resource.get("schema")
        if inside(schema) and known.size(str(schema)) is not None:
            shared = str(schema)
            if shared not in schemas:  # many resources share one
                schemas[shared] = known.load_json(rule, shared)
            schema = schemas[shared]
        fields = items(schema.get("fields")) if isinstance(schema, dict) else []
        result = known.by_sidecar.get(paths[0]) if paths else None
        if fields and result is not None and result.columns is not None:
            columns = [column for column, _ in result.columns]
            if [each.get("name") for each in fields] != columns:
                known.complain(rule, name, f"fields of {paths[0]} are not its columns")
    if not known.own:
        return
    for what, end, ours in (
        ("tars", ".tar", known.by_tar.keys()),
        ("sidecars", ".parquet", known.by_sidecar.keys()),
    ):
        of_kind = [path for path in named if path.endswith(end)]
        _compare_names(known, rule, name, of_kind, ours, what)


def _check_resource(known: Described, name: str, path: str, resource: Mapping[str, Any]) -> None:
    size, digest = known.size(path), known.digests.get(path)
    if "bytes" in resource and resource["bytes"] != size:
        text = f"bytes of {path} is {resource['bytes']!r}, found {size:,}"
        known.complain("index-frictionless", name, text)
    stated = str(resource.get("hash", ""))
    if digest is not None and stated.startswith("sha256:") and stated != f"sha256:{digest}":
        text = f"hash of {path} is {stated!r}, found {digest}"
        known.complain("index-frictionless", name, text)
