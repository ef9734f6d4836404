"""A run's result for people and for machines."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from pixsieve.text import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from pixsieve.engine.result import RunResult

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_STEP = 1000
_CELL = 60  # characters of a cell that are shown


def to_text(result: RunResult) -> str:
    """Return the funnel, from what was indexed to what was kept, and where it all is."""
    counts = result.counts
    rows = [("indexed", "", "", counts.indexed)]
    rows += [(each.status, each.stage, each.reason, each.count) for each in result.reasons]
    rows.append(("kept", "", "", counts.kept))
    widths = [max(len(str(row[column])) for row in rows) for column in range(3)]
    lines = []
    if result.did_nothing:
        lines += ["nothing to do: the dataset is finished and as this recipe makes it", ""]
    for status, stage, reason, count in rows:
        names = "  ".join(
            text.ljust(width) for text, width in zip((status, stage, reason), widths, strict=True)
        )
        share = f"  {count / counts.indexed:6.1%}" if counts.indexed else ""
        lines.append(printable(f"{names}  {count:>12,}{share}"))
    lines.append("")
    memory = f"the largest process took {human_size(result.peak_memory)}"
    lines.append(f"{result.decoded:,} images decoded; {memory}")
    lines += [f"note: {printable(note)}" for note in result.notes]
    if result.output_dir is None:
        lines.append(f"scores and selection are in {printable(str(result.workspace))}")
    else:
        folder = printable(str(result.output_dir))
        lines.append(
            f"{len(result.shards):,} shards, {human_size(_tar_bytes(result))}, are in {folder}"
        )
        for what, made in (("index files", result.indexes), ("other formats", result.formats)):
            if made:
                lines.append(f"{what}: {', '.join(made)}")
        if counts.kept < counts.indexed:
            lines.append(
                f"what is not exported is in {folder}/dropped/dropped.parquet; "
                f"ask after one with: pixsieve why {folder} KEY"
            )
    return "\n".join(lines) + "\n"


def to_json(result: RunResult) -> str:
    """Return the result as one JSON object on one line; ``docs/cli.md`` lists its fields."""
    found = {
        "output_dir": None if result.output_dir is None else str(result.output_dir),
        "workspace": str(result.workspace),
        "did_nothing": result.did_nothing,
        "counts": asdict(result.counts),
        "reasons": [asdict(each) for each in result.reasons],
        "shards": list(result.shards),
        "indexes": list(result.indexes),
        "formats": list(result.formats),
        "bytes": _tar_bytes(result),
        "decoded": result.decoded,
        "peak_memory": result.peak_memory,
        "timings": [asdict(each) for each in result.timings],
        "notes": list(result.notes),
    }
    return json.dumps(found)


def rows_to_text(rows: pa.Table, most: int = 100) -> str:
    """Return rows as a table of text: the first ones, and how many more there are."""
    shown = [
        [printable(_short(value)) for value in row.values()]
        for row in rows.slice(0, most).to_pylist()
    ]
    names = [printable(name) for name in rows.column_names]
    widths = [max(map(len, column)) for column in zip(names, *shown, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (names, ["-" * width for width in widths], *shown)
    ]
    if len(rows) > most:
        lines.append(f"... and {len(rows) - most:,} more rows; --json gives all")
    return "\n".join(lines) + "\n"


def rows_to_json(rows: pa.Table) -> str:
    """Return rows as one JSON object per line; bytes stand as hexadecimal digits."""
    return "".join(
        json.dumps(row, default=_plain, ensure_ascii=False) + "\n" for row in rows.to_pylist()
    )


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _short(value: object) -> str:
    text = _plain(value) if value is not None else ""
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def human_size(count: int) -> str:
    """Return a number of bytes in the unit that suits it; units are powers of 1000."""
    size, unit = float(count), 0
    while size >= _STEP - 0.5 and unit + 1 < len(_UNITS):
        size, unit = size / _STEP, unit + 1
    return f"{count} bytes" if unit == 0 else f"{float(f'{size:.3g}'):,g} {_UNITS[unit]}"


def _tar_bytes(result: RunResult) -> int:
    """Return the size of all tars, in bytes."""
    if result.output_dir is None:
        return 0
    return sum((result.output_dir / name).stat().st_size for name in result.shards)
