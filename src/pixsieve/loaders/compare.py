"""Comparing what loaders give with what a dataset holds, sample by sample."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from pixsieve.errors import MissingExtraError, UsageError
from pixsieve.loaders import LOADERS, loader_of
from pixsieve.loaders.base import How
from pixsieve.loaders.child import Task
from pixsieve.loaders.expected import Expected, digest, image_digest
from pixsieve.loaders.processes import LoaderFailedError, running, stoppable
from pixsieve.verify.findings import LIMIT_PER_FILE, Findings, Loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pixsieve.loaders.base import Folder, Loader
    from pixsieve.loaders.expected import Row
    from pixsieve.verify.findings import VerifyReport

ALL = "all"
_SHORT = 80
_FIELDS = ("bytes", "size", "caption")


def chosen(names: Sequence[str], pythons: Mapping[str, str]) -> tuple[list[Loader], list[str]]:
    """Return the loaders of some names, and why others are left out of ``all``.

    Args:
        names: Of loaders, or ``all`` for each that is installed.
        pythons: Other interpreters for some of them; what these have is not looked at here.

    Raises:
        UsageError: If there is no loader of a name, or an interpreter for one that is not named.
        MissingExtraError: If one that is named is not installed.
    """
    found: dict[str, Loader] = {}
    left_out = []
    for name in pythons:
        if loader_of(name).name not in names and ALL not in names:
            msg = f"an interpreter is named for {name}, which is none of the loaders to run"
            raise UsageError(msg)
    for name in names:
        for loader in LOADERS.values() if name == ALL else [loader_of(name)]:
            if loader.name in pythons or loader.installed():
                found[loader.name] = loader
            elif name != ALL:
                msg = f"the loader {loader.name} is not installed; {loader.install}"
                raise MissingExtraError(msg)
            else:
                left_out.append(f"{loader.name}: it is not installed ({loader.install})")
    return list(found.values()), left_out


def compare(
    path: str | Path,
    report: VerifyReport,
    names: Sequence[str],
    *,
    decode: bool = True,
    pythons: Mapping[str, str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> VerifyReport:
    """Read a whole dataset with each of some loaders, and add what differs to a report.

    Each runs in a process of its own and reads every sample. What it gives is compared with the
    sidecars; where there are none of pixsieve's, with the tars as pixsieve reads them.

    Args:
        path: The dataset's folder.
        report: What was found so far.
        names: Of loaders; ``all`` for each that is installed and finds what it needs.
        decode: Whether they decode the images, too, so that sizes can be compared.
        pythons: The interpreter for some loaders, if it is another one.
        progress: Called after each loader with (loaders done, loaders to do, its name).

    Raises:
        UsageError: If there is no such loader, or ``path`` is no folder.
        MissingExtraError: If a loader that is named is not installed.
        SourceError: If there is no tar in it.
    """
    loaders, notes = chosen(names, pythons or {})
    expected = Expected(path)
    findings = Findings(own=report.kind == "pixsieve")
    results = []
    for number, loader in enumerate(loaders, 1):
        need = loader.missing(expected.folder)
        if need is not None and ALL in names and loader.name not in names:
            if loader.reads != "format":  # one that nobody asked for
                notes.append(f"{loader.name}: it needs {need}, which is not there")
        else:
            python = (pythons or {}).get(loader.name)
            with stoppable():
                results.append(
                    _Reading(loader, expected, findings).run(need, python, decode=decode)
                )
        if progress is not None:
            progress(number, len(loaders), loader.name)
    notes = [f"loading with {note}" for note in notes]
    if results and not expected.folder.sidecars:
        notes.append(
            "loaders against sidecars: there are none of pixsieve's, so they were compared with "
            "the tars as pixsieve reads them"
        )
    found = sorted((*report.findings, *findings.result()), key=_order)
    return dataclasses.replace(
        report,
        findings=tuple(found),
        unchecked=(*report.unchecked, *notes),
        loaders=(*report.loaders, *results),
    )


def check(loader: Loader, folder: Folder) -> None:
    """Raise ``LoaderFailedError`` if a file is not there that a loader needs."""
    need = loader.missing(folder)
    if need is not None:
        msg = f"it needs {need}, which is not there"
        raise LoaderFailedError(msg)


def _order(finding: Any) -> tuple[bool, str]:
    return finding.severity != "error", finding.file


class _Reading:
    """One loader's reading of a dataset."""

    def __init__(self, loader: Loader, expected: Expected, findings: Findings) -> None:
        self.loader = loader
        self.expected = expected
        self.findings = findings
        self.version = "unknown"
        self.compared: set[str] = set()

    def run(self, need: str | None, python: str | None, *, decode: bool) -> Loaded:
        """Read the dataset; the result says how far it came."""
        loader = self.loader
        expected, samples = self.expected, 0
        try:
            check(loader, expected.folder)
            can_decode = decode and "decode" in loader.can
            samples = self._read(python, decode=can_decode)
        except LoaderFailedError as error:
            file = need or loader.through or expected.shards[0].tar
            self.findings.add("load-failed", file, f"{loader.name}: {error}")
        return Loaded(
            loader=loader.name,
            version=self.version,
            samples=samples,
            compared=("key", *(name for name in _FIELDS if name in self.compared)),
        )

    def _read(self, python: str | None, *, decode: bool) -> int:
        """Read all samples, and where decoding loses the bytes twice; return how many they were."""
        loader, count = self.loader, 0
        task = Task(
            loader=loader.name,
            folder=self.expected.folder,
            how=How(workers=loader.workers, decode=decode and loader.keeps),
            again_decoded=decode and not loader.keeps,
        )
        self._begin()
        with running(task, python) as messages:
            for kind, value in messages:
                if kind == "version":
                    self.version = value
                elif kind == "sample":
                    self._take(*value)
                elif kind == "again":
                    self._end()
                    self._begin()
                elif kind == "done":
                    count = value
        self._end()
        return count

    def _begin(self) -> None:
        self.seen = np.zeros(len(self.expected.keys), np.bool_)
        self.last = -1
        self.in_order = True

    def _end(self) -> None:
        for number in np.flatnonzero(~self.seen).tolist():
            self._differs(number, lambda _: "is not given")

    def _take(
        self, key: str, sha256: str | None, size: list[int] | None, caption: str | None
    ) -> None:
        """Compare one sample."""
        numbers = self.expected.find(key).tolist()
        number = next((each for each in numbers if not self.seen[each]), None)
        if number is None:
            file = self.loader.through or self.expected.shards[0].tar
            told = "is given more than once" if numbers else "is given, but it is not there"
            self.findings.add("load-differs", file, f"{self.loader.name}: {told}", member=key)
            return
        self.seen[number] = True
        if self.loader.ordered and self.in_order and number < self.last:
            self.in_order = False  # once is enough
            last = self.expected.row(self.last).key
            self._differs(number, lambda _: f"comes after {last}, not before it")
        self.last = number
        self._compare(number, sha256, size, caption)

    def _compare(
        self, number: int, sha256: str | None, size: list[int] | None, caption: str | None
    ) -> None:
        expected = self.expected
        if sha256 is not None or size is None:  # else it has decoded and gives no bytes
            self.compared.add("bytes")
            if image_digest(sha256) != expected.images[number]:
                self._differs(
                    number, lambda row: f"the image's SHA-256 is {sha256}, expected {row.sha256}"
                )
        if size is not None and expected.sizes[number].any():
            self.compared.add("size")
            width, height = expected.sizes[number].tolist()
            if self.loader.reads == "tars" and not self.loader.turns and expected.turned[number]:
                width, height = height, width
            if size != [width, height]:
                told = f"the image is {size[0]} x {size[1]}, expected {width} x {height}"
                self._differs(number, lambda _: told)
        rows = self.loader.reads != "tars"
        if rows or expected.is_text[number]:
            self.compared.add("caption")
            if digest(caption) != (expected.captions if rows else expected.texts)[number]:
                self._differs(
                    number,
                    lambda row: (
                        f"the caption is {_short(caption)}, expected "
                        f"{_short(row.caption if rows else row.text)}"
                    ),
                )

    def _differs(self, number: int, message: Callable[[Row], str]) -> None:
        """Note that a sample differs; what it should be is read only where that is told."""
        shard = self.expected.shard(number)
        file = {"tars": shard.tar, "sidecars": shard.sidecar, "format": self.loader.through}[
            self.loader.reads
        ]
        file = file or shard.tar
        if self.findings.seen["load-differs", file] >= LIMIT_PER_FILE:
            self.findings.add("load-differs", file, "")  # it is counted
            return
        row = self.expected.row(number)
        told = f"{self.loader.name}: {message(row)}"
        self.findings.add("load-differs", file, told, member=row.key)


def _short(text: str | None) -> str:
    shown = repr(text)
    return shown if len(shown) <= _SHORT else f"{shown[: _SHORT - 3]}..."
