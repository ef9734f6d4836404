"""MosaicML Streaming: the folder ``mds``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.loaders.formats import FormatLoader, parts_of, sample_of, through_workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.loaders.base import Folder, How, Passes, Sample


class MdsLoader(FormatLoader):
    """``streaming.StreamingDataset(local="mds")``, or one for each split."""

    name = "mds"
    module = "streaming"
    distribution = "mosaicml-streaming"
    install = "pip install mosaicml-streaming"
    through = "mds"
    ordered = False  # of the splits

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        from streaming import StreamingDataset
        from torch.utils.data import DataLoader

        parts = [
            StreamingDataset(local=part, shuffle=how.shuffle, batch_size=1)
            for part in parts_of(self.place(folder))
        ]
        if how.workers:
            return through_workers(DataLoader, parts, how.workers)

        def start() -> Iterator[Sample]:
            for part in parts:
                rows = part if how.shuffle else (part[number] for number in range(len(part)))
                yield from map(sample_of, rows)

        return start
