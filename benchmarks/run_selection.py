"""Runs one of pixsieve's selection cases, or polars', and prints what it took.

Arguments: folder, case, rows. Prints ``cpu``, ``wall`` and, where copies were planted, ``recall``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import selection_data
import stopwatch

from pixsieve.select import hamming
from pixsieve.select.base import Chunk, Part, Scope, listing_bytes, sample_schema
from pixsieve.select.decide import decide
from pixsieve.stages import FilterStage, SemanticDeduplicationStage, ShuffleStage
from pixsieve.storage import tables
from pixsieve.testing.rows import run_rounds

WHERE = "least(width, height) >= 256 and aesthetic_score > 5 and nsfw_score < 0.5"
PER_SHARD = 1000


def main() -> None:
    """Run a case."""
    folder, case, rows = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    cases = {
        "table": _table,
        "polars": _polars,
        "hashes": _hashes,
        "semantic": _semantic,
        "confirmed": _confirmed,
    }
    print(json.dumps(cases[case](folder, rows)))


def _table(folder: Path, rows: int) -> dict[str, float]:
    """Filter, shuffle, and say of every row where it ended, and in which shard."""
    paths = selection_data.table(folder / "table", rows)
    counts = [len(tables.read_table(str(path), ["width"])) for path in paths]
    parts = [Part(source="", index="", start=0, stop=count, families=("",)) for count in counts]
    chunks = [Chunk(path=str(path), rows=count) for path, count in zip(paths, counts, strict=True)]
    listing = folder / "table.json"
    listing.write_bytes(listing_bytes(parts, chunks))
    columns = sample_schema([selection_data.SCORES])
    scope = Scope(listing=str(listing), columns=columns, selection=None, seed=1)
    stages = [("filter", FilterStage(WHERE)), ("shuffle", ShuffleStage())]
    path = str(folder / "selection.parquet")
    with stopwatch.seconds() as figures:
        decided = decide(scope.rows(), stages, path)
        rank = tables.read_table(path, ["rank"])["rank"].fill_null(-1).to_numpy()
        shard = (rank // PER_SHARD).astype(np.int32)  # -1 stays -1
        np.save(folder / "shards.npy", shard)
    return {**figures, "kept": decided.kept}


def _polars(folder: Path, rows: int) -> dict[str, float]:
    """Do the bare minimum of the same: id, rank and shard of what is kept."""
    paths = selection_data.table(folder / "table", rows)
    with stopwatch.seconds() as figures:
        samples = pl.scan_parquet(paths).filter(
            (pl.min_horizontal("width", "height") >= 256)
            & (pl.col("aesthetic_score") > 5)
            & (pl.col("nsfw_score") < 0.5)
        )
        ordered = samples.select("image_id", key=pl.col("image_id").hash(1)).sort("key")
        numbered = ordered.with_row_index("rank").with_columns(shard=pl.col("rank") // PER_SHARD)
        numbered.sink_parquet(folder / "polars.parquet", compression="lz4")
    return dict(figures)


def _hashes(folder: Path, rows: int) -> dict[str, float]:
    """Keep one of hashes that differ in four bits or less."""
    del folder
    values, originals = selection_data.hashes(rows)
    hashes = hamming.Hashes(columns=(values[:, None],), limits=(selection_data.HASH_BITS,))
    with stopwatch.seconds() as figures:
        keepers = hamming.keepers(hashes)
    copies = np.flatnonzero(originals >= 0)
    found = (keepers[copies] >= 0) | (keepers[originals[copies]] >= 0)
    return {**figures, "recall": float(found.mean())}


def _semantic(folder: Path, rows: int) -> dict[str, float]:
    """Find near-duplicates by their vectors alone."""
    stage = SemanticDeduplicationStage(eps=1 - selection_data.COSINE, confirm=None)
    return _deduplicated(folder, rows, stage)


def _confirmed(folder: Path, rows: int) -> dict[str, float]:
    """Find near-duplicates by vectors that pictures confirm, as is the default."""
    return _deduplicated(folder, rows, SemanticDeduplicationStage())


def _deduplicated(folder: Path, rows: int, stage: SemanticDeduplicationStage) -> dict[str, float]:
    """Run a stage over made vectors, all its tasks in this process."""
    pictures = stage.confirm is not None
    name = f"pictures-{rows}" if pictures else f"vectors-{rows}"
    listing, originals = selection_data.vectors(folder / name, rows, pictures=pictures)
    columns = sample_schema([selection_data.scores_of_vectors(pictures=pictures)])
    scope = Scope(listing=str(listing), columns=columns, selection=None, seed=1)
    work = folder / "rounds"
    shutil.rmtree(work, ignore_errors=True)
    with stopwatch.seconds() as figures:
        decided = stage.decide(run_rounds(stage, scope, work))
    kept = np.ones(rows, np.bool_)
    kept[decided.drop] = False
    copies = np.flatnonzero(originals >= 0)
    found = ~kept[copies] | ~kept[originals[copies]]
    return {**figures, "recall": float(found.mean())}


if __name__ == "__main__":
    pa.set_cpu_count(1)
    main()
