"""What the manifest promises, read without any of the code that writes it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from pixsieve.verify.shard import ListedFile

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.verify.findings import Findings

MANIFEST = "manifest.json"
FORMAT = "pixsieve-dataset"
FORMAT_VERSION = 1
RECIPE = "recipe.yaml"
WRITER = "ImageWriterStage"

_INDEXES: dict[str, tuple[str, tuple[str, ...]]] = {
    "wids": ("", ("wids.json",)),
    "dali": (".idx", ()),
    "energon": (
        ".tar.idx",
        (".nv-meta/.info.json", ".nv-meta/dataset.yaml", ".nv-meta/split.yaml"),
    ),
    "energon_sqlite": ("", (".nv-meta/index.sqlite",)),
    "litdata": ("", ("index.json",)),
    "croissant": ("", ("croissant.json",)),
    "frictionless": ("", ("datapackage.json",)),
}
"""By the writer's name of each: its ending beside a tar, and its files. A card may be somebody's
own, which the manifest does not list."""

_DIGEST_LINE = b' "sha256":'
_NAME = re.compile(r"(?P<prefix>[A-Za-z0-9_-]+)-(?P<hash>[A-Za-z0-9]+)-(?P<index>[0-9]{6,})\.tar")
_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<index>[0-9]+)\.tar", re.DOTALL)


class Counts(msgspec.Struct, frozen=True):
    """Where the indexed samples ended."""

    indexed: int
    kept: int
    dropped: int
    failed: int


class Reason(msgspec.Struct, frozen=True):
    """How many samples one stage dropped, or failed, for one reason."""

    stage: str | None
    status: str
    reason: str
    count: int


class Input(msgspec.Struct, frozen=True):
    """One source of samples."""

    path: str
    samples: int
    sha256: str


class Shard(msgspec.Struct, frozen=True):
    """One output shard."""

    tar: str
    sidecar: str
    split: str | None
    samples: int
    bucket: str | None = None  # an older manifest has none

    @property
    def group(self) -> tuple[str, ...]:
        """The names of its split and its bucket, where it has them."""
        return tuple(name for name in (self.split, self.bucket) if name is not None)


class File(msgspec.Struct, frozen=True):
    """One file of the dataset."""

    name: str
    size: int
    sha256: str


class Recipe(msgspec.Struct, frozen=True):
    """The stages with all their values: ``@`` is the name of a stage's class."""

    name: str
    seed: int
    stages: list[dict[str, Any]]

    def writes(self, option: str) -> object:
        """Return an option of the stage that wrote the dataset; None if it does not say."""
        last = self.stages[-1] if self.stages else {}
        return last.get(option) if last.get("@") == WRITER else None


class Manifest(msgspec.Struct, frozen=True):
    """The fields of ``manifest.json`` that can be checked; others are left alone."""

    format: str
    format_version: int
    hash: str
    counts: Counts
    reasons: list[Reason]
    inputs: list[Input]
    shards: list[Shard]
    files: list[File]
    recipe: Recipe | None = None
    sha256: str | None = None

    def listed(self) -> dict[str, ListedFile]:
        """Return the listed files by name."""
        return {file.name: ListedFile(size=file.size, sha256=file.sha256) for file in self.files}


_OLDER_FIELDS = frozenset(Manifest.__struct_fields__).union(
    ("name", "seed", "recipe_sha256", "plan_sha256", "versions", "privacy")
)
"""Those of a manifest that was written before manifests had a digest."""


class _Head(msgspec.Struct, frozen=True):
    format: str | None = None
    format_version: int | None = None


def is_manifest(data: bytes) -> bool:
    """Tell whether ``data`` is, or once was, a pixsieve manifest and not somebody else's file."""
    return FORMAT.encode() in data


