"""Scores tars with pixsieve's own executor: how much two workers gain.

Arguments: folder of tars, workers. Reports ``<step>_wall`` and ``<step>_cpu`` of each step.
"""

from __future__ import annotations

import json
import sys
import tempfile

from pixsieve import LocalExecutor, Pipeline, RunOptions
from pixsieve.stages import (
    ImageEmbeddingStage,
    ImageQualityStage,
    ImageReaderStage,
    PerceptualHashStage,
)


def main(folder: str, workers: int) -> None:
    """Score with technical measures, all hashes and the default embedding, into a new workspace."""
    pipeline = Pipeline(name="benchmark")
    pipeline.add_stage(ImageReaderStage(folder))
    for stage in (ImageQualityStage(), PerceptualHashStage(pdq=True), ImageEmbeddingStage()):
        pipeline.add_stage(stage)
    with tempfile.TemporaryDirectory() as workspace:
        result = pipeline.run(LocalExecutor(workers=workers), RunOptions(workspace=workspace))
    figures = {f"{timing.step}_wall": timing.wall for timing in result.timings}
    figures |= {f"{timing.step}_cpu": timing.cpu for timing in result.timings}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
