"""Checking one shard: its files' digests, its tar, its sidecar, and each against the other."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pixsieve.verify.findings import Checked, Finding, Findings
from pixsieve.verify.indexes import check_beside
from pixsieve.verify.samples import Sample, SampleCheck
from pixsieve.verify.sidecars import LATER, Sidecar, UnreadableTableError, split_name
from pixsieve.verify.tars import members

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pixsieve.engine.units import Context
    from pixsieve.image import ImageHeader
    from pixsieve.scorers.guard import Guard
    from pixsieve.verify.samples import Row
    from pixsieve.verify.tars import Member

_FATAL = frozenset({"tar-cut", "tar-damaged", "tar-trailing-data"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile:
    """What the manifest says of a file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard to check.

    Attributes:
        folder: Where its files are.
        tar: Name of its tar in there.
        sidecar: Name of its sidecar, None if it has none.
        own: Whether pixsieve's own contract holds for it.
        listed: What the manifest says of the two files; empty without a manifest.
        split: Split that its rows must have, None if they must have none.
        bucket: Bucket that its rows must have, likewise.
        samples: Samples that it must have, None if nothing says so; then nothing says of which
            split and bucket it is, either.
        walk: Whether the tar is read; if not, only the sidecar's rows and their names are.
        share: Share of the samples whose content is checked, above 0 and at most 1.
        decode: Whether images are decoded.
        load: Whether the webdataset library reads it too.
        md5: Whether the tar's MD5 is needed, which some index files state.
        energon: The tar's number in Energon's database; None if it has none.
    """

    folder: str
    tar: str
    sidecar: str | None
    own: bool
    listed: dict[str, ListedFile] = field(default_factory=dict)
    split: str | None = None
    bucket: str | None = None
    samples: int | None = None
    walk: bool = True
    share: float = 1.0
    decode: bool = True
    load: bool = True
    md5: bool = False
    energon: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """What came out for one shard.

    Attributes:
        keys: 64-bit digests of the case-folded keys, one each.
        image_ids: 64-bit digests of the sidecar's image ids, one a row.
        columns: Names and types of the sidecar's columns; None if there is no readable sidecar.
        samples: Samples of the tar, or rows of the sidecar where the tar was not read.
        unchecked: What could not be checked.
        parts: How many samples have a member of each extension; None if the tar was not read.
        digests: SHA-256 by name of the files that were read whole.
        md5: The tar's, if it was asked for.
        shapes: The first few shapes that its json members have.
    """

    task: ShardTask
    findings: tuple[Finding, ...]
    checked: Checked
    keys: NDArray[np.uint64]
    image_ids: NDArray[np.uint64]
    columns: tuple[tuple[str, str], ...] | None
    samples: int
    unchecked: tuple[str, ...]
    parts: dict[str, int] | None = None
    digests: dict[str, str] = field(default_factory=dict)
    md5: str | None = None
    shapes: frozenset[str] = frozenset()


def digest(text: str) -> int:
    """Return the 64-bit digest under which keys and ids are remembered."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def digests(texts: list[str]) -> NDArray[np.uint64]:
    """Return the digests of ``texts``, uint64 of shape (n,)."""
    return np.fromiter((digest(text) for text in texts), np.uint64, len(texts))


def chosen(name: str, share: float) -> bool:
    """Tell whether ``name`` belongs to a sample of the given share; the same on every machine."""
    return share >= 1.0 or digest(name) < share * 2**64


def check_file(
    folder: Path, name: str, listed: ListedFile | None, findings: Findings, *, content: bool
) -> tuple[Checked, str | None]:
    """Compare one file with what the manifest says of it, if anything.

    It is read only for ``content``, then to its end in any case: all of it must be readable.

    Returns:
        What was read, and the file's SHA-256 if it was.
    """
    path = folder / name
    if not path.is_file():
        if listed is not None:
            findings.add("file-missing", name, "the manifest lists this file, it is not there")
        return Checked(), None
    size = path.stat().st_size
    if listed is not None and size != listed.size:
        findings.add("file-size", name, f"has {size:,} bytes, the manifest says {listed.size:,}")
    if not content:
        return Checked(), None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if listed is not None and found != listed.sha256:
        findings.add(
            "file-sha256", name, f"has the SHA-256 {found}, the manifest says {listed.sha256}"
        )
    return Checked(files=1, bytes=size), found


