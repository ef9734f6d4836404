"""The seam of the loaders: a library that people train with, and what it finds in a folder.

A loader opens a dataset's folder with one real library, as a user of that library would, and gives
its samples. It runs in a process of its own, so that it may start threads, workers and servers,
keep caches below its scratch folder, and fail or hang as it likes.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
"""Extensions that name a sample's image, the likeliest first."""
CAPTION = "txt"
BUFFER = 1000
"""Samples that a shuffle holds, where a library wants to know."""


class Sample(NamedTuple):
    """A sample as a loader gives it.

    Attributes:
        key: Of the sample, ``None`` where the loader does not tell.
        image: The image's encoded bytes.
        size: Width and height of the image as the loader decodes it, or as its row says; in pixels,
            ``None`` where nothing is decoded.
        caption: Text or the bytes of it, ``None`` where the sample has none.
    """

    key: str | None
    image: bytes | None
    size: tuple[int, int] | None
    caption: str | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What a loader is told of a dataset, so that it need not find it out.

    Attributes:
        path: Of the folder, absolute.
        tars: Names of the shards, in order.
        sidecars: Names of the tables beside them, in order; empty if there are none.
        images: Extensions of the images.
        captions: Whether samples have a member ``KEY.txt``.
        samples: How many there are.
        scratch: A folder of the loader's own, empty at first, that is removed afterwards.
    """

    path: str
    tars: tuple[str, ...]
    sidecars: tuple[str, ...]
    images: tuple[str, ...]
    captions: bool
    samples: int
    scratch: str

    def paths(self, names: tuple[str, ...]) -> list[str]:
        """Return the paths of some of its files."""
        return [f"{self.path}/{name}" for name in names]


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How samples are to be read.

    Attributes:
        shuffle: In a mixed order, with the means of the library.
        workers: Worker processes or threads of the library; 0 reads in the one process.
        decode: Also decode each image with the library's own decoder, so that samples have a size.
    """

    shuffle: bool = False
    workers: int = 0
    decode: bool = False


Passes = Callable[[], Iterator[Sample]]
"""Starts a pass over all samples; may be called again."""


class Loader(ABC):
    """One library; stateless. Its module imports the library when it is opened, never before."""

    name: ClassVar[str]
    """As in ``--loader``."""
    module: ClassVar[str]
    """What is imported; it tells whether the library is there."""
    distribution: ClassVar[str]
    """The package that has it, whose version is told."""
    install: ClassVar[str]
    """What to type where it is missing."""
    reads: ClassVar[Literal["tars", "sidecars", "format"]]
    """Whether samples come from the tars, from the rows of the sidecars, when the image is read
    from the tar where its row says that it lies, or from another format, which holds both."""
    through: ClassVar[str | None] = None
    """The file or folder at the root that the loader needs, such as an index."""
    beside: ClassVar[str | None] = None
    """The same of a file beside each tar, instead of ``.tar``."""
    ordered: ClassVar[bool] = True
    """Whether samples come in the order of the shards when nothing is shuffled."""
    can: ClassVar[frozenset[str]] = frozenset({"shuffle", "workers", "decode"})
    """Which fields of :class:`How` it heeds."""
    turns: ClassVar[bool] = False
    """Whether its decoder applies the EXIF orientation."""
    workers: ClassVar[int] = 0
    """Worker processes with which a comparison reads."""
    keeps: ClassVar[bool] = True
    """Whether it gives the encoded bytes, too, when it decodes."""
    note: ClassVar[str | None] = None
    """What a reader of a benchmark must know."""

    def installed(self) -> bool:
        """Tell whether the library is there, without loading it."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:
            return False

    def missing(self, folder: Folder) -> str | None:
        """Name a file that the loader needs and the folder does not have."""
        names = [self.through] if self.through else []
        if self.beside:
            names += [name.removesuffix(".tar") + self.beside for name in folder.tars]
        if self.reads == "sidecars":
            names += folder.sidecars or ["*.parquet"]
        return next((name for name in names if not (Path(folder.path) / name).exists()), None)

    @abstractmethod
    def open(self, folder: Folder, how: How) -> Passes:
        """Load the library, open the dataset, and return what starts a pass over it."""


def key_of(name: str) -> str:
    """Return the key in a member's name: all before the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def sample_of(
    key: str | None,
    members: Mapping[str, bytes | None],
    size: Callable[[str, bytes], tuple[int, int] | None] | None,
) -> Sample:
    """Return the sample that members make up.

    Args:
        key: Of the sample.
        members: By extension.
        size: Decodes an image of an extension; ``None`` if none is to be decoded.
    """
    extension = next((name for name in IMAGES if members.get(name)), None)
    image = members[extension] if extension else None
    found = size(extension, image) if size and extension and image else None
    return Sample(key, image, found, members.get(CAPTION))
