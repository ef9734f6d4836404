"""``wids.json``: what wids' own tool writes, but for MD5."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pixsieve.testing import exports


@pytest.mark.parametrize("make", [exports.plain, exports.mixed])
def test_every_tar_is_in_it_by_name(tmp_path, make):
    dataset = make(tmp_path / "out")
    exports.index_files(dataset, ["wids"], tmp_path)
    index = json.loads((dataset.folder / "wids.json").read_bytes())
    assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
    assert index["name"] == dataset.name
    names = [shard["url"] for shard in index["shardlist"]]
    assert names == sorted(path.name for path in dataset.folder.glob("*.tar"))
    sizes = {shard.tar.name: (shard.samples, shard.tar.size) for shard in dataset.shards}
    assert sizes == {
        shard["url"]: (shard["nsamples"], shard["filesize"]) for shard in index["shardlist"]
    }


@pytest.mark.loaders
@pytest.mark.parametrize("make", [exports.plain, exports.mixed])
def test_equals_widsindex(tmp_path, make):
    dataset = make(tmp_path / "out")
    exports.index_files(dataset, ["wids"], tmp_path)
    names = sorted(shard.tar.name for shard in dataset.shards)
    tool = Path(sys.executable).parent / "widsindex"
    subprocess.run(
        [tool, "create", "--name", dataset.name, "-o", tmp_path / "theirs", *names],
        cwd=dataset.folder,
        check=True,
        capture_output=True,
    )
    theirs = json.loads((tmp_path / "theirs").read_bytes())
    for shard in theirs["shardlist"]:
        del shard["md5sum"]
    ours = (dataset.folder / "wids.json").read_text()
    assert ours == json.dumps(theirs, indent=2)


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
def test_wids_finds_every_sample(tmp_path):
    import wids  # noqa: PLC0415

    dataset = exports.mixed(tmp_path / "out")
    exports.index_files(dataset, ["wids"], tmp_path)
    found = wids.ShardListDataset(
        str(dataset.folder / "wids.json"), cache_dir=str(dataset.folder), keep=True
    )
    keys = {found[number]["__key__"] for number in range(len(found))}
    assert keys == {f"key-{number:04d}" for number in range(12)}