def names_in(task: ShardTask) -> Iterator[tuple[str, str]]:
    """Yield ``("key", k)`` and ``("image_id", i)`` of a shard, to name what was found twice."""
    folder = Path(task.folder)
    sidecar = None
    if task.sidecar is not None and (folder / task.sidecar).is_file():
        try:
            sidecar = Sidecar(folder / task.sidecar, own=task.own, light=True)
        except UnreadableTableError:
            sidecar = None
    if sidecar is not None:
        yield from (("image_id", i) for i in sidecar.column("image_id") if i is not None)
    if task.walk and (folder / task.tar).is_file():
        path = folder / task.tar
        last = None
        with path.open("rb") as file:
            for member in members(file, path.stat().st_size, strict=False, report=_ignore):
                key = split_name(member.name)[0]
                if key != last:
                    yield "key", key
                last = key
    elif sidecar is not None:
        yield from (("key", key) for key in sidecar.keys if key is not None)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _ignore(rule: str, message: str, member: str | None) -> None:
    """Take a fault that was reported before."""


def check_shard(task: ShardTask, context: Context) -> ShardResult:
    """Check one shard: a function of its files, and of the images that ended a worker before."""
    return _ShardCheck(task, context.guard).run()


class _ShardCheck:
    """The state of checking one shard, from the first file to the last row."""

    def __init__(self, task: ShardTask, guard: Guard) -> None:
        self.task = task
        self.guard = guard
        self.folder = Path(task.folder)
        self.findings = Findings(own=task.own)
        self.checked = Checked()
        self.unchecked: list[str] = []
        self.rules: set[str] = set()  # broken in the tar
        self.exact: list[int] = []  # digests of the keys, one a sample, in tar order
        self.folded: list[int] = []  # the same, of the case-folded keys
        self.rows: Sidecar | None = None  # the sidecar, if its rows can be compared
        self.positions: dict[str, int] = {}  # row of each key
        self.matched: set[int] = set()  # rows that have their sample
        self.next_row = 0
        self.members: list[Member] = []  # of the tar, in order
        self.end: int | None = None  # of the last one; None if the tar cannot be read so far
        self.shapes: set[str] = set()  # of json members
        self.parts: Counter[str] = Counter()  # samples with a member of each extension

    def run(self) -> ShardResult:
        task = self.task
        read: dict[str, str] = {}
        for name in filter(None, (task.tar, task.sidecar)):
            listed = task.listed.get(name)
            checked, found = check_file(self.folder, name, listed, self.findings, content=task.walk)
            self.checked += checked
            if found is not None:
                read[name] = found
        sidecar = self._sidecar()
        if sidecar is not None and self._comparable(sidecar):
            self.rows = sidecar
            if task.own:
                self._groups(sidecar)
        tar = self.folder / task.tar
        walked = task.walk and tar.is_file()
        if walked:
            self._walk(tar)
        elif sidecar is not None:
            self.folded = [digest(key.casefold()) for key in sidecar.keys if key is not None]
        samples = len(self.exact) if walked else sidecar.rows if sidecar else 0
        self.checked += Checked(
            shards=int(walked), samples=len(self.exact), rows=sidecar.all_rows if sidecar else 0
        )
        self._counts(samples if walked else None, sidecar)
        return ShardResult(
            task=task,
            findings=self.findings.result(),
            checked=self.checked,
            keys=np.unique(np.array(self.folded, np.uint64)),
            image_ids=digests([i for i in sidecar.column("image_id") if i is not None])
            if sidecar
            else np.empty(0, np.uint64),
            columns=tuple((f.name, str(f.type)) for f in sidecar.schema) if sidecar else None,
            samples=samples,
            unchecked=tuple(self.unchecked),
            parts=dict(self.parts) if walked else None,
            digests=read,
            md5=_md5(tar) if walked and task.md5 else None,
            shapes=frozenset(self.shapes),
        )

    # -- the sidecar --------------------------------------------------------------------------

    def _sidecar(self) -> Sidecar | None:
        task = self.task
        if task.sidecar is None or not (self.folder / task.sidecar).is_file():
            if not task.own:
                self.unchecked.append(
                    "no sidecar: whether samples are missing, and what columns say of them"
                )
            elif task.sidecar not in task.listed:  # else it is missed already
                self.findings.add("sidecar-missing", task.tar, "has no .parquet of the same name")
            return None
        try:
            return Sidecar(self.folder / task.sidecar, own=task.own, light=not task.walk)
        except UnreadableTableError as error:
            self.findings.add("sidecar-unreadable", task.sidecar, str(error))
            return None

    def _comparable(self, sidecar: Sidecar) -> bool:
        name = self.task.sidecar or ""
        if self.task.own:
            return sidecar.check_contract(
                lambda rule, text: self.findings.add(rule, name, text),
                without=[name for name in LATER if name != "bucket" or not self.task.bucket],
            )
        if not sidecar.keys and sidecar.rows:
            self.unchecked.append(
                "the sidecar has no column that names samples, so no row was compared"
            )
            return False
        if sidecar.kind == "img2dataset":
            self.unchecked.append(
                "img2dataset's sha256 column: it is of the image as it was before resizing"
            )
        return True

    def _groups(self, sidecar: Sidecar) -> None:
        """Check that all rows are of the shard's split and bucket, or at least of one."""
        stated = self.task.samples is not None
        for name, expected in (("split", self.task.split), ("bucket", self.task.bucket)):
            values = sidecar.column(name)
            if values and not stated:
                expected = values[0]  # noqa: PLW2901  # nothing else says it
            for key, value in zip(sidecar.keys, values, strict=False):
                if value != expected:
                    self._row_finding(
                        f"column-{name}", f"{name} is {value!r}, the shard's is {expected!r}", key
                    )

    def _counts(self, samples: int | None, sidecar: Sidecar | None) -> None:
        """Compare the numbers of samples and rows with what is said of them.

        Args:
            samples: Samples of the tar, None if it was not read.
            sidecar: The sidecar, if it can be read.
        """
        task = self.task
        found = []
        if samples is not None:
            found.append((task.tar, samples, "samples"))
        if sidecar is not None:
            found.append((task.sidecar or task.tar, sidecar.rows, "rows"))
        if found and not any(number for _, number, _ in found):
            self.findings.add("shard-empty", task.tar, "has no sample")
        for name, number, things in found:
            if task.samples is not None and number != task.samples:
                self.findings.add(
                    "shard-count",
                    name,
                    f"has {number:,} {things}, the manifest says {task.samples:,}",
                )
        stats = self.folder / f"{Path(task.tar).stem}_stats.json"
        if not task.own and samples is not None and stats.is_file():
            self._stats(stats, samples, sidecar)

    def _stats(self, path: Path, samples: int, sidecar: Sidecar | None) -> None:
        try:
            stated = json.loads(path.read_bytes())
            successes, count = stated["successes"], stated["count"]
        except (ValueError, KeyError, TypeError, RecursionError):
            self.unchecked.append("_stats.json is not img2dataset's")
            return
        if successes != samples:
            self.findings.add(
                "stats-differ",
                path.name,
                f"states {successes} successes, the tar has {samples:,} samples",
            )
        if sidecar is not None and count != sidecar.all_rows:
            self.findings.add(
                "stats-differ",
                path.name,
                f"states a count of {count}, the sidecar has {sidecar.all_rows:,} rows",
            )

    # -- the tar ------------------------------------------------------------------------------

    def _tar_finding(self, rule: str, message: str, member: str | None) -> None:
        self.rules.add(rule)
        self.findings.add(rule, self.task.tar, message, member=member)

    def _row_finding(self, rule: str, message: str, key: str | None) -> None:
        self.findings.add(rule, self.task.sidecar or self.task.tar, message, member=key)

    def _walk(self, path: Path) -> None:
        """Read the tar from its first byte to its last, beside the sidecar's rows."""
        task = self.task
        self._index_rows()
        check = SampleCheck(
            tar=task.tar,
            own=task.own,
            decode=task.decode,
            guard=self.guard,
            tar_finding=self._tar_finding,
            row_finding=self._row_finding,
            shapes=self.shapes,
        )
        with path.open("rb") as file:
            for sample in self._samples(file, path.stat().st_size):
                self._check(sample, check, file)
        if len(set(self.folded)) != len(set(self.exact)):
            self._tar_finding("key-case", "has keys that differ in case only", None)
        for key, index in self.positions.items():
            if index not in self.matched:
                self._row_finding("sidecar-row-extra", "has a row, but no sample in the tar", key)
        if self.end is not None:
            check_beside(
                self.folder, task.tar, self.members, self.end, task.energon, self._index_finding
            )
        if task.load:
            self._load(path)

    def _index_finding(self, rule: str, file: str, message: str, key: str | None) -> None:
        self.findings.add(rule, file, message, member=key)

    def _set_end(self, position: int) -> None:
        self.end = position

    def _index_rows(self) -> None:
        for index, key in enumerate(self.rows.keys if self.rows else ()):
            if key is None:
                continue
            if key in self.positions:
                self._row_finding("sidecar-row-duplicate", "has more than one row", key)
            self.positions.setdefault(key, index)

    def _samples(self, file: BinaryIO, size: int) -> Iterator[Sample]:
        """Group members by key as WebDataset readers do: only neighbours belong together."""
        names: set[int] = set()
        keys: set[int] = set()
        sample: Sample | None = None
        for member in members(
            file,
            size,
            strict=self.task.own,
            report=self._tar_finding,
            at_end=self._set_end,
        ):
            self.members.append(member)
            key, extension = split_name(member.name)
            if not extension or not key or member.name.startswith("/") or ".." in key.split("/"):
                self._tar_finding(
                    "member-name", "is not a relative path of the form key.extension", member.name
                )
            if not extension:  # readers make it part of no sample
                continue
            name = digest(member.name)
            if name in names:
                self._tar_finding("member-duplicate", "is in the tar a second time", member.name)
            names.add(name)
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = Sample(key)
                exact = digest(key)
                if exact in keys:
                    self._tar_finding(
                        "member-not-adjacent",
                        "other samples lie between the members of its key",
                        member.name,
                    )
                keys.add(exact)
                self.exact.append(exact)
                self.folded.append(digest(key.casefold()))
            sample.members.append(member)
        if sample is not None:
            yield sample

    def _check(self, sample: Sample, check: SampleCheck, file: BinaryIO) -> None:
        self.parts.update({split_name(member.name)[1] for member in sample.members})
        images = check.names(sample)
        row = self._row(sample.key)
        facts: dict[str, ImageHeader] = {}
        # the first sample is always read, so that even the smallest share looks at something
        if not self.checked.images or chosen(sample.key, self.task.share):
            facts, checked = check.contents(sample, images, row, file)
            self.checked += checked
        if row is not None:
            check.compare(sample, images, row, facts)

    def _row(self, key: str) -> Row | None:
        """Return the row of a sample, None if there is none or it cannot be read."""
        if self.rows is None:
            return None
        index = self.positions.get(key)
        if index is None:
            self._row_finding("sidecar-row-missing", "is in the tar, but has no row", key)
            return None
        if index in self.matched:  # a key that came back: the row belongs to its first part
            return None
        if self.task.own and index < self.next_row:
            self._row_finding(
                "sidecar-order", f"its row {index:,} lies before that of an earlier sample", key
            )
        self.next_row = max(self.next_row, index + 1)
        self.matched.add(index)
        return self.rows.row(index)

    # -- the loader ---------------------------------------------------------------------------

    def _load(self, path: Path) -> None:
        """Read the shard with the webdataset library and compare the keys that it finds.

        The library is given an open file, not an address: it runs a shell for some addresses.
        """
        if self.rules & _FATAL:
            self.unchecked.append("loading damaged tars with webdataset")
            return
        try:
            from webdataset import tariterators  # noqa: PLC0415 - optional; nothing else needs it
        except ImportError:
            self.unchecked.append(
                "loading with webdataset, which is not installed (pip install webdataset)"
            )
            return
        loaded = 0
        differs: str | None = None
        try:
            with path.open("rb") as stream:
                files = tariterators.tar_file_expander([{"url": self.task.tar, "stream": stream}])
                for sample in tariterators.group_by_keys(files):
                    key = str(sample["__key__"])
                    if differs is None and self.exact[loaded : loaded + 1] != [digest(key)]:
                        differs = key
                    loaded += 1
        except Exception as error:  # noqa: BLE001 - whatever the library raises is the finding
            reason = str(error.args[0]) if error.args else ""
            self._tar_finding(
                "load-failed", f"webdataset raises {type(error).__name__}: {reason}", None
            )
            return
        self.checked += Checked(loaded=loaded)
        if loaded != len(self.exact) or differs is not None:
            self._tar_finding(
                "load-differs",
                f"webdataset finds {loaded:,} samples, {len(self.exact):,} are in the tar",
                differs,
            )
