"""All stages, as users import them."""

from pixsieve.export.writer import ImageWriterStage
from pixsieve.select.exact import ExactDeduplicationStage
from pixsieve.select.filters import FilterStage
from pixsieve.select.shuffle import ShuffleStage
from pixsieve.sources.reader import FilePartitioningStage, ImageReaderStage
from pixsieve.stage import ImageBatch, Needs, ReadStage, ScoreStage, SelectStage, Stage, WriteStage

__all__ = [
    "ExactDeduplicationStage",
    "FilePartitioningStage",
    "FilterStage",
    "ImageBatch",
    "ImageReaderStage",
    "ImageWriterStage",
    "Needs",
    "ReadStage",
    "ScoreStage",
    "SelectStage",
    "ShuffleStage",
    "Stage",
    "WriteStage",
]
