"""``X.tar.idx`` and ``.nv-meta``: what ``energon prepare`` writes."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import yaml

from pixsieve.export.contents import Contents
from pixsieve.export.finished import Members
from pixsieve.export.indexes.energon import EnergonIndex, sample_type
from pixsieve.testing import exports


def test_offsets_of_samples_and_of_the_end():
    members = Members(
        keys=["a", "b"],
        borders=[0, 2, 3],
        names=["a.jpg", "a.txt", "b.jpg"],
        offsets=[512, 1536, 2560],
        sizes=[7, 3, 513],
        end=3584,
    )
    found = np.frombuffer(EnergonIndex().of_shard(members), "<u8")
    assert found.tolist() == [0, 2048, 3584]


def meta(dataset, scratch):
    exports.index_files(dataset, ["energon"], scratch)
    folder = dataset.folder / ".nv-meta"
    info = json.loads((folder / ".info.json").read_text())
    return info, *(
        yaml.safe_load((folder / name).read_text()) for name in ("split.yaml", "dataset.yaml")
    )


def test_without_splits_all_is_train(tmp_path):
    info, splits, kind = meta(exports.plain(tmp_path / "out"), tmp_path)
    assert list(info["shard_counts"].values()) == [4, 4, 2]
    assert splits == {
        "split_parts": {
            "train": ["images-0123456789ab-{000000..000002}.tar"],
            "val": [],
            "test": [],
        },
        "exclude": [],
    }
    assert kind["sample_type"]["__class__"] == "CaptioningSample"
    assert kind["field_map"] == {"image": "jpg", "caption": "txt"}


def test_splits_have_their_own_names(tmp_path):
    dataset = exports.mixed(tmp_path / "out")
    info, splits, kind = meta(dataset, tmp_path)
    assert list(info["shard_counts"]) == sorted(shard.tar.name for shard in dataset.shards)
    assert list(splits["split_parts"]) == ["train", "test-x", "test_x"]
    assert kind == {
        "sample_type": {"__module__": "megatron.energon", "__class__": "ImageSample"},
        "field_map": {"image": "avif,bmp,gif,jpg,png,tif,webp"},
    }


def test_samples_without_a_split_are_in_train(tmp_path):
    samples = [exports.members(number) for number in range(3)]
    groups = [(None, None), ("val", None), ("train", None)]
    _, splits, _ = meta(
        exports.finished_dataset(tmp_path / "out", samples, groups=groups), tmp_path
    )
    assert splits["split_parts"] == {
        "train": ["images-0123456789ab-000000.tar", "images-train-0123456789ab-000000.tar"],
        "val": ["images-val-0123456789ab-000000.tar"],
    }


@pytest.mark.parametrize(
    ("captions", "name"), [(4, "CaptioningSample"), (3, "ImageSample"), (0, "ImageSample")]
)
def test_captions_need_to_be_in_all_samples(captions, name):
    members = {"txt": captions} if captions else {}
    found = sample_type(Contents(samples=4, images={"jpg": 4}, members=members))
    assert found["sample_type"]["__class__"] == name


def test_the_uuid_follows_from_the_content(tmp_path):
    found = set()
    for name, make in (("a", exports.plain), ("b", exports.plain), ("c", exports.mixed)):
        dataset = make(tmp_path / name)
        exports.index_files(dataset, ["energon"], tmp_path)
        found.add(uuid.UUID((dataset.folder / ".nv-meta" / "index.uuid").read_text()))
    assert len(found) == 2


@pytest.mark.loaders
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (
            exports.plain,
            ["--split-ratio", "1,0,0", "--sample-type", "CaptioningSample",
             "--field-map", '{"image": "jpg", "caption": "txt"}'],
        ),
        (
            exports.mixed,
            ["--split-parts", "train:images-train-.*", "--split-parts", "test-x:images-test-x.*",
             "--split-parts", "test_x:images-test_x.*", "--sample-type", "ImageSample",
             "--field-map", '{"image": "avif,bmp,gif,jpg,png,tif,webp"}'],
        ),
    ],
)  # fmt: skip
def test_equals_energon_prepare(tmp_path, make, options):
    dataset, theirs = make(tmp_path / "out"), make(tmp_path / "theirs")
    exports.index_files(dataset, ["energon"], tmp_path)
    prepare(theirs.folder, options)
    names = [".nv-meta/.info.json", ".nv-meta/split.yaml", ".nv-meta/dataset.yaml"]
    names += [f"{shard.tar.name}.idx" for shard in dataset.shards]
    for name in names:
        assert (dataset.folder / name).read_bytes() == (theirs.folder / name).read_bytes(), name
    known = {path.name for path in (theirs.folder / ".nv-meta").iterdir()}
    assert known == {path.name for path in (dataset.folder / ".nv-meta").iterdir()} | {
        "index.sqlite"
    }


def prepare(folder, options):
    tool = Path(sys.executable).parent / "energon"
    subprocess.run(
        [tool, "prepare", folder, "--non-interactive", "--num-workers", "1", *options],
        check=True,
        capture_output=True,
    )


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "split", "samples"),
    [(exports.plain, "train", 10), (exports.mixed, "train", 7), (exports.mixed, "test-x", 3)],
)
def test_energon_loads_it(tmp_path, make, split, samples):
    from megatron.energon import WorkerConfig, get_loader, get_val_dataset  # noqa: PLC0415

    dataset = make(tmp_path / "out")
    exports.index_files(dataset, ["energon"], tmp_path)
    found = get_val_dataset(
        dataset.folder,
        split_part=split,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=1,
    )
    assert len(list(get_loader(found))) == samples