def read_manifest(path: Path, findings: Findings) -> Manifest | None:
    """Read a manifest; None if that cannot be done, and the findings say why."""
    data = path.read_bytes()
    try:
        fields = msgspec.json.decode(data)
        head = msgspec.convert(fields, _Head)
        if head.format == FORMAT and head.format_version != FORMAT_VERSION:
            findings.add(
                "manifest-version",
                MANIFEST,
                f"has the format version {head.format_version}, this program knows "
                f"{FORMAT_VERSION}; verify it with the pixsieve that wrote it, or a newer one",
            )
            return None
        manifest = msgspec.convert(fields, Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        findings.add("manifest-unreadable", MANIFEST, str(error))
        return None
    if manifest.format != FORMAT:
        findings.add(
            "manifest-unreadable", MANIFEST, f"format is {manifest.format!r}, expected {FORMAT!r}"
        )
        return None
    if manifest.sha256 is not None:
        _check_digest(data, manifest.sha256, findings)
    elif unknown := sorted(fields.keys() - _OLDER_FIELDS):
        findings.add(
            "manifest-sha256", MANIFEST, f"has {unknown}, which none without a field sha256 has"
        )
    return manifest if _check_names(manifest, findings) else None


def _check_digest(data: bytes, stated: str, findings: Findings) -> None:
    lines = data.splitlines(keepends=True)
    found = hashlib.sha256(b"".join(x for x in lines if not x.startswith(_DIGEST_LINE))).hexdigest()
    if found != stated:
        findings.add(
            "manifest-sha256",
            MANIFEST,
            f"its other lines have the SHA-256 {found}, it says {stated}",
        )


def _check_names(manifest: Manifest, findings: Findings) -> bool:
    """Check that names are of files in the dataset, and that each shard's files are listed."""
    faults = []
    names = Counter(file.name for file in manifest.files)
    for name, count in names.items():
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            faults.append(f"lists {name!r}, which is not a path inside the dataset")
        if count > 1:
            faults.append(f"lists {name!r} {count} times")
    safe = not faults
    for shard in manifest.shards:
        faults += [
            f"does not list {n!r} of a shard" for n in (shard.tar, shard.sidecar) if n not in names
        ]
    of_shards = {name for shard in manifest.shards for name in (shard.tar, shard.sidecar)}
    faults += [
        f"lists {name!r}, which is no shard's, though loaders that read all of its kind take it"
        for name in names
        if name.endswith((".tar", ".parquet")) and "/" not in name
        if name not in of_shards and name != "dropped.parquet"
    ]
    shards = Counter(shard.tar for shard in manifest.shards)
    faults += [
        f"has the shard {name!r} {count} times" for name, count in shards.items() if count > 1
    ]
    if not {"dropped/dropped.parquet", "dropped.parquet"} & names.keys():
        faults.append("does not list dropped/dropped.parquet")
    for fault in faults:
        findings.add("manifest-name", MANIFEST, fault)
    return safe


def check_counts(manifest: Manifest, findings: Findings) -> None:
    """Check that the manifest's own counts add up."""
    counts = manifest.counts
    ended = counts.kept + counts.dropped + counts.failed
    if counts.indexed != ended:
        findings.add(
            "counts-indexed",
            MANIFEST,
            f"indexed is {counts.indexed:,}, kept + dropped + failed is {ended:,}",
        )
    inputs = sum(source.samples for source in manifest.inputs)
    if counts.indexed != inputs:
        findings.add(
            "counts-indexed",
            MANIFEST,
            f"indexed is {counts.indexed:,}, the inputs have {inputs:,} samples",
        )
    listed = sum(shard.samples for shard in manifest.shards)
    if counts.kept != listed:
        findings.add(
            "counts-kept", MANIFEST, f"kept is {counts.kept:,}, its shards have {listed:,} samples"
        )


def check_asked_for(manifest: Manifest, findings: Findings) -> None:
    """Check that the index files and the formats that the recipe asks for are listed."""
    if manifest.recipe is None:
        return
    listed = manifest.listed()
    for name in _texts(manifest.recipe.writes("indexes")):
        suffix, files = _INDEXES.get(name, ("", ()))
        stems = [shard.tar.removesuffix(".tar") for shard in manifest.shards] if suffix else []
        for file in (*files, *(f"{stem}{suffix}" for stem in stems)):
            if file not in listed:
                findings.add(f"index-{name.partition('_')[0]}", file, "the recipe asks for it")
    for name in _texts(manifest.recipe.writes("formats")):
        if not any(file.startswith(f"{name}/") for file in listed):
            findings.add("format-missing", name, "the recipe asks for it, no file is listed")


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def check_recipe(folder: Path, recipe: Recipe, findings: Findings) -> None:
    """Check that ``recipe.yaml`` says what the manifest says; fields may be left out of it."""
    path = folder / RECIPE
    if not path.is_file():
        return  # the check of the manifest's files says so
    try:
        found = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        findings.add("recipe-differs", RECIPE, f"is no YAML: {error}")
        return
    listed = found.get("stages") if isinstance(found, dict) else None
    if not isinstance(listed, list) or len(listed) != len(recipe.stages):
        findings.add("recipe-differs", RECIPE, f"expected {len(recipe.stages)} stages")
        return
    for name, value in (("name", recipe.name), ("seed", recipe.seed)):
        if found.get(name) != value:
            findings.add("recipe-differs", RECIPE, f"{name} is not {value!r}")
    for number, (stage, expected) in enumerate(zip(listed, recipe.stages, strict=True), 1):
        if not _is_stage(stage, expected):
            findings.add("recipe-differs", RECIPE, f"stage {number} is not that of the manifest")


def _is_stage(found: object, expected: dict[str, Any]) -> bool:
    """Tell whether an item of a recipe's list may be a stage: its name, alone or with fields."""
    if isinstance(found, dict) and len(found) == 1:
        ((name, fields),) = found.items()
    else:
        name, fields = found, {}
    if not isinstance(name, str) or not isinstance(fields, dict):
        return False
    kind = str(expected.get("@"))
    announced = ":" in kind and ":" not in name  # only the package that has it knows of this name
    return (announced or name.rpartition(":")[2] == kind.rpartition(":")[2]) and all(
        field in expected and _is_same(value, expected[field]) for field, value in fields.items()
    )


def _is_same(found: object, expected: object) -> bool:
    """Compare YAML with JSON, whose keys are text; never deeper than the JSON is."""
    if isinstance(expected, dict) and isinstance(found, dict):
        named = {str(key): value for key, value in found.items()}
        return named.keys() == expected.keys() and all(
            _is_same(value, expected[key]) for key, value in named.items()
        )
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(_is_same, found, expected))
    return found == expected


