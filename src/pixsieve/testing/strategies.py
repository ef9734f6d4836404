"""Hypothesis strategies for tars: whole, by the standard library, and then damaged."""

from __future__ import annotations

import io
import struct
import tarfile
from dataclasses import dataclass
from typing import Final, Literal

from hypothesis import strategies as st

BLOCK = 512

TarFormat = Literal[0, 1, 2]  # as tarfile numbers them
FORMATS: Final = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


@dataclass(frozen=True, slots=True)
class Entry:
    """A member to be written: ``kind`` is its typeflag as ``tarfile`` names it."""

    name: str
    data: bytes
    kind: bytes = tarfile.REGTYPE


@st.composite
def entries(draw: st.DrawFn, *, kinds: bool = True) -> Entry:
    """A member with a plain, long, non-ASCII or dotted name; not always a file if ``kinds``."""
    stem = draw(
        st.one_of(
            st.sampled_from(
                ["a", "b", "0001", "./a", "x/a", "x.y/a", ".a", "._a", "/abs", "../up"]
            ),
            st.text(
                st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"),
                min_size=1,
                max_size=12,
            ),
            st.integers(90, 300).map(lambda n: "long/" * (n // 5) + "x"),
        )
    )
    extension = draw(
        st.sampled_from(["", ".jpg", ".JPG", ".txt", ".json", ".mask.png", ".cls", "."])
    )
    name = stem + extension
    kind = tarfile.REGTYPE
    if kinds:
        kind = draw(
            st.sampled_from(
                [tarfile.REGTYPE] * 8
                + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
                + [tarfile.CHRTYPE, tarfile.CONTTYPE]
            )
        )
    if kind not in (tarfile.REGTYPE, tarfile.CONTTYPE):
        return Entry(name, b"", kind)
    size = draw(st.sampled_from([0, 1, 40, 511, 512, 513, 1500]))
    start = draw(
        st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"text", b"\0" * 9])
    )
    return Entry(name, (start + draw(st.binary(max_size=8)) * 190)[:size], kind)


def write_tar(members: list[Entry], tar_format: TarFormat = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar as ``tarfile`` writes it, without members that the format has no room for."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type = member.kind
            info.size = len(member.data)
            info.linkname = "target" if member.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            try:
                info.tobuf(tar_format, tar.encoding, "surrogateescape")
            except ValueError:  # a name that is too long for ustar
                continue
            tar.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


def header(name: bytes, size: bytes | int = 0, kind: bytes = b"0", *, magic: bytes = b"") -> bytes:
    """Return a header as given, with the right checksum; v7 unless a ``magic`` is given."""
    digits = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(
        struct.pack(
            "100s8s8s8s12s12s8s1s100s8s247x",
            name,
            b"",
            b"",
            b"",
            digits,
            b"",
            b"",
            kind,
            b"",
            magic,
        )
    )
    return seal(block)


def seal(block: bytes | bytearray) -> bytes:
    """Return a header block with its checksum made right."""
    sealed = bytearray(block)
    sealed[148:156] = b" " * 8
    sealed[148:156] = b"%06o\0 " % sum(sealed)
    return bytes(sealed)


@st.composite
def tars(draw: st.DrawFn, *, kinds: bool = True) -> bytes:
    """A whole tar, without most of its padding, so that a failing one can be shown."""
    members = draw(st.lists(entries(kinds=kinds), max_size=5))
    data = write_tar(members, draw(st.sampled_from(FORMATS)))
    end = -(-len(data.rstrip(b"\0")) // BLOCK) * BLOCK
    return data[: end + 2 * BLOCK]


@st.composite
def damaged_tars(draw: st.DrawFn) -> bytes:
    """A tar that was cut, overwritten (checksums made right again or not), or had blocks moved."""
    data = bytearray(draw(tars()))
    for _ in range(draw(st.integers(1, 4))):
        blocks = max(1, len(data) // BLOCK)
        block = draw(st.integers(0, blocks - 1)) * BLOCK
        match draw(
            st.sampled_from(["cut", "field", "field", "field", "byte", "drop", "double", "zero"])
        ):
            case "cut":
                del data[draw(st.integers(0, len(data))) :]
            case "field":
                at, values = draw(st.sampled_from(_FIELDS))
                value = draw(st.sampled_from(values) | st.binary(min_size=1, max_size=12))
                patched = bytearray(data[block : block + BLOCK].ljust(BLOCK, b"\0"))
                patched[at : at + len(value)] = value
                data[block : block + BLOCK] = seal(patched[:BLOCK])
            case "byte":
                at = draw(st.integers(0, BLOCK - 1))
                data[block + at : block + at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "drop":
                del data[block : block + BLOCK]
            case "double":
                data[block:block] = data[block : block + BLOCK]
            case _:
                data[block:block] = bytes(BLOCK)
    return bytes(data)


_FIELDS = (
    (0, [b"", b"././@LongLink\0", b"a/\0", b"\0"]),
    (
        124,
        [
            b"00000000000\0",
            b"77777777777\0",
            b"00000001000\0",
            b"\x80" + b"\0" * 10 + b"\x07",
            b"\xff" * 12,
            b"\xff" * 11 + b"\0",
            b"\x80" + b"\xff" * 11,
            b"-0000000001\0",
            b"+0000000001\0",
            b"0000_000001\0",
            b"        12 \0",
            b"\0       12 \0",
            b"999999999999",
            b" " * 12,
        ],
    ),
    (156, [b"0", b"\0", b"1", b"2", b"5", b"7", b"x", b"g", b"L", b"K", b"S", b"X", b"V", b"?"]),
    (257, [b"ustar\x0000", b"ustar  \0", b"\0" * 8]),
    (345, [b"prefix\0", b"\0"]),
    (482, [b"\1", b"\0"]),
)
