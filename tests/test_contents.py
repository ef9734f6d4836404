"""What samples are made of is counted, whatever the tables and their order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from pixsieve.export.contents import Contents, tally, together
from pixsieve.export.plan import plan_export
from pixsieve.json_types import text_of
from pixsieve.scorers.inspection import MAX_TEXT_BYTES
from pixsieve.stages import ImageWriterStage
from pixsieve.storage import tables
from pixsieve.testing.rows import NO_COLUMNS, make_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa


def plan_of(folder: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> pa.Table:
    """Return the one plan table of rows, with ``json`` documents and extensions ``beside``."""
    described = []
    for row in rows:
        found = {"siblings": [(name, 0, 3) for name in row.get("beside", ())]}
        if "json" in row:
            found["json_type"] = text_of(row["json"])
        described.append(found | {k: v for k, v in row.items() if k not in ("beside", "json")})
    parts = make_parts(folder, described)
    order = np.arange(len(rows), dtype=np.int64)
    writer = ImageWriterStage(output_dir="out", **options)
    plan = plan_export(parts, order, writer, NO_COLUMNS, folder / "plan")
    return tables.read_table(str(plan.shards[0].table))


def contents_of(folder: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> Contents:
    return tally(plan_of(folder, rows, **options), ImageWriterStage(output_dir="o", **options))


ROWS = [
    {"beside": ["txt", "json"], "json": {"a": 1, "b": ["x"], "c": {"x": 2.5}}},
    {"beside": ["json", "txt"], "json": {"a": 1.5, "b": [], "c": {"x": 1}}},
    {"beside": ["json"], "json": {"a": None, "b": ["y", None], "d": True}},
    {"beside": ["json", "npy"], "json": {"a": 3, "d": "text", "c": {}}},
    {"beside": ["json"]},  # one that is none
    {"format": "png", "beside": ["txt"], "metadata_problem": "txt: not UTF-8 at byte 3; json: x"},
    {"format": "png", "beside": []},
    {"format": "png", "beside": [""]},
]


def test_what_samples_are_made_of_is_counted(tmp_path: Path):
    found = contents_of(tmp_path, ROWS, image_format="keep")
    assert found.samples == 8
    assert found.images == {"jpg": 5, "png": 3}
    assert found.members == {"data": 1, "json": 5, "npy": 1, "txt": 3}
    assert found.json == {"a": "float", "b": ["string"], "c": {"x": "float"}, "d": "mixed"}
    assert found.json_uneven == ("a", "b", "b[]", "c", "c.x")
    assert found.json_kinds == {
        "": {"object": 4},
        "a": {"float": 1, "int": 2, "null": 1},
        "b": {"list": 3},
        "b[]": {"null": 1, "string": 1, "uneven": 1},
        "c": {"object": 3},
        "c.x": {"float": 1, "int": 1},
        "d": {"bool": 1, "string": 1},
    }
    assert found.unread == {"json": 1, "txt": 1}


def test_what_is_the_same_in_all_is_not_uneven(tmp_path: Path):
    rows = [{"beside": ["json"], "json": {"a": n, "b": [n], "c": {"x": "t"}}} for n in range(3)]
    found = contents_of(tmp_path, rows)
    assert found.json == {"a": "int", "b": ["int"], "c": {"x": "string"}}
    assert found.json_uneven == ()
    assert found.unread == {}


def test_no_json_has_no_type(tmp_path: Path):
    found = contents_of(tmp_path, [{"beside": ["txt"]}, {}])
    assert (found.json, found.json_type, found.json_kinds) == (None, None, {})
    assert found.members == {"txt": 1}


def test_extensions_are_those_of_the_export(tmp_path: Path):
    """An image that becomes a JPEG takes the extension of what lay beside it."""
    rows = [{"format": "png", "beside": ["jpg", "TX T"]}, {"format": "jpeg", "beside": ["png"]}]
    assert contents_of(tmp_path / "a", rows).members == {"jpg_2": 1, "png": 1, "tx-t": 1}
    kept = contents_of(tmp_path / "b", rows, image_format="keep")
    assert kept.members == {"jpg": 1, "png": 1, "tx-t": 1}
    assert kept.images == {"jpg": 1, "png": 1}


def test_json_beyond_what_is_read_is_counted(tmp_path: Path):
    rows = [{"siblings": [("json", 0, MAX_TEXT_BYTES + n), ("txt", 0, 2**30)]} for n in range(3)]
    assert contents_of(tmp_path, rows).unread == {"json": 3, "large": 2}


@pytest.mark.parametrize("cuts", [(8,), (0, 3, 8), (1, 2, 3, 4, 5, 6, 7, 8)])
def test_tables_tell_the_same_however_they_are_cut(tmp_path: Path, cuts: tuple[int, ...]):
    writer = ImageWriterStage(output_dir="out", image_format="keep")
    plan = plan_of(tmp_path, ROWS, image_format="keep")
    pieces, start = [], 0
    for stop in cuts:
        pieces.append(tally(plan.slice(start, stop - start), writer))
        start = stop
    assert together(pieces) == together(reversed(pieces)) == tally(plan, writer)


def test_it_can_be_written_down(tmp_path: Path):
    found = contents_of(tmp_path, ROWS)
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(found)), Contents) == found
    assert json.loads(msgspec.json.encode(found))["samples"] == 8
