"""What the golden models are shown: images and captions, made without any random number.

Tests read this file with ``runpy``; the generators beside it import it.
"""

from pathlib import Path

import numpy as np

MODELS = Path(__file__).parent / "models"
IMAGE_MODELS = ("clip", "open_clip", "siglip", "dinov2", "dinov2_with_registers")
TEXT_MODELS = ("clip", "open_clip", "siglip")

SIZES = [(37, 53), (64, 64), (50, 200), (300, 41), (1, 1), (5, 30), (481, 333), (33, 47), (90, 92)]
SIZES += [(35, 32)]  # an odd number of rows is cut off: the corner is rounded
TEXTS = [
    "a photo of a dog",
    "Two CATS on the beach, 2021!",
    "",
    "  many   spaces\tand\nlines ",
    "caf\u00e9 \u65e5\u672c \U0001f600",
    "a red car of the dog on the beach " * 4,
    "it's <b>html</b> & co",
    "Cat &amp;amp; dog &lt;b&gt; &quot;it&#39;s&quot;",
]


def golden_images() -> list[np.ndarray]:
    """Return images of odd sizes, without any random number: (H, W, 3) uint8."""
    images = []
    for height, width in SIZES:
        y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
        smooth = 100 + 60 * ((x * 3 + c * 40) // 16 % 2) + y * 60 // max(height, 1)
        rough = (x * 7919 + y * 104729 + c * 1299709 + x * y * 31) % 61
        images.append(((smooth + rough) % 256).astype(np.uint8))
    return images


def golden(name: str) -> dict[str, np.ndarray]:
    """Return what a model's authors' classes make of the images and captions."""
    with np.load(MODELS / f"{name}.npz") as found:
        return dict(found)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
