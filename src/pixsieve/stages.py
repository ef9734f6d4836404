"""All stages, as users import them."""

from pixsieve.export.transform import ImageTransformStage
from pixsieve.export.writer import ImageWriterStage
from pixsieve.scorers.aesthetic import ImageAestheticFilterStage
from pixsieve.scorers.brisque import BrisqueStage
from pixsieve.scorers.caption_quality import CaptionQualityStage
from pixsieve.scorers.caption_similarity import CaptionSimilarityStage
from pixsieve.scorers.embedding import ImageEmbeddingStage
from pixsieve.scorers.hashes import PerceptualHashStage
from pixsieve.scorers.nsfw import ImageNSFWFilterStage
from pixsieve.scorers.quality import ImageQualityStage
from pixsieve.scorers.sidecar import SidecarStage
from pixsieve.scorers.thumbnail import ThumbnailStage
from pixsieve.select.buckets import BucketStage
from pixsieve.select.cluster import ClusterStage
from pixsieve.select.exact import ExactDeduplicationStage
from pixsieve.select.filters import FilterStage
from pixsieve.select.odd_size import OddSizeStage
from pixsieve.select.perceptual import PerceptualDeduplicationStage
from pixsieve.select.removal import ImageDuplicatesRemovalStage
from pixsieve.select.sample import SampleStage
from pixsieve.select.semantic import SemanticDeduplicationStage
from pixsieve.select.shuffle import ShuffleStage
from pixsieve.select.sort import SortStage
from pixsieve.select.split import SplitStage
from pixsieve.select.top import TopStage
from pixsieve.sources.reader import FilePartitioningStage, ImageReaderStage
from pixsieve.stage import ImageBatch, Needs, ReadStage, ScoreStage, SelectStage, Stage, WriteStage

__all__ = [
    "BrisqueStage",
    "BucketStage",
    "CaptionQualityStage",
    "CaptionSimilarityStage",
    "ClusterStage",
    "ExactDeduplicationStage",
    "FilePartitioningStage",
    "FilterStage",
    "ImageAestheticFilterStage",
    "ImageBatch",
    "ImageDuplicatesRemovalStage",
    "ImageEmbeddingStage",
    "ImageNSFWFilterStage",
    "ImageQualityStage",
    "ImageReaderStage",
    "ImageTransformStage",
    "ImageWriterStage",
    "Needs",
    "OddSizeStage",
    "PerceptualDeduplicationStage",
    "PerceptualHashStage",
    "ReadStage",
    "SampleStage",
    "ScoreStage",
    "SelectStage",
    "SemanticDeduplicationStage",
    "ShuffleStage",
    "SidecarStage",
    "SortStage",
    "SplitStage",
    "Stage",
    "ThumbnailStage",
    "TopStage",
    "WriteStage",
]
