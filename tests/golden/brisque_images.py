"""Grey images that BRISQUE is tested with, made of integers alone: the same anywhere."""

import numpy as np


def images() -> dict[str, np.ndarray]:
    """Return (H, W) uint8 images by name; sides are even."""
    return {
        "picture": picture(),
        "tall": picture(seed=1, height=260, width=130),
        "soft": blurred(picture(), 2),
        "softer": blurred(picture(), 6),
        "noisy": noisy(picture(), 20),
        "blocks": picture()[4::8, 4::8].repeat(8, 0).repeat(8, 1),
    }


def picture(seed: int = 0, height: int = 192, width: int = 256) -> np.ndarray:
    """Return soft discs and bars of many sizes over each other, with some grain."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    found = 40 + 60 * y // height + 50 * x // width
    for size in (90, 60, 40, 25, 25, 16, 16, 10, 10, 10, 6, 6, 6, 6, 4, 4, 4, 4):
        top, left, level = rng.integers(0, (height, width, 256))
        disc = (y - top) ** 2 + (x - left) ** 2 < size**2
        bar = (abs(y - left % height) < size // 4 + 1) & (abs(x - top) < 2 * size)
        found[disc] = (found[disc] + 2 * level) // 3
        found[bar] = (2 * found[bar] + 255 - level) // 3
    return noisy(blurred(found.astype(np.uint8), 1), 3)


def noisy(image: np.ndarray, levels: int) -> np.ndarray:
    """Add even noise of up to so many levels."""
    noise = np.random.default_rng(levels).integers(-levels, levels + 1, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def blurred(image: np.ndarray, times: int) -> np.ndarray:
    """Take means of 3 x 3 pixels so many times."""
    wide = image.astype(np.int64)
    for _ in range(times):
        p = np.pad(wide, 1, mode="edge")
        rows = p[:-2] + p[1:-1] + p[2:]
        wide = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4) // 9
    return wide.astype(np.uint8)
