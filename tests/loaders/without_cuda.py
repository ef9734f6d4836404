"""Lets torchvision be imported beside a PyTorch that has no CUDA; ``sitecustomize`` of the loaders.

On many machines torchvision comes with CUDA alone. Its compiled operators cannot be loaded then,
and importing it ends with "operator torchvision::nms does not exist", though nothing here uses one.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

DESCRIPTION = "torchvision._meta_registrations"


class WithoutOperators(MetaPathFinder, Loader):
    """Gives an empty module for the one that describes the operators, if there are none."""

    def find_spec(self, fullname, path=None, target=None):
        del path, target
        if fullname != DESCRIPTION:
            return None
        import torch  # noqa: PLC0415  # torchvision has loaded it

        return None if hasattr(torch.ops.torchvision, "nms") else ModuleSpec(fullname, self)

    def exec_module(self, module):
        """Leave the module empty."""


sys.meta_path.insert(0, WithoutOperators())
