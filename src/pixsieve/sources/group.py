"""Members become samples: which belong together, and which one is the image, or why none is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from pixsieve.image import describe, sniff
from pixsieve.schema import INDEX, MEMBER, Problem
from pixsieve.sources.base import image_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixsieve.sources.tar import Fault, Member

IMAGE_EXTENSIONS = frozenset(
    (  # noqa: SIM905 - read by people
        "apng arw avif avifs bmp cr2 cr3 dcm dds dib dng emf eps exr fit fits gif hdr heic heif "
        "ico j2k jfif jif jp2 jpe jpeg jpf jpg jpx jxl jxr nef orf pam pbm pcx pdf pef pgm png "
        "pnm ppm psb psd qoi raf raw rw2 sgi svg svgz tga tif tiff wdp webp wmf xbm xcf xpm"
    ).split()
)
"""Extensions by which people call images, ours or not: a member so named is missed as an image."""


@dataclass(slots=True)
class Sample:
    """Members with one key, in source order, and the extension of each."""

    key: str
    occurrence: int = 0
    members: list[Member] = field(default_factory=list)
    extensions: list[str] = field(default_factory=list)


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
    return (name, "") if cut < 0 else (name[:cut], name[cut + 1 :].lower())


def group(members: Sequence[Member], *, last: bool, image_member: str | None) -> list[Sample]:
    """Return the samples in the order of their first members; every member is in exactly one.

    Neighbours with one key are a sample. Where a key comes back later, as in a tar made by
    ``tar cf x *.jpg *.txt``, all its members are one sample if no extension repeats and it is clear
    which one is the image; else each run of neighbours is a sample with an ``occurrence`` of its
    own.
    """
    runs: list[Sample] = []
    current: Sample | None = None
    for member in members:
        key, extension = split_name(member.name, last=last)
        if current is None or key != current.key:
            current = Sample(key)
            runs.append(current)
        current.members.append(member)
        current.extensions.append(extension)

    by_key: dict[str, list[Sample]] = {}
    for run in runs:
        by_key.setdefault(run.key, []).append(run)
    if len(by_key) == len(runs):
        return runs

    joined: dict[str, Sample] = {}
    for key, same in by_key.items():
        if len(same) == 1:
            continue
        whole = Sample(key)
        for occurrence, run in enumerate(same):
            run.occurrence = occurrence
            whole.members += run.members
            whole.extensions += run.extensions
        if _belong_together(whole, image_member):
            joined[key] = whole
    samples = []
    for run in runs:
        sample = joined.get(run.key, run)
        if sample.members[0] is run.members[0]:
            samples.append(sample)
    return samples


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
    rows: list[tuple[object, ...]] = []
    siblings: list[Member] = []
    extensions: list[str] = []
    borders = [0]
    for sample in samples:
        image, problem, detail = _find_image(sample, image_member)
        members = sample.members
        if image is None:
            place = next((member for member in members if member.fault), members[0])
            name = extension = None
            size = 0
            siblings += members
            extensions += sample.extensions
        else:
            place = members[image]
            name, extension, size = place.name, sample.extensions[image], place.size
            siblings += members[:image]
            siblings += members[image + 1 :]
            extensions += sample.extensions[:image]
            extensions += sample.extensions[image + 1 :]
        borders.append(len(siblings))
        rows.append(
            (
                image_id(place.file, sample.key, sample.occurrence),
                sample.key,
                sample.occurrence,
                name,
                extension,
                place.file,
                place.offset,
                size,
                place.version,
                problem,
                detail,
            )
        )
    if borders[-1] + sum(row[3] is not None for row in rows) != sum(
        len(s.members) for s in samples
    ):
        msg = "members were lost or counted twice while they were put into rows"
        raise AssertionError(msg)
    for file, version, fault in faults:
        key = f"unreadable@{fault.offset}"
        occurrence = sum(row[1] == key for row in rows)
        identity = image_id(file, key, occurrence)
        row = (identity, key, occurrence, None, None, file, fault.offset, 0, version)
        rows.append((*row, fault.problem, fault.detail))
        borders.append(len(siblings))

    columns = dict(zip(_ROW, zip(*rows, strict=True) if rows else ((),) * len(_ROW), strict=True))
    columns["class_name"] = (*(class_names or [None] * len(samples)), *([None] * len(faults)))
    names, files, versions, offsets, sizes, _, _ = (
        zip(*siblings, strict=True) if siblings else ((),) * 7
    )
    values = (names, extensions, files, offsets, sizes, versions)
    structs = pa.StructArray.from_arrays(
        [pa.array(value, part.type) for value, part in zip(values, MEMBER, strict=True)],
        fields=list(MEMBER),
    )
    lists = pa.ListArray.from_arrays(pa.array(borders, pa.int32()), structs)
    arrays = [
        lists if part.name == "siblings" else pa.array(columns[part.name], part.type)
        for part in INDEX
    ]
    return pa.Table.from_arrays(arrays, schema=INDEX)


_ROW = (
    "image_id",
    "key",
    "occurrence",
    "image_name",
    "image_extension",
    "image_file",
    "image_offset",
    "image_size",
    "image_version",
    "problem",
    "problem_detail",
)


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
        twice = next(e for i, e in enumerate(extensions) if e in extensions[:i])
        return None, Problem.DUPLICATE_MEMBER, f"more than one member with the extension {twice!r}"

    images = [i for i, member in enumerate(members) if sniff(member.head)]
    if len(images) == 1:
        return images[0], None, None
    if images:
        wanted = (image_member or "").lower().lstrip(".")
        for choice in (
            [i for i in images if image_member and extensions[i] == wanted],
            [i for i in images if "." not in extensions[i]],
        ):
            if len(choice) == 1:
                return choice[0], None, None
        names = ", ".join(repr(members[i].name) for i in images)
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
