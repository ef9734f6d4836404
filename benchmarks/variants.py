"""Says which planted near-duplicates each deduplication finds, and what it takes for one wrongly.

    python benchmarks/variants.py --photos PHOTOS

Each variant is planted beside the photographs on its own, so that no group holds two of them, and
goes through the real pipeline: files, scores, selection. Scores are computed once, by the first
run, and kept in the benchmark's folder.

A variant is found if it, or the photograph, was dropped for the other one. A false pair is an image
that was dropped for one of another photograph, page or chart.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import corpus
import planted

from pixsieve import InlineExecutor, LocalExecutor, Pipeline, RunOptions
from pixsieve.query import query
from pixsieve.select.perceptual import PerceptualDeduplicationStage
from pixsieve.select.semantic import SemanticDeduplicationStage
from pixsieve.stages import (
    FilterStage,
    ImageEmbeddingStage,
    ImageReaderStage,
    PerceptualHashStage,
    ThumbnailStage,
)

if TYPE_CHECKING:
    from pixsieve import RunResult
    from pixsieve.stage import SelectStage

METHODS: dict[str, tuple[SelectStage, ...]] = {
    "perceptual": (PerceptualDeduplicationStage(),),
    "semantic": (SemanticDeduplicationStage(),),
    "semantic, unconfirmed": (SemanticDeduplicationStage(confirm=None),),
    "perceptual, then semantic": (PerceptualDeduplicationStage(), SemanticDeduplicationStage()),
}
"""All at their defaults; ``confirm=None`` is cosine alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one run dropped as duplicates: so many rightly, and so many for another image."""

    right: int
    wrong: int


def main() -> None:
    """Plant, run and print."""
    options = _options()
    photos = corpus.photographs(options.photos)
    options.dir.mkdir(parents=True, exist_ok=True)
    folder = planted.plant(options.dir, photos, options.graphics)
    # the planted folder's name has the digest of what is in it
    bench = _Bench(folder, options.dir / f"work-{folder.name}", options.workers)
    variants = {
        variant: {name: bench.find(name, planted.folder_of(variant)) for name in METHODS}
        for variant in planted.VARIANTS
    }
    different = {
        kind: {name: bench.find(name, kind, alone=True) for name in METHODS}
        for kind in (planted.PHOTOS, planted.PAGES, planted.CHARTS)
    }
    counts = {
        planted.PHOTOS: len(photos),
        planted.PAGES: options.graphics,
        planted.CHARTS: options.graphics,
    }
    print(report(variants, different, counts))


def report(
    variants: dict[str, dict[str, Found]],
    different: dict[str, dict[str, Found]],
    counts: dict[str, int],
) -> str:
    """Return the Markdown table.

    Args:
        variants: Of each variant, what each method found.
        different: Of each kind of images that differ, what each method found.
        counts: How many images of each kind there are.
    """
    names = list(METHODS)
    total = counts[planted.PHOTOS]
    rows = [["recall of", *names], ["---"] * (len(names) + 1)]
    rows += [
        [variant, *(f"{found[name].right / total:.3f}" for name in names)]
        for variant, found in variants.items()
    ]
    precision = []
    for name in names:
        right, wrong = (
            sum(getattr(found[name], side) for found in variants.values())
            for side in ("right", "wrong")
        )
        precision.append(f"{right / (right + wrong):.4f}" if right + wrong else "")
    rows.append(["**precision** over all variants", *precision])
    rows += [
        [
            f"**false pairs** among {counts[kind]} {kind}",
            *(str(found[name].wrong) for name in names),
        ]
        for kind, found in different.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


class _Bench:
    """Runs methods over parts of the planted folder."""

    def __init__(self, folder: Path, workspace: Path, workers: int) -> None:
        self._folder, self._workspace = folder, workspace
        self._run((), LocalExecutor(workers=workers))  # all scores

    def find(self, method: str, kind: str, *, alone: bool = False) -> Found:
        """Run a method over the images of a folder, with the photographs or alone."""
        kinds = [kind] if alone else [planted.PHOTOS, kind]
        chosen = " or ".join(f"starts_with(original_key, '{each}/')" for each in kinds)
        result = self._run((FilterStage(chosen), *METHODS[method]), InlineExecutor())
        rows = query(
            result.workspace,
            "select d.original_key as dropped, k.original_key as kept from samples d "
            "join samples k on d.duplicate_of = k.image_id",
        )
        same = [
            PurePosixPath(row["dropped"]).name == PurePosixPath(row["kept"]).name
            for row in rows.to_pylist()
        ]
        wanted = sum(each.count for each in result.reasons if each.stage != "FilterStage")
        if len(same) != wanted or result.counts.failed:
            raise SystemExit(f"{method} over {kind}: {len(same)} of {wanted} pairs are told of")
        return Found(right=sum(same), wrong=len(same) - sum(same))

    def _run(
        self, stages: tuple[SelectStage, ...], executor: InlineExecutor | LocalExecutor
    ) -> RunResult:
        pipeline = Pipeline(name="variants")
        pipeline.add_stage(ImageReaderStage(str(self._folder)))
        pipeline.add_stage(PerceptualHashStage(pdq=True))
        pipeline.add_stage(ThumbnailStage())
        pipeline.add_stage(ImageEmbeddingStage())
        for stage in stages:
            pipeline.add_stage(stage)
        return pipeline.run(executor, RunOptions(workspace=str(self._workspace)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--photos", type=Path, help="folder of JPEG photographs; default: installed ones"
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(os.environ.get("PIXSIEVE_BENCH_DIR") or "build/bench") / "variants",
        help="where images and scores lie; about 1 GB"
        " (default: variants in $PIXSIEVE_BENCH_DIR, else in build/bench)",
    )
    parser.add_argument("--graphics", type=int, default=150, help="number of pages, and of charts")
    parser.add_argument("--workers", type=int, default=2, help="worker processes for the scores")
    return parser.parse_args()


if __name__ == "__main__":
    main()
