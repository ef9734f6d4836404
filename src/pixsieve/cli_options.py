"""Options that stand under headings in a command's help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


class Option(click.Option):
    """An option that stands under a heading."""

    def __init__(self, *names: Any, heading: str = "Options", **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.heading = heading


class Command(click.Command):
    """A command whose options stand under headings, in the order in which they are declared."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None:
                headings.setdefault(getattr(param, "heading", "Options"), []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def option(*names: str, heading: str, **settings: Any) -> Callable[[Any], Any]:
    """Return a decorator for an option under a heading."""
    return click.option(*names, cls=Option, heading=heading, **settings)


def options(*some: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return one decorator for several options, which keep their order."""

    def decorate(command: Any) -> Any:
        for each in reversed(some):
            command = each(command)
        return command

    return decorate
