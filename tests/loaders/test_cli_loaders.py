"""``pixsieve verify --loader`` and ``pixsieve bench``."""

from __future__ import annotations

import json

import pytest

from pixsieve.cli import main
from pixsieve.loaders import base as base_module


def test_verify_reads_with_the_loaders_that_are_named(small, capsys):
    command = ["verify", str(small), "--workers", "1", "--loader", "webdataset,polars"]
    assert main([*command, "--loader", "pyarrow", "--json"]) == 0
    out, _ = capsys.readouterr()
    report = json.loads(out)
    assert report["ok"]
    assert [each["loader"] for each in report["loaders"]] == ["webdataset", "polars", "pyarrow"]
    assert {each["samples"] for each in report["loaders"]} == {12}


def test_verify_fails_where_a_loader_differs(small, capsys):
    tar = min(small.glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[1000] ^= 1  # within the first image
    tar.write_bytes(data)
    command = ["verify", str(small), "--workers", "1", "--no-load", "--loader", "polars"]
    assert main(command) == 6
    out, _ = capsys.readouterr()
    assert f"error: load-differs: {tar.stem}.parquet: " in out
    assert ": polars: the image's SHA-256 is " in out


def test_without_a_loader_nothing_more_is_loaded(small, capsys):
    assert main(["verify", str(small), "--workers", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loaders"] == []


@pytest.mark.parametrize("command", [["verify"], ["bench"]])
def test_loaders_are_checked_before_any_work(command, small, capsys, monkeypatch):
    for names, told in (("numpy", "there is no loader 'numpy'"), (" , ", "no loader is named")):
        assert main([*command, str(small), "--loader", names]) == 2
        assert told in capsys.readouterr().err
    monkeypatch.setattr(base_module.Loader, "installed", lambda _: False)
    assert main([*command, str(small), "--loader", "dali"]) == 2
    assert "pip install nvidia-dali-cuda120" in capsys.readouterr().err
    python = ["--loader-python", "dali"]
    assert main([*command, str(small), "--loader", "dali", *python]) == 2
    assert "expected one such as dali=/path/python" in capsys.readouterr().err


def test_bench_prints_a_table_or_json(small, capsys):
    command = ["bench", str(small), "--loader", "polars", "--seconds", "0.01"]
    assert main([*command, "--workers", "3"]) == 0
    out, err = capsys.readouterr()
    assert "3 workers" in out
    assert out.splitlines()[-1].startswith("polars ")
    assert "bench: polars, shuffled (2 of 2)" in err
    assert main([*command, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["results"][0]["loader"] == "polars"
    assert err == ""


def test_bench_fails_where_no_loader_can_read(small, capsys):
    for tar in small.glob("*.tar"):
        tar.write_bytes(b"no tar")
    assert main(["bench", str(small), "--loader", "webdataset", "--seconds", "0.01"]) == 5
    assert "no loader could read" in capsys.readouterr().err


def test_another_interpreter_can_run_a_loader(small, tmp_path, capsys):
    python = f"polars={tmp_path / 'none'}"
    command = ["verify", str(small), "--workers", "1", "--loader", "polars"]
    assert main([*command, "--loader-python", python]) == 6
    assert "cannot start" in capsys.readouterr().out
