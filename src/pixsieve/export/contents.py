"""What the samples of an export are made of, which decides who can load it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pixsieve import image
from pixsieve.export.members import Sibling, named

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from pixsieve.export.writer import ImageWriterStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the samples of an export are made of.

    Attributes:
        samples: How many there are.
        images: Extension of images, as exported, and how many samples have it.
        members: Likewise of all other members.
        json: The type of all json members together; ``None`` if there are none.
        json_uneven: Paths of what some of them lack, or have as null.
    """

    samples: int
    images: dict[str, int]
    members: dict[str, int]
    json: Any = None
    json_uneven: tuple[str, ...] = field(default=())


def tally(plan: pa.Table, writer: ImageWriterStage) -> Contents:
    """Return what the samples of a plan table will be made of."""
    formats = Counter(writer.target_format or name for name in plan["format"].to_pylist())
    members: Counter[str] = Counter()
    extensions = plan["siblings"].combine_chunks()
    flat = extensions.flatten().field("extension").to_pylist()
    start = 0
    shapes: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for name, count in zip(
        plan["format"].to_pylist(), extensions.value_lengths().to_pylist(), strict=True
    ):
        taken = image.FORMATS[writer.target_format or name]
        shapes[taken, tuple(flat[start : start + count])] += 1
        start += count
    for (taken, siblings), samples in shapes.items():
        found = named([Sibling(each, "", "", 0, 0) for each in siblings], taken)
        for extension, _ in found:
            members[extension] += samples
    return Contents(
        samples=len(plan),
        images={image.FORMATS[name]: formats[name] for name in sorted(formats)},
        members=dict(sorted(members.items())),
    )


def together(found: Iterable[Contents]) -> Contents:
    """Return what the samples of several tables are made of."""
    samples, images, members = 0, Counter[str](), Counter[str]()
    for each in found:
        samples += each.samples
        images.update(each.images)
        members.update(each.members)
    return Contents(
        samples=samples, images=dict(sorted(images.items())), members=dict(sorted(members.items()))
    )
