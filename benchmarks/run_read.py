"""Reads every sample of a folder of tars with the webdataset library, undecoded.

Argument: folder of tars. Reports how many samples there were, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import stopwatch
import webdataset as wds


def main(folder: Path) -> None:
    """Read them all once to warm up, then once more with the clock running."""
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    _read(urls)
    with stopwatch.seconds() as figures:
        samples = _read(urls)
    print(json.dumps(figures | {"samples": samples}))


def _read(urls: list[str]) -> int:
    return sum(1 for _ in wds.WebDataset(urls, shardshuffle=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
