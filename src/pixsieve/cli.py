"""The command line: arguments in, a pipeline or a call, a report and an exit code out.

Whatever is heavy is imported by the command that needs it, so that ``--help`` is there at once.
"""

# ruff: noqa: PLC0415  # see above

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixsieve import __version__, cli_loaders
from pixsieve.cli_models import models
from pixsieve.cli_options import Command as _Command
from pixsieve.cli_options import option as _option
from pixsieve.cli_options import options as _options
from pixsieve.cli_progress import shown_progress
from pixsieve.cli_repair import repair
from pixsieve.errors import PixsieveError, StorageError, UsageError, VerifyError
from pixsieve.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pixsieve.engine.progress import Progress
    from pixsieve.engine.units import Executor
    from pixsieve.pipeline import Pipeline

BUG = 1
"""Exit code of an error that is pixsieve's own."""
INTERRUPTED = 130
MAX_SEED = 2**63 - 1

_UNITS = {"B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", 1)
    for suffix, base in (("B", 1000), ("IB", 1024))
}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]*)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows the program's name; ``None`` for what the shell gave.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files need not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    try:
        _check_encoding(arguments)
        code = pixsieve.main(arguments, prog_name="pixsieve", standalone_mode=False)
    except PixsieveError as error:
        return _complain(str(error), error.exit_code, as_json=as_json)
    except click.ClickException as error:
        if as_json:
            return _complain(error.format_message(), error.exit_code, as_json=True)
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _complain("stopped", INTERRUPTED, as_json=as_json)
    except Exception:  # noqa: BLE001  # whatever else comes here is a fault of the program
        told = "this is an error in pixsieve; please report it with the lines above"
        if as_json:
            return _complain(f"{traceback.format_exc()}{told}", BUG, as_json=True)
        traceback.print_exc()
        return _complain(told, BUG, as_json=False)
    return code if isinstance(code, int) else 0


def _check_encoding(arguments: Sequence[str]) -> None:
    """Refuse what no table, recipe or message could hold, before anything is done with it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            msg = f"the argument {argument!r} is not UTF-8; expected names and text in UTF-8"
            raise UsageError(msg) from None


def _complain(message: str, code: int, *, as_json: bool) -> int:
    """Tell of an error, to a machine as the last of the JSON lines."""
    if as_json:
        line = json.dumps({"event": "error", "message": message, "exit_code": code})
    else:
        line = f"pixsieve: {printable(message)}"
    click.echo(line, err=True)
    return code


def _say(text: str) -> None:
    """Write what a command has to tell to standard output."""
    try:
        click.echo(text, nl=not text.endswith("\n"))
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush
        msg = f"cannot write to standard output: {error.strerror}"
        raise StorageError(msg) from error


# -- kinds of arguments -----------------------------------------------------------------------


class _Size(click.ParamType[int]):
    """A number of bytes, with or without a unit."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = _SIZE.fullmatch(str(value).strip())
        unit = _UNITS.get((found["unit"] or "B").upper()) if found else None
        if found is None or unit is None:
            self.fail(f"{value!r} is no size; expected one such as 500MB or 1.5GiB", param, ctx)
        return int(float(found["number"]) * unit)


class _Share(click.ParamType[float]):
    """A share of a whole, as ``10%`` or ``0.1``."""

    name = "share"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share; expected one such as 10% or 0.1", param, ctx)
        return share


class _Seed(click.ParamType[int]):
    """A number that fits 63 bits."""

    name = "seed"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > MAX_SEED:
            self.fail(f"{value!r} is no seed; expected a number from 0 to {MAX_SEED}", param, ctx)
        return int(text)


class _JsonField(click.ParamType[tuple[str, str]]):
    """A json field and the type of its column."""

    name = "name:type"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):  # click may ask twice
            return value
        name, colon, kind = str(value).rpartition(":")
        if not (name and colon and kind):
            self.fail(f"{value!r} has no type; expected one such as score:double", param, ctx)
        return name, kind


