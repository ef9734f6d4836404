"""Ray Data: the tars, on a cluster of this machine's own."""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Any

from pixsieve.loaders.base import BUFFER, IMAGES, Folder, How, Loader, Passes, Sample, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class RayLoader(Loader):
    """``ray.data.read_webdataset([...])`` with the order kept."""

    name = "ray"
    module = "ray.data"
    distribution = "ray"
    install = "pip install 'ray[data]' webdataset"
    reads = "tars"
    keeps = False

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import ray
        import ray.data

        if not ray.is_initialized():
            ray.init(
                num_cpus=max(1, how.workers),
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
                _temp_dir=f"{folder.scratch}/ray",
            )
            atexit.register(ray.shutdown)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = not how.shuffle
        context.enable_progress_bars = False
        decoder = "PIL" if how.decode else None  # arrays of grey and colour images do not mix
        found = ray.data.read_webdataset(folder.paths(folder.tars), decoder=decoder)

        def start() -> Iterator[Sample]:
            if how.shuffle:
                batches = found.iter_batches(
                    batch_size=64, local_shuffle_buffer_size=BUFFER, batch_format="pandas"
                )
                for batch in batches:
                    yield from map(_sample, batch.to_dict("records"))
            else:
                yield from map(_sample, found.iter_rows())

        return start


def _sample(row: dict[str, Any]) -> Sample:
    members = {name.lower(): value for name, value in row.items()}
    data = {name: value for name, value in members.items() if isinstance(value, bytes)}
    sample = sample_of(row["__key__"], data, None)
    decoded = next((members[name] for name in IMAGES if hasattr(members.get(name), "load")), None)
    if decoded is not None:
        decoded.load()
        sample = sample._replace(size=decoded.size)
    return sample._replace(caption=members.get("txt"))
