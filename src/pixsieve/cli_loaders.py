"""``pixsieve verify --loader`` and ``pixsieve bench``: a dataset as real loaders read it."""

# ruff: noqa: PLC0415  # whatever is heavy is imported by the command that needs it

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixsieve.cli_options import Command, option
from pixsieve.errors import RunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.verify import VerifyReport


class _Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "name,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):  # click may ask twice
            return value
        found = tuple(name for part in str(value).split(",") if (name := part.strip()))
        if not found:
            self.fail("no loader is named; expected some such as webdataset,hf, or all", param, ctx)
        return found


class _Python(click.ParamType[tuple[str, str]]):
    """A loader, and the interpreter that it runs in."""

    name = "name=path"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):  # click may ask twice
            return value
        name, equals, path = str(value).partition("=")
        if not (name and equals and path):
            self.fail(f"{value!r} is none; expected one such as dali=/path/python", param, ctx)
        return name, path


NAMES: dict[str, Any] = {
    "multiple": True,
    "type": _Names(),
    "metavar": "NAME,...",
    "help": "Read it with these loaders, such as webdataset,hf; 'all' for each that is installed.",
}
PYTHON: dict[str, Any] = {
    "multiple": True,
    "type": _Python(),
    "metavar": "NAME=PATH",
    "help": "Run a loader in another Python, one that has it and pixsieve installed.",
}


def check(
    path: str, loaders: tuple[tuple[str, ...], ...], pythons: tuple[tuple[str, str], ...]
) -> None:
    """Raise ``UsageError`` unless all loaders that are named are there and can open the path."""
    if loaders or pythons:
        from pixsieve.loaders.compare import chosen

        chosen(_flat(loaders), dict(pythons))
        if Path(path).is_file():
            msg = f"{path} is no folder; loaders open a dataset's whole folder"
            raise UsageError(msg)


def compare(
    path: str,
    report: VerifyReport,
    loaders: tuple[tuple[str, ...], ...],
    pythons: tuple[tuple[str, str], ...],
    *,
    decode: bool,
    log: Callable[[str], None],
) -> VerifyReport:
    """Return the report with what the loaders found; as it is where none is named."""
    if not loaders:
        return report
    from pixsieve.loaders.compare import compare as run

    return run(
        path,
        report,
        _flat(loaders),
        decode=decode,
        pythons=dict(pythons),
        progress=lambda done, total, name: log(f"loaded with {name} ({done} of {total})"),
    )


def _flat(loaders: tuple[tuple[str, ...], ...]) -> list[str]:
    return [name for names in loaders for name in names]


@click.command(cls=Command, short_help="Measure how fast loaders read a dataset.")
@click.argument("path", metavar="PATH", type=click.Path())
@option("--loader", "loaders", required=True, heading="What to measure", **NAMES)
@option(
    "--workers", type=click.IntRange(min=1), metavar="N", heading="What to measure",
    show_default="one per processor",
    help="Worker processes or threads of a loader, in the column that uses some.",
)  # fmt: skip
@option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=3.0, metavar="S",
    heading="What to measure", help="How long each loader reads in each mode.",
)  # fmt: skip
@option(
    "--decode", is_flag=True, heading="What to measure",
    help="Decode the images, each loader by its own decoder.",
)  # fmt: skip
@option("--loader-python", "pythons", heading="Running", **PYTHON)
@option("--quiet", is_flag=True, heading="Output", help="Print no progress.")
@option(
    "--json", "as_json", is_flag=True, heading="Output",
    help="Print the result as one JSON object.",
)  # fmt: skip
def bench(
    *,
    path: str,
    loaders: tuple[tuple[str, ...], ...],
    workers: int | None,
    seconds: float,
    decode: bool,
    pythons: tuple[tuple[str, str], ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure how fast loaders read a dataset.

    PATH is the folder of a dataset. Each loader reads it for some seconds: in its order, in a mixed
    order, and with workers, so that shard size and format can be chosen on facts. Every figure is
    of a process of its own; run it where nothing else runs.

    \b
    Examples:
      pixsieve bench out/ --loader webdataset,torch,hf
      pixsieve bench out/ --loader all --decode --workers 8
      pixsieve bench out/ --loader all --json | jq .results
    """  # noqa: D301  # \b tells click to leave the lines as they are
    from pixsieve.loaders.bench import bench as run

    def told(done: int, total: int, name: str) -> None:
        if not quiet:
            click.echo(f"bench: {name} ({done} of {total})", err=True)

    report = run(
        path,
        _flat(loaders),
        workers=workers or len(os.sched_getaffinity(0)),
        seconds=seconds,
        decode=decode,
        pythons=dict(pythons),
        progress=told,
    )
    click.echo(report.to_json() if as_json else report.to_text().rstrip("\n"))
    failed = [each for each in report.results if each.error is not None]
    if failed and len(failed) == len(report.results):
        msg = f"no loader could read {path}"
        raise RunError(msg)
