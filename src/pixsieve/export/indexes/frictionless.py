"""A data package: the dataset's files with digests, columns and types, for Frictionless."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pixsieve.export.indexes.base import Index
from pixsieve.export.indexes.columns import meaning

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.export.finished import Dataset
    from pixsieve.export.indexes.base import Desk

_SCHEMA = "datapackage.schema.json"


class FrictionlessIndex(Index):
    """``datapackage.json``, with the columns of all sidecars in ``datapackage.schema.json``.

    Sidecars are tables, tars are files with size and digest. Sidecars have none here: the library's
    reader counts no bytes of a Parquet file, and would call every digest wrong; the manifest has
    them. Numbers of which a row may lack one are of type ``number``, whatever they are: the library
    reads such columns as floats.

    Source: Data Package 1, validated by frictionless 5.18.
    """

    name = "frictionless"
    files = ("datapackage.json", _SCHEMA)

    def of_dataset(self, dataset: Dataset, desk: Desk) -> dict[str, bytes | Path]:  # noqa: ARG002
        """Return the package and the columns."""
        tables = [
            {
                "name": _name(shard.sidecar.name),
                "type": "table",
                "path": shard.sidecar.name,
                "scheme": "file",
                "format": "parquet",
                "mediatype": "application/x-parquet",
                "schema": _SCHEMA,
            }
            for shard in dataset.shards
        ]
        tars = [
            {
                "name": _name(shard.tar.name),
                "type": "file",
                "path": shard.tar.name,
                "scheme": "file",
                "format": "tar",
                "mediatype": "application/x-tar",
                "bytes": shard.tar.size,
                "hash": f"sha256:{shard.tar.sha256}",
            }
            for shard in dataset.shards
        ]
        card = dataset.card
        about: dict[str, Any] = {
            "name": _name(dataset.name) or "dataset",
            "title": card.get("pretty_name") or dataset.name,
        }
        for key in ("description", "homepage", "version"):
            if card.get(key):
                about[key] = card[key]
        if card.get("license"):
            about["licenses"] = [{"name": card.get("license_name") or card["license"]}]
            if card.get("license_link"):
                about["licenses"][0]["path"] = card["license_link"]
        about["resources"] = tables + tars
        schema = {
            "fields": [_field(field) for field in dataset.columns],
            "primaryKey": ["image_id"],
        }
        return {"datapackage.json": _json(about), _SCHEMA: _json(schema)}


def _json(value: object) -> bytes:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return text.encode(errors="replace")


def _name(text: str) -> str:
    """Return a name of the letters that names of packages and resources may have."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-")


def _field(field: pa.Field) -> dict[str, Any]:
    kind = field.type
    found = {"name": field.name, "type": _type(kind)}
    if found["type"] == "integer" and field.nullable:
        found["type"] = "number"
    if told := meaning(field):
        found["description"] = told
    if not field.nullable:
        found["constraints"] = {"required": True}
    return found


def _type(kind: pa.DataType) -> str:
    tests = (
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_integer, "integer"),
        (pa.types.is_floating, "number"),
        (pa.types.is_string, "string"),
        (pa.types.is_large_string, "string"),
    )
    return next((name for test, name in tests if test(kind)), "any")
