"""What the golden models are shown: images and captions, made without any random number."""

import numpy as np

SIZES = [(37, 53), (64, 64), (50, 200), (300, 41), (1, 1), (5, 30), (481, 333), (33, 47), (90, 92)]
TEXTS = [
    "a photo of a dog",
    "Two CATS on the beach, 2021!",
    "",
    "  many   spaces\tand\nlines ",
    "caf\u00e9 \u65e5\u672c \U0001f600",
    "a red car of the dog on the beach " * 4,
    "it's <b>html</b> & co",
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