def check_own_names(shards: list[Shard], manifest: Manifest | None, findings: Findings) -> None:
    """Check the names of pixsieve's shards.

    One prefix, the split and the bucket that the manifest says, one hash, gapless numbers; the
    sidecar is named like the tar.
    """
    hash_ = manifest.hash if manifest else None
    prefix = manifest.recipe.writes("prefix") if manifest and manifest.recipe else None
    numbers: dict[str, list[int]] = {}
    for shard in shards:
        match = _NAME.fullmatch(shard.tar)
        form = "-".join(("PREFIX", *shard.group, "HASH", "000000.tar"))
        if match is None or shard.sidecar != f"{shard.tar.removesuffix('.tar')}.parquet":
            findings.add(
                "shard-name",
                shard.tar,
                f"with the sidecar {shard.sidecar}; expected {form} and .parquet",
            )
            continue
        hash_ = hash_ or match["hash"]
        if match["hash"] != hash_:
            findings.add("shard-name", shard.tar, f"has the hash {match['hash']}, expected {hash_}")
        numbers.setdefault(match["prefix"], []).append(int(match["index"]))
        if manifest is None:
            continue
        tail = "".join(f"-{name}" for name in shard.group)
        if prefix is None and match["prefix"].endswith(tail):
            prefix = match["prefix"].removesuffix(tail)
        if match["prefix"] != f"{prefix}{tail}":
            known = "" if prefix is None else f" with the prefix {prefix}"
            findings.add("shard-name", shard.tar, f"expected {form}{known}")
    for start, of_group in numbers.items():
        _check_gaps(f"{start}-{hash_}-", sorted(of_group), 0, findings)


def check_sizes(manifest: Manifest, findings: Findings) -> None:
    """Check that the shards of each split and bucket are as full, and as many, as the recipe says.

    Those that are cut by their size in bytes may hold any number of samples.
    """
    recipe = manifest.recipe
    most = recipe.writes("images_per_tar") if recipe else None
    if recipe is None or not isinstance(most, int) or recipe.writes("max_bytes_per_tar"):
        return
    multiple = recipe.writes("shards_multiple_of")
    multiple = multiple if isinstance(multiple, int) else 1
    if most < 1 or multiple < 1:
        return  # no such recipe can be run
    options = f"images_per_tar={most}"
    options += f" and shards_multiple_of={multiple}" if multiple > 1 else ""
    groups: dict[tuple[str | None, str | None], list[Shard]] = {}
    for shard in manifest.shards:
        groups.setdefault((shard.split, shard.bucket), []).append(shard)
    for shards in groups.values():
        shards.sort(key=lambda shard: (len(shard.tar), shard.tar))
        of = "-".join(shards[0].group) or "the dataset"
        total = sum(shard.samples for shard in shards)
        count = -(-total // (most * multiple)) * multiple
        if multiple > 1 and len(shards) != count:
            findings.add(
                "shard-multiple",
                MANIFEST,
                f"{of} has {len(shards):,} shards, expected {count:,} by {options}",
            )
        for number, shard in enumerate(shards):
            if multiple > 1:  # dealt evenly, the larger ones first
                expected = min(most, (total + len(shards) - 1 - number) // len(shards))
            else:
                expected = min(most, shard.samples) if shard is shards[-1] else most
            if shard.samples != expected:
                findings.add(
                    "shard-size",
                    shard.tar,
                    f"has {shard.samples:,} of the {total:,} samples of {of}, expected "
                    f"{expected:,} by {options}",
                )


def check_foreign_names(tars: list[str], findings: Findings) -> None:
    """Check that numbered shards of others have no gap; they may start at any number."""
    numbers: dict[str, set[int]] = {}
    for tar in tars:
        match = _NUMBERED.fullmatch(tar)
        if match is not None:
            numbers.setdefault(match["prefix"], set()).add(int(match["index"]))
    for prefix, found in numbers.items():
        _check_gaps(prefix, sorted(found), min(found), findings)


def _check_gaps(prefix: str, found: list[int], start: int, findings: Findings) -> None:
    expected = start
    for number in found:
        if number != expected:
            findings.add(
                "shard-gap", f"{prefix}{number}.tar", f"number {expected} is expected before it"
            )
        expected = number + 1
