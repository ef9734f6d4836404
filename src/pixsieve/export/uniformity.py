"""Which loaders would stumble over what samples are made of, told before the export.

Each sentence is what the loader was seen to do: webdataset 1.0, wids 0.1, Hugging Face datasets
5.2, Megatron-Energon 7.4, Ray Data 2.60, Daft 0.7. DALI reads all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve import json_types
from pixsieve.errors import RunError
from pixsieve.export.uniform import exported, uniform_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixsieve.export.contents import Contents
    from pixsieve.export.writer import ImageWriterStage

_SHOWN = 5
_DOCUMENTS = "documents"
_UNIFORM = "members='uniform'"
_DAFT = "Daft fails where none of the first 5 samples of a tar has"


def complaints(contents: Contents, indexes: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence for each thing that some loader cannot take, and what mends it.

    Args:
        contents: What the samples will be made of.
        indexes: Names of the index files that will be made.
    """
    with_card = "card" in indexes
    return (
        *_images(contents, indexes),
        *_texts(contents, indexes),
        *_others(contents, with_card=with_card),
        *_unread(contents, indexes),
        *_types(contents, with_card=with_card),
    )


def foretold(found: Contents, writer: ImageWriterStage) -> tuple[str, ...]:
    """Return what a run will tell of samples as they are found, also why it will not begin."""
    if writer.members == "as_found":
        return complaints(found, writer.indexes)
    try:
        uniform = uniform_of(found)
    except RunError as error:
        return (str(error),)
    return (*uniform.notes, *complaints(exported(found, uniform), writer.indexes))


def _images(contents: Contents, indexes: Sequence[str]) -> Iterator[str]:
    """Tell of several formats, of one that is not decoded, and of grey ones among others."""
    if len(contents.images) > 1:
        listed = ", ".join(f"{count:,} .{name}" for name, count in contents.images.items())
        who = [] if "card" in indexes else ["Hugging Face datasets refuses them or loses images"]
        who += [
            "Ray Data fails with its default decoder",
            f"{_DAFT} an extension that a later one has",
        ]
        yield (
            f"images have several formats ({listed}): {'; '.join(who)}. image_format='jpeg', 'png' "
            "or 'webp' makes them one"
        )
    odd = {name: count for name, count in contents.images.items() if name not in ("jpg", "png")}
    if odd:
        listed = " and ".join(f".{name}" for name in odd)
        who = [*(["wids"] if "wids" in indexes else []), "Ray Data's default decoder"]
        yield (
            f"{_of(sum(odd.values()), contents)} images are {listed}: {' and '.join(who)} "
            f"leave{'s' if len(who) == 1 else ''} these undecoded. image_format='jpeg' or 'png' "
            "makes them what all decode"
        )
    if 0 < contents.grey < contents.samples:
        yield (
            f"{_of(contents.grey, contents)} images have one channel, the others more: Ray Data "
            'fails with its default decoder. Give it decoder="PIL", or leave these out with a '
            "filter, such as \"mode <> 'L'\""
        )


def _texts(contents: Contents, indexes: Sequence[str]) -> Iterator[str]:
    """Tell of captions and json that only some have."""
    for name in ("txt", "json"):
        count = contents.members.get(name, 0)
        if not 0 < count < contents.samples:
            continue
        who = [] if "card" in indexes else ["Hugging Face datasets refuses them or loses members"]
        who.append(f"{_DAFT} one and a later one has")
        if name == "txt" and {"energon", "energon_sqlite"} & set(indexes):
            who.append("Energon gives images without captions")
        mended = "gives these an empty one" if name == "txt" else "gives all the same json"
        yield (
            f"{_of(contents.samples - count, contents)} samples have no .{name}: {'; '.join(who)}. "
            f"{_UNIFORM} {mended}"
        )


