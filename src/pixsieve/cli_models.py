"""``pixsieve models``: what models are there, bring one, and make safetensors of a pickle."""

# ruff: noqa: PLC0415  # whatever is heavy is imported by the command that needs it

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixsieve.errors import PixsieveError, UsageError

if TYPE_CHECKING:
    from pixsieve.models.folder import ModelFolder
    from pixsieve.models.image_model import ImageModel, Runtime
    from pixsieve.models.laion import Head

_MODEL_DIR = click.option(
    "--model-dir", metavar="DIR", type=click.Path(), envvar="PIXSIEVE_MODELS", show_envvar=True,
    help="The folder of models; NAME lies in DIR/NAME.",
)  # fmt: skip


@click.group(short_help="Look after the models that scores are made with.")
def models() -> None:
    """Look after the models that scores are made with.

    pixsieve reads models from a folder, safetensors and ONNX only, and never from a network, but
    for 'models fetch'. What is in the folder, and where it comes from, is told in docs/models.md.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What ``models check`` found out about one model.

    Attributes:
        name: Of the model.
        folder: Where it lies; ``None`` for the default model, which lies in a package.
        revision: Commit on the hub, if known.
        files: Name of each weight file to its SHA-256.
        kind: ``image model``, ``image and text model`` or ``head``, and what it lacks to be more;
            ``model`` where its files do not tell.
        dim: Length of the vectors that it makes, or, if a head, takes.
        problem: Why it cannot be used, if it cannot.
    """

    name: str
    folder: str | None
    revision: str | None
    files: dict[str, str]
    kind: str
    dim: int | None
    problem: str | None


@models.command(short_help="Tell which models are there, and try each.")
@_MODEL_DIR
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--no-run", is_flag=True, help="Read the files only; run no model.")
def check(*, model_dir: str | None, as_json: bool, no_run: bool) -> int:
    """Tell which models are there, and try each.

    Every model below the folder is listed with its revision, the SHA-256 of its weights and the
    length of its vectors, and run on one image, or, if it is a head, on one vector. Known models
    that are not there are named as missing, which is no error. The exit code is 2 if one that is
    there cannot be used.
    """
    from pixsieve.models.folder import ELSEWHERE, KNOWN, folders, model_root

    root = model_root(model_dir)
    if root and not root.is_dir():
        msg = f"{root}: there is no such folder; 'pixsieve models fetch' makes it"
        raise UsageError(msg)
    found = [_check_default(run=not no_run)]
    found += [_check(path, root, run=not no_run) for path in folders(root)] if root else []
    missing = sorted({*KNOWN, *ELSEWHERE} - {each.name for each in found})
    if as_json:
        click.echo(json.dumps({"models": [asdict(each) for each in found], "missing": missing}))
    else:
        where = str(root) if root else "no folder of models (--model-dir, or PIXSIEVE_MODELS)"
        click.echo("\n".join([f"models in {where}", *map(_text, found), ""]))
        there = [name for name in missing if name not in ELSEWHERE]
        click.echo("known, but not here (pixsieve models fetch NAME): " + ", ".join(there))
        for name in missing:
            if name in ELSEWHERE:
                click.echo(f"known, but not here nor on the hub: {name}: get {ELSEWHERE[name]}")
    return UsageError.exit_code if any(each.problem for each in found[1:]) else 0


@models.command(short_help="Bring a model from the hub, on a machine with a network.")
@click.argument("name")
@_MODEL_DIR
@click.option("--revision", metavar="COMMIT", help="Branch, tag or commit, instead of the usual.")
def fetch(*, name: str, model_dir: str | None, revision: str | None) -> None:
    """Bring a model from the hub, on a machine with a network.

    NAME is the model's name there, such as openai/clip-vit-large-patch14. Its JSON and safetensors
    files of one commit are written to DIR/NAME, and their SHA-256 are noted in pixsieve.json. Copy
    DIR to the machine that has no network. Mind the licence of the model.
    """
    from pixsieve.models.fetch import fetch as bring

    if model_dir is None:
        msg = "where to? Give --model-dir DIR, or set PIXSIEVE_MODELS"
        raise UsageError(msg)
    fetched = bring(
        name,
        Path(model_dir).expanduser(),
        revision=revision,
        progress=lambda file, size: click.echo(f"{file}  {size:,} bytes", err=True),
    )
    click.echo(f"{fetched.folder}  revision {fetched.revision}, {len(fetched.files)} files")


