"""What a dataset holds, as its loaders must find it: by the sidecars, else by reading the tars."""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve.errors import SourceError, SourceNotFoundError, UsageError
from pixsieve.image import ImageProblemError, probe
from pixsieve.loaders.base import CAPTION, IMAGES, Folder
from pixsieve.verify.sidecars import split_name
from pixsieve.verify.tars import members

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MANIFEST = "manifest.json"
_COLUMNS = (
    "key", "member_name", "sha256", "width", "height", "exif_orientation", "caption", "members",
    "tar_file", "member_offset", "member_size",
)  # fmt: skip
_TURNED = 5  # EXIF orientations from here on swap width and height
_ROWS = 1024
_HELD = 4  # shards whose rows are held; loaders with workers take turns


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's files; no sidecar where there is none with pixsieve's columns."""

    tar: str
    sidecar: str | None


class Row(NamedTuple):
    """What a sample is.

    Attributes:
        key: Its key.
        extension: Of its image, ``None`` if it has none.
        sha256: Of the image's bytes, hexadecimal.
        size: Width and height, upright, in pixels; ``None`` if unknown.
        turned: Whether width and height are the other way round in the bytes.
        caption: As the sidecar says, or the text of the ``.txt`` member.
        text: Of the ``.txt`` member, ``None`` if there is none.
        is_text: Whether ``text`` is what the member holds; if not, nothing is known of it.
    """

    key: str
    extension: str | None
    sha256: str | None
    size: tuple[int, int] | None
    turned: bool
    caption: str | None
    text: str | None
    is_text: bool


class Expected:
    """All samples of a dataset, 45 bytes each: digests, by which differences are found.

    What exactly a sample is is read again where it is to be told.

    Attributes:
        folder: What loaders are told.
        borders: Number of the first sample of each shard, and of all samples; int64 ``(s + 1,)``.
        keys: Digests of the keys; uint64 ``(n,)``, like the next ones.
        images: First 8 bytes of the SHA-256 of each image, 0 where there is none.
        captions: Digests of the captions as rows have them, 0 where there is none.
        texts: The same of the ``.txt`` members.
        is_text: Whether ``texts`` are to be compared; bool ``(n,)``.
        sizes: Width and height, upright, 0 where unknown; int32 ``(n, 2)``.
        turned: Whether they are the other way round in the bytes; bool ``(n,)``.
    """

    def __init__(self, path: str | Path) -> None:
        """Read a dataset.

        Raises:
            SourceNotFoundError: If there is no such folder.
            UsageError: If it is none.
            SourceError: If there is no tar in it.
        """
        self.path = Path(path)
        self.shards = shards_of(self.path)
        counts, columns = [0], _Columns()
        extensions: set[str] = set()
        for shard in self.shards:
            for row in self._rows(shard):
                columns.add(row)
                extensions.add(row.extension or "")
            counts.append(len(columns.keys))
        self.borders = np.array(counts, np.int64)
        self.keys, self.images, self.captions, self.texts = (
            np.array(values, np.uint64)
            for values in (columns.keys, columns.images, columns.captions, columns.texts)
        )
        self.is_text = np.array(columns.is_text, np.bool_)
        self.turned = np.array(columns.turned, np.bool_)
        self.sizes = np.array(columns.sizes, np.int32).reshape(-1, 2)
        self._order = np.argsort(self.keys, kind="stable")
        self._sorted = self.keys[self._order]
        self._known: dict[int, list[Row]] = {}
        sidecars = tuple(shard.sidecar for shard in self.shards if shard.sidecar)
        self.folder = Folder(
            path=str(self.path.resolve()),
            tars=tuple(shard.tar for shard in self.shards),
            sidecars=sidecars if len(sidecars) == len(self.shards) else (),
            images=tuple(name for name in IMAGES if name in extensions) or IMAGES[:1],
            captions=bool((self.texts != 0).any() or not self.is_text.all()),
            samples=len(self.keys),
            scratch="",
        )

    def find(self, key: str) -> NDArray[np.int64]:
        """Return the numbers of the samples with a key; more than one is a fault of the set."""
        wanted = np.uint64(digest(key))
        first, last = (
            int(np.searchsorted(self._sorted, wanted, side)) for side in ("left", "right")
        )
        return self._order[first:last]

    def shard(self, number: int) -> Shard:
        """Return the shard of a sample."""
        return self.shards[int(np.searchsorted(self.borders, number, "right")) - 1]

    def row(self, number: int) -> Row:
        """Return what a sample is; cheap when those of one shard are asked for together."""
        shard = int(np.searchsorted(self.borders, number, "right")) - 1
        if shard not in self._known:
            if len(self._known) >= _HELD:
                del self._known[next(iter(self._known))]
            self._known[shard] = list(self._rows(self.shards[shard]))
        return self._known[shard][number - int(self.borders[shard])]

    def _rows(self, shard: Shard) -> Iterator[Row]:
        if shard.sidecar is not None:
            return _rows_of_sidecar(self.path / shard.sidecar)
        return _rows_of_tar(self.path / shard.tar)


class _Columns:
    """Digests of rows, in arrays that grow."""

    def __init__(self) -> None:
        self.keys, self.images, self.captions, self.texts = (array("Q") for _ in range(4))
        self.is_text, self.turned = array("b"), array("b")
        self.sizes = array("i")

    def add(self, row: Row) -> None:
        self.keys.append(digest(row.key))
        self.images.append(image_digest(row.sha256))
        self.captions.append(digest(row.caption))
        self.texts.append(digest(row.text))
        self.is_text.append(row.is_text)
        self.turned.append(row.turned)
        self.sizes.extend(row.size or (0, 0))


def digest(text: str | None) -> int:
    """Return 64 bits of a text; 0 for none, and for an empty one, which may stand for none."""
    if not text:
        return 0
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def image_digest(sha256: str | None) -> int:
    """Return 64 bits of an image's SHA-256; 0 for none."""
    return int(sha256[:16], 16) if sha256 else 0


