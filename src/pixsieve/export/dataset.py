"""Files that describe a dataset as a whole; the manifest is written last and is the commit."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from pixsieve import __version__
from pixsieve.errors import OutputConflictError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pixsieve.export.files import FileRecord

FORMAT = "pixsieve-dataset"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
DROPPED = "dropped/dropped.parquet"
"""In a folder of its own: what reads ``*.parquet`` at the root must find sidecars alone."""
RECIPE = "recipe.yaml"
PRIVACY = (
    "Images that were copied hold whatever metadata they came with, such as EXIF and GPS; "
    "images that were encoded anew hold none but their colour profile."
)
STRIPPED = (
    "No image holds metadata, such as EXIF, GPS, XMP, IPTC or comments, but its colour profile, "
    "and its orientation where it is not stored upright."
)
_LIBRARIES = ("duckdb", "numpy", "pillow", "pyarrow", "simplejpeg")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """A shard in the manifest."""

    tar: str
    sidecar: str
    split: str | None
    bucket: str | None = None
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a dataset is: ``docs/formats.md`` explains each field."""

    name: str
    hash: str
    seed: int
    recipe: dict[str, Any]
    recipe_sha256: str
    plan_sha256: str
    counts: dict[str, int]
    reasons: Sequence[dict[str, Any]]
    inputs: Sequence[dict[str, Any]]
    shards: Sequence[ShardEntry]
    files: Sequence[FileRecord]
    versions: Mapping[str, str]
    privacy: str = PRIVACY
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON: sorted keys, UTF-8, a final newline.

        One line more, of the field ``sha256``, has the digest of all others.
        """
        fields = asdict(self)
        digest = hashlib.sha256(_to_json(fields)).hexdigest()
        return _to_json({**fields, "sha256": digest})

    def says_the_same_as(self, standing: Mapping[str, Any]) -> bool:
        """Tell whether a manifest that was read is whole, and differs in no more than versions."""
        mine = replace(self, versions=standing.get("versions", {}))
        return bool(json.loads(mine.to_bytes()) == standing)


def _to_json(fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(fields, sort_keys=True, indent=1, ensure_ascii=False)
    return f"{text}\n".encode()


def versions() -> dict[str, str]:
    """Return the versions of everything that decides bytes."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"pixsieve": __version__, **found}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a dataset's manifest, ``None`` if the folder has none.

    Raises:
        OutputConflictError: there is a ``manifest.json`` that is not ours or not readable.
    """
    path = folder / MANIFEST
    try:
        found = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} cannot be read ({error}); move it away, or choose another output folder"
        raise OutputConflictError(msg) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        msg = f"{path} is not a pixsieve manifest; choose another output folder"
        raise OutputConflictError(msg)
    if found.get("format_version") != FORMAT_VERSION:
        msg = (
            f"{path} has the format version {found.get('format_version')!r}, this program writes "
            f"{FORMAT_VERSION}; choose another output folder"
        )
        raise OutputConflictError(msg)
    return found
