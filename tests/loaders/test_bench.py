"""Measurements of loaders: which there are, and how they are told; never how fast they are."""

from __future__ import annotations

import json

import pytest

from pixsieve.loaders import LOADERS
from pixsieve.loaders.bench import MODES, bench
from tests.loaders.conftest import OF_EVERY_EXPORT, OF_FORMATS, loaders


@pytest.mark.parametrize("loader", list(loaders()))
def test_each_mode_that_a_loader_has_is_measured(loader, small):
    check(loader, small)


@pytest.mark.loaders
@pytest.mark.parametrize("loader", OF_FORMATS)
def test_other_formats_are_measured_like_tars(loader, made):
    check(loader, made("formats"))


def check(loader, path):
    report = bench(path, [loader], workers=2, seconds=0.01)
    can = LOADERS[loader].can
    modes = [mode for mode, need in zip(MODES, (None, "shuffle", "workers"), strict=True)
             if need is None or need in can]  # fmt: skip
    assert [each.error for each in report.results] == [None] * len(modes)
    assert [each.mode for each in report.results] == modes
    for each in report.results:
        assert each.images >= 1
        assert each.seconds > 0
        assert each.rate == pytest.approx(each.images / each.seconds)
        assert each.bytes_per_second > 0
        assert each.version != "unknown"


@pytest.mark.parametrize(
    "loader", list(loaders(n for n in OF_EVERY_EXPORT if "decode" in LOADERS[n].can))
)
def test_images_can_be_decoded(loader, small):
    report = bench(small, [loader], workers=1, seconds=0.01, decode=True)
    assert [each.error for each in report.results] == [None] * len(report.results)
    assert all(each.images for each in report.results)


def test_a_longer_time_takes_more_passes(small):
    (result, *_) = bench(small, ["pyarrow"], workers=1, seconds=0.3).results
    assert result.passes > 1
    assert result.images == 12 * result.passes


def test_the_table_has_a_line_for_each_loader(small):
    said = []
    report = bench(
        small, ["duckdb", "webdataset"], workers=2, seconds=0.01,
        progress=lambda done, total, name: said.append((done, total, name)),
    )  # fmt: skip
    text = report.to_text()
    head, blank, titles, *lines = text.splitlines()
    assert head.startswith(f"{small}: 12 images in 3 shards, ")
    assert head.endswith(" MB; images per second")
    assert blank == ""
    assert titles.split("  ")[0] == "loader"
    assert "2 workers" in titles
    assert [line.split()[0] for line in lines] == ["duckdb", "webdataset"]
    assert lines[1].split()[3] == "-"
    assert said[-1][:2] == (5, 5)
    told = json.loads(report.to_json())
    assert told["images"] == 12
    assert {each["loader"] for each in told["results"]} == {"duckdb", "webdataset"}
    assert set(told["results"][0]) == {
        "loader", "version", "mode", "images", "seconds", "rate", "bytes_per_second", "opened",
        "first", "passes", "error",
    }  # fmt: skip


def test_those_that_do_not_decode_are_left_out_then(small):
    report = bench(small, ["polars", "webdataset"], workers=1, seconds=0.01, decode=True)
    assert {each.loader for each in report.results} == {"webdataset"}
    assert report.notes == ("polars: it does not decode images",)
    assert "decoded images per second" in report.to_text()


def test_a_loader_that_fails_has_its_reason_in_the_report(small):
    for tar in small.glob("*.tar"):
        tar.write_bytes(tar.read_bytes()[:700])
    report = bench(small, ["webdataset", "polars"], workers=1, seconds=0.01)
    failed = [each for each in report.results if each.error is not None]
    assert {each.loader for each in failed} >= {"webdataset"}
    assert "failed" in report.to_text()
    assert "webdataset, sequential: failed: " in report.to_text()


def test_a_loader_needs_its_index(small, monkeypatch):
    monkeypatch.setattr(type(LOADERS["litdata"]), "installed", lambda _: True)
    (small / "index.json").unlink()
    report = bench(small, ["litdata"], workers=1, seconds=0.01)
    assert {each.error for each in report.results} == {"it needs index.json, which is not there"}
