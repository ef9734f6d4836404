"""Parquet with images, read by pyarrow, Polars and Hugging Face's ``datasets``."""

from __future__ import annotations

import polars as pl
import pyarrow.parquet as pq
import pytest

from pixsieve.export.formats import parquet
from pixsieve.export.formats.parquet import ParquetFormat
from pixsieve.testing.format_suite import FormatTests, Found, ReadingTests


def files(folder, split):
    return sorted(folder.glob(f"{split or 'train'}-*-of-*.parquet"))


def found(rows):
    for row in rows:
        image = row.pop("image")
        assert image["path"] == row["member_name"]
        yield Found(image["bytes"], row)


class TestParquet(FormatTests):
    format = ParquetFormat()

    def read(self, folder, split):
        for path in files(folder, split):
            yield from found(pq.read_table(path).to_pylist())

    def test_types_and_their_metadata_are_those_of_the_sidecar(self, dataset, tmp_path):
        self.write(dataset, tmp_path / "made")
        for path in (tmp_path / "made").glob("*.parquet"):
            for mine, theirs in zip(list(pq.read_schema(path))[1:], dataset.columns, strict=True):
                assert (mine.type, mine.nullable) == (theirs.type, theirs.nullable)
                assert mine.name == ("image_" if theirs.name == "image" else theirs.name)
                assert (mine.metadata or {}).items() >= (theirs.metadata or {}).items()

    def test_row_groups_are_bounded_and_images_stored_as_they_are(
        self, dataset, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(parquet, "GROUP_ROWS", 3)
        self.write(dataset, tmp_path / "rows")
        monkeypatch.setattr(parquet, "GROUP_BYTES", 1)
        self.write(dataset, tmp_path / "bytes")
        for folder, most in (("rows", 3), ("bytes", 1)):
            for path in (tmp_path / folder).glob("*.parquet"):
                facts = pq.read_metadata(path)
                groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
                assert max(group.num_rows for group in groups) == min(most, facts.num_rows)
                blob = groups[0].column(0)
                assert blob.path_in_schema == "image.bytes"
                assert (blob.compression, blob.is_stats_set) == ("UNCOMPRESSED", False)
                columns = {each.path_in_schema: each for each in map(groups[0].column, range(40))}
                assert all(column.has_offset_index for column in columns.values())
                assert columns["key"].has_column_index

    def test_polars_reads_it(self, dataset, tmp_path):
        self.write(dataset, tmp_path / "made")
        for split, shards in dataset.splits.items():
            rows = pl.concat(
                pl.read_parquet(path, columns=["image", "member_name", "caption"])
                for path in files(tmp_path / "made", split)
            ).to_dicts()
            expected = [each for shard in shards for each in dataset.images(shard)]
            assert [row["caption"] for row in rows] == [row["caption"] for row, _ in expected]
            assert [each.image for each in found(rows)] == [data for _, data in expected]


@pytest.mark.loaders
class TestHuggingFace(ReadingTests):
    """The same, as a user of ``datasets`` sees it, who names the folder and no more."""

    format = ParquetFormat()

    def read(self, folder, split):
        datasets = pytest.importorskip("datasets")
        name = (split or "train").replace("-", "_")
        loaded = datasets.load_dataset(
            str(folder), split=name, cache_dir=str(folder.parent / "cache")
        )
        assert isinstance(loaded.features["image"], datasets.Image)
        assert loaded[0]["image"].size == (loaded[0]["width"], loaded[0]["height"])
        return found(loaded.cast_column("image", datasets.Image(decode=False)))
