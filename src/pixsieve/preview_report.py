"""A preview for people and for machines."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from pixsieve.engine.preview import PERCENTILES
from pixsieve.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixsieve.engine.preview import Distribution, Preview, ThresholdMove

_BLOCKS = "▁▂▃▄▅▆▇█"
_LARGE = 1000  # from here on, digits behind the point tell nothing
_WIDEST = 60  # characters of a filter that are shown


def to_json(preview: Preview) -> str:
    """Return a preview as one JSON object on one line; ``docs/cli.md`` says what is in it."""
    found = asdict(preview)
    found["workspace"] = str(preview.workspace)
    for each in found["distributions"]:
        each["percentiles"] = dict(each["percentiles"])
    return json.dumps(found)


def to_text(preview: Preview) -> str:
    """Return a preview as a page: the funnel, filters, thresholds, scores, and what is odd."""
    sections = [_funnel(preview)]
    if preview.filters:
        sections.append(_filters(preview))
    if preview.thresholds:
        sections.append(_thresholds(preview))
    if preview.distributions:
        sections.append(_distributions(preview))
    odd = [f"warning: {warning}" for warning in preview.warnings]
    odd += [f"note: {note}" for note in preview.notes]
    sections.append([*odd, f"scores are in {preview.workspace}; nothing was exported"])
    return "\n\n".join("\n".join(map(printable, lines)) for lines in sections) + "\n"


def _funnel(preview: Preview) -> list[str]:
    indexed = preview.counts.indexed
    rows: list[Sequence[str]] = [("", "", "came in", "lost", "left", "of all")]
    for step in preview.funnel:
        reason = f"{step.status}: {step.reason}" if step.lost else ""
        share = f"{step.left / indexed:.1%}"
        rows.append((step.stage, reason, *map(_count, (step.came_in, step.lost, step.left)), share))
    return [
        f"{preview.name}: {preview.counts.kept:,} of {indexed:,} samples are kept",
        *_table(rows, 2),
    ]


def _filters(preview: Preview) -> list[str]:
    rows = [("", "", "drops", "", "only it", "not measured")]
    ranges = False
    for each in preview.filters:
        alone = _count(each.drops_alone)
        if each.drops_alone < each.drops_alone_at_most:
            ranges = True
            alone = f"{each.drops_alone:,} to {each.drops_alone_at_most:,}"
        share = f"{each.drops / preview.sound:.1%}" if preview.sound else ""
        unknown = _count(each.not_measured) if each.not_measured else ""
        rows.append((each.stage, _short(each.filter), _count(each.drops), share, alone, unknown))
    lines = [f"each filter by itself, of {preview.sound:,} sound samples", *_table(rows, 2)]
    lines.append("  only it: what all other filters would keep")
    if ranges:
        lines[-1] += "; a range where some of them lack the scores to tell"
    if any(each.not_measured for each in preview.filters):
        lines.append("  not measured: a stage before it spared them, so that they have no scores")
    return lines


def _thresholds(preview: Preview) -> list[str]:
    kept = _between(preview.kept_by_filters, preview.kept_by_filters_at_most)
    rows = [("", "", "is", "values below", "5 % lower", "keeps", "5 % higher", "keeps")]
    rows += [
        (
            each.stage,
            each.column,
            _number(each.value),
            f"{each.below:.1%}",
            *_move(each.lower, preview.kept_by_filters),
            *_move(each.higher, preview.kept_by_filters),
        )
        for each in preview.thresholds
    ]
    lines = ["thresholds, and the same moved by 5 % of the values", *_table(rows, 2)]
    lines.append(f"  keeps: by all filters together, which keep {kept} as they are")
    if preview.whole_table:
        lines.append(f"  not asked again with moved thresholds: {', '.join(preview.whole_table)}")
    return lines


def _move(move: ThresholdMove | None, before: int) -> tuple[str, str]:
    if move is None:
        return "-", ""
    more = f" ({move.kept - before:+,})" if move.kept == move.kept_at_most else ""
    return _number(move.value), _between(move.kept, move.kept_at_most) + more


def _distributions(preview: Preview) -> list[str]:
    heads = ("min", *(f"{percent}%" for percent in PERCENTILES), "max")
    rows: list[Sequence[str]] = [("", *heads)]
    rows += [
        (each.column, *_ends_and_percentiles(each, len(heads))) for each in preview.distributions
    ]
    head, *lines = _table(rows, 1)
    found = ["scores; bars go from the 1st to the 99th percentile", head]
    for each, line in zip(preview.distributions, lines, strict=True):
        bars = f"{_bars(each.histogram)}  " if each.histogram else ""
        found += [line, f"    {bars}{'; '.join(_meaning(each))}"]
    return found


def _ends_and_percentiles(each: Distribution, count: int) -> list[str]:
    if each.minimum is None or each.maximum is None:
        return ["-"] * count
    values = (each.minimum, *(value for _, value in each.percentiles), each.maximum)
    return [_number(value, 3) for value in values]


def _meaning(each: Distribution) -> Iterator[str]:
    about = ", ".join(text for text in (each.scale, each.unit) if text)
    if about:
        yield about
    if each.better in ("higher", "lower"):
        yield f"{each.better} is better"
    counts = ((each.count, "values"), (each.nulls, "null"), (each.not_measured, "not measured"))
    yield ", ".join(f"{count:,} {name}" for count, name in counts if count or name == "values")


def _bars(counts: Sequence[int]) -> str:
    """Return one character for each count; what is not empty can be seen."""
    most = max(counts, default=0)
    return "".join(
        _BLOCKS[-(-count * len(_BLOCKS) // most) - 1] if count else " " for count in counts
    )


def _table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return rows of text, the first ``left`` columns flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _between(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _count(count: int) -> str:
    return f"{count:,}"


def _number(value: float, digits: int = 4) -> str:
    return f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.{digits}g}"


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
