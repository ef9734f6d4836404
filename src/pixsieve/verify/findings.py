"""What verify can find, and the report that it gives.

A finding names a rule of :data:`RULES`, a file, where it can a member, and says in words what was
expected and what was found. Rule ids are stable: scripts may match on them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Literal

Severity = Literal["error", "warning"]

LIMIT_PER_FILE = 20
"""How many findings of one rule in one file are kept; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold, and how bad a breach is: in pixsieve's own sets, and in those of others.

    None where such a set cannot break the rule, for it promises nothing of the kind.
    """

    text: str
    own: Severity | None = "error"
    foreign: Severity | None = "error"

    def severity(self, *, own: bool) -> Severity:
        """Return how bad a breach is; a rule that cannot be broken in such a set is a mistake."""
        severity = self.own if own else self.foreign
        if severity is None:
            raise LookupError(f"no such rule for {'own' if own else 'foreign'} sets: {self.text}")
        return severity


def _own(text: str, severity: Severity = "error") -> Rule:
    return Rule(text, severity, None)


def _minor(text: str) -> Rule:
    """A rule of pixsieve's that others break knowingly, and most loaders live with."""
    return Rule(text, "error", "warning")


RULES: dict[str, Rule] = {
    # the dataset
    "manifest-missing": _own("a finished export has a manifest.json"),
    "manifest-unreadable": _own("manifest.json is JSON with the fields of its format"),
    "manifest-version": _own("the manifest's format version is one that this program knows"),
    "manifest-sha256": _own("the manifest holds the SHA-256 of its other lines"),
    "manifest-name": _own(
        "the manifest names only files in the dataset, each once, and all shards'"
    ),
    "file-missing": _own("every file that the manifest lists is there"),
    "file-size": _own("every listed file has the listed size"),
    "file-sha256": _own("every listed file has the listed SHA-256"),
    "file-unlisted": _own(
        "no tar or Parquet file lies at the root that the manifest does not list"
    ),
    "file-stranger": _own("nothing else lies at the root either", "warning"),
    "file-leftover": _own("no temporary file of an unfinished write is left", "warning"),
    "shard-name": _own(
        "shards are named prefix-split-bucket-hash-index as the manifest says, all with its hash"
    ),
    "shard-gap": _minor("shard numbers have no gap, so that a brace range finds all"),
    "shard-empty": _minor("no shard is empty"),
    "shard-count": _own("a shard holds as many samples and rows as the manifest says"),
    "shard-size": _own("a shard is as full as the recipe says; only the last may hold fewer"),
    "shard-multiple": _own("each split and bucket has as many shards as the recipe asks for"),
    "counts-kept": _own("the shards' samples add up to the manifest's count of kept ones"),
    "counts-indexed": _own("indexed = kept + dropped + failed = the samples of all inputs"),
    "counts-reasons": _own("dropped.parquet has the manifest's rows for each stage and reason"),
    "recipe-differs": _own("recipe.yaml says what the manifest's recipe says"),
    "format-missing": _own("each other format that the recipe asks for is there"),
    "dropped-unreadable": _own("dropped.parquet can be read"),
    "dropped-schema": _own("dropped.parquet has the columns and types of its format"),
    "dropped-status": _own("a row of dropped.parquet is dropped or failed"),
    "dropped-twice": _own("no image_id is twice in dropped.parquet"),
    "dropped-and-kept": _own("no image_id is both kept and dropped"),
    "duplicate-of": _own("duplicate_of is kept, or was dropped by another stage than its copy"),
    "stats-differ": Rule(
        "img2dataset's _stats.json counts the samples and rows that there are", None
    ),
    # the tar
    "tar-cut": Rule("no member reaches beyond the end of its tar"),
    "tar-damaged": Rule("every header of a tar is whole and plausible"),
    "tar-no-end": _minor("a tar ends with two zero blocks, else it may be cut between members"),
    "tar-trailing-data": Rule("nothing but zeros follows the end of a tar"),
    "tar-padding": _own("a tar is padded to a multiple of 10240 bytes"),
    "tar-header": _own("headers are plain ustar: mode 0644, no owner, no time"),
    "tar-extended-header": _own("no header is extended (PAX, GNU): names and sizes fit without"),
    "member-kind": _minor("members are regular files"),
    # the samples
    "member-name": _minor("member names are relative paths of the form key.extension"),
    "member-duplicate": Rule("no member name occurs twice in a tar"),
    "member-not-adjacent": Rule("all members of a sample lie side by side"),
    "key-unsafe": _minor("keys match [A-Za-z0-9][A-Za-z0-9_-]*"),
    "key-duplicate": _minor("no key is in two shards"),
    "key-case": _minor("no two keys differ in case only"),
    "extension-unsafe": _minor("extensions are lower-case, of [a-z0-9._-]"),
    "extension-format": _minor("an image's extension is that of its true format"),
    "image-missing": _minor("every sample has an image"),
    "image-not-first": _own("a sample's first member is its image"),
    "text-encoding": Rule(
        "a .txt member is UTF-8, without a byte order mark", "warning", "warning"
    ),
    "json-invalid": Rule("a .json member is a JSON object in UTF-8", "warning", "warning"),
    "members-uneven": _own(
        "with members='uniform' all samples have the same members, and json of one shape"
    ),
    "image-undecodable": Rule("every image decodes completely"),
    "image-too-large": Rule(
        "images are within the limits of what is decoded", "warning", "warning"
    ),
    # the sidecar
    "sidecar-missing": _own("every shard has its sidecar"),
    "sidecar-unreadable": Rule("a sidecar can be read"),
    "sidecar-version": _own("a sidecar's format version is one that this program knows"),
    "sidecar-schema": _own("a sidecar has the columns and types of its format, none of type null"),
    "sidecar-schema-differs": _minor("all sidecars have one schema"),
    "sidecar-null": _own("columns that cannot be null have no null"),
    "sidecar-row-missing": Rule("every sample of the tar has a row"),
    "sidecar-row-extra": Rule("every row has a sample in the tar"),
    "sidecar-row-duplicate": Rule("no sample has two rows"),
    "sidecar-order": _own("rows are in tar order"),
    "image-id-duplicate": _minor("no image_id is twice in the dataset"),
    "column-tar-file": Rule("tar_file is the base name of the shard's tar (others: ends with it)"),
    "column-member-name": Rule("member_name is the image's name in the tar"),
    "column-member-offset": _own("member_offset is the image's first data byte in the tar"),
    "column-member-size": _own("member_size is the image's size in bytes"),
    "column-members": _own("members are the names of the sample's members in tar order"),
    "column-member-sizes": _own("member_sizes are the sizes of the sample's members in tar order"),
    "column-sha256": _own("sha256 is that of the image's bytes"),
    "column-caption": Rule("caption is the text of the .txt member, where there is one"),
    "column-format": _own("format is the image's true format"),
    "column-size": Rule("width and height are the upright image's (others: or the stored one's)"),
    "column-mode": _own("mode is the image's"),
    "column-orientation": _own("exif_orientation is the tag in the image, 1 if there is none"),
    "column-original": _own("what was copied has its original's sha256 and format"),
    "column-split": _own("split is that of the shard"),
    "column-bucket": _own("bucket is that of the shard"),
    # index files
    "index-card": _minor("the card's front matter has the tars, splits, counts and columns"),
    "index-wids": Rule("a list for wids has each tar with its samples, size and digest"),
    "index-dali": Rule("X.idx has each sample's members with offset, size and name"),
    "index-energon": Rule("X.tar.idx and .nv-meta have the tars, splits, samples and offsets"),
    "index-litdata": Rule("LitData's index has each sidecar with its rows and size"),
    "index-croissant": _minor("croissant.json has the tars, sidecars, digests and columns"),
    "index-frictionless": _minor("datapackage.json has the tars, sidecars, digests and columns"),
    # the loaders
    "load-failed": Rule("webdataset, and each loader that is named, reads all to its end"),
    "load-differs": Rule("webdataset, and each loader that is named, finds the same samples"),
}
"""Every rule: its id and what must hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One breach of a rule. ``file`` is relative to the dataset, ``member`` a name in that file."""

    severity: Severity
    rule: str
    file: str
    member: str | None
    message: str

    def to_text(self) -> str:
        """Return the finding as one line."""
        member = "" if self.member is None else f": {self.member}"
        return f"{self.severity}: {self.rule}: {self.file}{member}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How much was read. ``bytes`` counts the whole files that were read to their end."""

    files: int = 0
    shards: int = 0
    samples: int = 0
    rows: int = 0
    bytes: int = 0
    images: int = 0
    decoded: int = 0
    loaded: int = 0

    def __add__(self, other: Checked) -> Checked:
        mine, theirs = asdict(self), asdict(other)
        return Checked(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a loader that was named gave.

    Attributes:
        loader: Its name.
        version: Of its library.
        samples: How many it gave before it ended or failed.
        compared: What of each sample was compared: ``key``, ``bytes``, ``size``, ``caption``.
    """

    loader: str
    version: str
    samples: int
    compared: tuple[str, ...]

    def to_text(self) -> str:
        """Return the result as one line."""
        return (
            f"loaded with {self.loader} {self.version}: {self.samples:,} samples, compared by "
            f"{', '.join(self.compared)}"
        )


def shown(text: str) -> str:
    """Return ``text`` with all that could disturb a terminal or a log written as an escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


@dataclass(slots=True)
class Findings:
    """Collects findings; keeps at most :data:`LIMIT_PER_FILE` of one rule in one file."""

    own: bool
    kept: list[Finding] = field(default_factory=list)
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, rule: str, file: str, message: str, *, member: str | None = None) -> None:
        """Note a breach of ``rule``; names and message may hold any characters."""
        severity = RULES[rule].severity(own=self.own)
        self.seen[rule, file] += 1
        if self.seen[rule, file] <= LIMIT_PER_FILE:
            self.kept.append(
                Finding(
                    severity=severity,
                    rule=rule,
                    file=shown(file),
                    member=None if member is None else shown(member),
                    message=shown(message),
                )
            )

    def result(self) -> tuple[Finding, ...]:
        """Return what was found, with one more finding for each rule and file that had too many."""
        more = [
            Finding(
                severity=RULES[rule].severity(own=self.own),
                rule=rule,
                file=shown(file),
                member=None,
                message=f"{count - LIMIT_PER_FILE:,} more of this rule in this file",
            )
            for (rule, file), count in self.seen.items()
            if count > LIMIT_PER_FILE
        ]
        return (*self.kept, *more)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What verify did and found.

    Attributes:
        path: What was verified, as it was named.
        kind: ``"pixsieve"`` for a set with pixsieve's contract, ``"foreign"`` for any other.
        findings: Errors first, then by file, in the order in which they lie there.
        checked: How much was read.
        unchecked: What could not be checked, or was not asked for, and why.
        loaders: What the loaders gave that the dataset was tried with.
    """

    path: str
    kind: Literal["pixsieve", "foreign"]
    findings: tuple[Finding, ...]
    checked: Checked
    unchecked: tuple[str, ...]
    loaders: tuple[Loaded, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are more than warnings."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings are allowed."""
        return not self.errors

    def to_text(self) -> str:
        """Return the report as lines for people."""
        counts = self.checked
        lines = [finding.to_text() for finding in self.findings]
        lines.append(
            f"checked: {counts.shards:,} shards, {counts.samples:,} samples, {counts.rows:,} rows, "
            f"{counts.files:,} files read whole ({counts.bytes:,} bytes), {counts.images:,} images "
            f"({counts.decoded:,} decoded), {counts.loaded:,} samples loaded with webdataset"
        )
        lines += [each.to_text() for each in self.loaders]
        lines += [f"not checked: {note}" for note in self.unchecked]
        errors = len(self.errors)
        warnings = len(self.findings) - errors
        verdict = "sound" if self.ok else "NOT SOUND"
        lines.append(
            f"{shown(self.path)}: {verdict} ({self.kind} dataset; "
            f"{errors:,} errors, {warnings:,} warnings)"
        )
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        """Return the report as one JSON object; ``docs/verify.md`` lists its fields."""
        return json.dumps({"ok": self.ok, **asdict(self)}, ensure_ascii=False)
