"""Where a model lies on this machine, and which of its files decide its results.

A model is a folder, as the Hugging Face hub and NeMo Curator lay it out::

    <model_dir>/openai/clip-vit-large-patch14/
        config.json  preprocessor_config.json  model.safetensors
        tokenizer.json  tokenizer_config.json

Three kinds are understood: that one, OpenCLIP's (``open_clip_config.json`` and
``open_clip_model.safetensors``), and an exported graph (``model.onnx`` and ``model.json``, see
:mod:`pixsieve.models.exported`). Nothing here touches a network, and no pickle is opened.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pixsieve.errors import UsageError, nearest
from pixsieve.models import torch_file, weights

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT: Final = "PIXSIEVE_MODELS"
"""Variable that names the folder of models where no ``model_dir`` is given."""
RECORD: Final = "pixsieve.json"
"""Written by ``pixsieve models fetch``: the model's name, revision and digests."""

KNOWN: Final[Mapping[str, str]] = {
    "openai/clip-vit-large-patch14": "32bd642",  # the revision that NeMo Curator pins
    "openai/clip-vit-base-patch32": "main",
    "openai/clip-vit-base-patch16": "main",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "main",
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": "main",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "main",
    "google/siglip-base-patch16-224": "main",
    "google/siglip-so400m-patch14-384": "main",
    "google/siglip2-base-patch16-224": "main",
    "facebook/dinov2-small": "main",
    "facebook/dinov2-base": "main",
    "facebook/dinov2-large": "main",
    "ttj/sac-logos-ava1-l14-linearMSE": "1e77fa0",  # the revision that NeMo Curator pins
}
"""Models that are known by name, and the revision that ``pixsieve models fetch`` takes.

Any other name works too: the folder's own files say what it is.
"""

_DETECTOR, _PREDICTOR = "LAION-AI/CLIP-based-NSFW-Detector", "LAION-AI/aesthetic-predictor"
ELSEWHERE: Final[Mapping[str, str]] = {
    "laion/clip-autokeras-binary-nsfw": f"clip_autokeras_binary_nsfw.zip of {_DETECTOR}",
} | {
    f"laion/aesthetic-predictor/{name}": f"{name}.pth of {_PREDICTOR}"
    for name in ("sa_0_4_vit_l_14_linear", "sa_0_4_vit_b_32_linear", "sa_0_4_vit_b_16_linear")
}
"""Heads whose authors publish them elsewhere, as pickles or TensorFlow's files: which file."""

PROCESSORS: Final = ("preprocessor_config.json", "processor_config.json")
"""Files that say how pixels are prepared; the second is what newer folders have."""

HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""``owner/model``."""

_WEIGHTS: Final = {
    "transformers": ("model.safetensors", "model.safetensors.index.json"),
    "open_clip": ("open_clip_model.safetensors",),
    "onnx": ("model.onnx",),
}
_CONFIG: Final = {
    "transformers": "config.json",
    "open_clip": "open_clip_config.json",
    "onnx": "model.json",
}


_MAIN_PICKLE: Final = {
    "transformers": "pytorch_model.bin",
    "open_clip": "open_clip_pytorch_model.bin",
}
"""The pickle that has the weights where there are several, such as an optimiser's."""
_PART: Final = re.compile(r"-\d+-of-\d+\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A model's folder.

    Attributes:
        name: Name of the model, the same on every machine.
        path: The folder.
        kind: ``transformers``, ``open_clip`` or ``onnx``.
        weights: The weight files: safetensors, or an ONNX graph and what it points to.
    """

    name: str
    path: Path
    kind: str
    weights: tuple[Path, ...]

    @property
    def revision(self) -> str | None:
        """Commit of the model on its hub, if it is noted."""
        return revision(self.path)

    def read_json(self, name: str) -> dict[str, object]:
        """Return a JSON object of the folder, empty if there is no such file."""
        return read_json(self.path / name)

    def config(self) -> dict[str, object]:
        """Return the model's own description."""
        return self.read_json(_CONFIG[self.kind])

    def files(self, *others: str) -> tuple[Path, ...]:
        """Return the files that decide the embedding of an image, and ``others`` that exist."""
        names = (_CONFIG[self.kind], *PROCESSORS, *others)
        there = (self.path / name for name in names)
        return tuple(sorted({*self.weights, *(path for path in there if path.is_file())}))

    def digest(self, *others: str) -> str:
        """Return one SHA-256 over :meth:`files`; where the folder lies is no part of it."""
        lines = (f"{path.name} {sha256(path)}\n" for path in self.files(*others))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def find(model: str, model_dir: str | None = None) -> ModelFolder:
    """Find a model by its name or by the path of its folder.

    Args:
        model: A name such as ``openai/clip-vit-base-patch32``, or a folder.
        model_dir: The folder of models; ``None`` for that in ``$PIXSIEVE_MODELS``.

    Raises:
        UsageError: where there is none, or its weights are of a kind that is not read.
    """
    root = model_root(model_dir)
    if _is_path(model):
        for folder in (model, model_dir or model):
            if not Path(folder).expanduser().is_dir():
                msg = f"{folder}: there is no such folder; expected that of a model, or of models"
                raise UsageError(msg)
        return open_folder(Path(model).expanduser(), portable_name(model))
    places = [Path(model)] if root is None else [root / model, Path(model)]
    for place in places:
        if place.is_dir():
            return open_folder(place, model)
    looked = " and ".join(str(place) for place in places)
    hint = "" if model in KNOWN else nearest(model, KNOWN)
    what = f"{model}: there is no such model here (looked for {looked}){hint}"
    msg = f"{what}. {ways_to(model, root)}"
    raise UsageError(msg)


def ways_to(name: str, root: Path | None) -> str:
    """Return what to do to have a model, or a head, in a folder of models."""
    place = root or Path("DIR")
    if name in ELSEWHERE:
        command = shlex.join(["FILE", str(place / name / "model.safetensors")])
        how = f"Get {ELSEWHERE[name]}, on GitHub, and run: pixsieve models convert {command}"
    elif HUB_NAME.fullmatch(name):
        command = shlex.join([name, "--model-dir", str(place)])
        how = f"On a machine with a network run: pixsieve models fetch {command}"
    else:
        how = f"Expected a folder, or a name on the hub, such as {next(iter(KNOWN))}"
    return how if root else f"{how}; then give model_dir='DIR', or set {ENVIRONMENT}"


def open_folder(path: Path, name: str) -> ModelFolder:
    """Return what a folder holds.

    Raises:
        UsageError: if it holds no weights that are read.
    """
    for kind, config in _CONFIG.items():
        if not (path / config).is_file():
            continue
        for file in _WEIGHTS[kind]:
            if (path / file).is_file():
                return ModelFolder(name=name, path=path, kind=kind, weights=_parts(path / file))
    pickles = sorted(each for each in path.iterdir() if each.suffix in torch_file.SUFFIXES)
    for kind, config in _CONFIG.items():
        if pickles and kind in _MAIN_PICKLE and (path / config).is_file():
            named = [each for each in pickles if each.name == _MAIN_PICKLE[kind]]
            if not named and _PART.search(pickles[0].name):
                msg = (
                    f"{path} has its weights as several pickles ({pickles[0].name}); take its "
                    f"safetensors instead. {ways_to(name, None)}"
                )
                raise UsageError(msg)
            raise weights.refuse_pickle((named or pickles)[0], path / _WEIGHTS[kind][0])
    expected = " or ".join(f"{config} with {_WEIGHTS[kind][0]}" for kind, config in _CONFIG.items())
    msg = f"{path} holds no model that can be read; expected {expected}"
    raise UsageError(msg)


def revision(path: Path) -> str | None:
    """Return the commit of a folder on its hub: our fetch, its client or its cache note it."""
    noted = read_json(path / RECORD).get("revision")
    if isinstance(noted, str):
        return noted
    metadata = path / ".cache" / "huggingface" / "download" / "config.json.metadata"
    if metadata.is_file():
        return metadata.read_text(encoding="utf-8").partition("\n")[0].strip() or None
    place = path.resolve()
    return place.name if place.parent.name == "snapshots" else None


def folders(root: Path) -> list[Path]:
    """Return the folders below ``root`` that hold a model or a head, to three levels, sorted."""
    names = {name for names in _WEIGHTS.values() for name in names} | set(_CONFIG.values())
    found, level = [], [root] if root.is_dir() else []
    for _ in range(3):
        level = [
            each
            for path in level
            for each in path.iterdir()
            if each.is_dir() and not each.name.startswith(".")
        ]
        for path in level:
            files = [each for each in path.iterdir() if each.is_file()]
            if any(each.name in names or each.suffix in torch_file.SUFFIXES for each in files):
                found.append(path)
    return sorted(found)


def model_root(model_dir: str | None) -> Path | None:
    """Return the folder of models that is meant, if any."""
    root = model_dir or os.environ.get(ENVIRONMENT)
    return Path(root).expanduser() if root else None


def portable_name(model: str) -> str:
    """Return how a model is named on any machine: a folder by its own name.

    A head must know its own model, wherever that lies.
    """
    if not _is_path(model):
        return model
    place = Path(model).expanduser().resolve()
    if place.parent.name == "snapshots":  # the hub's cache: models--OWNER--NAME/snapshots/COMMIT
        return place.parents[1].name.removeprefix("models--").replace("--", "/")
    two = f"{place.parent.name}/{place.name}"
    return two if two in KNOWN else place.name


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file; computed once for as long as size and time stay the same."""
    stat = path.stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


def read_json(path: Path) -> dict[str, object]:
    """Return a JSON object, empty if there is no such file.

    Raises:
        UsageError: if it holds something else.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is not JSON: {error}"
        raise UsageError(msg) from error
    if not isinstance(found, dict):
        msg = f"{path} holds a JSON {type(found).__name__}; expected an object"
        raise UsageError(msg)
    return found


@functools.lru_cache(maxsize=256)
def _sha256(path: str, _size: int, _mtime_ns: int) -> str:
    with open(path, "rb") as file:  # noqa: PTH123  # a path, as text, is what is cached
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_path(model: str) -> bool:
    return Path(model).is_absolute() or model.startswith((".", "~"))


def _parts(file: Path) -> tuple[Path, ...]:
    """Return the files that hold the tensors: an index names several."""
    if file.name.endswith(".index.json"):
        named = read_json(file).get("weight_map")
        parts = sorted({str(each) for each in named.values()}) if isinstance(named, dict) else []
        if not parts or any(Path(part).name != part for part in parts):
            msg = f"{file} names no files beside it; expected a weight_map of tensors to files"
            raise UsageError(msg)
        missing = [part for part in parts if not (file.parent / part).is_file()]
        if missing:
            msg = f"{file.parent} lacks {missing[0]}, which {file.name} names: fetch it too"
            raise UsageError(msg)
        return tuple(file.parent / part for part in parts)
    if file.suffix == ".onnx":
        beside = [each for each in file.parent.iterdir() if each.name.startswith(file.name)]
        return tuple(sorted(beside))  # model.onnx and, if it is large, model.onnx_data or .data
    return (file,)