class _Split(click.ParamType[tuple[str, float]]):
    """A split and its share."""

    name = "name=share"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        if isinstance(value, tuple):  # click may ask twice
            return value
        name, equals, share = str(value).partition("=")
        try:
            found = float(share)
        except ValueError:
            found = math.nan
        if not (name and equals and 0 < found <= 1):
            self.fail(f"{value!r} is no split; expected one such as train=0.9", param, ctx)
        return name, found


# -- help -------------------------------------------------------------------------------------


class _Group(click.Group):
    """Commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


_SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "show_default": True,
}
_JSON = _option(
    "--json", "as_json", is_flag=True, heading="Output",
    help="Print the result as one JSON object; progress comes as JSON lines on standard error.",
)  # fmt: skip
_QUIET = _option("--quiet", is_flag=True, heading="Output", help="Print errors only.")
_VERBOSE = _option(
    "--verbose", is_flag=True, heading="Output", help="Print a line for every shard."
)
_WORKERS = _option(
    "--workers", type=click.IntRange(min=1), metavar="N", heading="Running",
    show_default="one per processor",
    help="Worker processes. No result depends on how many there are.",
)  # fmt: skip
_WORKSPACE = _option(
    "--workspace", type=click.Path(), metavar="DIR", heading="Running",
    show_default=".pixsieve in the output",
    help="Where working state lies. Runs that share it share what they have measured.",
)  # fmt: skip
_MAX_FAILED = _option(
    "--max-failed", type=_Share(), default="10%", metavar="SHARE", heading="Running",
    help="Stop with an error if more of the images than this are broken.",
)  # fmt: skip
_RUNNING = _options(_WORKERS, _WORKSPACE, _MAX_FAILED)
_OUTPUT = _options(_QUIET, _JSON, _VERBOSE)


@click.group(cls=_Group, context_settings=_SETTINGS)
@click.version_option(__version__, message="%(prog)s %(version)s")
def pixsieve() -> None:
    """Turn piles of images into curated datasets for training.

    pixsieve reads images where they lie, in folders or in tars, checks each of them, drops what you
    do not want, and writes the rest as WebDataset tars, each with a Parquet table of what is in it.
    Images are copied byte for byte unless they must be converted. Nothing that it reads is changed,
    and nothing is left out without a reason that you can ask for.

    \b
    Examples:
      pixsieve export photos/ out/
      pixsieve export photos/ out/ --deduplicate --where "least(width, height) >= 256"
      pixsieve verify out/
      pixsieve why out/ cat.jpg
    """  # noqa: D301  # \b tells click to leave the lines as they are


@pixsieve.command(cls=_Command, short_help="Make a dataset of images, without a recipe.")
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=click.Path())
@click.argument("output", metavar="OUT", type=click.Path())
@_options(
    _option(
        "--where", multiple=True, metavar="SQL", heading="Selecting",
        help="Keep only images for which this is true; the columns include width, height, format, "
        "byte_size, caption and class_name. May be given several times.",
    ),
    _option(
        "--deduplicate", is_flag=True, heading="Selecting",
        help="Keep one of all images with the same bytes: the one with the longest caption.",
    ),
    _option(
        "--near-duplicates", is_flag=True, heading="Selecting",
        help="Drop images that look like a better one, such as resized and resaved copies.",
    ),
    _option(
        "--split", type=_Split(), multiple=True, metavar="NAME=SHARE", heading="Selecting",
        help="Divide the images into splits, such as --split train=0.9 --split val=0.1. The same "
        "image is never in two.",
    ),
    _option(
        "--shuffle", is_flag=True, heading="Selecting",
        help="Put the images in a random order that --seed fixes.",
    ),
    _option(
        "--seed", type=_Seed(), default=0, metavar="N", heading="Selecting",
        help="Another number gives another order.",
    ),
    _option(
        "--decode-check", type=click.Choice(["full", "header"]), default="full", heading="Reading",
        help="Decode every image, so that no broken one gets through, or only read its header, "
        "which is faster.",
    ),
    _option(
        "--animated", type=click.Choice(["reject", "first_frame"]), default="reject",
        heading="Reading", help="What to do with images of several frames.",
    ),
    _option(
        "--caption-field", metavar="NAME", heading="Reading",
        help="Field of the .json file that is the caption of images that have no .txt file.",
    ),
    _option(
        "--json-field", type=_JsonField(), multiple=True, metavar="NAME:TYPE", heading="Reading",
        help="Field of the .json files that becomes a column, of the type string, int64, double or "
        "bool. May be given several times.",
    ),
    _option(
        "--key-split", type=click.Choice(["auto", "first", "last"]), default="auto",
        heading="Reading", help="Where the name that the files of a sample share ends: at its "
        "first dot or at its last. 'auto' is the first in tars, the last in folders.",
    ),
    _option(
        "--image-member", metavar="EXT", heading="Reading",
        help="Extension of the file that is the image where a sample has several, such as jpg "
        "of cat.jpg and cat.png.",
    ),
    _option(
        "--max-pixels", type=click.IntRange(min=1), metavar="N", heading="Reading",
        show_default="178956970", help="Larger images fail unread, as may be bombs.",
    ),
    _option(
        "--max-image-bytes", type=_Size(), metavar="SIZE", heading="Reading",
        show_default="256MiB", help="Likewise images in larger files.",
    ),
    _option(
        "--images-per-tar", type=click.IntRange(min=1), metavar="N", heading="Writing",
        show_default="1000", help="Images in every tar; the last one holds the rest.",
    ),
    _option(
        "--max-bytes-per-tar", type=_Size(), metavar="SIZE", heading="Writing",
        help="Fill each tar up to a size instead, such as 500MB or 1GiB.",
    ),
    _option(
        "--shards-multiple-of", type=click.IntRange(min=1), metavar="N", heading="Writing",
        help="Make the number of tars of each split a multiple of N, with as many images in each.",
    ),
    _option(
        "--image-format", type=click.Choice(["avif", "jpeg", "keep", "png", "webp"]),
        default="jpeg",
        heading="Writing",
        help="Format of the images in the tars; what has it already is copied. 'keep' copies all.",
    ),
    _option(
        "--quality", type=click.IntRange(1, 100), default=95, metavar="1-100", heading="Writing",
        help="Of images that are encoded anew as JPEG, WebP or AVIF.",
    ),
    _option(
        "--progressive", is_flag=True, heading="Writing",
        help="JPEG that are encoded anew have several scans, from coarse to fine.",
    ),
    _option(
        "--resize", heading="Writing",
        type=click.Choice(["keep_ratio", "keep_ratio_largest", "center_crop", "border"]),
        help="Make images smaller, as img2dataset does: --size is the shorter side, the longer "
        "side, the side of a square that is cut out, or of one with a border. Also does what "
        "--strip does.",
    ),
    _option(
        "--size", type=click.IntRange(min=1), metavar="PIXELS", heading="Writing",
        help="The side for --resize.",
    ),
    _option(
        "--upscale", is_flag=True, heading="Writing",
        help="Let --resize make images larger, too.",
    ),
    _option(
        "--strip", is_flag=True, heading="Writing",
        help="Turn images upright and leave out EXIF, GPS, XMP, IPTC and comments; pixels stay as "
        "they are wherever that can be. Needs libturbojpeg.",
    ),
    _option(
        "--srgb", is_flag=True, heading="Writing",
        help="Convert images to sRGB by their ICC profiles. Also does what --strip does.",
    ),
    _option(
        "--no-lossless", is_flag=True, heading="Writing",
        help="Turn JPEG by encoding them anew, which needs no libturbojpeg.",
    ),
    _option(
        "--member-names", type=click.Choice(["id", "sequential", "key"]), default="id",
        heading="Writing", help="Name images in the tars by their ids, which stay the same when "
        "images come or go, by running numbers, or by the keys that they had, where these are safe "
        "and unique.",
    ),
    _option(
        "--members", type=click.Choice(["as_found", "uniform"]), default="as_found",
        heading="Writing", help="Copy what lies beside the images, or give every sample the same "
        "members and all json one schema, which some loaders need.",
    ),
    _option(
        "--index", "indexes", multiple=True, metavar="NAME", heading="Writing",
        help="Write only these index files for loaders; 'none' for none. By default all but "
        "energon_sqlite.",
    ),
    _option(
        "--format", "formats", multiple=True, metavar="NAME", heading="Writing",
        help="Write another format as well, such as parquet or mds. May be given several times.",
    ),
    _option(
        "--prefix", default="images", metavar="NAME", heading="Writing",
        help="How the names of the tars begin.",
    ),
    _option(
        "--random-name", is_flag=True, heading="Writing",
        help="Put a random id into the names of the tars, instead of a digest of their content.",
    ),
)  # fmt: skip
@_RUNNING
@_OUTPUT
def export(
    *,
    sources: tuple[str, ...],
    output: str,
    as_json: bool,
    quiet: bool,
    workers: int | None,
    workspace: str | None,
    max_failed: float,
    **settings: Any,
) -> None:
    """Make a dataset of images, without a recipe.

    SRC is a folder, which is searched with all below it, a tar (plain, gz or zst), or a pattern in
    quotes. Files of the same name beside an image, such as a caption in cat.txt and more in
    cat.json, travel with cat.jpg. OUT is the folder of the dataset; it is made.

    If a run is stopped, the same command goes on where it was. Started again when all is done, it
    does nothing.

    \b
    Examples:
      pixsieve export photos/ out/
      pixsieve export 'in/{00000..00009}.tar' out/ --where "least(width, height) >= 256"
      pixsieve export photos/ more/ out/ --deduplicate --shuffle --seed 7 --images-per-tar 5000
      pixsieve export photos/ out/ --near-duplicates --split train=0.9 --split val=0.1
      pixsieve export photos/ out/ --caption-field title --json-field score:double
    """  # noqa: D301
    from pixsieve.engine.local import LocalExecutor

    pipeline = _pipeline(sources, output, settings)
    executor = LocalExecutor(workers=workers)
    _execute(
        pipeline, executor, workspace=workspace, max_failed=max_failed, quiet=quiet, as_json=as_json
    )


def _pipeline(sources: tuple[str, ...], output: str, given: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline that the options of ``export`` describe."""
    from pixsieve.pipeline import Pipeline
    from pixsieve.stages import (
        ExactDeduplicationStage,
        FilterStage,
        ImageReaderStage,
        ImageTransformStage,
        ImageWriterStage,
        PerceptualDeduplicationStage,
        PerceptualHashStage,
        ShuffleStage,
        SplitStage,
    )

    if given["images_per_tar"] is not None and given["max_bytes_per_tar"] is not None:
        msg = "--images-per-tar and --max-bytes-per-tar exclude each other; give one of them"
        raise UsageError(msg)
    json_fields = dict(given["json_field"])
    if len(json_fields) < len(given["json_field"]):
        named = ", ".join(":".join(pair) for pair in given["json_field"])
        msg = f"--json-field names a field twice ({named}); give each field one type"
        raise UsageError(msg)
    splits = dict(given["split"])
    if len(splits) < len(given["split"]):
        named = ", ".join(f"{name}={share:g}" for name, share in given["split"])
        msg = f"--split names a split twice ({named}); give each split one share"
        raise UsageError(msg)
    pipeline = Pipeline(seed=given["seed"])
    pipeline.add_stage(
        ImageReaderStage(
            sources[0] if len(sources) == 1 else sources,
            decode_check=given["decode_check"],
            animated=given["animated"],
            caption_field=given["caption_field"],
            json_fields=json_fields,
            key_split=given["key_split"],
            image_member=given["image_member"],
            **_given(given, "max_pixels", "max_image_bytes"),
        )
    )
    for where in given["where"]:
        pipeline.add_stage(FilterStage(where))
    if given["near_duplicates"]:
        pipeline.add_stage(PerceptualHashStage(pdq=True))
    if given["deduplicate"]:
        pipeline.add_stage(ExactDeduplicationStage())
    if given["near_duplicates"]:
        pipeline.add_stage(PerceptualDeduplicationStage())
    if splits:
        pipeline.add_stage(SplitStage(splits))
    if given["shuffle"]:
        pipeline.add_stage(ShuffleStage())
    if any(given[name] for name in _TRANSFORMING):
        pipeline.add_stage(
            ImageTransformStage(
                resize_mode=given["resize"] or "no",
                image_size=given["size"],
                upscale=given["upscale"],
                lossless=not given["no_lossless"],
                color="srgb" if given["srgb"] else "keep",
            )
        )
    return pipeline.add_stage(
        ImageWriterStage(
            output_dir=output,
            max_bytes_per_tar=given["max_bytes_per_tar"],
            image_format=given["image_format"],
            member_names=given["member_names"],
            prefix=given["prefix"],
            deterministic_name=not given["random_name"],
            verbose=given["verbose"],
            quality=given["quality"],
            progressive=given["progressive"],
            members=given["members"],
            **_indexes(given["indexes"]),
            formats=given["formats"],
            **_given(given, "images_per_tar", "shards_multiple_of"),
        )
    )