def _others(contents: Contents, *, with_card: bool) -> Iterator[str]:
    """Tell of other members that only some have."""
    odd = {
        name: count
        for name, count in contents.members.items()
        if name not in ("txt", "json") and count < contents.samples
    }
    if odd:
        listed = ", ".join(f".{name} in {count:,}" for name, count in list(odd.items())[:_SHOWN])
        more = f" and {len(odd) - _SHOWN:,} more" if len(odd) > _SHOWN else ""
        who = [] if with_card else ["Hugging Face datasets refuses them or loses members"]
        who.append(f"{_DAFT} one and a later one has")
        yield (
            f"not all of the {contents.samples:,} samples have the same members ({listed}{more}): "
            f"{'; '.join(who)}. A filter by the column extensions, such as "
            f"\"extensions LIKE '%{next(iter(odd))}%'\", leaves out the others"
        )


def _unread(contents: Contents, indexes: Sequence[str]) -> Iterator[str]:
    """Tell of members that are not what their extension says."""
    who = ["webdataset", *(["wids"] if "wids" in indexes else [])]
    stop = f"{', '.join(who)}, Hugging Face datasets, Ray Data and Daft fail when they decode it"
    if count := contents.unread.get("txt"):
        skips = ", Energon leaves the sample out" if "energon" in indexes else ""
        yield (
            f"the .txt of {_of(count, contents)} samples is not UTF-8: {stop}{skips}. {_UNIFORM} "
            "makes it empty, and keeps it in the sidecar"
        )
    if count := contents.unread.get("json"):
        yield (
            f"the .json of {_of(count, contents)} samples is not JSON, or larger than is read, as "
            f"metadata_problem tells: {stop}, unless it is JSON but for NaN. {_UNIFORM} writes it "
            "anew, and keeps it in the sidecar"
        )


def _types(contents: Contents, *, with_card: bool) -> Iterator[str]:
    """Tell of json keys that come and go, or are of several types."""
    mixed, uneven = _json_faults(contents)
    if mixed:
        who = "Hugging Face datasets fails, or cuts floats to whole numbers"
        lost = [path for path, kinds in mixed.items() if not kinds <= {"int", "float"}]
        if with_card:
            who = f"the dataset card leaves out {_listed(lost)}" if lost else ""
        daft = "Daft fails where a later sample has a type that the first 5 of a tar do not have"
        ray = "Ray Data changes some of these" if _DOCUMENTS in mixed else ""
        yield (
            f"json {_listed(list(mixed))}: values of several types: "
            f"{'; '.join(filter(None, (who, daft, ray)))}. {_UNIFORM} writes numbers alike, and "
            "leaves the rest to the sidecar"
        )
    if uneven:
        who = "" if with_card else "Hugging Face datasets fails or loses them; "
        yield (
            f"json {_listed(uneven)}: missing, null or empty in some samples: {who}{_DAFT} the "
            f"value and a later one does. {_UNIFORM} leaves to the sidecar what not all have"
        )


def _json_faults(contents: Contents) -> tuple[dict[str, set[str]], list[str]]:
    """Return the paths with several types, and which; and those that some do not have."""
    mixed: dict[str, set[str]] = {}
    uneven = []
    documents = sum(contents.json_kinds.get("", {}).values())
    for path, kind in (("", contents.json_type), *json_types.paths(contents.json_type)):
        words = contents.json_kinds.get(path, {})
        if kind == json_types.MIXED or {"int", "float"} <= words.keys():
            mixed[path or _DOCUMENTS] = set(words) - {"null", "uneven"}
            continue
        lacking = "[]" not in path and sum(words.values()) < documents
        if json_types.is_uneven(kind) or (kind == json_types.NULL and lacking):
            uneven.append(path)
    return mixed, [path for path in uneven if not path.endswith("[]") or path[:-2] not in uneven]


def _of(count: int, contents: Contents) -> str:
    return f"{count:,} of {contents.samples:,}"


def _listed(paths: Sequence[str]) -> str:
    shown = ", ".join(repr(path) for path in paths[:_SHOWN])
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return f"{shown}{more}"
