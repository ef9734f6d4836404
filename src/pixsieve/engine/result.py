"""What a run came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixsieve.errors import UsageError
from pixsieve.storage import LocalStorage, tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCount:
    """How many samples a stage dropped or failed for one reason."""

    stage: str
    status: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Where the samples went: indexed = kept + dropped + failed."""

    indexed: int
    kept: int
    dropped: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTiming:
    """Seconds of a step: wall time, and CPU time of the run's process and its workers together."""

    step: str
    wall: float
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An exported image: its id, its key in the tar, and its bytes."""

    image_id: str
    key: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Counts, reasons, paths and timings of a run.

    Attributes:
        output_dir: The dataset; ``None`` if nothing was to be written.
        workspace: Where the working state lies.
        counts: Where the samples went.
        reasons: Why samples are not in the export, in the order of the stages.
        shards: Names of the tars.
        indexes: Index files that stand beside them, by name.
        formats: Other formats that the dataset has, by name: each is a folder.
        timings: One for each step.
        decoded: How many images were decoded in this run.
        peak_memory: Bytes that the largest process of the run held at most.
        did_nothing: The dataset was there already, whole, and is as it was.
        notes: Things worth knowing about the sources.
    """

    output_dir: Path | None
    workspace: Path
    counts: Counts
    reasons: tuple[ReasonCount, ...]
    shards: tuple[str, ...]
    timings: tuple[StepTiming, ...]
    decoded: int
    peak_memory: int
    did_nothing: bool
    notes: tuple[str, ...]
    offers_images: bool
    indexes: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()

    def batches(self, size: int = 100) -> Iterator[tuple[Image, ...]]:
        """Yield the exported images in order, read from the shards on demand.

        Nothing is yielded where the writer was told ``remove_image_data=True``.
        """
        if size < 1:
            msg = f"a batch of {size} images; expected at least 1"
            raise UsageError(msg)
        if self.output_dir is None or not self.offers_images:
            return
        waiting: list[Image] = []
        for name in self.shards:
            path = self.output_dir / name
            columns = ["image_id", "key", "member_offset", "member_size"]
            rows = tables.read_table(str(path.with_suffix(".parquet")), columns)
            with LocalStorage().open(str(path)) as reader:
                for image_id, key, offset, length in zip(
                    *(rows[name].to_pylist() for name in columns), strict=True
                ):
                    waiting.append(
                        Image(image_id=image_id, key=key, data=reader.read(offset, length))
                    )
                    if len(waiting) == size:
                        yield tuple(waiting)
                        waiting = []
        if waiting:
            yield tuple(waiting)
