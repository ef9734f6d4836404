"""Resizing and encoding as JPEG beside img2dataset's Resizer: speed, sizes, pixels.

    python benchmarks/resize.py --photos PHOTOS

Each case runs in a fresh process, both in turn, one thread each; medians are shown. "Large" are
the same photographs enlarged to cameras' sides.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path

import corpus
import environment
import measure
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

_HERE = Path(__file__).parent
_PEER = ("img2dataset==1.47.0", "opencv-python-headless")
_CASES = (
    ("photos", "keep_ratio", 256),
    ("photos", "keep_ratio", 512),
    ("photos", "center_crop", 256),
    ("photos", "border", 256),
    ("large", "keep_ratio", 256),
    ("large", "keep_ratio", 512),
)
_LARGE, _LARGE_SIDE = 20, 3000


def main() -> None:
    """Measure, compare, print; the exit code is 1 if pixsieve is slower over all photographs."""
    options = _options()
    options.dir.mkdir(parents=True, exist_ok=True)
    folders = _inputs(options.dir, options.photos)
    python = environment.made(options.dir / "img2dataset", _PEER)
    if python is None:
        raise SystemExit("img2dataset cannot be installed")
    table = Table(title="Resize and JPEG, images/s on one core", title_justify="left")
    table.add_column("input")
    headings = ("mode", "side", "area", "lanczos", "img2dataset", "ratio", "same sides", "PSNR")
    for heading in headings:
        table.add_column(heading, justify="right")
    found: dict[str, dict[str, float]] = {}
    medians: dict[str, float] = {}
    for name, mode, size in _CASES:
        rates: dict[str, list[float]] = {"area": [], "lanczos": [], "peer": []}
        results = {each: options.dir / "resized" / each for each in ("area", "peer")}
        for _ in range(options.reps):
            for each, speeds in rates.items():
                speeds.append(_rate(python, each, folders[name], mode, size, results.get(each)))
        medians = {each: statistics.median(speeds) for each, speeds in rates.items()}
        same, psnr = _compared(*results.values())
        ratio = medians["area"] / medians["peer"]
        found[f"{name} {mode} {size}"] = medians | {
            "ratio": ratio, "psnr": psnr, "large": float(name == "large"),
        }  # fmt: skip
        table.add_row(
            name, mode, str(size), *(f"{each:.0f}" for each in medians.values()),
            f"{ratio:.2f}", same, f"{psnr:.1f} dB",
        )  # fmt: skip
    small = [case for case in found.values() if not case["large"]]
    overall = {each: statistics.harmonic_mean(case[each] for case in small) for each in medians}
    ratio = overall["area"] / overall["peer"]
    found["photos all"] = overall | {"ratio": ratio}
    table.add_section()
    table.add_row(
        "photos", "all", "", *(f"{each:.0f}" for each in overall.values()), f"{ratio:.2f}"
    )
    Console(width=100).print(table)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    raise SystemExit(int(ratio < 1))


def _options() -> argparse.Namespace:
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, default=env("PIXSIEVE_PHOTOS") or None)
    parser.add_argument("--dir", type=Path, default=env("PIXSIEVE_BENCH_DIR") or "build/bench")
    parser.add_argument("--reps", type=int, default=3, help="repetitions (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure")
    return parser.parse_args()


def _inputs(folder: Path, photos: Path | None) -> dict[str, Path]:
    """Write the photographs, and some of them enlarged."""
    made = {name: folder / "to_resize" / name for name in ("photos", "large")}
    shutil.rmtree(folder / "to_resize", ignore_errors=True)
    for each in made.values():
        each.mkdir(parents=True)
    for number, data in enumerate(corpus.photographs(photos).values()):
        path = made["photos"] / f"{number:06d}.jpg"
        path.write_bytes(data)
        if number < _LARGE:
            with Image.open(path) as image:
                scale = _LARGE_SIDE / min(image.size)
                large = image.resize((round(image.width * scale), round(image.height * scale)))
            large.save(made["large"] / path.name, quality=92)
    return made


def _rate(python: str, name: str, folder: Path, mode: str, size: int, target: Path | None) -> float:
    """Images per CPU second."""
    end = []
    if target is not None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        end = [str(target)]
    arguments = [str(folder), mode, str(size)]
    if name == "peer":
        command = [python, str(_HERE / "run_resize_peer.py"), *arguments, *end]
    else:
        command = [sys.executable, str(_HERE / "run_resize.py"), *arguments, name, *end]
    report = measure.run(command).report
    return report["images"] / report["cpu"]


def _compared(ours: Path, theirs: Path) -> tuple[str, float]:
    """Return how many images have the same sides, and the median PSNR of these in dB."""
    same, ratios = 0, []
    paths = sorted(ours.iterdir())
    for path in paths:
        with Image.open(path) as one, Image.open(theirs / path.name) as other:
            if one.size == other.size:
                same += 1
                pair = (np.asarray(each.convert("RGB"), np.float64) for each in (one, other))
                error = float(np.mean(np.subtract(*pair) ** 2))
                ratios.append(10 * np.log10(255**2 / max(error, 1e-3)))
    return f"{same}/{len(paths)}", float(np.median(ratios))


if __name__ == "__main__":
    main()
