"""ImageFolder, read by hand, by Hugging Face's ``datasets`` and by torchvision."""

from __future__ import annotations

import string
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsieve.export.formats.imagefolder import NO_CLASS, ImagefolderFormat, folder_of
from pixsieve.testing.format_suite import FormatTests, Found, ReadingTests, make_dataset


class TestImagefolder(FormatTests):
    format = ImagefolderFormat()

    def read(self, folder, split):
        top = folder / (split or "")
        for row in pq.read_table(top / "metadata.parquet").to_pylist():
            yield Found((top / row.pop("file_name")).read_bytes(), row)

    def test_the_manifest_lists_no_image(self, dataset, tmp_path):
        names = self.write(dataset, tmp_path / "made")
        listed = {name for name in names if self.format.is_listed(name)}
        assert {Path(name).name for name in listed} == {"README.md", "metadata.parquet"}
        assert len(names) - len(listed) == dataset.samples


@given(st.none() | st.text(), st.none() | st.text())
def test_each_class_has_a_safe_folder_of_its_own(one, other):
    folder = folder_of(one)
    assert (folder == folder_of(other)) == (one == other)
    assert not set(folder) & set('/\\:*?"<>|[]#&\0')
    assert not folder.startswith((".", "__"))
    assert 0 < len(folder.encode()) <= 200


def test_plain_classes_keep_their_names():
    for name in ("cats", "n01440764 tench", "Größe-2 (alt)", string.digits):
        assert folder_of(name) == name
    assert folder_of("README.md") == "README%2Emd"  # which is a file
    assert folder_of(None) == NO_CLASS != folder_of(NO_CLASS)


@pytest.mark.loaders
class TestHuggingFace(ReadingTests):
    format = ImagefolderFormat()

    def read(self, folder, split):
        datasets = pytest.importorskip("datasets")
        name = (split or "train").replace("-", "_")
        cache = str(folder.parent / "cache")
        loaded = datasets.load_dataset(str(folder), split=name, cache_dir=cache)
        for row in loaded.cast_column("image", datasets.Image(decode=False)):
            image = row.pop("image")
            data = image["bytes"] or Path(image["path"]).read_bytes()
            yield Found(data, row)


@pytest.mark.loaders
def test_torchvision_reads_it(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    kit = TestImagefolder()
    dataset = make_dataset(tmp_path / "export", splits=True)
    kit.write(dataset, tmp_path / "made")
    for split, shards in dataset.splits.items():
        loaded = torchvision.datasets.ImageFolder(str(tmp_path / "made" / split))
        found = {
            Path(path).name: (Path(path).read_bytes(), loaded.classes[label])
            for path, label in loaded.samples
        }
        assert found == {
            row["member_name"]: (data, folder_of(row["class_name"]))
            for shard in shards
            for row, data in dataset.images(shard)
        }
        image, _ = loaded[0]
        assert image.mode == "RGB"
