"""``pixsieve repair``: a sound dataset of what can be read of a faulty one."""

# ruff: noqa: PLC0415  # whatever is heavy is imported by the command that needs it

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pixsieve.cli_options import Command, option
from pixsieve.cli_progress import shown_progress

if TYPE_CHECKING:
    from pixsieve.repair.run import Captions


@click.command(cls=Command, short_help="Make a sound dataset of a faulty one.")
@click.argument("source", metavar="DIR", type=click.Path())
@click.argument("output", metavar="OUT", type=click.Path())
@option(
    "--captions", type=click.Choice(["judge", "tar", "strict"]), default="judge", show_default=True,
    heading="Repairing",
    help="Where the caption in a tar is not that of its table: drop the image if the tar was "
    "changed, by all that is known; keep it with the tar's caption anyway; or drop it, too, if "
    "nothing says which one is right.",
)  # fmt: skip
@option(
    "--images-per-tar", type=click.IntRange(min=1), metavar="N", show_default="as in DIR",
    heading="Writing",
    help="Images in each tar.",
)  # fmt: skip
@option(
    "--format", "formats", multiple=True, metavar="NAME",
    heading="Writing",
    help="Write another format as well, such as parquet or mds. May be given several times.",
)  # fmt: skip
@option(
    "--workers", type=click.IntRange(min=1), metavar="N", show_default="one per processor",
    heading="Running",
    help="Worker processes. No result depends on how many there are.",
)  # fmt: skip
@option(
    "--workspace", type=click.Path(), metavar="DIR", show_default=".pixsieve in OUT",
    heading="Running",
    help="Where working state lies.",
)  # fmt: skip
@option("--quiet", is_flag=True, heading="Output", help="Print errors only.")
@option(
    "--json", "as_json", is_flag=True, heading="Output",
    help="Print the account as one JSON object.",
)  # fmt: skip
def repair(
    *,
    source: str,
    output: str,
    captions: Captions,
    images_per_tar: int | None,
    formats: tuple[str, ...],
    workers: int | None,
    workspace: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a sound dataset of a faulty one.

    DIR is a folder with tars, whoever made them; nothing in it is changed. OUT is the folder of the
    new dataset. What can be read is taken over, with its key and its columns; what was wrong about
    it is mended; and what is lost is named, with the reason. If a repair is stopped, the same
    command goes on where it was.

    \b
    Examples:
      pixsieve repair broken/ sound/
      pixsieve repair laion/ sound/ --images-per-tar 5000
      pixsieve repair broken/ sound/ --json | jq .lost
    """  # noqa: D301  # \b tells click to leave the lines as they are
    from pixsieve.engine.local import LocalExecutor
    from pixsieve.repair import repair as run

    with shown_progress(quiet=quiet, as_json=as_json) as progress:
        report = run(
            source,
            output,
            captions=captions,
            images_per_tar=images_per_tar,
            formats=formats,
            executor=LocalExecutor(workers=workers),
            workspace=workspace,
            progress=progress,
        )
    if as_json:
        click.echo(report.to_json())
    elif not quiet:
        click.echo(report.to_text(), nl=False)
