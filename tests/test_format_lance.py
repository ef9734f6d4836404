"""A Lance dataset, read by Lance."""

from __future__ import annotations

import pytest

from pixsieve.errors import MissingExtraError
from pixsieve.export.formats import folder as folder_module
from pixsieve.export.formats.lance import LanceFormat
from pixsieve.storage.portable import original
from pixsieve.testing.format_suite import FormatTests, Found


def test_without_its_library_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(folder_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pixsieve\[lance\]'"):
        LanceFormat().check()


@pytest.mark.loaders
class TestLance(FormatTests):
    format = LanceFormat()
    passing = ("_versions/", "_transactions/")

    def read(self, folder, split):
        lance = pytest.importorskip("lance")
        for row in lance.dataset(str(folder)).to_table().to_pylist():
            if row["split"] == split:
                yield Found(row.pop("image"), row)

    def test_it_has_one_version_a_fragment_for_each_shard_and_rows_at_hand(self, dataset, tmp_path):
        lance = pytest.importorskip("lance")
        self.write(dataset, tmp_path / "made")
        self.write(dataset, tmp_path / "made")  # as after a kill before the end
        loaded = lance.dataset(str(tmp_path / "made"))
        assert [each["version"] for each in loaded.versions()] == [1]
        assert len(loaded.get_fragments()) == len(dataset.shards)
        assert loaded.count_rows() == dataset.samples
        rows = [each for shard in dataset.shards for each in dataset.images(shard)]
        taken = loaded.take([dataset.samples - 1, 0], columns=["key", "image"]).to_pylist()
        assert taken == [{"key": rows[at][0]["key"], "image": rows[at][1]} for at in (-1, 0)]
        assert loaded.count_rows("width > 135") == sum(row["width"] > 135 for row, _ in rows)

    def test_types_are_those_before_the_sidecar(self, dataset, tmp_path):
        lance = pytest.importorskip("lance")
        self.write(dataset, tmp_path / "made")
        found = list(lance.dataset(str(tmp_path / "made")).schema)[1:]
        assert [each.type for each in found] == [original(each).type for each in dataset.columns]
        assert [each.nullable for each in found] == [each.nullable for each in dataset.columns]
