"""The text side of a model folder: captions to vectors beside those of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pixsieve.errors import UsageError
from pixsieve.models import architecture
from pixsieve.models.image_model import normalised, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pixsieve.models.folder import ModelFolder
    from pixsieve.models.image_model import Runtime


_AT_ONCE: Final = 8  # on a CPU
FILES: Final = ("tokenizer.json", "tokenizer_config.json")
"""What decides the vector of a caption beside the files that decide that of an image."""


def check(place: ModelFolder) -> None:
    """Raise ``UsageError`` unless a folder has a text tower and a tokenizer. Loads neither."""
    architecture.check_text(place)
    architecture.text(place, read_tensors(place))
    if not (place.path / FILES[0]).is_file():
        msg = (
            f"{place.path} has no {FILES[0]}, which turns captions into tokens; fetch it from "
            f"where the model came from"
        )
        raise UsageError(msg)


def load(place: ModelFolder, settings: Runtime) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Load the text tower; return the function from captions to their L2-normalised vectors.

    Each caption's vector is the same whatever the captions around it: texts are only taken together
    with others that are filled up to the same number of tokens, which their own length decides.

    Raises:
        UsageError: if the folder has no text tower or tokenizer, or they do not fit together.
    """
    from pixsieve.models import runtime, text, tokenizer  # noqa: PLC0415  # heavy

    tensors = read_tensors(place)
    tower = architecture.text(place, tensors)
    tokenize = tokenizer.load(place, tower)
    session = runtime.load(
        text.build(tower, tensors),
        device=settings.device,
        external_folder=str(place.weights[0].resolve().parent),
        runtime=settings.runtime,
        precision=settings.precision,
    )

    step = settings.step(_AT_ONCE)

    def vectors(captions: Sequence[str]) -> NDArray[np.float32]:
        found = np.empty((len(captions), tower.dim), np.float32)
        tokens = tokenize(captions)
        for length in sorted({len(ids) for ids in tokens}):
            rows = [row for row, ids in enumerate(tokens) if len(ids) == length]
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                ids = np.stack([tokens[row] for row in some])
                pooled = np.arange(len(some)) * length + _ends(ids, tower)
                found[some] = session.run({"ids": ids, "pooled": pooled})[0]
        return normalised(found)

    return vectors


def _ends(ids: NDArray[np.int64], tower: architecture.Text) -> NDArray[np.int64]:
    """Return for each text the place of the token whose vector stands for all of it."""
    if not tower.causal:
        return np.full(len(ids), ids.shape[1] - 1, np.int64)
    return np.asarray(np.argmax(ids if tower.eos is None else ids == tower.eos, axis=1), np.int64)
