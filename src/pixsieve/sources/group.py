"""Members become samples: which belong together, and which one is the image, or why none is."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from pixsieve.image import describe, sniff
from pixsieve.schema import INDEX, MEMBER, Problem
from pixsieve.sources.base import image_id
from pixsieve.sources.tar import Member

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixsieve.sources.tar import Fault

IMAGE_EXTENSIONS = frozenset(
    (  # noqa: SIM905 - read by people
        "apng arw avif avifs bmp cr2 cr3 dcm dds dib dng emf eps exr fit fits gif hdr heic heif "
        "ico j2k jfif jif jp2 jpe jpeg jpf jpg jpx jxl jxr nef orf pam pbm pcx pdf pef pgm png "
        "pnm ppm psb psd qoi raf raw rw2 sgi svg svgz tga tif tiff wdp webp wmf xbm xcf xpm"
    ).split()
)
"""Extensions by which people call images, ours or not: a member so named is missed as an image."""


FIRST = "*"
"""As ``image_member``: the sample's first member, as in pixsieve's own tars."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Members with one key, in source order, and the extension of each."""

    key: str
    members: tuple[Member, ...]
    extensions: tuple[str, ...]
    occurrence: int = 0


def split_name(name: str, *, last: bool) -> tuple[str, str]:
    """Return the key and the extension (lower case) of a member's name.

    The key ends at the first, or last, dot of the name's last part. A dot that this part starts
    with belongs to the key (``._a.jpg``, ``.DS_Store``), and ``./`` before the name is left out of
    it.
    """
    while name.startswith("./"):
        name = name[2:]
    start = name.rfind("/") + 2
    cut = name.rfind(".", start) if last else name.find(".", start)
    return (name, "") if cut < 0 else (name[:cut], sys.intern(name[cut + 1 :].lower()))


def group(members: Sequence[Member], *, last: bool, image_member: str | None) -> list[Sample]:
    """Return the samples in the order of their first members; every member is in exactly one.

    Neighbours with one key are a sample. Where a key comes back later, as in a tar made by
    ``tar cf x *.jpg *.txt``, all its members are one sample if no extension repeats and it is clear
    which one is the image; else each run of neighbours is a sample with an ``occurrence`` of its
    own.
    """
    runs = _runs(members, last=last)
    counts = Counter(run.key for run in runs)
    if len(counts) == len(runs):
        return runs
    again: dict[str, list[Sample]] = {}
    for run in runs:
        if counts[run.key] > 1:
            again.setdefault(run.key, []).append(run)
    joined = {
        key: whole
        for key, same in again.items()
        if _belong_together(whole := _join(same), image_member)
    }
    samples = []
    seen: Counter[str] = Counter()
    for run in runs:
        occurrence = seen[run.key]
        seen[run.key] += 1
        if run.key not in joined:
            samples.append(replace(run, occurrence=occurrence))
        elif occurrence == 0:
            samples.append(joined[run.key])
    return samples


def _runs(members: Sequence[Member], *, last: bool) -> list[Sample]:
    """Return the runs of neighbours with one key."""
    runs: list[Sample] = []
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # most samples have the same extensions
    for key, run in itertools.groupby(
        ((*split_name(member.name, last=last), member) for member in members), itemgetter(0)
    ):
        _, extensions, those = zip(*run, strict=True)
        runs.append(Sample(key, those, shared.setdefault(extensions, extensions)))
    return runs


def _join(runs: Sequence[Sample]) -> Sample:
    members = tuple(member for run in runs for member in run.members)
    extensions = tuple(extension for run in runs for extension in run.extensions)
    return Sample(runs[0].key, members, extensions)


def index_table(
    samples: Sequence[Sample],
    *,
    image_member: str | None = None,
    class_names: Sequence[str | None] | None = None,
    faults: Sequence[tuple[str, str, Fault]] = (),
) -> pa.Table:
    """Return samples as rows of :data:`pixsieve.schema.INDEX`.

    Args:
        samples: From :func:`group`.
        image_member: Extension of the member that is the image where several are images.
        class_names: One for each sample; none at all if left out.
        faults: (file, version, what is wrong) where a source could not be read on; each becomes a
            row too.
    """
    batches = []
    for start in range(0, len(samples), _BATCH):
        part = samples[start : start + _BATCH]
        names = class_names[start : start + _BATCH] if class_names else [None] * len(part)
        rows = [_row(s, image_member, name) for s, name in zip(part, names, strict=True)]
        batches.append(_batch(rows))
    seen = [sample.key for sample in samples] if faults else []
    for file, version, fault in faults:
        key = f"unreadable@{fault.offset}"
        place = Member(key, file, version, fault.offset, 0, b"", fault)
        row = _Row(key, seen.count(key), None, place, None, (), (), fault.problem, fault.detail)
        batches.append(_batch([row]))
        seen.append(key)

    table = pa.Table.from_batches(batches, INDEX)
    images = len(table) - table["image_name"].null_count
    siblings = sum(len(chunk.flatten()) for chunk in table["siblings"].chunks)
    if images + siblings != sum(len(sample.members) for sample in samples):
        msg = "members were lost or counted twice while they were put into rows"
        raise AssertionError(msg)
    return table


