"""LitData: the sidecars' rows through ``index.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.loaders.formats import Each, FormatLoader, parts_of, sample_of, through_workers
from pixsieve.loaders.sidecars import SidecarLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.loaders.base import Folder, How, Passes, Sample


class LitdataLoader(SidecarLoader):
    """``litdata.StreamingDataset(FOLDER, item_loader=ParquetLoader())``."""

    name = "litdata"
    module = "litdata"
    distribution = "litdata"
    install = "pip install litdata polars pyarrow"
    through = "index.json"
    can = frozenset({"shuffle", "workers"})

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        from litdata import StreamingDataLoader, StreamingDataset
        from litdata.streaming.item_loader import ParquetLoader

        found = StreamingDataset(
            folder.path,
            cache_dir=f"{folder.scratch}/litdata",
            item_loader=ParquetLoader(),
            shuffle=how.shuffle,
            seed=0,
        )
        make = self.reader(folder)
        if not how.workers:

            def start() -> Iterator[Sample]:
                for index in range(len(found)) if not how.shuffle else ():
                    yield make(found[index])
                if how.shuffle:
                    yield from map(make, found)

            return start

        loader = StreamingDataLoader(
            found,
            batch_size=64,
            collate_fn=Each(make),
            num_workers=how.workers,
            multiprocessing_context="spawn",  # Polars does not survive a fork
            persistent_workers=True,
        )
        return lambda: (sample for batch in loader for sample in batch)


class LitdataChunksLoader(FormatLoader):
    """``litdata.StreamingDataset("litdata")`` over LitData's own chunks, or one for each split."""

    name = "litdata_chunks"
    module = "litdata"
    distribution = "litdata"
    install = "pip install litdata"
    through = "litdata"
    ordered = False  # of the splits

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        from litdata import StreamingDataLoader, StreamingDataset

        parts = [
            StreamingDataset(
                part, cache_dir=f"{folder.scratch}/litdata-{number}", shuffle=how.shuffle, seed=0
            )
            for number, part in enumerate(parts_of(self.place(folder)))
        ]
        if not how.workers:
            return lambda: (sample_of(row) for part in parts for row in part)
        return through_workers(StreamingDataLoader, parts, how.workers)
