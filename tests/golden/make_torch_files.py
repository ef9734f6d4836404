"""Make the files in ``torch/``: what PyTorch itself writes, and what is in them.

Run by hand, in an environment with torch 2.13.0, numpy 2.4.6 and safetensors 0.8.0::

    python tests/golden/make_torch_files.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).parent / "torch"


def tensors() -> dict[str, torch.Tensor]:
    """Return a tensor of each kind of view and type."""
    torch.manual_seed(0)
    base = torch.randn(5, 4, 3)
    return {
        "plain": torch.randn(2, 3),
        "permuted": base.permute(2, 0, 1),
        "part": base[1:3, :, 1],
        "scalar": torch.tensor(7, dtype=torch.int64),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(3).half(),
        "brain": torch.randn(3).bfloat16(),
        "double": torch.randn(3).double(),
        "int": torch.arange(-2, 2, dtype=torch.int32),
        "short": torch.arange(-2, 2, dtype=torch.int16),
        "char": torch.arange(-2, 2, dtype=torch.int8),
        "byte": torch.arange(4, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }


def main() -> None:
    """Write the files."""
    OUT.mkdir(exist_ok=True)
    found = tensors()
    save_file(
        {name: each.contiguous().clone() for name, each in found.items()},
        OUT / "tensors.safetensors",
    )
    torch.save(found, OUT / "zip.pth")
    torch.save(found, OUT / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": found}, OUT / "nested.ckpt")
    parameters = {
        name: torch.nn.Parameter(each, requires_grad=False) for name, each in found.items()
    }
    torch.save(parameters, OUT / "parameters.pt")
    # As a machine with a GPU writes them: LAION's heads are such.
    torch.serialization.location_tag = lambda _storage: "cuda:0"
    torch.save(found, OUT / "cuda.pth")
    torch.save(found, OUT / "cuda_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 1), OUT / "whole_module.pth")
    torch.save({"weight": found["plain"], "epoch": 3}, OUT / "with_a_number.pth")
    torch.save({"expanded": torch.zeros(1).expand(1000, 1000)}, OUT / "expanded.pth")


if __name__ == "__main__":
    main()
