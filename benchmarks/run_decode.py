"""Decodes images in processes that share nothing: how well the machine's cores add up.

Arguments: folder of tars, number of processes. A tenth of the tars is read. Reports ``wall`` only.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import simplejpeg

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(source: Path, processes: int) -> None:
    """Print the seconds as a line of JSON."""
    tars = sorted(source.iterdir())
    tars = tars[: max(processes, len(tars) // 10)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(_decode, [tars[:1]] * processes, chunksize=1)  # all processes are up and warm
        started = time.perf_counter()
        pool.map(_decode, [tars[n::processes] for n in range(processes)], chunksize=1)
        print(json.dumps({"wall": time.perf_counter() - started}))


def _decode(tars: Sequence[Path]) -> None:
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(".jpg"):
                    simplejpeg.decode_jpeg(file.read(), colorspace="GRAY")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
