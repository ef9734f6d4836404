"""Compares pixsieve's selection with polars, faiss and imagededup, in one run.

    python benchmarks/selection.py

Every case runs in a fresh process on one thread, over the same made input; the whole round is
repeated, medians are shown. faiss and imagededup run in an environment of their own, made once with
pip in the benchmark's folder, or given as ``--peers``. If it cannot be made, their rows say so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import environment
import measure
import numpy as np
import selection_data
from rich.console import Console
from rich.table import Table

_PEERS = ("faiss-cpu>=1.10", "imagededup==0.3.3.post2", "numpy==1.26.4")
_TABLE, _HASHES, _VECTORS = 10_000_000, 1_000_000, 1_000_000
_FLAT, _SMALL = 100_000, 10_000
_PICTURES = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One program over one input."""

    name: str
    rows: int
    command: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Medians of a case: CPU and wall seconds, peak bytes, and the share of planted pairs found."""

    cpu: float
    wall: float
    peak: float
    recall: float | None


def main() -> None:
    """Measure and print."""
    options = _options()
    console = Console(width=120)
    cases = _cases(options.dir, options.peers or environment.made(options.dir / "peers", _PEERS))
    rounds: list[dict[str, measure.Usage]] = []
    for _ in range(options.reps):
        rounds.append({})
        for key, case in cases.items():
            if case.command is not None and key in (options.only or cases):
                rounds[-1][key] = measure.run(case.command)
    found = {key: _median([each[key] for each in rounds]) for key in rounds[0]}
    console.print(_table(cases, found))
    console.print(_targets(found))


def _cases(folder: Path, peers: str | None) -> dict[str, Case]:
    here = Path(__file__).parent
    ours = (sys.executable, str(here / "run_selection.py"), str(folder))

    def own(name: str, case: str, rows: int) -> Case:
        return Case(name=name, rows=rows, command=(*ours, case, str(rows)))

    def other(name: str, case: str, rows: int) -> Case:
        if peers is None:
            return Case(name=name, rows=rows, command=None)
        vectors = case == "faiss_clusters"
        files = _vectors(folder, rows) if vectors else _hashes(folder, rows)
        script = str(here / "run_selection_peers.py")
        return Case(name=name, rows=rows, command=(peers, script, *map(str, files), case))

    return {
        "table": own("pixsieve: filter, shuffle, shards", "table", _TABLE),
        "polars": own("polars streaming: the bare minimum of it", "polars", _TABLE),
        "hashes": own("pixsieve: pairs of 64-bit hashes", "hashes", _HASHES),
        "hashes_10": own("the same, ten times the hashes", "hashes", 10 * _HASHES),
        "hashes_flat": own("pixsieve: pairs of 64-bit hashes", "hashes", _FLAT),
        "faiss_flat": other("faiss, brute force", "faiss_flat", _FLAT),
        "hashes_small": own("pixsieve: pairs of 64-bit hashes", "hashes", _SMALL),
        "imagededup": other("imagededup, brute force", "imagededup", _SMALL),
        "semantic": own("pixsieve: semantic deduplication", "semantic", _VECTORS),
        "faiss_clusters": other("faiss k-means, pairs within clusters", "faiss_clusters", _VECTORS),
        "confirmed": own("pixsieve: the same, confirmed by pictures", "confirmed", _PICTURES),
    }


def _hashes(folder: Path, rows: int) -> tuple[Path, Path]:
    files = folder / f"hashes-{rows}.npy", folder / f"originals-{rows}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    for path, values in zip(files, selection_data.hashes(rows), strict=True):
        np.save(path, values)
    return files


def _vectors(folder: Path, rows: int) -> tuple[Path, Path]:
    listing, originals = selection_data.vectors(folder / f"vectors-{rows}", rows)
    path = folder / f"vector-originals-{rows}.npy"
    np.save(path, originals)
    return listing.with_name("vectors.npy"), path


def _median(usages: list[measure.Usage]) -> Figures:
    reports = [usage.report for usage in usages]
    return Figures(
        cpu=statistics.median(report["cpu"] for report in reports),
        wall=statistics.median(report["wall"] for report in reports),
        peak=statistics.median(usage.peaks[0] for usage in usages),
        recall=reports[0].get("recall"),
    )


def _table(cases: dict[str, Case], found: dict[str, Figures]) -> Table:
    table = Table("case", "rows", "CPU s", "wall s", "peak MB", "planted pairs found")
    for key, case in cases.items():
        if key in found:
            each = found[key]
            recall = "" if each.recall is None else f"{each.recall:.4f}"
            figures = (f"{each.cpu:.2f}", f"{each.wall:.2f}", f"{each.peak / 1e6:,.0f}", recall)
            table.add_row(case.name, f"{case.rows:,}", *figures)
        elif case.command is None:
            table.add_row(case.name, f"{case.rows:,}", "no environment", "", "", "")
    return table


def _targets(found: dict[str, Figures]) -> Table:
    table = Table("what", "measured", "target", "", title="Targets")

    def add(name: str, value: float, limit: float, *, at_most: bool = True) -> None:
        reached = value <= limit if at_most else value >= limit
        sign = "<=" if at_most else ">="
        told = f"{value:.3g}" if at_most else f"{value:.4f}"
        table.add_row(name, told, f"{sign} {limit:g}", "reached" if reached else "MISSED")

    if {"table", "polars"} <= found.keys():
        add("table / polars, CPU", found["table"].cpu / found["polars"].cpu, 1.5)
        add("table, peak GB", found["table"].peak / 1e9, 1.5)
    if "hashes" in found:
        add("1 million hashes, CPU s", found["hashes"].cpu, 2.5)
        add("pairs of hashes found", found["hashes"].recall or 0, 1, at_most=False)
    if {"semantic", "faiss_clusters"} <= found.keys():
        ratio = found["semantic"].cpu / found["faiss_clusters"].cpu
        add("semantic / faiss, CPU", ratio, 1)
    if "semantic" in found:
        add("semantic, peak GB", found["semantic"].peak / 1e9, 3)
        add("pairs of vectors found", found["semantic"].recall or 0, 0.99, at_most=False)
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    bench = os.environ.get("PIXSIEVE_BENCH_DIR", "build/bench")
    parser.add_argument("--dir", type=Path, default=Path(bench) / "selection")
    parser.add_argument("--peers", help="interpreter of an environment with them")
    parser.add_argument("--only", nargs="+", help="names of the cases to run")
    parser.add_argument("--reps", type=int, default=3)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = "1"
    return options


if __name__ == "__main__":
    main()
