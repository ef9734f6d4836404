"""Hugging Face datasets: the folder by its card, and the sidecars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixsieve.loaders import sidecars
from pixsieve.loaders.base import Folder, How, Loader, Passes, Sample, sample_of
from pixsieve.loaders.formats import COLUMNS, Each, FormatLoader
from pixsieve.loaders.sidecars import SidecarLoader

if TYPE_CHECKING:
    from collections.abc import Iterator


class HfLoader(Loader):
    """``datasets.load_dataset(FOLDER)``: all splits that the card names."""

    name = "hf"
    module = "datasets"
    distribution = "datasets"
    install = "pip install datasets pillow"
    reads = "tars"
    through = "README.md"
    turns = True
    note = "hf copies the tars into its cache before the first pass"

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import datasets

        datasets.disable_progress_bars()
        found = datasets.load_dataset(folder.path, keep_in_memory=False)
        parts = []
        for part in found.values():
            for column, feature in part.features.items():
                if isinstance(feature, datasets.Image):
                    part = part.cast_column(column, datasets.Image(decode=False))  # noqa: PLW2901
            parts.append(part.shuffle(seed=0) if how.shuffle else part)
        return passes_over(parts, Decoded(decode=how.decode), how.workers)


def passes_over(parts: list[Any], make: Any, workers: int) -> Passes:
    """Return what goes over datasets one by one, with the workers of a DataLoader if any."""
    if not workers:

        def start() -> Iterator[Sample]:
            for part in parts:
                yield from map(make, part)

        return start

    from torch.utils.data import ConcatDataset, DataLoader

    loader = DataLoader(
        ConcatDataset(parts),
        batch_size=64,
        collate_fn=Each(make),
        num_workers=workers,
        persistent_workers=True,
    )
    return lambda: (sample for batch in loader for sample in batch)


class Decoded:
    """Makes samples of rows with undecoded images."""

    def __init__(self, *, decode: bool) -> None:
        self.decode = decode

    def __call__(self, row: dict[str, Any]) -> Sample:
        members = {
            name.lower(): value["bytes"] if isinstance(value, dict) and "bytes" in value else value
            for name, value in row.items()
        }
        images = {name: data for name, data in members.items() if isinstance(data, bytes)}
        found = sample_of(row["__key__"], images, _size if self.decode else None)
        return found._replace(caption=members.get("txt"))


def _size(extension: str, data: bytes) -> tuple[int, int]:
    import datasets

    del extension
    width, height = datasets.Image().decode_example({"bytes": data, "path": None}).size
    return width, height


class HfParquetLoader(SidecarLoader):
    """``datasets.load_dataset("parquet", data_files=...)`` over the sidecars."""

    name = "hf_parquet"
    module = "datasets"
    distribution = "datasets"
    install = "pip install datasets"
    can = frozenset({"shuffle", "workers"})

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import datasets

        datasets.disable_progress_bars()
        files = folder.paths(folder.sidecars)
        found = datasets.load_dataset("parquet", data_files=files, split="train")
        found = found.select_columns(list(sidecars.COLUMNS))
        if how.shuffle:
            found = found.shuffle(seed=0)
        return passes_over([found], self.reader(folder), how.workers)


class HfImagesLoader(FormatLoader):
    """``datasets.load_dataset`` of a folder whose rows have the image in a column ``image``."""

    module = "datasets"
    distribution = "datasets"
    install = "pip install datasets pillow"
    can = frozenset({"shuffle", "workers", "decode"})
    turns = True

    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""
        import datasets

        datasets.disable_progress_bars()
        parts = []
        for part in datasets.load_dataset(self.place(folder)).values():
            rows = part.cast_column("image", datasets.Image(decode=False))
            rows = rows.select_columns(list(COLUMNS))
            parts.append(rows.shuffle(seed=0) if how.shuffle else rows)
        return passes_over(parts, Opened(decode=how.decode), how.workers)


class ParquetLoader(HfImagesLoader):
    """``datasets.load_dataset("parquet")``: the folder with the images in the tables."""

    name = "parquet"
    through = "parquet"


class ImagefolderLoader(HfImagesLoader):
    """``datasets.load_dataset("imagefolder")``: the folder with a file for each image."""

    name = "imagefolder"
    through = "imagefolder"
    ordered = False  # it goes by folders and names


class Opened:
    """Makes samples of rows whose image is bytes, or the path of a file."""

    def __init__(self, *, decode: bool) -> None:
        self.decode = decode

    def __call__(self, row: dict[str, Any]) -> Sample:
        image = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
        size = _size("", image) if self.decode else (row["width"], row["height"])
        return Sample(row["key"], image, size, row["caption"])
