"""A model that its user exported to ONNX: ``model.onnx`` and a ``model.json`` that describes it.

``model.json``, with the defaults that hold where a name is left out::

    {
      "size": 224,                  pixels, or [height, width]; must be given
      "dim": 512,                   length of the embedding; must be given
      "mean": [0.5, 0.5, 0.5],      of values from 0 to 1; must be given
      "std": [0.5, 0.5, 0.5],       must be given
      "resize": "shortest",         "shortest": shorter side to size, then the centre; or "squash"
      "interpolation": "bicubic",   or bilinear, lanczos, nearest
      "layout": "NCHW",             or NHWC; float32, normalised
      "input": the graph's only input,
      "output": the graph's first output, (n, dim)
    }
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pixsieve.errors import UsageError
from pixsieve.models import preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pixsieve.models.folder import ModelFolder
    from pixsieve.models.preprocess import Preprocess

_NAMES: Final = frozenset(
    {"size", "dim", "mean", "std", "resize", "interpolation", "layout", "input", "output"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What ``model.json`` says."""

    preprocess: Preprocess
    dim: int
    layout: str
    input: str | None
    output: str | None

    def normalise(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the graph's input for (n, height, width, 3) pixels."""
        mean, std = (np.array(each) for each in (self.preprocess.mean, self.preprocess.std))
        scale, shift = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
        values = batch * scale - shift
        return np.ascontiguousarray(
            values.transpose(0, 3, 1, 2) if self.layout == "NCHW" else values
        )


def read(folder: ModelFolder) -> Exported:
    """Read ``model.json``.

    Raises:
        UsageError: if it lacks something, or says what is not known.
    """
    settings, where = folder.config(), str(folder.path / "model.json")
    if unknown := sorted(set(settings) - _NAMES):
        msg = f"{where}: {unknown[0]!r} is not known; expected some of {sorted(_NAMES)}"
        raise UsageError(msg)
    if missing := [name for name in ("size", "dim", "mean", "std") if name not in settings]:
        msg = f"{where} lacks {missing[0]!r}; it must give size, dim, mean and std"
        raise UsageError(msg)
    dim, layout = settings["dim"], settings.get("layout", "NCHW")
    if not isinstance(dim, int) or dim < 1:
        msg = f"{where}: dim is {dim!r}; expected the length of the embedding"
        raise UsageError(msg)
    if layout not in {"NCHW", "NHWC"}:
        msg = f"{where}: layout is {layout!r}; expected 'NCHW' or 'NHWC'"
        raise UsageError(msg)
    config = {name: settings[name] for name in ("mean", "std", "size")}
    config["resize_mode"] = settings.get("resize", "shortest")
    config["interpolation"] = settings.get("interpolation", "bicubic")
    return Exported(
        preprocess=preprocess.from_open_clip(config, 0, where),
        dim=dim,
        layout=str(layout),
        input=_name(settings.get("input")),
        output=_name(settings.get("output")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where pixels go in and the embedding comes out.

    Attributes:
        input: Name of the input.
        output: Number of the output.
        batch: Images that the graph takes at once; ``None`` for any number.
    """

    input: str
    output: int
    batch: int | None


def ports(folder: ModelFolder, described: Exported) -> Ports:
    """Look for the ports in the graph itself.

    Raises:
        UsageError: if it cannot be read, has other ones than ``model.json`` says, or takes several
            images at once, but only so many.
    """
    import onnx  # noqa: PLC0415  # heavy: only where a model is loaded

    where = folder.path / "model.onnx"
    try:
        graph = onnx.load(where, load_external_data=False).graph
    except Exception as error:  # the parser's own errors have no common class
        msg = f"{where} is no ONNX graph: {error}; export it again"
        raise UsageError(msg) from error
    known = {path.name for path in folder.weights}
    for each in graph.initializer:
        places = {entry.value for entry in each.external_data if entry.key == "location"}
        if places - known:
            msg = (
                f"{where} has weights in {min(places)}, which is no part of the model's digest; "
                f"export it so that such files lie beside it and their names begin with model.onnx"
            )
            raise UsageError(msg)
    weights = {each.name for each in graph.initializer}
    inputs = {each.name: each for each in graph.input if each.name not in weights}
    outputs = [each.name for each in graph.output]
    name = described.input or next(iter(inputs), "")
    if name not in inputs or (described.input is None and len(inputs) != 1):
        msg = f"{where} has the inputs {sorted(inputs)}; name in model.json the one for pixels"
        raise UsageError(msg)
    if described.output is not None and described.output not in outputs:
        msg = f"{where} has the outputs {outputs}; model.json says {described.output!r}"
        raise UsageError(msg)
    batch = inputs[name].type.tensor_type.shape.dim[0].dim_value or None
    if batch not in {None, 1}:
        msg = f"{where} takes {batch} images at once; export it for any number, or for one"
        raise UsageError(msg)
    output = 0 if described.output is None else outputs.index(described.output)
    return Ports(input=name, output=output, batch=batch)


def _name(value: object) -> str | None:
    return None if value is None else str(value)
