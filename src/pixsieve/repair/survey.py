"""What lies in a folder that is to be repaired, and what can be known of how it should be.

Nothing here is believed: names that lead out of the folder are left alone, and numbers are claims.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve import schema
from pixsieve.errors import SourceError, SourceNotFoundError
from pixsieve.export.plan import plan_schema
from pixsieve.scorers.sidecar import name_of_type
from pixsieve.sources.group import FIRST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MANIFEST = "manifest.json"
FORMAT = "pixsieve-dataset"
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst")
_DIGEST_LINE = b' "sha256":'
_SPLIT_WORDS = re.compile(
    r"(?:^|[^a-z0-9])(train|validation|valid|val|dev|test|eval)(?:[^a-z0-9]|$)"
)
_GROUP_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_OWN_NAME = re.compile(r"(?P<prefix>[A-Za-z0-9_-]+?)-(?P<hash>[0-9a-f]{12})-[0-9]{6,}$")
_TAKEN = frozenset({*schema.RESERVED, *plan_schema(pa.schema([])).names, "repaired"})
_PROVENANCE = (
    "image_id", "class_name", "original_path", "original_key", "original_offset",
    "original_sha256", "original_format", "encoding",
)  # fmt: skip
"""Of pixsieve's own columns, those that cannot be found out anew."""
_FOUND_ANEW = frozenset({"key", "width", "height", "tar_file", "member_name"})
"""Of others' columns that have our names, those that can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OldShard:
    """A shard as it is to be read.

    Attributes:
        tar: Its tar, relative to the folder.
        sidecar: Its table; ``None`` if there is none that can be read.
        role: The name that its tar should have.
        split: Of its samples.
        bucket: Likewise.
        stated_sidecar: The name that its table should have.
        samples: How many the manifest says; ``None`` without one.
        rows: How many rows its table has, but for failed downloads; ``None`` without one.
    """

    tar: str
    sidecar: str | None
    role: str
    split: str | None = None
    bucket: str | None = None
    stated_sidecar: str = ""
    samples: int | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What lies in the folder.

    Attributes:
        folder: Where the names start.
        own: Whether pixsieve made it.
        manifest: Its fields; empty if there is none that can be read.
        vouched: SHA-256 by name of what a manifest lists that has the digest that it states.
        shards: Those that can be read, in the order of the set.
        missing: Those that the manifest has and the folder has not; ``tar`` is not there.
        left_out: Tars that the manifest does not know.
        columns: Columns to take over, with their types.
        renamed: Likewise, under a prefix, since pixsieve has columns of these names.
        notes: What is odd.
    """

    folder: Path
    own: bool
    manifest: Mapping[str, Any]
    vouched: Mapping[str, str]
    shards: tuple[OldShard, ...]
    missing: tuple[OldShard, ...]
    left_out: tuple[str, ...]
    columns: Mapping[str, str]
    renamed: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())

    @property
    def beside(self) -> dict[str, str]:
        """The tables that are not called like their tars."""
        return {
            shard.tar: shard.sidecar
            for shard in self.shards
            if shard.sidecar is not None and shard.sidecar != f"{_stem(shard.tar)}.parquet"
        }

    @property
    def image_member(self) -> str | None:
        """What tells the image of a sample from others in it: an extension, or that it is first."""
        found = set()
        for shard in self.shards:
            names = read_columns(self.folder / (shard.sidecar or ""), ("member_name",))
            found |= {str(name).partition(".")[2].lower() for name in names.get("member_name", ())}
        if len(found) == 1:
            return found.pop() or None
        return FIRST if self.own else None

    def stage(self, name: str) -> Mapping[str, Any]:
        """Return the fields of the recipe's stage of that name; empty if there is none."""
        recipe = self.manifest.get("recipe")
        stages = recipe.get("stages") if isinstance(recipe, dict) else None
        for each in stages if isinstance(stages, list) else ():
            if isinstance(each, dict) and each.get("@") == name:
                return each
        return {}


