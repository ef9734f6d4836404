"""The pictures that hashes are compared on: smooth, as photographs are, and of odd shapes."""

import numpy as np


def images():
    """Return RGB pixels (H, W, 3) by name."""
    found = {}
    for seed, (height, width) in enumerate(
        [(375, 500), (500, 333), (512, 512), (128, 640), (90, 61), (600, 900), (64, 64)]
    ):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        layers = []
        for _ in range(3):
            layer = np.zeros((height, width))
            for _ in range(12):
                fx, fy, phase, weight = (
                    rng.uniform(-9, 9, 2).tolist() + rng.uniform(0, 6, 2).tolist()
                )
                layer += weight * np.sin(2 * np.pi * (fx * x + fy * y) + phase)
            low, high = layer.min(), layer.max()
            layers.append((layer - low) / (high - low) * 255)
        found[f"{width}x{height}"] = np.round(np.stack(layers, axis=-1)).astype(np.uint8)
    return found
