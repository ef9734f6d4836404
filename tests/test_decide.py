"""Every indexed sample ends in exactly one place, with the stage, the reason and the evidence."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve import schema
from pixsieve.errors import PlanError, RunError
from pixsieve.select import evidence
from pixsieve.select.base import Rows, Verdicts
from pixsieve.select.decide import Decided, decide
from pixsieve.stages import (
    ExactDeduplicationStage,
    FilterStage,
    SelectStage,
    ShuffleStage,
)
from pixsieve.testing.rows import NO_COLUMNS, make_parts, make_scope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Every(SelectStage):
    """Drops every n-th of the samples that are left."""

    number: int

    def decide(self, rows: Rows) -> Verdicts:
        return Verdicts(drop=np.flatnonzero(rows.kept)[:: self.number], reason="every")


def run(
    folder: Path,
    samples: list[dict[str, Any]],
    *passes: Sequence[SelectStage],
    added: pa.Schema = NO_COLUMNS,
    per_part: int = 1000,
    seed: int = 0,
) -> tuple[Decided, list[dict[str, Any]]]:
    """Decide in passes; return the last answer and the last table."""
    parts = make_parts(folder, samples, added=added, per_part=per_part)
    earlier, number = None, 0
    for number, stages in enumerate(passes):
        labelled = [
            (f"{type(stage).__name__} {number}.{at}", stage) for at, stage in enumerate(stages)
        ]
        path = str(folder / f"selection-{number}.parquet")
        rows = make_scope(folder, parts, added=added, selection=earlier, seed=seed).rows()
        decided = decide(rows, labelled, path)
        earlier = path
    table = pq.read_table(folder / f"selection-{number}.parquet")
    assert table.select(schema.SELECTION.names).schema == schema.SELECTION
    values = evidence.from_metadata(table.schema)
    columns = [name for each in values.values() for name in each.columns]
    for name in set(columns) - set(table.column_names):
        column = rows.take(np.arange(len(rows)), (name,))[name]
        table = table.append_column(name, column)
    told = evidence.spelled(values, table)
    table = table.set_column(table.column_names.index("evidence"), "evidence", told)
    shown = table.select([n for n in table.column_names if n in {*schema.SELECTION.names, "mark"}])
    return decided, [{"row": at, **row} for at, row in enumerate(shown.to_pylist())]


def test_each_row_says_where_it_ended_and_why(tmp_path: Path):
    samples: list[dict[str, Any]] = [
        {"image_id": "small", "width": 10},
        {"image_id": "cut", "problem": "truncated_image", "problem_detail": "at byte 7"},
        {"image_id": "copy", "sha256": "a" * 64, "caption": "x"},
        {"image_id": "stays", "sha256": "a" * 64, "caption": "longer"},
    ]
    decided, rows = run(tmp_path, samples, [FilterStage("width > 32"), ExactDeduplicationStage()])
    assert (decided.indexed, decided.kept) == (4, 1)
    assert decided.reasons == {
        ("inspect", "failed", "truncated_image"): 1,
        ("FilterStage 0.0", "dropped", "filter"): 1,
        ("ExactDeduplicationStage 0.1", "dropped", "exact_duplicate"): 1,
    }
    small, cut, copy, stays = rows
    assert json.loads(small.pop("evidence")) == {"where": "width > 32", "width": 10}
    assert json.loads(cut.pop("evidence")) == {"detail": "at byte 7"}
    assert json.loads(copy.pop("evidence")) == {"sha256": "a" * 64}
    rest = {"split": None, "bucket": None, "rank": None, "duplicate_of": None}
    gone = {"status": "dropped", **rest}
    assert small == {
        "row": 0, "stage": "FilterStage 0.0", "reason": "filter", **gone,
    }  # fmt: skip
    assert cut == {
        "row": 1, "stage": "inspect", "reason": "truncated_image",
        **gone, "status": "failed",
    }  # fmt: skip
    assert copy == {
        "row": 2, "stage": "ExactDeduplicationStage 0.1",
        "reason": "exact_duplicate", **gone, "duplicate_of": "stays",
    }  # fmt: skip
    assert stays == {
        "row": 3, "status": "kept", "stage": None, "reason": None,
        "evidence": None, **rest, "rank": 0,
    }  # fmt: skip


STAGES = st.lists(
    st.one_of(
        st.builds(Every, number=st.integers(1, 4)),
        st.just(ExactDeduplicationStage()),
        st.builds(ShuffleStage, seed=st.integers(0, 3)),
        st.builds(FilterStage, st.sampled_from(["width > 5", "caption is null", "true"])),
    ),
    max_size=3,
)
SAMPLES = st.lists(
    st.fixed_dictionaries(
        {
            "width": st.integers(0, 10),
            "sha256": st.sampled_from(["a" * 64, "b" * 64, "c" * 64, "d" * 64]),
            "caption": st.sampled_from([None, "x", "yz"]),
            "problem": st.sampled_from([None, None, None, "decode_failed", "animated"]),
        }
    ),
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(samples=SAMPLES, passes=st.lists(STAGES, min_size=1, max_size=3), per_part=st.integers(1, 6))
def test_all_samples_are_accounted_for_whatever_is_decided(
    samples: list[dict[str, Any]],
    passes: list[list[SelectStage]],
    per_part: int,
    tmp_path_factory: pytest.TempPathFactory,
):
    decided, rows = run(tmp_path_factory.mktemp("decide"), samples, *passes, per_part=per_part)
    assert [row["row"] for row in rows] == list(range(len(samples)))
    counted = Counter((r["stage"], r["status"], r["reason"]) for r in rows if r["status"] != "kept")
    assert decided.reasons == counted
    kept = [row for row in rows if row["status"] == "kept"]
    assert decided.kept == len(kept)
    assert decided.indexed == len(samples) == len(kept) + counted.total()
    assert sorted(row["rank"] for row in kept) == list(range(len(kept)))
    for row, sample in zip(rows, samples, strict=True):
        assert (row["status"] == "failed") == (sample["problem"] is not None)
        assert (row["rank"] is None) == (row["status"] != "kept")
        if row["status"] == "kept":
            assert row["stage"] is row["reason"] is row["evidence"] is row["duplicate_of"] is None
        else:
            assert row["stage"]
            assert row["reason"]


def test_an_order_lasts_into_later_passes_and_the_last_one_counts(tmp_path: Path):
    samples = [{"width": width} for width in range(60)]
    shuffled = run(tmp_path / "1", samples, [ShuffleStage()])[1]
    rank_of = {row["row"]: row["rank"] for row in shuffled}
    assert [rank_of[row] for row in range(60)] != list(range(60))

    filtered = run(tmp_path / "2", samples, [ShuffleStage()], [FilterStage("width % 2 = 0")])[1]
    kept = sorted((row for row in filtered if row["status"] == "kept"), key=lambda r: r["rank"])
    assert [row["row"] for row in kept] == sorted(range(0, 60, 2), key=lambda row: rank_of[row])

    again = run(tmp_path / "3", samples, [ShuffleStage()], [ShuffleStage(seed=9)])[1]
    assert again == run(tmp_path / "4", samples, [ShuffleStage(seed=9)])[1] != shuffled


def test_the_table_does_not_depend_on_how_rows_are_parted(tmp_path: Path):
    samples = [
        {"width": number, "original_path": f"{number // 20}.tar", "sha256": f"{number % 7:064x}"}
        for number in range(50)
    ]
    stages = [FilterStage("width > 3"), ExactDeduplicationStage(), ShuffleStage()]
    tables = []
    for per_part in (1, 7, 1000):
        folder = tmp_path / str(per_part)
        decided, rows = run(folder, samples, stages, per_part=per_part)
        tables.append((decided, rows))
    assert tables[0] == tables[1] == tables[2]


INT = np.int64


@pytest.mark.parametrize(
    ("verdicts", "says"),
    [
        (Verdicts(drop=np.array([1], INT), reason="x"), "dropped row 1, which was not kept"),
        (Verdicts(drop=np.array([2, 0], INT), reason="x"), "no ascending"),
        (Verdicts(drop=np.array([0, 0], INT), reason="x"), "no ascending"),
        (Verdicts(drop=np.array([-1], INT), reason="x"), "no ascending"),
        (Verdicts(drop=np.array([0.0]), reason="x"), "no ascending"),  # type: ignore[arg-type]
        (Verdicts(drop=np.array([3], INT), reason="x"), "dropped row 3, there are 3"),
        (Verdicts(drop=np.array([0], INT)), "gave no reason"),
        (
            Verdicts(drop=np.array([0], INT), reason="x", evidence=pa.array(["{}", "{}"])),
            "evidence has 2 rows, 1 are dropped",
        ),
        (
            Verdicts(drop=np.array([0], INT), reason="x", duplicate_of=pa.array([], pa.string())),
            "duplicate_of has 0 rows, 1 are dropped",
        ),
        (Verdicts(order=np.arange(2, dtype=np.uint64)), "order is uint64 of shape"),
        (Verdicts(order=np.arange(3)), "order is int64"),  # type: ignore[arg-type]
        (Verdicts(split=pa.array(["a"])), "split has 1 rows, expected 3"),
        (Verdicts(bucket=pa.array(["a"])), "bucket has 1 rows, expected 3"),
        (
            Verdicts(columns={"x": pa.array([1, 2, 3])}),
            r"it gave the columns .*x.*, its adds\(\) says \{\}",
        ),
        (None, "it returned a NoneType, expected Verdicts"),
    ],
)
def test_a_stage_that_answers_wrongly_is_named_with_its_fault(
    tmp_path: Path, verdicts: Verdicts, says: str
):
    class Wrong(SelectStage):
        def decide(self, rows: Rows) -> Verdicts:  # noqa: ARG002
            return verdicts

    with pytest.raises(PlanError, match=rf"^Wrong 0\.0: .*{says}.*mend its decide\(\)$"):
        run(tmp_path, [{}, {"problem": "animated"}, {}], [Wrong()])
    assert not (tmp_path / "selection-0.parquet").exists()


def test_a_stage_cannot_change_what_is_kept_behind_the_engines_back(tmp_path: Path):
    class Sly(SelectStage):
        def decide(self, rows: Rows) -> Verdicts:
            rows.kept[0] = False
            return Verdicts()

    with pytest.raises(RunError, match=r"Sly failed: ValueError: .* read-only"):
        run(tmp_path, [{}], [Sly()])


def test_a_stage_that_fails_is_named_with_its_line(tmp_path: Path):
    class Broken(SelectStage):
        def decide(self, rows: Rows) -> Verdicts:
            return Verdicts(drop=rows.gone)  # type: ignore[attr-defined]

    told = r"Broken failed: AttributeError: .*'gone' \(.*test_decide\.py:\d+, in decide\)$"
    with pytest.raises(RunError, match=told):
        run(tmp_path, [{}], [Broken()])


def test_ranks_and_ties_follow_the_index(tmp_path: Path):
    class Coin(SelectStage):
        def decide(self, rows: Rows) -> Verdicts:
            return Verdicts(order=np.arange(len(rows), dtype=np.uint64) % 2)

    rows = run(tmp_path, [{}] * 1000, [Coin()])[1]
    assert [row["rank"] for row in rows] == [n // 2 + 500 * (n % 2) for n in range(1000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks(SelectStage):
    """Adds a column, and puts samples into splits and buckets."""

    def adds(self) -> pa.Schema:
        return pa.schema([("mark", pa.int32())])

    def decide(self, rows: Rows) -> Verdicts:
        numbers = np.arange(len(rows), dtype=np.int32)
        names = pa.array(["train", "eval"])
        return Verdicts(
            split=pa.DictionaryArray.from_arrays(pa.array(numbers % 2), names),
            bucket=pa.array([f"b{number % 3}" for number in numbers]),
            columns={"mark": pa.array(numbers * 10, pa.int32())},
            notes=("half and half",),
        )


def test_what_a_stage_adds_is_there_for_the_next_ones_in_its_pass_and_later(tmp_path: Path):
    added = pa.schema([("mark", pa.int32())])
    samples: list[dict[str, Any]] = [{}, {"problem": "animated"}, *[{}] * 6]
    for passes in (
        ([Marks(), FilterStage("mark < 60")],),
        ([Marks()], [FilterStage("mark < 60")]),
        ([Marks()], [FilterStage("width > 0")], [FilterStage("mark < 60")]),
    ):
        decided, rows = run(tmp_path / str(len(passes)), samples, *passes, added=added)
        assert [row["mark"] for row in rows] == list(range(0, 80, 10))
        assert decided.splits == ("train", "eval")  # in the stage's order
        assert decided.buckets == ("b0", "b1", "b2")
        kept = [row["row"] for row in rows if row["status"] == "kept"]
        assert kept == [0, 2, 3, 4, 5]
        for row in rows:
            number = row["row"]
            there = number in kept
            assert row["split"] == (("train", "eval")[number % 2] if there else None)
            assert row["bucket"] == (f"b{number % 3}" if there else None)
        assert json.loads(rows[6]["evidence"])["mark"] == 60
    assert run(tmp_path / "0", samples, [Marks()], added=added)[0].notes == (
        "Marks 0.0: half and half",
    )
