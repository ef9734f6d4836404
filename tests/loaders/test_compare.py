"""What differs from the dataset is found and named, by each loader that can see it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixsieve.errors import MissingExtraError, SourceError, UsageError
from pixsieve.loaders import LOADERS
from pixsieve.loaders import base as base_module
from pixsieve.loaders.compare import chosen, compare
from pixsieve.verify.findings import Checked, VerifyReport
from tests.loaders.conftest import export, loaders, write_pictures

TARS = [name for name, loader in LOADERS.items() if loader.reads == "tars"]


def run(path, *names, kind="pixsieve", **options):
    report = VerifyReport(path=str(path), kind=kind, findings=(), checked=Checked(), unchecked=())
    return compare(path, report, names, **options)


def found(report):
    """Rule, file and member of each finding, and its message."""
    return [(each.rule, each.file, each.member, each.message) for each in report.findings]


def rows(path):
    """All rows of the sidecars, in order."""
    return [row for file in sidecars(path) for row in pq.read_table(file).to_pylist()]


def sidecars(path):
    return sorted(path.glob("images-*.parquet"))


def rewrite(path, change):
    table = pq.read_table(path)
    changed = [change(dict(row)) for row in table.to_pylist()]
    kept = [row for row in changed if row is not None]
    pq.write_table(pa.Table.from_pylist(kept, schema=table.schema), path)


def patch(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def change_image(path, row):
    """Change the last byte but two of an image, which no header has."""
    tar = path / row["tar_file"]
    offset = row["member_offset"] + row["member_size"] - 3
    before = tar.read_bytes()[offset]
    patch(tar, offset, bytes([before ^ 1]))


def swap_captions(path, one, other):
    """Swap the ``.txt`` members of two samples, which are of the same length."""
    places = []
    for row in (one, other):
        tar = path / row["tar_file"]
        data = tar.read_bytes()
        at = data.index(row["caption"].encode(), row["member_offset"] + row["member_size"])
        places.append((tar, at, row["caption"].encode()))
    (tar, at, text), (other_tar, other_at, other_text) = places
    patch(tar, at, other_text)
    patch(other_tar, other_at, text)


@pytest.mark.parametrize("loader", list(loaders()))
def test_a_changed_image_and_swapped_captions_are_found(loader, small):
    samples = rows(small)
    change_image(small, samples[1])
    swap_captions(small, samples[4], samples[6])
    report = run(small, loader, decode=False)
    by_row = LOADERS[loader].reads == "sidecars"
    expected = {(samples[1]["key"], "the image's SHA-256 is")}
    if not by_row:
        expected |= {(samples[number]["key"], "the caption is 'Bild") for number in (4, 6)}
    assert {(member, message.removeprefix(f"{loader}: ")[: len(start)])
            for rule, _, member, message in found(report)
            for _, start in expected if message.removeprefix(f"{loader}: ").startswith(start)
            } == expected  # fmt: skip
    assert len(report.findings) == len(expected)
    assert {each.rule for each in report.findings} == {"load-differs"}
    name = samples[1]["tar_file"]
    assert name.replace(".tar", ".parquet" if by_row else ".tar") in {
        each.file for each in report.findings
    }


def cut(path):
    """Take the last sample from the last tar, which stays a sound one."""
    row = rows(path)[-1]
    tar = path / row["tar_file"]
    tar.write_bytes(tar.read_bytes()[: row["member_offset"] - 512] + bytes(1024))


def edit(path, change):
    text = path.read_text(encoding="utf-8")
    changed = change(text)
    assert changed != text
    path.write_text(changed, encoding="utf-8")


def edit_json(path, change):
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def last_tar(path):
    return max(path.glob("*.tar")).name


def shorten_energon(path):
    index = path / f"{last_tar(path)}.idx"
    index.write_bytes(index.read_bytes()[:-8])
    edit_json(
        path / ".nv-meta" / ".info.json",
        lambda data: data["shard_counts"].update({last_tar(path): 3}),
    )


MISSING = {
    "webdataset": cut,
    "torch": cut,
    "ray": cut,
    "daft": cut,
    "wids": lambda path: edit_json(
        path / "wids.json", lambda data: data["shardlist"][-1].update(nsamples=3)
    ),
    "energon": shorten_energon,
    "dali": lambda path: edit(
        path / last_tar(path).replace(".tar", ".idx"),
        lambda text: "\n".join(["v1.2 3", *text.splitlines()[1:-1]]) + "\n",
    ),
    "litdata": lambda path: edit_json(
        path / "index.json", lambda data: data["chunks"][-1].update(chunk_size=3)
    ),
}
"""How to make each loader miss the last sample."""


@pytest.mark.parametrize("loader", list(loaders(MISSING)))
def test_a_missing_sample_is_found(loader, small):
    last = rows(small)[-1]
    MISSING[loader](small)
    report = run(small, loader, decode=False)
    file = last["tar_file"]
    if LOADERS[loader].reads == "sidecars":
        file = file.replace(".tar", ".parquet")
    assert found(report) == [("load-differs", file, last["key"], f"{loader}: is not given")]
    assert report.loaders[0].samples == 11


@pytest.mark.loaders
def test_hf_holds_the_card_to_its_counts(small):
    cut(small)
    (finding,) = found(run(small, "hf", decode=False))
    assert finding[:3] == ("load-failed", "README.md", None)
    assert "NonMatchingSplitsSizesError" in finding[3]


@pytest.mark.parametrize("loader", list(loaders(["croissant", "frictionless"])))
def test_a_missing_sidecar_is_found(loader, small):
    gone = sidecars(small)[-1].name

    def narrow(data):
        if loader == "frictionless":
            data["resources"] = [each for each in data["resources"] if each["path"] != gone]
            return
        for each in data["distribution"]:
            if each["@type"] == "cr:FileSet" and "parquet" in each["encodingFormat"]:
                each["includes"] = re.sub(r"-\*\.parquet|-[0-9*?\[\]-]+\.parquet$",
                                          "-00000[01].parquet", each["includes"])  # fmt: skip

    edit_json(small / LOADERS[loader].through, narrow)
    report = run(small, loader, decode=False)
    assert {each[1] for each in found(report)} == {gone}
    assert [each[3] for each in found(report)] == [f"{loader}: is not given"] * 4


@pytest.mark.parametrize("loader", list(loaders(TARS)))
def test_a_row_that_is_missing_is_found(loader, small):
    row = rows(small)[5]
    rewrite(
        small / row["tar_file"].replace(".tar", ".parquet"),
        lambda each: None if each["key"] == row["key"] else each,
    )
    report = run(small, loader, decode=False)
    ((rule, _, member, message),) = found(report)
    assert (rule, member) == ("load-differs", row["key"])
    assert message == f"{loader}: is given, but it is not there"


def test_a_size_that_is_not_the_images_is_found(small):
    row = rows(small)[2]
    rewrite(
        small / row["tar_file"].replace(".tar", ".parquet"),
        lambda each: each | {"width": each["width"] + (each["key"] == row["key"])},
    )
    ((rule, file, member, message),) = found(run(small, "webdataset"))
    assert (rule, file, member) == ("load-differs", row["tar_file"], row["key"])
    width, height = row["width"], row["height"]
    assert message == (
        f"webdataset: the image is {width} x {height}, expected {width + 1} x {height}"
    )
    assert found(run(small, "webdataset", decode=False)) == []


def test_another_order_is_found_once(small):
    first = sidecars(small)[0]
    table = pq.read_table(first)
    pq.write_table(table.take([3, 0, 1, 2]), first)
    report = run(small, "webdataset")
    ((rule, _, member, message),) = found(report)
    before, key = table["key"][2].as_py(), table["key"][3].as_py()
    assert (rule, member) == ("load-differs", key)
    assert message == f"webdataset: comes after {before}, not before it"


def test_a_sample_that_comes_twice_is_found(small):
    manifest = json.loads((small / "manifest.json").read_bytes())
    tar = small / manifest["shards"][0]["tar"]
    second = tar.with_name("images-zz.tar")
    second.write_bytes(tar.read_bytes())
    second.with_suffix(".parquet").write_bytes(sidecars(small)[1].read_bytes())
    (small / "manifest.json").unlink()
    (small / manifest["shards"][1]["tar"]).unlink()
    sidecars(small)[1].unlink()
    report = run(small, "webdataset")
    told = [message for *_, message in found(report)]
    assert told.count("webdataset: is given more than once") == 4
    assert told.count("webdataset: is not given") == 4


def test_a_tar_that_ends_early_fails_the_loader(small):
    tar = sorted(small.glob("*.tar"))[1]
    tar.write_bytes(tar.read_bytes()[:5000])
    report = run(small, "webdataset")
    assert [each.rule for each in report.findings] == ["load-failed"]
    assert "webdataset: " in report.findings[0].message
    assert not report.ok


def test_an_index_that_is_missing_fails_the_loader_that_is_named(small, monkeypatch):
    monkeypatch.setattr(base_module.Loader, "installed", lambda _: True)
    (small / "wids.json").unlink()
    ((rule, file, _, message),) = found(run(small, "wids"))
    assert (rule, file) == ("load-failed", "wids.json")
    assert message == "wids: it needs wids.json, which is not there"


def test_all_leaves_out_what_is_not_installed_or_finds_no_index(small, monkeypatch):
    there = {"polars", "duckdb", "litdata"}
    monkeypatch.setattr(base_module.Loader, "installed", lambda self: self.name in there)
    (small / "index.json").unlink()
    report = run(small, "all")
    assert [each.loader for each in report.loaders] == ["duckdb", "polars"]
    assert "loading with litdata: it needs index.json, which is not there" in report.unchecked
    assert (
        "loading with dali: it is not installed (pip install nvidia-dali-cuda120)"
        in report.unchecked
    )
    assert report.ok


def test_a_loader_that_is_named_must_be_there(monkeypatch):
    with pytest.raises(UsageError, match="did you mean 'polars'"):
        chosen(["polar"], {})
    with pytest.raises(UsageError, match="there is no loader 'numpy'"):
        chosen(["polars"], {"numpy": "/usr/bin/python3"})
    with pytest.raises(UsageError, match="named for dali, which is none of the loaders to run"):
        chosen(["polars"], {"dali": "/usr/bin/python3"})
    monkeypatch.setattr(base_module.Loader, "installed", lambda _: False)
    with pytest.raises(MissingExtraError, match="dali is not installed; pip install nvidia-dali"):
        chosen(["dali"], {})
    assert [each.name for each in chosen(["dali"], {"dali": "/usr/bin/python3"})[0]] == ["dali"]


def test_sets_of_others_are_compared_with_their_tars(small):
    for path in [*small.glob("*.parquet"), *small.glob("*.json")]:
        path.unlink()
    report = run(small, "webdataset", kind="foreign")
    assert found(report) == []
    (result,) = report.loaders
    assert (result.samples, result.compared) == (12, ("key", "bytes", "size", "caption"))
    assert any("there are none of pixsieve's" in note for note in report.unchecked)
    ((_, file, _, message),) = found(run(small, "polars", kind="foreign"))
    assert file == "*.parquet"
    assert "needs *.parquet" in message


def test_a_folder_with_tars_is_needed(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        run(tmp_path / "none", "webdataset")
    with pytest.raises(SourceError, match=r"has no \.tar"):
        run(tmp_path, "webdataset")
    (tmp_path / "a.tar").write_bytes(bytes(10_240))
    with pytest.raises(UsageError, match="is no folder"):
        run(tmp_path / "a.tar", "webdataset")


def test_the_report_says_what_was_loaded(small):
    report = run(small, "polars")
    assert "loaded with polars " in report.to_text()
    assert ": 12 samples, compared by key, bytes, size, caption\n" in report.to_text()
    (told,) = json.loads(report.to_json())["loaders"]
    assert told["loader"] == "polars"
    assert told["samples"] == 12
    assert Path(report.path) == small


def test_many_differences_of_a_file_are_counted(tmp_path):
    write_pictures(tmp_path / "in", 30)
    path = export(tmp_path / "in", tmp_path / "out", per_tar=30)
    (sidecar,) = sidecars(path)
    rewrite(sidecar, lambda row: row | {"caption": "another"})
    report = run(path, "webdataset", decode=False)
    assert len(report.findings) == 21
    assert report.findings[-1].message == "10 more of this rule in this file"
