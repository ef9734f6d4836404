"""LitData's chunks, read by LitData."""

from __future__ import annotations

import json

import pytest

from pixsieve.errors import MissingExtraError
from pixsieve.export.formats import folder as folder_module
from pixsieve.export.formats import litdata
from pixsieve.export.formats.litdata import LitdataFormat
from pixsieve.testing.format_suite import FormatTests, Found


def test_without_its_library_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(folder_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pixsieve\[litdata\]'"):
        LitdataFormat().check()


@pytest.mark.loaders
class TestLitdata(FormatTests):
    format = LitdataFormat()

    def read(self, folder, split):
        library = pytest.importorskip("litdata")
        loaded = library.StreamingDataset(str(folder / (split or "")), shuffle=False)
        for row in loaded:
            yield Found(row.pop("image"), row)

    def test_shuffled_it_is_the_same(self, dataset, tmp_path):
        library = pytest.importorskip("litdata")
        self.write(dataset, tmp_path / "made")
        for split, shards in dataset.splits.items():
            folder = str(tmp_path / "made" / (split or ""))
            loaded = library.StreamingDataset(folder, shuffle=True)
            found = {row["key"]: row["image"] for row in loaded}
            assert found == {
                row["key"]: data for shard in shards for row, data in dataset.images(shard)
            }

    def test_the_index_has_no_time_and_asks_for_no_pickle(self, dataset, tmp_path):
        self.write(dataset, tmp_path / "made")
        for path in (tmp_path / "made").rglob("index.json"):
            index = json.loads(path.read_bytes())
            assert dataset.plan_sha256.startswith(index["updated_at"])
            assert "pickle" not in index["config"]["data_format"]
            assert index["config"]["types"]["caption"] == {"type": "str", "optional": True}

    def test_a_text_that_is_a_files_name_stays_a_text(self, dataset, tmp_path, monkeypatch):
        monkeypatch.chdir(dataset.folder.parent / "in")  # where the original paths are files
        self.test_it_is_read_back_as_the_sidecars_say(dataset, tmp_path)

    def test_a_large_shard_is_cut(self, dataset, tmp_path, monkeypatch):
        monkeypatch.setattr(litdata, "PIECE", 5000)
        self.test_it_is_read_back_as_the_sidecars_say(dataset, tmp_path)
        assert list((tmp_path / "made").rglob("chunk-*-1.bin"))
