"""A filter keeps what its expression is true for, and says of all else which values decided."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from pixsieve.errors import PlanError
from pixsieve.select.base import sample_schema
from pixsieve.stages import FilterStage
from pixsieve.testing.rows import make_rows

if TYPE_CHECKING:
    from pathlib import Path

SCORES = pa.schema(
    [("score", pa.float64()), ("when", pa.date32()), ("tags", pa.list_(pa.float64()))]
)


def dropped(stage: FilterStage, folder: Path, samples: list[dict[str, object]], **options: object):
    rows = make_rows(folder, samples, added=SCORES, **options)
    verdicts = stage.decide(rows)
    assert verdicts.reason == "filter"
    table = rows.take(verdicts.drop, (*verdicts.evidence.columns, "image_id"))
    told = verdicts.evidence.of(table).to_pylist()
    evidence = [json.loads(text, parse_constant=pytest.fail) for text in told]
    return dict(zip(verdicts.drop.tolist(), evidence, strict=True))


def test_false_and_null_drop_and_true_stays(tmp_path: Path):
    samples = [{"score": 0.1}, {"score": 0.9}, {"score": None}, {"score": 0.5}]
    assert dropped(FilterStage("score < 0.5"), tmp_path, samples) == {
        1: {"where": "score < 0.5", "score": 0.9},
        2: {"where": "score < 0.5", "score": None},
        3: {"where": "score < 0.5", "score": 0.5},
    }


@pytest.mark.parametrize("batch", [1, 8, 65_536])
def test_rows_are_numbered_over_all_parts_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
):
    monkeypatch.setattr("pixsieve.select.base.BATCH_ROWS", batch)
    samples = [{"width": number, "original_path": f"{number // 10}.tar"} for number in range(35)]
    found = dropped(FilterStage("width % 7 = 3"), tmp_path, samples, per_part=4)
    assert list(found) == [number for number in range(35) if number % 7 != 3]
    assert [values["width"] for values in found.values()] == list(found)


def test_what_is_not_kept_is_not_dropped_again(tmp_path: Path):
    samples = [{"width": 1}, {"width": 1, "problem": "decode_failed"}, {"width": 1}]
    assert list(dropped(FilterStage("width > 5"), tmp_path, samples)) == [0, 2]


def test_an_expression_without_columns_decides_over_all(tmp_path: Path):
    assert dropped(FilterStage("1 = 2"), tmp_path, [{}, {}]) == {
        0: {"where": "1 = 2"},
        1: {"where": "1 = 2"},
    }
    assert dropped(FilterStage("1 = 1"), tmp_path / "2", [{}, {}]) == {}


def test_evidence_is_strict_json_whatever_the_values_are(tmp_path: Path):
    stage = FilterStage('score < 0 and "when" is null and tags is null and caption is null')
    sample = {
        "score": float("nan"),
        "when": 0,
        "tags": [1.5, float("-inf"), None],
        "caption": "\x00 \u202e '",
    }
    (found,) = dropped(stage, tmp_path, [sample]).values()
    assert found["score"] == "nan"
    assert found["when"] == "1970-01-01"
    assert found["tags"] == [1.5, "-inf", None]
    assert found["caption"] == sample["caption"]


def test_an_expression_is_checked_before_any_work():
    with pytest.raises(PlanError, match="did you mean 'width'"):
        FilterStage("widht > 3").check(sample_schema([]))


NSFW = {"scale": "0 to 1", "better": "lower"}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nsfw < 0.5", ()),
        ("nsfw > 0.5", ("keeps higher nsfw, of which lower is better",)),
        ("0.5 < nsfw", ("keeps higher nsfw, of which lower is better",)),
        ("nsfw > 0.1 and nsfw < 0.5", ()),
        ("not (nsfw > 0.5)", ()),
        ("(nsfw > 0.5) = false", ()),
        ("nsfw < 50", ("compares nsfw with 50, but its scale is 0 to 1",)),
        ("other > 0.5", ()),
    ],
)
def test_what_is_odd_about_a_threshold_is_told(where: str, said: tuple[str, ...]):
    columns = pa.schema([pa.field("nsfw", pa.float32(), metadata=NSFW), ("other", pa.float32())])
    assert FilterStage(where).warnings(columns) == tuple(f"{where!r} {each}" for each in said)
