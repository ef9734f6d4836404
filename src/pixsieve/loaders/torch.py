"""PyTorch's DataLoader over the webdataset library, with worker processes."""

from __future__ import annotations

from pixsieve.loaders.base import Folder, How, Loader, Passes
from pixsieve.loaders.webdataset import pipeline


class TorchLoader(Loader):
    """``torch.utils.data.DataLoader`` over ``webdataset.WebDataset``.

    A worker reads whole shards, so there are at most as many workers as shards.
    """

    name = "torch"
    module = "torch"
    distribution = "torch"
    install = "pip install torch webdataset"
    reads = "tars"
    ordered = False
    workers = 2

    def installed(self) -> bool:
        """Tell whether both libraries are there."""
        from pixsieve.loaders.webdataset import WebDatasetLoader

        return super().installed() and WebDatasetLoader().installed()

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        from torch.utils.data import DataLoader

        workers = min(how.workers, len(folder.tars))
        loader = DataLoader(
            pipeline(folder, how),
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=64 if workers else None,
        )
        return lambda: iter(loader)