_TRANSFORMING = ("resize", "size", "upscale", "strip", "srgb", "no_lossless")


def _indexes(names: Sequence[str]) -> dict[str, Any]:
    """Return the index files that were asked for, if any were named."""
    if not names:
        return {}
    if "none" in names and set(names) != {"none"}:
        msg = "--index none goes with no other --index; leave one of them out"
        raise UsageError(msg)
    return {"indexes": tuple(name for name in names if name != "none")}


def _given(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return those of the options that were given; the stages have defaults for the others."""
    return {name: options[name] for name in names if options[name] is not None}


@pixsieve.command(cls=_Command, short_help="Run a recipe.")
@click.argument("recipe_path", metavar="RECIPE", type=click.Path())
@_option(
    "--input", "sources", multiple=True, metavar="SRC", heading="What to run it on",
    help="Read this instead of what the recipe names. May be given several times.",
)  # fmt: skip
@_option(
    "--output", metavar="OUT", heading="What to run it on",
    help="Write to this folder instead of the one that the recipe names.",
)  # fmt: skip
@_RUNNING
@_option(
    "--executor", type=click.Choice(["local", "inline"]), default="local", heading="Running",
    help="'local' uses worker processes; 'inline' does all in one process, for debugging.",
)  # fmt: skip
@_OUTPUT
def run(
    *,
    recipe_path: str,
    sources: tuple[str, ...],
    output: str | None,
    workers: int | None,
    workspace: str | None,
    max_failed: float,
    executor: str,
    quiet: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Run a recipe.

    RECIPE is a YAML file that names the stages of a pipeline. Relative paths in it start at its own
    folder.

    \b
    For example:
      name: photos
      seed: 0
      stages:
        - ImageReaderStage: {path_or_paths: photos/}
        - FilterStage: {where: "least(width, height) >= 256"}
        - ExactDeduplicationStage
        - ImageWriterStage: {output_dir: out/}

    If a run is stopped, the same command goes on where it was. Started again when all is done, it
    does nothing.

    Every dataset holds its recipe: run that on other images with --input and --output.
    """  # noqa: D301
    from pixsieve import recipe
    from pixsieve.engine.inline import InlineExecutor
    from pixsieve.engine.local import LocalExecutor

    if executor == "inline" and workers is not None:
        msg = "--workers has no effect with --executor inline; leave one of them out"
        raise UsageError(msg)
    pipeline = _adapted(recipe.load(recipe_path), sources, output, verbose=verbose)
    chosen = InlineExecutor() if executor == "inline" else LocalExecutor(workers=workers)
    _execute(
        pipeline, chosen, workspace=workspace, max_failed=max_failed, quiet=quiet, as_json=as_json
    )


def _adapted(
    pipeline: Pipeline, sources: tuple[str, ...], output: str | None, *, verbose: bool
) -> Pipeline:
    """Return the pipeline with what the command line says of its reader and its writer."""
    from pixsieve.pipeline import Pipeline
    from pixsieve.stages import FilePartitioningStage, ImageReaderStage, ImageWriterStage

    reading: dict[str, Any] = {"path_or_paths": sources} if sources else {}
    writing: dict[str, Any] = {"verbose": True} if verbose else {}
    if output is not None:
        writing["output_dir"] = output
        if not any(isinstance(stage, ImageWriterStage) for stage in pipeline.stages):
            msg = "--output has no effect: the recipe has no ImageWriterStage"
            raise UsageError(msg)
    adapted = Pipeline(pipeline.name, seed=pipeline.seed)
    for stage, place in zip(pipeline.stages, pipeline.places, strict=True):
        if isinstance(stage, ImageReaderStage):
            adapted.add_stage(dataclasses.replace(stage, **reading), place=place)
        elif isinstance(stage, ImageWriterStage):
            adapted.add_stage(dataclasses.replace(stage, **writing), place=place)
        elif not (reading and isinstance(stage, FilePartitioningStage)):
            adapted.add_stage(stage, place=place)
    return adapted


@pixsieve.command(cls=_Command, short_help="Measure images, and keep the scores.")
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=click.Path())
@_option(
    "--stage", "stages", multiple=True, metavar="STAGE", heading="What to measure",
    help="A stage as in a recipe, such as 'ImageQualityStage' or "
    "'ImageEmbeddingStage: {model: default}'. Can be given several times.",
)  # fmt: skip
@_options(
    _WORKERS,
    _option(
        "--workspace", type=click.Path(), metavar="DIR", heading="Running", required=True,
        help="Where the scores are kept, for all that name it later.",
    ),
    _MAX_FAILED,
)  # fmt: skip
@_QUIET
@_JSON
def score(
    *,
    sources: tuple[str, ...],
    stages: tuple[str, ...],
    workers: int | None,
    workspace: str,
    max_failed: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure images and keep the scores in a workspace, without making a dataset.

    SRC is as for export. Whatever uses the same --workspace later, another recipe or a query, finds
    the scores there and measures nothing twice.

    \b
    Examples:
      pixsieve score photos/ --workspace ws/ --stage ImageQualityStage --stage PerceptualHashStage
      pixsieve query ws/ "select image_id, sharpness from samples order by sharpness limit 10"
    """  # noqa: D301
    from pixsieve import recipe
    from pixsieve.engine.local import LocalExecutor

    pipeline = recipe.parse_stages(sources, stages)
    _execute(
        pipeline,
        LocalExecutor(workers=workers),
        workspace=workspace,
        max_failed=max_failed,
        quiet=quiet,
        as_json=as_json,
    )


@pixsieve.command(cls=_Command, short_help="Preview what a recipe would keep, and why.")
@click.argument("recipe_path", metavar="RECIPE", type=click.Path())
@_option(
    "--dry-run", is_flag=True, heading="Running",
    help="Look at no image: take what was measured before, and say what is missing.",
)  # fmt: skip
@_WORKERS
@_WORKSPACE
@_QUIET
@_JSON
def select(
    *,
    recipe_path: str,
    dry_run: bool,
    workers: int | None,
    workspace: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Preview what a recipe would keep, and why; no dataset is written.

    Measures what is missing, decides, and prints the funnel, what each filter drops alone, where
    its thresholds lie among the scores, and how many samples other thresholds would keep. With
    --dry-run it takes seconds: change a threshold in the recipe, and look again.

    \b
    Examples:
      pixsieve select recipe.yaml
      pixsieve select recipe.yaml --dry-run
      pixsieve select recipe.yaml --dry-run --json | jq .thresholds
    """  # noqa: D301
    from pixsieve import preview_report, recipe
    from pixsieve.engine.job import RunOptions
    from pixsieve.engine.local import LocalExecutor
    from pixsieve.engine.preview import preview

    plan = recipe.load(recipe_path).plan()
    with shown_progress(quiet=quiet, as_json=as_json) as progress:
        options = RunOptions(workspace=workspace, progress=progress)
        found = preview(plan, LocalExecutor(workers=workers), options, cached_only=dry_run)
    if as_json:
        _say(preview_report.to_json(found))
    elif not quiet:
        _say(preview_report.to_text(found))


@pixsieve.command(cls=_Command, short_help="Ask a dataset or a workspace in SQL.")
@click.argument("path", metavar="PATH", type=click.Path())
@click.argument("sql", metavar="SQL")
@_JSON
def query(*, path: str, sql: str, as_json: bool) -> None:
    """Ask a dataset or a workspace in SQL.

    A dataset has the tables 'samples' and 'dropped'; a workspace has 'samples': all that the last
    run there read, with every column and score, and where each sample ended.

    \b
    Examples:
      pixsieve query out/ "select format, count(*) from samples group by all"
      pixsieve query out/ "select reason, count(*) from dropped group by all"
      pixsieve query ws/ "select quantile_cont(width, [0.1, 0.5, 0.9]) from samples"
    """  # noqa: D301
    from pixsieve import report
    from pixsieve.query import query as ask

    found = ask(path, sql)
    _say(report.rows_to_json(found) if as_json else report.rows_to_text(found))


@pixsieve.command(cls=_Command, short_help="Print what a recipe would do.")
@click.argument("recipe_path", metavar="RECIPE", type=click.Path())
def describe(recipe_path: str) -> None:
    """Print what a recipe would do: its steps, and the columns that each stage reads and adds.

    The recipe is checked as for a run; no input is looked at.
    """
    from pixsieve import recipe

    text = recipe.load(recipe_path).describe()
    _say("\n".join(map(printable, text.splitlines())))


@pixsieve.command(cls=_Command, short_help="Check that a dataset is what it claims to be.")
@click.argument("path", metavar="PATH", type=click.Path())
@_option(
    "--sample", type=_Share(), default="100%", metavar="SHARE", heading="Checking",
    help="Read only so many of the samples, such as 1%, always the same ones.",
)  # fmt: skip
@_option("--no-decode", is_flag=True, heading="Checking", help="Do not decode images.")
@_option(
    "--no-load", is_flag=True, heading="Checking",
    help="Do not load the tars with the webdataset library, where it is installed.",
)  # fmt: skip
@_option("--loader", "loaders", heading="Checking", **cli_loaders.NAMES)
@_option("--loader-python", "pythons", heading="Running", **cli_loaders.PYTHON)
@_option(
    "--workers", type=click.IntRange(min=1), metavar="N", heading="Running",
    show_default="one per processor", help="Worker processes.",
)  # fmt: skip
@_QUIET
@_JSON
def verify(
    *,
    path: str,
    sample: float,
    no_decode: bool,
    no_load: bool,
    loaders: tuple[tuple[str, ...], ...],
    pythons: tuple[tuple[str, str], ...],
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check that a dataset is what it claims to be.

    PATH is a folder that pixsieve has made, or any folder with WebDataset tars, or one tar. What
    pixsieve has made is checked in full: every file against its SHA-256, every tar against its
    table, every count. Of others' tars it checks what can be checked, and says what cannot.

    Exits with 0 if the dataset is sound, and with 6 if it is not.

    \b
    Examples:
      pixsieve verify out/
      pixsieve verify out/ --sample 1% --no-load
      pixsieve verify out/ --loader webdataset,hf,energon
      pixsieve verify out/ --json | jq .findings
    """  # noqa: D301
    from pixsieve.verify import verify as check

    cli_loaders.check(path, loaders, pythons)
    with shown_progress(quiet=quiet, as_json=as_json) as progress:
        report = check(
            path,
            sample=sample,
            decode=not no_decode,
            load=not no_load,
            workers=workers or len(os.sched_getaffinity(0)),
            progress=_shards_to(progress),
        )
        report = cli_loaders.compare(
            path, report, loaders, pythons, decode=not no_decode, log=progress.log
        )
        progress.finish({"shards": report.checked.shards, "samples": report.checked.samples})
    if as_json:
        _say(report.to_json())
    elif not quiet:
        _say(report.to_text())
    elif not report.ok:
        click.echo("\n".join(error.to_text() for error in report.errors), err=True)
    if not report.ok:
        msg = f"{path} does not hold what it promises: {len(report.errors):,} errors"
        raise VerifyError(msg)


def _shards_to(progress: Progress) -> Callable[[int, int, str], None]:
    """Return what verify calls after each shard."""

    def after_shard(done: int, total: int, name: str) -> None:
        del name
        if done == 1:
            progress.start("verify", total, "shards")
        progress.advance(1)

    return after_shard


@pixsieve.command(cls=_Command, short_help="Tell where an image went, or why it was left out.")
@click.argument("output", metavar="OUT", type=click.Path())
@click.argument("key", metavar="KEY")
@_option(
    "--json", "as_json", is_flag=True, heading="Output",
    help="Print the answers as one JSON object.",
)  # fmt: skip
def why(*, output: str, key: str, as_json: bool) -> None:
    """Tell where an image went, or why it was left out.

    OUT is the folder of a dataset, or of a run that left nothing for one, or the --workspace of a
    run. KEY is the id of an image or its key in the tars, or the file or key that it had before, or
    the end of one of these.

    \b
    Examples:
      pixsieve why out/ cat.jpg
      pixsieve why out/ photos/2019/cat
      pixsieve why out/ cat-0a1b2c3d4e5f6071
    """  # noqa: D301
    from pixsieve.why import LIMIT
    from pixsieve.why import why as ask

    answers = ask(output, key, limit=LIMIT + 1)
    shown, more = answers[:LIMIT], len(answers) > LIMIT
    if as_json:
        _say(json.dumps({"answers": [dataclasses.asdict(each) for each in shown], "more": more}))
        return
    _say("\n".join(answer.to_text() for answer in shown))
    if more:
        _say(f"\nThese are the first {LIMIT}; ask for an image_id or a path to see one.")


@pixsieve.command(cls=_Command, short_help="Remove the working state of a dataset.")
@click.argument("output", metavar="OUT", type=click.Path())
@_option(
    "--workspace", type=click.Path(), metavar="DIR", heading="Options",
    help="A workspace elsewhere, the one that the run was given; it is emptied too.",
)  # fmt: skip
def clean(output: str, workspace: str | None) -> None:
    """Remove the working state of a dataset; the dataset stays as it is.

    OUT is the folder of a dataset. Its working state is in OUT/.pixsieve, unless the run was given
    a --workspace. Without it, a run that is started again measures every image anew.
    """
    from pixsieve.engine.output import clean as remove

    if not Path(output).is_dir():
        msg = f"{output}: there is no such folder; expected a dataset that pixsieve has made"
        raise UsageError(msg)
    removed = remove(output, workspace)
    _say(
        "\n".join(f"removed {printable(path)}" for path in removed) or "there is nothing to remove"
    )


pixsieve.add_command(cli_loaders.bench)
pixsieve.add_command(repair)
pixsieve.add_command(models)


# -- running ----------------------------------------------------------------------------------


def _execute(
    pipeline: Pipeline,
    executor: Executor,
    *,
    workspace: str | None,
    max_failed: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a pipeline and print what it came to."""
    from pixsieve import report
    from pixsieve.engine.job import RunOptions

    with shown_progress(quiet=quiet, as_json=as_json) as progress:
        options = RunOptions(workspace=workspace, max_failed=max_failed, progress=progress)
        result = pipeline.run(executor, options)
    if as_json:
        _say(report.to_json(result))
    elif not quiet:
        _say(report.to_text(result))
