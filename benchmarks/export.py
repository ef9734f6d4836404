"""Compares pixsieve's export with plain copies and with other writers, side by side in one run.

    python benchmarks/export.py --photos PHOTOS

Each case runs in a fresh process, one after the other, and the whole round is repeated; medians are
shown. Before each case, what was written is synced and the input is read into the page cache. CPU
seconds are the steadier figure; wall times of a machine that has other work mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import cases
import corpus
import measure
import warm_memory
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_GROWTH = 10  # how many times more images the memory is compared at
_FLAT = 1.1  # growth of memory that counts as none
_GROWING = "header_2"  # the case that does it: memory does not depend on decoding
_PACKAGES = ("numpy", "pillow", "pyarrow", "duckdb", "simplejpeg", "webdataset")
_MB = 1_000_000
_WIDTH = 120  # of the tables where no terminal has one


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Medians over the repetitions of one case.

    Attributes:
        cpu, wall: Seconds of the work, without Python's start where the case could tell.
        whole_cpu, whole_wall: Seconds of the whole process and its children.
        peak, peak_child: Peak resident bytes of the process, and of the largest that it started.
        steps: ``<step>_cpu`` and ``<step>_wall`` of pixsieve's steps.
    """

    cpu: float
    wall: float
    whole_cpu: float
    whole_wall: float
    peak: float
    peak_child: float
    steps: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure to reach: ``value`` must be at most, or at least, ``limit``."""

    name: str
    value: float
    limit: float
    at_most: bool
    note: str = ""

    @property
    def reached(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def main() -> None:
    """Make the input, measure, print."""
    options = _options()
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    progress = Console(stderr=True)
    photos = corpus.photographs(options.photos)
    source = corpus.make(options.dir, photos, options.count, loose=True)
    chosen = _chosen(options.cases)
    with warm_memory.kept():
        runs = _measure(chosen, source, options.dir / "out", options.reps, progress)
    figures = {name: _figures(usages) for name, usages in runs.items()}
    targets = list(_targets(figures, source))
    if options.growth:
        large = corpus.make(options.dir, photos, options.count * _GROWTH, loose=False)
        usages = _measure(_chosen([_GROWING]), large, options.dir / "out", 1, progress)
        runs["growth"] = usages[_GROWING]
        targets += _growth_targets(figures[_GROWING], _figures(runs["growth"]))
    console.print(_machine_line(source))
    for table in (
        _cases_table(chosen, figures, source),
        _steps_table(chosen, figures),
        _targets_table(targets),
    ):
        if table.rows:
            console.print(table)
    if options.json:
        record = {
            "machine": _machine(),
            "input": {"images": source.count, "bytes": source.size, "photographs": len(photos)},
            "runs": {name: [asdict(usage) for usage in usages] for name, usages in runs.items()},
            "medians": {name: asdict(one) for name, one in figures.items()},
            "targets": [asdict(one) | {"reached": one.reached} for one in targets],
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def _options() -> argparse.Namespace:
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--photos",
        type=Path,
        default=env("PIXSIEVE_PHOTOS") or None,
        metavar="DIR",
        help="folder of JPEG photographs to make the input from (default: $PIXSIEVE_PHOTOS,"
        " else those that scikit-image and scikit-learn ship)",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=env("PIXSIEVE_BENCH_DIR") or "build/bench",
        help="where input and output lie; about 4 GB, 30 GB with --growth"
        " (default: $PIXSIEVE_BENCH_DIR, else build/bench)",
    )
    parser.add_argument("--count", type=int, default=10_000, help="images (default: 10000)")
    parser.add_argument("--reps", type=int, default=3, help="repetitions (default: 3)")
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="CASE",
        choices=[case.name for case in cases.CASES],
        help="only these; a target that needs another one is left out",
    )
    parser.add_argument(
        "--growth", action="store_true", help=f"also compare the memory at {_GROWTH} times --count"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure")
    options = parser.parse_args()
    if options.growth and _GROWING not in (options.cases or [_GROWING]):
        parser.error(f"--growth compares the case {_GROWING}; name it in --cases as well")
    options.dir.mkdir(parents=True, exist_ok=True)
    return options


def _chosen(names: list[str] | None) -> list[cases.Case]:
    return [case for case in cases.CASES if names is None or case.name in names]


def _measure(
    chosen: list[cases.Case], source: corpus.Corpus, target: Path, reps: int, progress: Console
) -> dict[str, list[measure.Usage]]:
    """Run every case ``reps`` times, round by round, lest a busy spell hit one case alone."""
    runs: dict[str, list[measure.Usage]] = {case.name: [] for case in chosen}
    for repetition in range(reps):
        for case in chosen:
            usage = _measure_once(case, source, target)
            runs[case.name].append(usage)
            progress.print(
                f"{repetition + 1}/{reps} {case.title}: {usage.cpu:.2f} s CPU, "
                f"{usage.wall:.2f} s, load {os.getloadavg()[0]:.1f}",
                highlight=False,
            )
    return runs


def _measure_once(case: cases.Case, source: corpus.Corpus, target: Path) -> measure.Usage:
    _warm(source.loose if case.loose else source.tars)
    os.sync()
    try:
        return measure.run(case.command(source, target))
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _warm(folder: Path) -> None:
    buffer = bytearray(_MB)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def _figures(usages: list[measure.Usage]) -> Figures:
    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    steps = {
        name: median(usage.report[name] for usage in usages)
        for name in usages[0].report
        if name not in ("cpu", "wall")
    }
    return Figures(
        cpu=median(usage.report.get("cpu", usage.cpu) for usage in usages),
        wall=median(usage.report.get("wall", usage.wall) for usage in usages),
        whole_cpu=median(usage.cpu for usage in usages),
        whole_wall=median(usage.wall for usage in usages),
        peak=median(float(usage.peaks[0]) for usage in usages),
        peak_child=median(float(max(usage.peaks[1:], default=0)) for usage in usages),
        steps=steps,
    )


def _targets(figures: Mapping[str, Figures], source: corpus.Corpus) -> Iterator[Target]:
    """Compare with the targets; those whose cases did not run are left out."""

    def have(*names: str) -> bool:
        return all(name in figures for name in names)

    def cpu(name: str, *steps: str) -> float:
        return sum(figures[name].steps[f"{step}_cpu"] for step in steps)

    if have("header_1"):
        members = source.count * corpus.MEMBERS_PER_SAMPLE
        yield Target(
            name="index of 30,000 members: CPU s",
            value=cpu("header_1", "index") * 30_000 / members,
            limit=0.5,
            at_most=True,
        )
    if have("cp", "header_1"):
        yield Target(
            name="export step / cp -r: CPU",
            value=cpu("header_1", "export") / figures["cp"].cpu,
            limit=2.0,
            at_most=True,
        )
    if have("cp_sync", "header_1"):
        yield Target(
            name="durable export step / (cp -r, fsync): wall",
            value=figures["header_1"].steps["export_wall"] / figures["cp_sync"].wall,
            limit=1.3,
            at_most=True,
        )
    if have("shard_writer", "header_1"):
        yield Target(
            name="ShardWriter / export step: CPU",
            value=figures["shard_writer"].cpu / cpu("header_1", "export"),
            limit=5.0,
            at_most=False,
        )
    for check, limit in (("header", 15.0), ("full", 2.3)):
        run = f"{check}_1"
        if have("reencode", run):
            whole = figures["reencode"].cpu / figures[run].cpu
            yield Target(
                name=f"decode, encode, tarfile / index, {check} check, sha256, export: CPU",
                value=figures["reencode"].cpu / cpu(run, "index", "inspect", "export"),
                limit=limit,
                at_most=False,
                note=f"{whole:.1f} with select, seal and all else",
            )
    for check in ("header", "full"):
        one, two = f"{check}_1", f"{check}_2"
        if have(one, two):
            yield Target(
                name=f"1 worker / 2 workers, {check} check: wall",
                value=figures[one].wall / figures[two].wall,
                limit=1.7,
                at_most=False,
                note=_allowed(figures),
            )
    for name in ("header_1", "header_2", "full_1", "full_2"):
        if have(name):
            one_run = figures[name]
            yield Target(
                name=f"largest process, {name.replace('_', ' check, workers: ')}: MB",
                value=max(one_run.peak, one_run.peak_child) / _MB,
                limit=250,
                at_most=True,
                note=f"main {one_run.peak / _MB:.0f}, workers {one_run.peak_child / _MB:.0f}",
            )


def _allowed(figures: Mapping[str, Figures]) -> str:
    """Say how much two processes that share nothing gain on this machine and disk."""
    gains = []
    for what, one, two in (
        ("the disk allowed", "cp_sync", "cp_sync_2"),
        ("the cores", "decode_1", "decode_2"),
    ):
        if one in figures and two in figures:
            gains.append(f"{what} {figures[one].wall / figures[two].wall:.2f}")
    return ", ".join(gains)


def _growth_targets(small: Figures, large: Figures) -> Iterator[Target]:
    for what, before, after in (
        ("worker", small.peak_child, large.peak_child),
        ("main process", small.peak, large.peak),
    ):
        yield Target(
            name=f"memory of the {what} at {_GROWTH} times the images: times",
            value=after / before,
            limit=_FLAT,
            at_most=True,
            note=f"from {before / _MB:.0f} to {after / _MB:.0f} MB",
        )


def _cases_table(
    chosen: list[cases.Case], figures: Mapping[str, Figures], source: corpus.Corpus
) -> Table:
    """One row for each case; ratios are to ``cp -r`` of the same run, by CPU."""
    table = Table(title="Cases (medians)", title_justify="left")
    table.add_column("case")
    for heading in ("CPU s", "x cp", "wall s", "images/s", "MB/s", "whole CPU s", "peak MB"):
        table.add_column(heading, justify="right")
    copy = figures.get("cp")
    for case in chosen:
        one = figures[case.name]
        images, size = source.count, source.size
        table.add_row(
            case.title,
            "" if case.partial else f"{one.cpu:.2f}",
            f"{one.cpu / copy.cpu:.1f}" if copy and not case.partial else "",
            f"{one.wall:.2f}",
            "" if case.partial else f"{images / one.wall:,.0f}",
            "" if case.partial else f"{size / one.wall / _MB:,.0f}",
            f"{one.whole_cpu:.2f}",
            f"{max(one.peak, one.peak_child) / _MB:.0f}",
        )
    return table


def _steps_table(chosen: list[cases.Case], figures: Mapping[str, Figures]) -> Table:
    """CPU and wall seconds of each step of pixsieve's runs."""
    table = Table(title="Steps of pixsieve: CPU s / wall s (medians)", title_justify="left")
    table.add_column("case")
    for case in chosen:
        steps = figures[case.name].steps
        names = [name.removesuffix("_cpu") for name in steps if name.endswith("_cpu")]
        if names and len(table.columns) == 1:
            for name in names:
                table.add_column(name, justify="right")
        if names:
            pairs = (f"{steps[f'{name}_cpu']:.2f} / {steps[f'{name}_wall']:.2f}" for name in names)
            table.add_row(case.title, *pairs)
    return table


def _targets_table(targets: list[Target]) -> Table:
    table = Table(title="Targets", title_justify="left")
    for heading in ("what", "measured", "target", "", ""):
        table.add_column(heading, justify="left" if heading in ("what", "") else "right")
    for one in targets:
        digits = 0 if one.limit >= 100 else 2
        table.add_row(
            one.name,
            f"{one.value:.{digits}f}",
            f"{'<=' if one.at_most else '>='} {one.limit:g}",
            "reached" if one.reached else "MISSED",
            one.note,
        )
    return table


def _machine() -> dict[str, object]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }


def _machine_line(source: corpus.Corpus) -> str:
    machine = _machine()
    size = f"{source.size / _MB:,.0f} MB"
    return (
        f"{source.count:,} images, {size} in tars of {corpus.SAMPLES_PER_TAR}\n"
        f"{machine['cores']} x {machine['cpu']}, Linux {machine['kernel']}, "
        f"Python {machine['python']}"
    )


if __name__ == "__main__":
    main()
