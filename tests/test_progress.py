"""What a run says of itself, in lines for people and for machines."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from pixsieve.engine import progress as progress_module
from pixsieve.engine.progress import JsonLines, Lines, Quiet

if TYPE_CHECKING:
    import pytest

    from pixsieve.engine.progress import Progress


def tell(progress: Progress) -> None:
    progress.start("inspect", 2000, "samples")
    progress.advance(500)
    progress.log("odd \x1b[31m name")
    progress.advance(700)
    progress.finish({"samples": 1200, "files ignored": 3})


def test_lines_come_every_few_seconds_with_rate_and_rest(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    lines = Lines(out)
    lines.start("inspect", 2000, "samples")
    for _ in range(12):
        now[0] += 1
        lines.advance(100)
    lines.finish({"samples": 1200, "files ignored": 3})
    lines.start("index", None, "sources")
    now[0] += 6
    lines.advance(12_000)
    lines.finish({})
    assert out.getvalue().splitlines() == [
        "inspect: 500 of 2,000 samples, 100/s, 15 s left",
        "inspect: 1,000 of 2,000 samples, 100/s, 10 s left",
        "inspect: 1200 samples, 3 files ignored in 12.0 s",
        "index: 12,000 sources, 2,000/s",
        "index:  in 6.0 s",
    ]


def test_a_fast_step_says_one_line(capsys: pytest.CaptureFixture[str]):
    tell(Lines())
    out, err = capsys.readouterr()
    assert out == ""  # the result's stream stays clean
    assert len(err.splitlines()) == 2


def test_machines_get_one_object_a_line():
    out = io.StringIO()
    tell(JsonLines(out))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert events.pop().pop("seconds") >= 0
    assert events == [
        {"event": "start", "step": "inspect", "total": 2000, "unit": "samples"},
        {"event": "advance", "step": "inspect", "done": 500, "total": 2000},
        {"event": "log", "message": "odd \x1b[31m name"},
        {"event": "advance", "step": "inspect", "done": 1200, "total": 2000},
    ]
    assert "\x1b" not in out.getvalue()


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]):
    tell(Quiet())
    assert capsys.readouterr() == ("", "")
