"""How fast each loader reads a dataset: one after the other, each in a process of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixsieve.loaders.base import How, Loader
from pixsieve.loaders.child import Task
from pixsieve.loaders.compare import ALL, check, chosen
from pixsieve.loaders.expected import Expected
from pixsieve.loaders.processes import LoaderFailedError, running, stoppable
from pixsieve.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SEQUENTIAL, SHUFFLED, WORKERS = "sequential", "shuffled", "workers"
MODES = (SEQUENTIAL, SHUFFLED, WORKERS)
SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one loader did in one mode.

    Attributes:
        loader: Its name.
        version: Of its library.
        mode: ``sequential``, ``shuffled`` or ``workers``.
        images: How many it gave.
        seconds: In what time. The first pass warms up: if it ends in the time that is given, the
            whole passes after it count, else what comes after its first image.
        rate: Images per second.
        bytes_per_second: Of encoded images; 0 where it decodes and gives no bytes.
        opened: Seconds before that, in which the library was loaded and the dataset opened.
        first: Seconds from the start of the first pass to the first image.
        passes: Whole passes in that time.
        error: Why it failed, ``None`` if it did not; the figures are 0 if it did.
    """

    loader: str
    version: str
    mode: str
    images: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    bytes_per_second: float = 0.0
    opened: float = 0.0
    first: float = 0.0
    passes: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """What all loaders did.

    Attributes:
        path: The dataset, as it was named.
        images: How many it has.
        shards: In how many tars.
        bytes: Of the tars.
        workers: In the mode of that name.
        decode: Whether images were decoded.
        results: By loader, in the order of the modes.
        notes: What was left out, and what to know of a loader's figures.
    """

    path: str
    images: int
    shards: int
    bytes: int
    workers: int
    decode: bool
    results: tuple[Measured, ...]
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Return a table with a line for each loader."""
        name, size = printable(self.path), f"{self.bytes / 1e6:,.1f} MB"
        what = "decoded images" if self.decode else "images"
        lines = [
            f"{name}: {self.images:,} images in {self.shards:,} shards, {size}; {what} per second",
            "",
        ]
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        head = ("loader", SEQUENTIAL, SHUFFLED, workers, "opened in")
        names = list(dict.fromkeys(each.loader for each in self.results))
        rows = [head, *(self._row(name) for name in names)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join(cells))
        failed = [each for each in self.results if each.error is not None]
        notes = [f"{each.loader}, {each.mode}: failed: {each.error}" for each in failed]
        if notes or self.notes:
            lines += ["", *(printable(note) for note in (*notes, *self.notes))]
        return "\n".join(lines) + "\n"

    def _row(self, name: str) -> tuple[str, ...]:
        found = {each.mode: each for each in self.results if each.loader == name}
        cells = [_cell(found.get(mode)) for mode in MODES]
        opened = next((each.opened for each in found.values() if each.error is None), None)
        return (name, *cells, "" if opened is None else f"{opened:.1f} s")

    def to_json(self) -> str:
        """Return the report as one JSON object; ``docs/loaders.md`` lists its fields."""
        return json.dumps(asdict(self), ensure_ascii=False)


def _cell(found: Measured | None) -> str:
    if found is None:
        return "-"
    return "failed" if found.error is not None else f"{found.rate:,.0f}"


def bench(
    path: str | Path,
    names: Sequence[str],
    *,
    workers: int,
    seconds: float = SECONDS,
    decode: bool = False,
    pythons: Mapping[str, str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> BenchReport:
    """Measure how fast loaders read a dataset.

    Each reads it again and again for some seconds: in its order, in a mixed order by its own means,
    and with worker processes or threads; what a loader does not have is left out. A first pass
    warms up, but what a loader does at the start of each pass counts.

    Args:
        path: The dataset's folder.
        names: Of loaders; ``all`` for each that is installed and finds what it needs.
        workers: How many, in the mode that uses some.
        seconds: How long each loader reads in each mode.
        decode: Whether images are decoded, by each loader's own decoder; loaders that do not decode
            are left out then.
        pythons: The interpreter for some loaders, if it is another one.
        progress: Called after each measurement with (done, to do, loader and mode).

    Raises:
        UsageError: If there is no such loader, or ``path`` is no folder.
        MissingExtraError: If a loader that is named is not installed.
        SourceError: If there is no tar in it.
    """
    loaders, notes = chosen(names, pythons or {})
    expected = Expected(path)
    todo: list[tuple[Loader, str, How]] = []
    for loader in loaders:
        need = loader.missing(expected.folder)
        if need is not None and ALL in names and loader.name not in names:
            if loader.reads != "format":  # one that nobody asked for
                notes.append(f"{loader.name}: it needs {need}, which is not there")
            continue
        if decode and "decode" not in loader.can:
            notes.append(f"{loader.name}: it does not decode images")
            continue
        todo.append((loader, SEQUENTIAL, How(decode=decode)))
        if "shuffle" in loader.can:
            todo.append((loader, SHUFFLED, How(decode=decode, shuffle=True)))
        if "workers" in loader.can:
            todo.append((loader, WORKERS, How(decode=decode, workers=workers)))
        if loader.note:
            notes.append(loader.note)
    results = []
    for number, (loader, mode, how) in enumerate(todo, 1):
        task = Task(loader=loader.name, folder=expected.folder, how=how, seconds=seconds)
        with stoppable():
            results.append(_measure(task, mode, loader, (pythons or {}).get(loader.name)))
        if progress is not None:
            progress(number, len(todo), f"{loader.name}, {mode}")
    return BenchReport(
        path=str(path),
        images=expected.folder.samples,
        shards=len(expected.shards),
        bytes=sum(_size(Path(name)) for name in expected.folder.paths(expected.folder.tars)),
        workers=workers,
        decode=decode,
        results=tuple(results),
        notes=tuple(notes),
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _measure(task: Task, mode: str, loader: Loader, python: str | None) -> Measured:
    version = "unknown"
    try:
        check(loader, task.folder)
        with running(task, python) as messages:
            for kind, value in messages:
                if kind == "version":
                    version = value
                elif kind == "done":
                    return Measured(
                        loader=loader.name,
                        version=version,
                        mode=mode,
                        images=value["images"],
                        seconds=value["seconds"],
                        rate=value["images"] / value["seconds"],
                        bytes_per_second=value["bytes"] / value["seconds"],
                        opened=value["opened"],
                        first=value["first"],
                        passes=value["passes"],
                    )
    except LoaderFailedError as error:
        return Measured(loader=loader.name, version=version, mode=mode, error=str(error))
    raise AssertionError  # messages end with ``done`` or an error