@models.command(short_help="Make safetensors of weights that come as a pickle.")
@click.argument("file", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
def convert(*, file: str, out: str, overwrite: bool) -> None:
    """Make safetensors of weights that come as a pickle.

    FILE is a .pth, .pt, .bin or .ckpt file with tensors, or the zip of LAION's NSFW detector. No
    code in it is run: the reader knows tensors only, and refuses everything else.
    """
    from pixsieve.models.weights import convert as convert_file

    source, target = Path(file), Path(out)
    if not source.is_file():
        msg = f"{file}: there is no such file"
        raise UsageError(msg)
    if target.is_dir():
        msg = f"{out} is a folder; expected a file, such as {target / 'model.safetensors'}"
        raise UsageError(msg)
    if target.exists() and not overwrite:
        msg = f"{out} is there already; give another name, or --overwrite"
        raise UsageError(msg)
    data = convert_file(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(target)
    click.echo(f"{out}  {len(data):,} bytes")


def _check_default(*, run: bool) -> Checked:
    from pixsieve.models.image_model import DEFAULT, Runtime, find

    digest, dim, problem = {}, None, None
    try:
        model = find(DEFAULT)
        digest, dim = {"weights": model.digest()}, model.dim
        if run:
            _run(model, Runtime())
    except PixsieveError as error:
        problem = str(error)
    return Checked(
        name="default (EfficientNet-Lite0)", folder=None, revision=None, files=digest,
        kind="image model", dim=dim, problem=problem,
    )  # fmt: skip


def _check(path: Path, root: Path, *, run: bool) -> Checked:
    """Look at one folder: a head if it has the name of one, else a model."""
    from pixsieve.models import caption_model, image_model
    from pixsieve.models.folder import open_folder, revision, sha256
    from pixsieve.models.laion import HEADS

    name = path.relative_to(root).as_posix()
    files = {each.name: sha256(each) for each in sorted(path.glob("*.safetensors"))}
    files |= {each.name: sha256(each) for each in sorted(path.glob("*.onnx"))}
    kind, dim, commit, problem = "model", None, None, None
    try:
        commit = revision(path)
        if name in HEADS:
            kind, dim = "head", HEADS[name].dim
            _check_head(HEADS[name], root, run=run)
        else:
            place = open_folder(path, name)
            kind = "image model"
            model = image_model.find(str(path.absolute()))
            dim = model.dim
            settings = image_model.Runtime()
            if _has_text(place) and not (path / caption_model.FILES[0]).is_file():
                kind = f"image model; captions would need {caption_model.FILES[0]}"
            elif _has_text(place):
                kind = "image and text model"
                caption_model.check(place)
                if run:
                    caption_model.load(place, settings)(["a photo"])
            if run:
                _run(model, settings)
    except PixsieveError as error:
        problem = str(error)
    return Checked(
        name=name, folder=str(path), revision=commit, files=files, kind=kind, dim=dim,
        problem=problem,
    )  # fmt: skip


def _check_head(head: Head, root: Path, *, run: bool) -> None:
    """Load a head and score one vector, or raise what is wrong."""
    import numpy as np

    score = head.load(head.find(str(root)))
    vector = np.full((1, head.dim), head.dim**-0.5, np.float32)
    if run and not np.isfinite(score(vector)).all():
        msg = f"{head.name} gives a score that is not finite for an ordinary vector"
        raise UsageError(msg)


def _has_text(place: ModelFolder) -> bool:
    from pixsieve.models import architecture

    return place.kind != "onnx" and architecture.model_type(place) in architecture.WITH_TEXT


def _run(model: ImageModel, settings: Runtime) -> None:
    """Embed one image, or raise what is wrong."""
    import numpy as np

    from pixsieve.models import image_model

    image_model.check(model, settings)
    ramp = np.arange(300 * 400 * 3, dtype=np.uint32).reshape(300, 400, 3)
    (vector,) = image_model.load(model, settings)([(ramp % 251).astype(np.uint8)])
    if not np.isfinite(vector).all():
        msg = f"{model.name} gives a vector that is not finite for an ordinary image"
        raise UsageError(msg)


def _text(found: Checked) -> str:
    """Return a few lines about a model."""
    dim = "" if found.dim is None else f", {found.dim} numbers"
    revision = "" if found.revision is None else f", revision {found.revision}"
    state = "ok" if found.problem is None else "CANNOT BE USED"
    lines = [f"  {found.name}: {state} ({found.kind}{dim}{revision})"]
    lines += [f"    {name}  sha256 {digest}" for name, digest in found.files.items()]
    if found.problem is not None:
        lines.append(f"    {found.problem}")
    return "\n".join(lines)
