"""Copies raw samples with webdataset's reader and ShardWriter; no decoding, no table.

Arguments: folder of tars, output folder, samples per tar.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import stopwatch
import webdataset as wds


def main(source: Path, target: Path, samples_per_tar: int) -> None:
    """Write ``target/000000.tar`` and so on."""
    target.mkdir()
    urls = [str(path) for path in sorted(source.iterdir())]
    pattern = str(target / "%06d.tar")
    with (
        stopwatch.seconds() as figures,
        wds.ShardWriter(pattern, maxcount=samples_per_tar, encoder=False, verbose=0) as sink,
    ):
        for sample in wds.WebDataset(urls, shardshuffle=False):
            sink.write(sample)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
