"""Exports with pixsieve: index, inspect, select, export, seal.

Arguments: folder of tars, output folder, images per tar, decode check, workers; and, where others
than the default are wanted, index files and formats, by names with commas between.
Reports ``<step>_cpu`` and ``<step>_wall`` of each step, workers' time included; ``cpu`` is the sum.
"""

from __future__ import annotations

import json
import sys
from typing import Literal

import stopwatch

from pixsieve import LocalExecutor, Pipeline
from pixsieve.export.indexes import DEFAULT
from pixsieve.stages import ImageReaderStage, ImageWriterStage


def main(
    source: str,
    target: str,
    images_per_tar: int,
    decode_check: Literal["full", "header"],
    workers: int,
    indexes: tuple[str, ...],
    formats: tuple[str, ...],
) -> None:
    """Run the pipeline that keeps everything."""
    pipeline = Pipeline(name="benchmark")
    pipeline.add_stage(ImageReaderStage(source, decode_check=decode_check))
    pipeline.add_stage(
        ImageWriterStage(
            output_dir=target,
            images_per_tar=images_per_tar,
            remove_image_data=True,
            deterministic_name=True,
            indexes=indexes,
            formats=formats,
        )
    )
    with stopwatch.seconds() as figures:
        result = pipeline.run(LocalExecutor(workers=workers))
    for timing in result.timings:
        figures[f"{timing.step}_cpu"] = timing.cpu
        figures[f"{timing.step}_wall"] = timing.wall
    figures["cpu"] = sum(timing.cpu for timing in result.timings)
    print(json.dumps(figures))


if __name__ == "__main__":
    check: Literal["full", "header"] = "full" if sys.argv[4] == "full" else "header"
    chosen = tuple(sys.argv[6].split(",")) if len(sys.argv) > 6 else DEFAULT
    others = tuple(sys.argv[7].split(",")) if len(sys.argv) > 7 else ()
    main(
        sys.argv[1], sys.argv[2], int(sys.argv[3]), check, int(sys.argv[5]),
        tuple(filter(None, chosen)), others,
    )  # fmt: skip