_BATCH = 4096  # rows that are held as Python objects at once


class _Row(NamedTuple):
    """``place`` is the image, or where the problem is if ``extension`` is ``None``."""

    key: str
    occurrence: int
    class_name: str | None
    place: Member
    extension: str | None
    siblings: Sequence[Member]
    extensions: Sequence[str]
    problem: Problem | None
    detail: str | None


def _row(sample: Sample, image_member: str | None, class_name: str | None) -> _Row:
    members, extensions = sample.members, sample.extensions
    image, problem, detail = _find_image(sample, image_member)
    if image is None:
        place = next((member for member in members if member.fault), members[0])
        extension = None
    else:
        place, extension = members[image], extensions[image]
        members = members[:image] + members[image + 1 :]
        extensions = extensions[:image] + extensions[image + 1 :]
    return _Row(
        sample.key,
        sample.occurrence,
        class_name,
        place,
        extension,
        members,
        extensions,
        problem,
        detail,
    )


def _batch(rows: Sequence[_Row]) -> pa.RecordBatch:
    members = [member for row in rows for member in row.siblings]
    borders = [0, *itertools.accumulate(len(row.siblings) for row in rows)]
    values = {
        "name": [member.name for member in members],
        "extension": [extension for row in rows for extension in row.extensions],
        "file": [member.file for member in members],
        "offset": [member.offset for member in members],
        "size": [member.size for member in members],
        "version": [member.version for member in members],
    }
    structs = pa.StructArray.from_arrays(
        [pa.array(values[part.name], part.type) for part in MEMBER], fields=list(MEMBER)
    )
    found = [row.extension is not None for row in rows]
    columns = {
        "image_id": [image_id(row.place.file, row.key, row.occurrence) for row in rows],
        "key": [row.key for row in rows],
        "occurrence": [row.occurrence for row in rows],
        "class_name": [row.class_name for row in rows],
        "image_name": [
            row.place.name if yes else None for row, yes in zip(rows, found, strict=True)
        ],
        "image_extension": [row.extension for row in rows],
        "image_file": [row.place.file for row in rows],
        "image_offset": [row.place.offset for row in rows],
        "image_size": [row.place.size if yes else 0 for row, yes in zip(rows, found, strict=True)],
        "image_version": [row.place.version for row in rows],
        "problem": [row.problem for row in rows],
        "problem_detail": [row.detail for row in rows],
    }
    arrays = [
        pa.ListArray.from_arrays(pa.array(borders, pa.int32()), structs)
        if part.name == "siblings"
        else pa.array(columns[part.name], part.type)
        for part in INDEX
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=INDEX)


def _belong_together(sample: Sample, image_member: str | None) -> bool:
    distinct = len(set(sample.extensions)) == len(sample.extensions)
    return distinct and _find_image(sample, image_member)[1] is not Problem.TWO_IMAGES


def _find_image(
    sample: Sample, image_member: str | None
) -> tuple[int | None, Problem | None, str | None]:
    """Return which member is the image, or what is wrong, and how."""
    members, extensions = sample.members, sample.extensions
    for member in members:
        if member.fault:
            return None, member.fault.problem, member.fault.detail
    if len(set(extensions)) < len(extensions):
        twice = next(e for e, count in Counter(extensions).items() if count > 1)
        return None, Problem.DUPLICATE_MEMBER, f"more than one member with the extension {twice!r}"

    images = [i for i, member in enumerate(members) if sniff(member.head)]
    if len(images) == 1:
        return images[0], None, None
    if images and image_member == FIRST and images[0] == 0:
        return 0, None, None
    if images:
        wanted = (image_member or "").lower().lstrip(".")
        for choice in (
            [i for i in images if image_member and extensions[i] == wanted],
            [i for i in images if "." not in extensions[i]],
        ):
            if len(choice) == 1:
                return choice[0], None, None
        names = _listed([members[i].name for i in images])
        return (
            None,
            Problem.TWO_IMAGES,
            f"which of {names} is the image? name its extension as image_member",
        )

    named = [i for i, e in enumerate(extensions) if e.rpartition(".")[2] in IMAGE_EXTENSIONS]
    for i in named:
        if not members[i].size:
            return None, Problem.EMPTY_IMAGE, f"{members[i].name!r} has no bytes"
    for i in named:
        return (
            None,
            Problem.UNSUPPORTED_FORMAT,
            f"{members[i].name!r} is {describe(members[i].head)}",
        )
    return None, Problem.MISSING_IMAGE, f"no image among {_listed([m.name for m in members])}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"  # noqa: PLR2004
