"""What the columns of sidecars mean, in a line of text each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

_FIXED = {
    "image_id": "stable id of the sample",
    "tar_file": "name of the tar that holds the sample",
    "member_name": "name of the image in the tar",
    "key": "key of the sample in the tar: the name up to the first dot",
    "member_offset": "first byte of the image in the tar",
    "member_size": "bytes of the image",
    "sha256": "SHA-256 of the image's bytes",
    "width": "pixels, upright",
    "height": "pixels, upright",
    "format": "format of the image",
    "mode": "of the pixels, as Pillow names it",
    "caption": "text that goes with the image",
    "class_name": "class of the image",
    "members": "names of all members of the sample, the image first",
    "member_sizes": "bytes of each of these",
    "original_path": "file that the image came from, relative to its source",
    "original_key": "key of the sample in its source",
    "original_offset": "first byte of the image in that file",
    "original_sha256": "SHA-256 of the image's bytes in its source",
    "original_format": "format of the image in its source",
    "exif_orientation": "EXIF orientation of the image's bytes, 1 to 8",
    "encoding": "'copy', or how the image was made",
    "split": "split of the sample",
    "bucket": "bucket of the sample",
    "metadata_problem": "why a caption or json field could not be read",
}
_TOLD = ("source", "model", "scale", "unit", "better")


def meaning(field: pa.Field) -> str:
    """Return what a column is, by what its stage said of it; empty if nobody said."""
    about = told(field)
    if not about:
        return _FIXED.get(field.name, "")
    found = [about[name] for name in ("source", "model") if about.get(name)]
    if about.get("scale"):
        found.append(f"scale: {about['scale']}")
    if about.get("unit"):
        found.append(f"unit: {about['unit']}")
    if about.get("better", "neither") != "neither":
        found.append(f"{about['better']} is better")
    return "; ".join(found)


def told(field: pa.Field) -> dict[str, str]:
    """Return what a column's stage said of it, of what is known to readers."""
    about = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (field.metadata or {}).items()
    }
    return {name: about[name] for name in _TOLD if name in about}