def survey(folder: Path) -> Survey:
    """Look at a folder.

    Raises:
        SourceNotFoundError: it does not exist.
        SourceError: there is no tar in it.
    """
    if not folder.is_dir():
        msg = f"{folder} is no folder; name the folder of the dataset"
        raise SourceNotFoundError(msg)
    manifest, whole = _manifest(folder)
    names = sorted(each.name for each in folder.iterdir())
    there = [name for name in names if _is_tar(name)]
    if not there and not manifest and (below := sorted(_below(folder))):
        common = os.path.commonpath([PurePosixPath(name).parent for name in below])
        folder /= common
        there = [PurePosixPath(name).relative_to(common).as_posix() for name in below]
    tables = {name for name in names if name.endswith(".parquet")}
    own = bool(manifest) or any(_is_own(folder / f"{_stem(tar)}.parquet") for tar in there[:3])
    vouched = _listed(manifest, "sha256") if whole else {}
    listed = _listed_shards(manifest)
    taken, missing, rest = _assigned(folder, listed, there, vouched)
    left_out: list[str] = []
    if listed and whole:
        left_out = rest
    else:
        taken += [OldShard(tar=tar, sidecar=None, role=tar) for tar in rest]
    if not taken:
        msg = f"{folder} has no tar that can be read; there is nothing to repair it from"
        raise SourceError(msg)
    shards = [_with_sidecar(folder, each, tables, own=own, stated=bool(listed)) for each in taken]
    shards.sort(key=functools.partial(_place, listed))
    shards = _with_groups(shards) if own else _with_splits(shards)
    missing = [_with_sidecar(folder, each, tables, own=own, stated=True) for each in missing]
    notes: list[str] = []
    columns, renamed = _columns(folder, shards, own=own, notes=notes)
    if manifest and not whole:
        notes.append(
            f"{MANIFEST} has not the digest that it states, so no file was judged by what it says"
        )
    return Survey(
        folder=folder,
        own=own,
        manifest=manifest,
        vouched=vouched,
        shards=tuple(shards),
        missing=tuple(missing),
        left_out=tuple(left_out),
        columns=columns,
        renamed=renamed,
        notes=tuple(notes),
    )


# -- the manifest -----------------------------------------------------------------------------


def _manifest(folder: Path) -> tuple[dict[str, Any], bool]:
    """Return the manifest's fields, and whether it has the digest that it states."""
    try:
        data = (folder / MANIFEST).read_bytes()
        found = msgspec.json.decode(data)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}, False
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return {}, False
    lines = data.splitlines(keepends=True)
    rest = b"".join(line for line in lines if not line.startswith(_DIGEST_LINE))
    return found, found.get("sha256") == hashlib.sha256(rest).hexdigest()


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    yield from (
        each for each in (value if isinstance(value, list) else ()) if isinstance(each, dict)
    )


def _listed(manifest: Mapping[str, Any], key: str) -> dict[str, str]:
    return {
        each["name"]: str(each.get(key))
        for each in _dicts(manifest.get("files"))
        if _inside(each.get("name"))
    }


def _listed_shards(manifest: Mapping[str, Any]) -> list[OldShard]:
    found: dict[str, OldShard] = {}
    for each in _dicts(manifest.get("shards")):
        tar, sidecar, samples = (each.get(name) for name in ("tar", "sidecar", "samples"))
        if not (_inside(tar) and _inside(sidecar)):
            continue
        split, bucket = (_group(each.get(name)) for name in ("split", "bucket"))
        found.setdefault(
            str(tar),
            OldShard(
                tar=str(tar),
                sidecar=str(sidecar),
                stated_sidecar=str(sidecar),
                role=str(tar),
                split=split,
                bucket=bucket,
                samples=samples if isinstance(samples, int) and samples >= 0 else None,
            ),
        )
    return list(found.values())


def _inside(name: object) -> bool:
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


# -- the files --------------------------------------------------------------------------------


def _is_tar(name: str) -> bool:
    return name.lower().endswith(_TARS) and not name.startswith(".")


