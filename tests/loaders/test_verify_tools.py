"""verify and the index files that loaders' own tools make, as they are and when they are stale."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest
import webdataset

from pixsieve.testing import images, planted
from pixsieve.verify import verify as verify_with_workers

pytestmark = pytest.mark.loaders

verify = functools.partial(verify_with_workers, workers=0)
BIN = Path(sys.executable).parent
ENERGON = (
    "prepare", "--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CaptioningSample",
    "--field-map", '{"image": "jpg", "caption": "txt"}',
)  # fmt: skip


def run(*command: object) -> None:
    subprocess.run([str(each) for each in command], check=True, capture_output=True, timeout=240)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten samples in three tars of webdataset's own writer, with what each tool makes of them."""
    folder = tmp_path_factory.mktemp("tools")
    with webdataset.ShardWriter(str(folder / "shard-%06d.tar"), maxcount=4, verbose=0) as writer:
        for number in range(10):
            sample = {"jpg": images.photo(number, 64, 48), "txt": "a", "json": {"n": number}}
            writer.write({"__key__": f"{number:04d}", **sample})
    tars = planted.shards(folder)
    for tar in tars:
        run(BIN / "wds2idx", tar)
    run(BIN / "widsindex", "create", "--name", "x", "--output", folder / "wids.json", *tars)
    run(BIN / "energon", ENERGON[0], folder, *ENERGON[1:])
    return folder


def test_what_the_tools_make_is_sound_until_a_tar_changes(tools: Path) -> None:
    made = {path.name for path in tools.rglob("*")}
    assert {"shard-000000.idx", "shard-000000.tar.idx", "index.sqlite", "wids.json"} <= made
    assert verify(tools).findings == ()
    path = planted.shards(tools)[1]
    (name, data), *rest = planted.read_tar(path)
    planted.write_tar(path, [(name, data + bytes(600)), *rest])
    found = {(finding.rule, finding.file) for finding in verify(tools).errors}
    assert found >= {
        ("index-dali", "shard-000001.idx"),
        ("index-energon", "shard-000001.tar.idx"),
        ("index-energon", ".nv-meta/index.sqlite"),
        ("index-wids", "wids.json"),
    }
    assert {rule for rule, _ in found} == {"index-dali", "index-energon", "index-wids"}
