"""``X.idx``: what DALI's own tool writes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pixsieve.export.finished import Members
from pixsieve.export.indexes.dali import DaliIndex
from pixsieve.testing import exports


def test_a_line_for_each_sample():
    members = Members(
        keys=["a", "b"],
        borders=[0, 2, 3],
        names=["a.jpg", "a.mask.png", "b.jpg"],
        offsets=[512, 1536, 2560],
        sizes=[7, 0, 513],
        end=3584,
    )
    assert DaliIndex().of_shard(members) == (
        b"v1.2 2\njpg 512 7 a.jpg mask.png 1536 0 a.mask.png\njpg 2560 513 b.jpg\n"
    )


@pytest.mark.parametrize("make", [exports.plain, exports.mixed])
def test_places_are_those_of_the_members(tmp_path, make):
    dataset = make(tmp_path / "out")
    exports.index_files(dataset, ["dali"], tmp_path)
    for shard in dataset.shards:
        data = (dataset.folder / shard.tar.name).read_bytes()
        first, *lines = (
            (dataset.folder / shard.tar.name).with_suffix(".idx").read_text().splitlines()
        )
        assert first == f"v1.2 {shard.samples}"
        assert len(lines) == shard.samples
        for line in lines:
            words = line.split(" ")
            for at in range(0, len(words), 4):
                extension, offset, size, name = words[at : at + 4]
                header = data[int(offset) - 512 : int(offset)]
                assert header[:100].rstrip(b"\0").decode() == name
                assert name.partition(".")[2] == extension
                assert int(header[124:135], 8) == int(size)


@pytest.mark.loaders
@pytest.mark.parametrize("make", [exports.plain, exports.mixed])
def test_equals_wds2idx(tmp_path, make):
    dataset = make(tmp_path / "out")
    exports.index_files(dataset, ["dali"], tmp_path)
    tool = shutil.which("wds2idx", path=Path(sys.executable).parent)
    for shard in dataset.shards:
        path = dataset.folder / shard.tar.name
        subprocess.run([tool, path, tmp_path / "theirs"], check=True, capture_output=True)
        assert path.with_suffix(".idx").read_bytes() == (tmp_path / "theirs").read_bytes()