def _below(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if _is_tar(name):
                yield (Path(place) / name).relative_to(folder).as_posix()


def _stem(tar: str) -> str:
    suffix = next((each for each in sorted(_TARS, key=len, reverse=True) if tar.endswith(each)), "")
    return tar.removesuffix(suffix)


def tables_and_manifest(folder: Path) -> Iterator[str]:
    """Yield the names of what is looked at beside the tars, in order."""
    found = [MANIFEST] if (folder / MANIFEST).is_file() else []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(map(_is_tar, names)) or Path(place) == folder:
            below = Path(place).relative_to(folder)
            found += [(below / name).as_posix() for name in names if name.endswith(".parquet")]
    yield from sorted(found)


def _is_own(sidecar: Path) -> bool:
    with contextlib.suppress(OSError, pa.ArrowException):
        return b"pixsieve" in (pq.read_schema(sidecar).metadata or {})
    return False


def _assigned(
    folder: Path, listed: Sequence[OldShard], there: Sequence[str], vouched: Mapping[str, str]
) -> tuple[list[OldShard], list[OldShard], list[str]]:
    """Return the shards that are there, those that are not, and tars that are none of them.

    A tar that is not listed is a listed one under another name if it has its bytes, or if its table
    says so.
    """
    by_name = {each.tar: each for each in listed}
    taken = [each for each in listed if each.tar in there]
    gone = [each for each in listed if each.tar not in there]
    rest = [tar for tar in there if tar not in by_name]
    for shard in list(gone):
        other = next((tar for tar in rest if _is_same(folder, tar, shard, vouched)), None)
        if other is not None:
            gone.remove(shard)
            rest.remove(other)
            taken.append(dataclasses.replace(shard, tar=other))
    return taken, gone, rest


def _is_same(folder: Path, tar: str, shard: OldShard, vouched: Mapping[str, str]) -> bool:
    if shard.tar in vouched and stands(folder / tar, vouched[shard.tar]):
        return True
    sidecar = folder / f"{_stem(tar)}.parquet"
    names = read_columns(sidecar, ("tar_file",)) if sidecar.is_file() else {}
    return bool(names) and set(names["tar_file"][:1]) == {shard.role}


def stands(path: Path, digest: str) -> bool:
    """Tell whether a file has a SHA-256."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except OSError:
        return False


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return those of the columns that a table has; empty if it cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            have = [name for name in names if name in file.schema_arrow.names]
            read = file.read(columns=have, use_threads=False)
            return {name: read[name].to_pylist() for name in have}
    except (OSError, ValueError, pa.ArrowException):
        return {}


def _with_sidecar(
    folder: Path, shard: OldShard, tables: set[str], *, own: bool, stated: bool
) -> OldShard:
    """Return the shard with the table that tells of it, and of which group it is."""
    names = [f"{_stem(shard.tar)}.parquet", shard.sidecar or "", f"{_stem(shard.role)}.parquet"]
    name = next((each for each in names if each and (folder / each).is_file()), None)
    if name is None and own:
        for other in sorted(tables):
            tars = read_columns(folder / other, ("tar_file",)).get("tar_file", [])
            if set(tars[:1]) == {shard.role}:
                name = other
                break
    split, bucket, rows = shard.split, shard.bucket, None
    if name is not None:
        found = read_columns(folder / name, ("key", "member_name", "status", "split", "bucket"))
        if not found.keys() & {"key", "member_name"}:
            name = None
        else:
            succeeded = [status == "success" for status in found.get("status", ())]
            rows = sum(succeeded) if succeeded else len(next(iter(found.values())))
            if own and not stated:
                split, bucket = (_most(found.get(each, ())) for each in ("split", "bucket"))
    return dataclasses.replace(shard, sidecar=name, split=split, bucket=bucket, rows=rows)


def _most(values: Iterable[str | None]) -> str | None:
    counts = Counter(values)
    return _group(counts.most_common(1)[0][0]) if counts else None


def _group(name: object) -> str | None:
    """Return the name of a split or a bucket, ``None`` if files cannot be named by it."""
    return name if isinstance(name, str) and _GROUP_NAME.fullmatch(name) else None


def _place(listed: Sequence[OldShard], shard: OldShard) -> tuple[int, list[str]]:
    roles = [each.role for each in listed]
    at = roles.index(shard.role) if shard.role in roles else len(roles)
    return at, shard.role.split("/")


def _with_groups(shards: Sequence[OldShard]) -> list[OldShard]:
    """Return pixsieve's shards with their splits and buckets, by names where nothing else tells.

    Shards of one split and bucket have names that differ in the number alone.
    """
    told = [each for each in shards if each.split or each.bucket or each.sidecar]
    groups = {_unnumbered(each.role): (each.split, each.bucket) for each in told}
    prefix = prefix_of(told)
    found = []
    for shard in shards:
        split, bucket = groups.get(_unnumbered(shard.role), (None, None))
        if shard not in told and split is None and bucket is None and prefix and told:
            name = _unnumbered(shard.role).removeprefix(f"{prefix}-")
            plain = all(each.bucket is None for each in told) and name != _unnumbered(shard.role)
            split = _group(name) if plain else None
        keeps = shard in told
        found.append(shard if keeps else dataclasses.replace(shard, split=split, bucket=bucket))
    return found


def _unnumbered(role: str) -> str:
    """Return a shard's name up to its hash and its number."""
    return re.sub(r"-[0-9a-f]{12}-[0-9]{6,}$", "", _stem(role))


def _with_splits(shards: Sequence[OldShard]) -> list[OldShard]:
    """Return the shards of others with the splits that their names tell, if they tell of some."""
    found = []
    for shard in shards:
        word = _SPLIT_WORDS.search(PurePosixPath(_stem(shard.role)).name.lower())
        found.append(word[1] if word else None)
    return [
        dataclasses.replace(shard, split=split) for shard, split in zip(shards, found, strict=True)
    ]


def prefix_of(shards: Iterable[OldShard]) -> str | None:
    """Return the prefix that the names of pixsieve's shards have; ``None`` if they differ."""
    prefixes = set()
    for shard in shards:
        match = _OWN_NAME.fullmatch(_stem(shard.role))
        name = match["prefix"] if match else None
        for part in (shard.bucket, shard.split):
            name = name.removesuffix(f"-{part}") if name and part else name
        prefixes.add(name)
    return prefixes.pop() if len(prefixes) == 1 else None


# -- the columns ------------------------------------------------------------------------------


def _columns(
    folder: Path, shards: Sequence[OldShard], *, own: bool, notes: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return which columns to take over as they are called, and which under another name."""
    kinds: dict[str, list[pa.DataType]] = {}
    for shard in shards:
        if shard.sidecar is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                for each in pq.read_schema(folder / shard.sidecar):
                    kinds.setdefault(each.name, [])
                    if each.type not in kinds[each.name]:
                        kinds[each.name].append(each.type)
    columns: dict[str, str] = {}
    renamed: dict[str, str] = {}
    taken = {name.lower() for name in _TAKEN}
    for name, of_name in kinds.items():
        if own and name in schema.SIDECAR.names:
            if name in _PROVENANCE:
                renamed[name] = "int64" if name == "original_offset" else "string"
            continue
        if not own and name in _FOUND_ANEW:
            continue
        known = [kind for kind in of_name if not pa.types.is_null(kind)]
        kind = _together(known)
        if not known:
            notes.append(f"the column {name!r} has no value in any table, and is left out")
        elif kind is None:
            text = ", ".join(sorted(map(str, known)))
            notes.append(f"the column {name!r} ({text}) cannot be taken over")
        elif name.lower() in taken and name not in _TAKEN:
            notes.append(f"the column {name!r} differs from another one in case only; left out")
        elif name in _TAKEN:
            renamed[name] = kind
        else:
            columns[name] = kind
            taken.add(name.lower())
    return columns, renamed


def _together(kinds: Sequence[pa.DataType]) -> str | None:
    """Return the type that holds the values of all, ``None`` if there is none."""
    names = {name_of_type(kind) for kind in kinds}
    if len(names) == 1:
        return names.pop()
    if None in names or not names:
        return None
    with contextlib.suppress(pa.ArrowException):
        fields = [pa.schema([("x", kind)]) for kind in kinds]
        return name_of_type(pa.unify_schemas(fields, promote_options="permissive").field("x").type)
    plain = all(not pa.types.is_nested(k) and not pa.types.is_fixed_size_binary(k) for k in kinds)
    return "string" if plain else None
