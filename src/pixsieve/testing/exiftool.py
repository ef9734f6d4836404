"""What exiftool, which shares no code with pixsieve, finds in an image."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

PRIVATE = (
    "IFD",
    "ExifIFD",
    "GPS",
    "XMP",
    "IPTC",
    "Photoshop",
    "MPF",
    "MPImage",
    "FlashPix",
    "SubIFD",
)
"""Beginnings of the groups of tags that stripping takes away."""


def is_available() -> bool:
    """Return whether it is installed."""
    return shutil.which("exiftool") is not None


def tags(data: bytes) -> dict[str, Any]:
    """Return all tags, also unknown ones and those of embedded files, by ``group:name``."""
    ran = subprocess.run(
        ["exiftool", "-j", "-G1", "-a", "-u", "-ee", "-"],  # noqa: S607 - from the path
        input=data,
        capture_output=True,
        check=True,
    )
    (found,) = json.loads(ran.stdout)
    return {name: value for name, value in found.items() if ":" in name}


def private(data: bytes) -> list[str]:
    """Return the names of the tags that say more than how the image looks."""
    found = tags(data)
    names = [name for name in found if name.startswith(PRIVATE) or "GPS" in name]
    return names + [name for name in found if name.endswith((":Comment", ":Author", ":ModifyDate"))]
