"""Croissant: the dataset's files and columns as JSON-LD, for search engines and mlcroissant."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pixsieve.export.indexes.base import Index
from pixsieve.export.indexes.card import listed
from pixsieve.export.indexes.columns import meaning
from pixsieve.export.indexes.patterns import sidecars

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.export.finished import Dataset
    from pixsieve.export.indexes.base import Desk

MOST_IMAGES = 1000
"""Up to so many samples, the images are a record set, too: mlcroissant unpacks every tar for it,
and holds all of its records in memory."""

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_READABLE = {"jpg": "image/jpeg", "png": "image/png", "tif": "image/tiff"}
"""Extensions whose images mlcroissant reads."""
_TOLD = (
    ("license", "license"),
    ("version", "version"),
    ("date_published", "datePublished"),
    ("citation", "citeAs"),
)


class CroissantIndex(Index):
    """``croissant.json``: Croissant 1.0.

    The record set ``rows`` has the columns of the sidecars, as far as Croissant has types for them:
    not binary ones. Up to 1000 samples there are ``images`` as well, with names and pictures; of
    several formats, ``images_EXTENSION`` for each that mlcroissant reads (not WebP, GIF, BMP and
    AVIF). What the writer's ``card`` does not say (licence, version, date, creator) is left out; a
    validator warns of it.

    Source: http://mlcommons.org/croissant/1.0, validated by mlcroissant 1.1.
    """

    name = "croissant"
    files = ("croissant.json",)

    def of_dataset(self, dataset: Dataset, desk: Desk) -> dict[str, bytes | Path]:  # noqa: ARG002
        """Return the description."""
        card = dataset.card
        tars = [
            {
                "@type": "cr:FileObject",
                "@id": shard.tar.name,
                "name": shard.tar.name,
                "contentUrl": shard.tar.name,
                "encodingFormat": "application/x-tar",
                "contentSize": f"{shard.tar.size} B",
                "sha256": shard.tar.sha256,
            }
            for shard in dataset.shards
        ]
        images = _image_sets(dataset)
        rows = {
            "@type": "cr:FileSet",
            "@id": "sidecars",
            "name": "sidecars",
            "description": "A Parquet file for each tar, with a row for each of its samples.",
            "encodingFormat": "application/x-parquet",
            "includes": sidecars(dataset),
        }
        about: dict[str, Any] = {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": "http://mlcommons.org/croissant/1.0",
            "name": card.get("pretty_name") or dataset.name,
            "description": card.get("description") or f"{dataset.samples:,} images.",
            **{name: card[key] for key, name in _TOLD if card.get(key)},
        }
        if card.get("homepage"):
            about["url"] = card["homepage"]
        if card.get("creator"):
            people = [{"@type": "sc:Person", "name": name} for name in listed(card["creator"])]
            about["creator"] = people
        about["distribution"] = [*tars, rows, *images]
        about["recordSet"] = [_rows(dataset), *map(_pictures, images)]
        text = json.dumps(about, indent=1, ensure_ascii=False) + "\n"
        return {"croissant.json": text.encode(errors="replace")}


def _image_sets(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the sets of images in all tars, by extension; none for a large dataset."""
    if dataset.samples > MOST_IMAGES:
        return []
    contents = dataset.contents
    found = []
    for extension in contents.images:
        end = f".{extension}"
        mixed = any(f".{other}".endswith(end) for other in contents.members)  # such as mask.png
        if extension in _READABLE and not mixed:
            name = "images" if len(contents.images) == 1 else f"images_{extension}"
            tars = [{"@id": shard.tar.name} for shard in dataset.shards]
            found.append(
                {
                    "@type": "cr:FileSet",
                    "@id": f"files_of_{name}",
                    "name": f"files_of_{name}",
                    "containedIn": tars,
                    "encodingFormat": _READABLE[extension],
                    "includes": f"*{end}",
                }
            )
    return found


def _pictures(files: dict[str, Any]) -> dict[str, Any]:
    """Return the record set of a set of images: name in the tar, and picture."""
    name = files["@id"].removeprefix("files_of_")
    fields = [("member_name", "sc:Text", "filename"), ("image", "sc:ImageObject", "content")]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{name}/{field}",
                "name": field,
                "dataType": kind,
                "source": {"fileSet": {"@id": files["@id"]}, "extract": {"fileProperty": part}},
            }
            for field, kind, part in fields
        ],
    }


def _rows(dataset: Dataset) -> dict[str, Any]:
    fields: list[dict[str, Any]] = []
    taken: set[str] = set()
    for field in dataset.columns:
        kind, is_list = _type(field.type)
        if kind is None:
            continue
        plain = name = re.sub(r"[^A-Za-z0-9_.-]", "_", field.name)
        number = 2
        while name in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name)
        found: dict[str, Any] = {
            "@type": "cr:Field",
            "@id": f"rows/{name}",
            "name": field.name,
            "description": meaning(field),
            "dataType": kind,
            "source": {"fileSet": {"@id": "sidecars"}, "extract": {"column": field.name}},
        }
        fields.append(found | ({"repeated": True} if is_list else {}))
    return {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        "description": "A row for each sample.",
        "key": {"@id": "rows/image_id"},
        "field": fields,
    }


def _type(kind: pa.DataType) -> tuple[str | None, bool]:
    """Return Croissant's type of a column, if it has one, and whether there are many of it."""
    is_list = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list:
        kind = kind.value_type
    tests = (
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_floating, "sc:Float"),
        (pa.types.is_string, "sc:Text"),
        (pa.types.is_large_string, "sc:Text"),
    )
    return next((name for test, name in tests if test(kind)), None), is_list
