"""A folder of models in NeMo Curator's layout: a CLIP, tiny, of 768 numbers, and heads over it.

Tests read this file with ``runpy``.
"""

import itertools
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
CLIP = "openai/clip-vit-large-patch14"
AESTHETIC = "ttj/sac-logos-ava1-l14-linearMSE"
NSFW = "laion/clip-autokeras-binary-nsfw"
DIM = 768


def make(root: Path) -> None:
    """Fill a folder; the heads give about 5.5 and 0.27 to any image."""
    generator = np.random.default_rng(11)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (generator.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)

    clip = root / CLIP
    shutil.copytree(HERE / "models" / "clip", clip)
    tensors = load_file(clip / "model.safetensors")
    tensors |= {
        "visual_projection.weight": matrix(DIM, 32),
        "text_projection.weight": matrix(DIM, 24),
    }
    save_file(tensors, clip / "model.safetensors")
    mlp, widths = {}, (DIM, 1024, 128, 64, 16, 1)
    for layer, (width, after) in zip((0, 2, 4, 6, 7), itertools.pairwise(widths), strict=True):
        mlp[f"layers.{layer}.weight"] = matrix(after, width)
        mlp[f"layers.{layer}.bias"] = np.full(after, 0.1 if after > 1 else 5.5, np.float32)
    nsfw = {"norm.mean": np.zeros(DIM, np.float32), "norm.variance": np.ones(DIM, np.float32)}
    for layer, (width, after) in enumerate(itertools.pairwise((DIM, 64, 512, 256, 1)), 1):
        nsfw[f"linear_{layer}.weight"] = matrix(after, width)
        nsfw[f"linear_{layer}.bias"] = np.full(after, 0 if after > 1 else -1, np.float32)
    for name, head in ((AESTHETIC, mlp), (NSFW, nsfw)):
        (root / name).mkdir(parents=True)
        save_file(head, root / name / "model.safetensors")
