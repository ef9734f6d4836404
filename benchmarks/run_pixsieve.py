"""Exports with pixsieve: index, inspect, select, export, seal.

Arguments: folder of tars, output folder, images per tar, decode check, workers.
Reports ``<step>_cpu`` and ``<step>_wall`` of each step besides.
"""

from __future__ import annotations

import sys

import report

from pixsieve import Pipeline
from pixsieve.stages import ImageReaderStage, ImageWriterStage


def main(source: str, target: str, images_per_tar: int, decode_check: str, workers: int) -> None:
    """Run the pipeline that keeps everything."""
    pipeline = Pipeline(name="benchmark")
    pipeline.add_stage(ImageReaderStage(source, decode_check=decode_check))
    pipeline.add_stage(
        ImageWriterStage(
            output_dir=target,
            images_per_tar=images_per_tar,
            remove_image_data=True,
            deterministic_name=True,
        )
    )
    with report.work() as figures:
        result = pipeline.run(workers=workers, progress="quiet")
        for timing in result.timings:
            figures[f"{timing.step}_cpu"] = timing.cpu
            figures[f"{timing.step}_wall"] = timing.wall


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
