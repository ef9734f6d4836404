import json
from pathlib import Path

import pytest

from pixsieve import report
from pixsieve.engine.result import Counts, ReasonCount, RunResult, StepTiming


def result(folder: Path | None, **changes) -> RunResult:
    values = {
        "output_dir": folder,
        "workspace": Path("space"),
        "counts": Counts(indexed=2000, kept=1500, dropped=490, failed=10),
        "reasons": (
            ReasonCount(stage="inspect", status="failed", reason="bad_header", count=10),
            ReasonCount(stage="FilterStage", status="dropped", reason="filter", count=490),
        ),
        "shards": (),
        "timings": (StepTiming(step="index", wall=1.5, cpu=2.5),),
        "decoded": 1234,
        "peak_memory": 144_000_000,
        "did_nothing": False,
        "notes": (),
        "offers_images": True,
        "indexes": ("card", "dali"),
        "formats": ("mds",),
    }
    return RunResult(**(values | changes))


@pytest.fixture
def shards(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(bytes(1_024_000))
    return result(tmp_path, shards=("0.tar", "1.tar"))


def test_the_funnel_goes_from_what_was_indexed_to_what_was_kept(shards):
    lines = report.to_text(shards).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["indexed", "2,000", "100.0%"],
        ["failed", "inspect", "bad_header", "10", "0.5%"],
        ["dropped", "FilterStage", "filter", "490", "24.5%"],
        ["kept", "1,500", "75.0%"],
    ]
    assert len({len(line) for line in lines[:4]}) == 1, "columns are aligned"


def test_it_says_where_everything_is(shards):
    text = report.to_text(shards)
    assert f"2 shards, 2.05 MB, are in {shards.output_dir}" in text
    assert "index files: card, dali\nother formats: mds\n" in text
    assert f"{shards.output_dir}/dropped/dropped.parquet" in text
    assert f"pixsieve why {shards.output_dir} KEY" in text
    assert "1,234 images decoded; the largest process took 144 MB" in text


def test_a_run_that_did_nothing_says_so_first(tmp_path):
    text = report.to_text(result(tmp_path, did_nothing=True))
    assert text.startswith("nothing to do:")


def test_a_run_that_left_nothing_out_does_not_send_to_what_was_dropped(tmp_path):
    counts = Counts(indexed=5, kept=5, dropped=0, failed=0)
    text = report.to_text(result(tmp_path, counts=counts, reasons=()))
    assert "dropped.parquet" not in text


def test_without_an_output_it_names_the_workspace():
    assert report.to_text(result(None)).endswith("scores and selection are in space\n")


def test_control_characters_of_data_do_not_reach_the_terminal(tmp_path):
    reason = ReasonCount(stage="a\x1b[31m", status="dropped", reason="b\r\u202ec", count=1)
    text = report.to_text(result(tmp_path, reasons=(reason,), notes=("x.tar: \x07\ud800",)))
    assert all(line.isprintable() for line in text.splitlines())
    assert r"\x1b[31m" in text
    assert r"note: x.tar: \x07\ud800" in text


def test_json_has_every_figure(shards):
    found = json.loads(report.to_json(shards))
    assert found == {
        "output_dir": str(shards.output_dir),
        "workspace": "space",
        "did_nothing": False,
        "counts": {"indexed": 2000, "kept": 1500, "dropped": 490, "failed": 10},
        "reasons": [
            {"stage": "inspect", "status": "failed", "reason": "bad_header", "count": 10},
            {"stage": "FilterStage", "status": "dropped", "reason": "filter", "count": 490},
        ],
        "shards": ["0.tar", "1.tar"],
        "indexes": ["card", "dali"],
        "formats": ["mds"],
        "bytes": 2_048_000,
        "decoded": 1234,
        "peak_memory": 144_000_000,
        "timings": [{"step": "index", "wall": 1.5, "cpu": 2.5}],
        "notes": [],
    }
    assert "\n" not in report.to_json(shards)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (123_456, "123 kB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (2_500_000_000, "2.5 GB"),
        (10**16, "10 PB"),
        (10**19, "10,000 PB"),
    ],
)
def test_sizes_are_told_in_the_unit_that_suits_them(count, said):
    assert report.human_size(count) == said