def shards_of(path: Path) -> tuple[Shard, ...]:
    """Return the shards of a folder: those of a manifest in its order, else all tars by name.

    Raises:
        SourceNotFoundError: If there is no such folder.
        UsageError: If it is none.
        SourceError: If there is no tar in it.
    """
    if not path.exists():
        msg = f"{path} does not exist; expected the folder of a dataset"
        raise SourceNotFoundError(msg)
    if not path.is_dir():
        msg = f"{path} is no folder; loaders open a dataset's whole folder"
        raise UsageError(msg)
    names = _listed(path / MANIFEST)
    if names is None:
        tars = sorted(each.name for each in path.glob("*.tar") if each.name[0] != ".")
        names = [(name, f"{name.removesuffix('.tar')}.parquet") for name in tars]
    if not names:
        msg = f"{path} has no .tar for a loader to read"
        raise SourceError(msg)
    return tuple(
        Shard(tar, sidecar if _has_columns(path / sidecar) else None) for tar, sidecar in names
    )


def _listed(manifest: Path) -> list[tuple[str, str]] | None:
    """Return the tars and sidecars that a manifest names; ``None`` if there is none to go by."""
    try:
        found = json.loads(manifest.read_bytes())
        names = [(shard["tar"], shard["sidecar"]) for shard in found["shards"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = all(isinstance(name, str) and "/" not in name for pair in names for name in pair)
    return names if texts else None


def _has_columns(sidecar: Path) -> bool:
    try:
        return set(_COLUMNS) <= set(pq.read_schema(sidecar).names)
    except (OSError, pa.ArrowException):
        return False


def _rows_of_sidecar(path: Path) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS, columns=list(_COLUMNS)):
            yield from map(_row, batch.to_pylist())


def _row(row: dict[str, Any]) -> Row:
    has_text = f"{row['key']}.{CAPTION}" in row["members"]
    return Row(
        key=row["key"],
        extension=split_name(row["member_name"])[1],
        sha256=row["sha256"],
        size=(row["width"], row["height"]),
        turned=row["exif_orientation"] >= _TURNED,
        caption=row["caption"],
        text=row["caption"] if has_text else None,
        is_text=not has_text or row["caption"] is not None,
    )


def _rows_of_tar(path: Path) -> Iterator[Row]:
    """Yield the samples of a tar: neighbours with one key, as every reader groups them."""
    try:
        with path.open("rb") as file:
            key, parts = None, {}
            for member in members(file, path.stat().st_size, strict=False, report=_ignore):
                found, extension = split_name(member.name)
                if found != key and key is not None:
                    yield _read(key, parts)
                    parts = {}
                key = found
                if extension.lower() in (*IMAGES, CAPTION):
                    file.seek(member.offset)
                    parts[extension.lower()] = file.read(member.size)
            if key is not None:
                yield _read(key, parts)
    except FileNotFoundError:
        return  # what a manifest names, and verify misses


def _ignore(rule: str, message: str, member: str | None) -> None:
    """Leave the faults of a tar to verify."""


def _read(key: str, parts: dict[str, bytes]) -> Row:
    extension = next((name for name in IMAGES if name in parts), None)
    size, turned = None, False
    if extension is not None:
        try:
            header = probe(parts[extension])
            size, turned = (header.width, header.height), header.exif_orientation >= _TURNED
        except ImageProblemError:
            pass  # its size is not compared
    text = parts[CAPTION].decode("utf-8", "surrogateescape") if CAPTION in parts else None
    return Row(
        key=key,
        extension=extension,
        sha256=hashlib.sha256(parts[extension]).hexdigest() if extension else None,
        size=size,
        turned=turned,
        caption=text,
        text=text,
        is_text=True,
    )
