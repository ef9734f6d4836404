"""What index files and other formats cost beside the tars, and how fast the tars are read.

    python benchmarks/formats.py --photos PHOTOS

Each case runs in a fresh process on one core, and the whole round is repeated; medians are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import corpus
import measure
import warm_memory
from rich.console import Console
from rich.table import Table

from pixsieve.errors import MissingExtraError
from pixsieve.export.formats import FORMATS
from pixsieve.export.indexes import DEFAULT, INDEXES

_HERE = Path(__file__).parent
_PER_TAR = "1000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure to reach: ``value`` must be at most, or at least, ``limit``."""

    name: str
    value: float
    limit: float
    at_most: bool

    @property
    def reached(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit


Reports = dict[str, list[dict[str, float]]]


def main() -> None:
    """Make the input, measure, print."""
    options = _options()
    console = Console() if sys.stdout.isatty() else Console(width=100)
    progress = Console(stderr=True)
    source = corpus.make(
        options.dir, corpus.photographs(options.photos), options.count, loose=False
    )
    reports: Reports = {}
    with warm_memory.kept():
        for repetition in range(options.reps):
            progress.print(f"round {repetition + 1} of {options.reps}", highlight=False)
            _round(source, options.dir, reports)
    medians = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for name, found in reports.items()
    }
    console.print(_costs(medians))
    resize = _resize(options)
    console.print(_targets_table(_targets(medians, resize)))
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1) + "\n")


def _options() -> argparse.Namespace:
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--photos", type=Path, default=env("PIXSIEVE_PHOTOS") or None, metavar="DIR",
        help="folder of JPEG photographs to make the input from (default: $PIXSIEVE_PHOTOS, else "
        "those that scikit-image and scikit-learn ship)",
    )  # fmt: skip
    parser.add_argument(
        "--dir", type=Path, default=env("PIXSIEVE_BENCH_DIR") or "build/bench",
        help="where input and output lie; about 8 GB (default: $PIXSIEVE_BENCH_DIR, else "
        "build/bench)",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=10_000, help="images (default: 10000)")
    parser.add_argument("--reps", type=int, default=3, help="repetitions (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    return options


def _round(source: corpus.Corpus, folder: Path, reports: Reports) -> None:
    """Run every case once."""
    target = folder / "out"

    def case(name: str, script: str, *arguments: str, keep: bool = False) -> None:
        os.sync()
        usage = measure.run([sys.executable, str(_HERE / script), *arguments])
        reports.setdefault(name, []).append({"whole_cpu": usage.cpu} | usage.report)
        if not keep:
            shutil.rmtree(target, ignore_errors=True)

    def export(name: str, indexes: str, formats: str | None = None, *, keep: bool = False) -> None:
        more = [] if formats is None else [formats]
        case(
            name, "run_pixsieve.py", str(source.tars), str(target), _PER_TAR, "header", "1",
            indexes, *more, keep=keep,
        )  # fmt: skip

    shutil.rmtree(target, ignore_errors=True)
    for name in INDEXES:
        beside = "energon," if name == "energon_sqlite" else ""
        export(f"index {beside}{name}", f"{beside}{name}")
    for name in _installed():
        export(f"format {name}", "", name)
    export("no index", "")
    export("all indexes", ",".join(DEFAULT), keep=True)
    theirs = folder / "shard_writer"
    shutil.rmtree(theirs, ignore_errors=True)
    case("ShardWriter", "run_shard_writer.py", str(source.tars), str(theirs), _PER_TAR, keep=True)
    for _ in range(3):  # in turn, as the difference is small
        case("read ours", "run_read.py", str(target), keep=True)
        case("read ShardWriter's", "run_read.py", str(theirs), keep=True)
    shutil.rmtree(theirs)
    shutil.rmtree(target)


def _installed() -> list[str]:
    """Return the formats whose libraries are there."""
    found = []
    for name, each in FORMATS.items():
        try:
            each.check()
        except MissingExtraError:
            continue
        found.append(name)
    return found


def _export_cpu(figures: dict[str, float]) -> float:
    """CPU seconds of writing the tars with their sidecars, and of reading them back."""
    return figures["export_cpu"] + figures["seal_cpu"]


def _costs(medians: dict[str, dict[str, float]]) -> Table:
    """One row for each index and each format."""
    table = Table(title="What is written beside the tars (medians)", title_justify="left")
    table.add_column("what")
    for heading in ("CPU s", "of export and seal"):
        table.add_column(heading, justify="right")
    for name, figures in medians.items():
        step = "formats_cpu" if name.startswith("format ") else "index files_cpu"
        if step in figures:
            table.add_row(
                name, f"{figures[step]:.2f}", f"{figures[step] / _export_cpu(figures):.1%}"
            )
    return table


def _resize(options: argparse.Namespace) -> float:
    """Return how many times img2dataset's throughput resizing has, over all photographs."""
    told = options.dir / "resize.json"
    command = [sys.executable, str(_HERE / "resize.py"), "--dir", str(options.dir)]
    command += ["--reps", str(options.reps), "--json", str(told)]
    command += ["--photos", str(options.photos)] if options.photos else []
    subprocess.run(command, check=False)  # its exit code says what is said here
    return float(json.loads(told.read_bytes())["photos all"]["ratio"])


def _targets(medians: dict[str, dict[str, float]], resize: float) -> list[Target]:
    full = medians["all indexes"]
    return [
        Target(
            name="all index files / export and seal: CPU",
            value=full["index files_cpu"] / _export_cpu(full),
            limit=0.05,
            at_most=True,
        ),
        Target(
            name="reading with webdataset, ShardWriter's tars / ours: CPU",
            value=medians["read ShardWriter's"]["cpu"] / medians["read ours"]["cpu"],
            limit=1.0,
            at_most=False,
        ),
        Target(
            name="resize and JPEG, ours / img2dataset: images a CPU second",
            value=resize,
            limit=1.0,
            at_most=False,
        ),
    ]


def _targets_table(targets: list[Target]) -> Table:
    table = Table(title="Targets", title_justify="left")
    table.add_column("what")
    for heading in ("measured", "asked", ""):
        table.add_column(heading, justify="right")
    for one in targets:
        sign = "≤" if one.at_most else "≥"
        table.add_row(
            one.name, f"{one.value:.3f}", f"{sign} {one.limit:g}",
            "reached" if one.reached else "MISSED",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
