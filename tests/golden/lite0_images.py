"""Images whose embeddings ``lite0.npz`` holds."""

import numpy as np


def images() -> np.ndarray:
    """Return (4, 224, 224, 3) uint8: noise, a smooth picture, black, and a checkerboard."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (224, 224, 3))
    y, x = np.mgrid[:224, :224]
    smooth = np.stack([x, y, (x * y) // 224], axis=-1) * 255 // 223
    board = ((x // 28 + y // 28) % 2 * 255)[..., None].repeat(3, axis=-1)
    return np.stack([noise, smooth, np.zeros_like(smooth), board]).astype(np.uint8)
