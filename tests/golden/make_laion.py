"""Make ``laion.json``: what PyTorch renderings of LAION's heads give with seed-made weights.

Run by hand, in an environment with torch 2.13.0 and numpy 2.4.6::

    python tests/golden/make_laion.py

The classes have the layers and names of those that were published: ``simple_inference.py`` of
improved-aesthetic-predictor, the linear layer of LAION's aesthetic-predictor, and the PyTorch
form of CLIP-based-NSFW-Detector that NeMo Curator runs.
"""

import json
from pathlib import Path

import torch
from laion_heads import WIDTHS, embeddings, head
from torch import nn

OUT = Path(__file__).parent / "laion.json"


class Predictor(nn.Module):
    """The aesthetic predictor, V2."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(768, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2),
            nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Norm(nn.Module):
    """Standardises with buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(768))
        self.register_buffer("variance", torch.ones(768))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.variance.sqrt()


class Detector(nn.Module):
    """The NSFW detector."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = Norm()
        self.linear_1, self.linear_2 = nn.Linear(768, 64), nn.Linear(64, 512)
        self.linear_3, self.linear_4 = nn.Linear(512, 256), nn.Linear(256, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.linear_1(self.norm(x)))
        x = nn.functional.relu(self.linear_2(x))
        x = nn.functional.relu(self.linear_3(x))
        return torch.sigmoid(self.linear_4(x))


def main() -> None:
    """Write the file."""
    expected = {}
    for name, widths in WIDTHS.items():
        module = {"v2": Predictor, "nsfw": Detector}.get(
            name, lambda dim=widths[0]: nn.Linear(dim, 1)
        )()
        module.load_state_dict({key: torch.from_numpy(each) for key, each in head(name).items()})
        with torch.no_grad():
            scores = module.eval()(torch.from_numpy(embeddings(widths[0])))
        expected[name] = scores[:, 0].tolist()
    OUT.write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
