"""Architectures whose graphs are not built here, through transformers (extra ``torch``).

Only files of the folder are read, safetensors only, and no code of the folder is run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from pixsieve.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from pixsieve.models.folder import ModelFolder
    from pixsieve.models.preprocess import Preprocess


def dimension(config: Mapping[str, object]) -> int | None:
    """Return the length of the embedding that a configuration states, if it does."""
    tower = config.get("vision_config")
    places = (config, tower if isinstance(tower, dict) else {})
    for name in ("projection_dim", "hidden_size"):
        for place in places:
            value = place.get(name)
            if isinstance(value, int):
                return value
    return None


def check(device: str) -> None:
    """Raise ``UsageError`` unless torch has a device."""
    if device == "cuda" and not import_module("torch").cuda.is_available():
        msg = "device='cuda' cannot be used: torch finds no GPU; take device='cpu'"
        raise UsageError(msg)


def load(
    folder: ModelFolder, preprocess: Preprocess, device: str
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return the function from (n, height, width, 3) pixels to (n, dim) embeddings.

    The embedding is what ``get_image_features`` gives, else the pooled output, else the first
    token of the last layer.

    Raises:
        MissingExtraError: without torch and transformers.
        UsageError: if transformers cannot make the model from these files.
    """
    try:
        torch, transformers = import_module("torch"), import_module("transformers")
    except ImportError as error:
        kind = folder.config().get("model_type")
        msg = (
            f"{folder.name} is a {kind} model, which needs torch and transformers: "
            f"pip install 'pixsieve[torch]'"
        )
        raise MissingExtraError(msg) from error
    torch.set_num_threads(1)
    try:
        model = transformers.AutoModel.from_pretrained(
            str(folder.path), local_files_only=True, use_safetensors=True, trust_remote_code=False,
            dtype=torch.float32,
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        msg = f"transformers cannot make a model of {folder.path}: {error}"
        raise UsageError(msg) from error
    model = model.eval().to(device)
    mean, std = (np.array(each) for each in (preprocess.mean, preprocess.std))
    scale, shift = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)

    def embed(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = np.ascontiguousarray((batch * scale - shift).transpose(0, 3, 1, 2))
        with torch.inference_mode():
            pixels = torch.from_numpy(values).to(device)
            if hasattr(model, "get_image_features"):
                found = model.get_image_features(pixel_values=pixels)
            else:
                found = model(pixel_values=pixels)
            if not torch.is_tensor(found):
                pooled = getattr(found, "pooler_output", None)
                found = found.last_hidden_state[:, 0] if pooled is None else pooled
            return np.asarray(found.flatten(1).cpu().numpy(), np.float32)

    return embed
