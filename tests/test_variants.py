"""Planted near-duplicates: each variant is there, pages and charts differ, all is repeatable."""

from __future__ import annotations

import importlib.util
import io
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_PATH = Path(__file__).parents[1] / "benchmarks" / "planted.py"
_SPEC = importlib.util.spec_from_file_location("bench_planted", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
planted = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = planted
_SPEC.loader.exec_module(planted)


def _photo(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def _opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def _files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_each_photograph_has_each_variant_under_its_own_name(tmp_path):
    photos = {"a": _photo(1), "b": _photo(2)}
    folder = planted.plant(tmp_path / "1", photos, 2)
    files = _files(folder)
    assert len(files) == 2 * (3 + len(planted.VARIANTS))
    assert files["photographs/a.jpg"] == photos["a"]
    for name in planted.VARIANTS:
        assert {p.stem for p in (folder / planted.folder_of(name)).iterdir()} == {"a", "b"}
    assert all(_opened(data).size for data in files.values())
    assert len(set(files.values())) == len(files)
    again = planted.plant(tmp_path / "2", photos, 2)
    assert (again.name, _files(again)) == (folder.name, files)
    assert planted.plant(tmp_path / "1", photos, 3).name != folder.name


def test_what_is_there_is_not_made_again(tmp_path):
    folder = planted.plant(tmp_path, {"a": _photo(1)}, 0)
    (folder / "mark").touch()
    assert (planted.plant(tmp_path, {"a": _photo(1)}, 0) / "mark").exists()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resize 25 %", (20, 15)),
        ("resize 200 %", (160, 120)),
        ("crop 20 %, centre", (64, 48)),
        ("crop 25 % of the area, anywhere", (69, 52)),
        ("crop 25 %, anywhere", (60, 45)),
        ("border 4 %", (84, 64)),
        ("mirror", (80, 60)),
    ],
)
def test_variants_have_the_size_that_their_names_say(name, size):
    _, data = planted.variant(name, "a", _opened(_photo(1)))
    assert _opened(data).size == size


def test_where_crops_lie_depends_on_the_photograph():
    picture = _opened(_photo(1))
    crops = [planted.variant("crop 25 %, anywhere", name, picture) for name in ("a", "b", "a")]
    assert crops[0] == crops[2] != crops[1]


def test_pages_and_charts_differ_and_do_not_depend_on_chance_outside():
    for draw in (planted.page, planted.chart):
        first = [draw(number) for number in range(6)]
        random.seed(1)
        assert [draw(number) for number in range(6)] == first
        assert len(set(first)) == 6


def test_the_table_has_recall_precision_and_false_pairs(monkeypatch):
    monkeypatch.syspath_prepend(str(_PATH.parent))
    variants = importlib.import_module("variants")
    found, none = variants.Found(right=3, wrong=1), variants.Found(right=0, wrong=0)
    methods = list(variants.METHODS)
    table = variants.report(
        {"mirror": dict.fromkeys(methods, found) | {methods[0]: none}},
        {"pages": dict.fromkeys(methods, found)},
        {"photographs": 4, "pages": 9},
    )
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert rows[0] == ["recall of", *methods]
    assert rows[2] == ["mirror", "0.000", "0.750", "0.750", "0.750"]
    assert rows[3] == ["**precision** over all variants", "", "0.7500", "0.7500", "0.7500"]
    assert rows[4] == ["**false pairs** among 9 pages", "1", "1", "1", "1"]
