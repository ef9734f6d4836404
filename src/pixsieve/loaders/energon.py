"""Megatron-Energon: the tars through ``.nv-meta`` and ``X.tar.idx``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixsieve.loaders.base import BUFFER, Folder, How, Loader, Passes, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEQUENCE = 100


class EnergonLoader(Loader):
    """``get_val_dataset`` of each part in ``split.yaml``; ``get_train_dataset`` where it shuffles.

    It skips a sample that it cannot read, and logs that; so such a sample is missing.
    """

    name = "energon"
    module = "megatron.energon"
    distribution = "megatron-energon"
    install = "pip install megatron-energon"
    reads = "tars"
    through = ".nv-meta"
    beside = ".tar.idx"
    ordered = False
    keeps = False

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import yaml
        from megatron import energon

        class Undecoded(energon.DefaultTaskEncoder):  # type: ignore[misc]  # without types
            decoder = energon.SampleDecoder() if how.decode else None

        text = (Path(folder.path) / ".nv-meta" / "split.yaml").read_text(encoding="utf-8")
        parts = [name for name, tars in yaml.safe_load(text)["split_parts"].items() if tars]
        workers = energon.WorkerConfig(rank=0, world_size=1, num_workers=how.workers)
        common = {"worker_config": workers, "batch_size": None, "task_encoder": Undecoded()}
        loaders = []
        for part in parts:
            if how.shuffle:
                found = energon.get_train_dataset(
                    folder.path,
                    split_part=part,
                    shuffle_buffer_size=BUFFER,
                    max_samples_per_sequence=_SEQUENCE,
                    repeat=False,
                    **common,
                )
            else:
                found = energon.get_val_dataset(folder.path, split_part=part, **common)
            loaders.append(energon.get_loader(found))

        def start() -> Iterator[Sample]:
            for loader in loaders:
                yield from (_sample(each) for each in loader)

        return start


def _sample(found: Any) -> Sample:
    caption = getattr(found, "caption", None)
    key = str(found.__key__).rpartition("/")[2]
    if isinstance(found.image, bytes):
        return Sample(key, found.image, None, caption)
    _, height, width = found.image.shape
    return Sample(key, None, (width, height), caption)
