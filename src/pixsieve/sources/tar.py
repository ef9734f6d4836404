"""A strict, fast walk over a tar: where its members lie, and from where it cannot be read.

Formats: POSIX.1-1988 ustar, POSIX.1-2001 pax, GNU (long names, base-256 numbers, sparse) and v7,
laid out as in IEEE Std 1003.1 "pax" (ustar Interchange Format) and GNU tar's ``tar.h``. Nothing in
a header is believed before its checksum has been found right, and no length before it has been
bound by the file's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from zlib import adler32

from pixsieve.schema import Problem

if TYPE_CHECKING:
    from pixsieve.storage.base import Reader

BLOCK = 512
HEAD = 64
"""First bytes of each member that are kept, for telling what it is."""
MAX_EXTENDED_SIZE = 1 << 20
"""Bytes of one extended header (long name, pax records, sparse map); more is damage."""
MAX_EXTENDED = 16
"""Extended headers before one member; more is damage."""

_WINDOW = 4096  # a caption, a json and the next image's header are mostly read at once
_ZEROS = 64 * 1024
_MAGIC = 257  # where a header has its "ustar"
_MAX_DIGITS = 20  # of a pax size: more than 2**64 has
_OLD_FILE, _FOLDER, _VOLUME_LABEL, _SPARSE, _LONG_NAME, _LONG_LINK, _GLOBAL_PAX = b"\x005VSLKg"
_FILES = frozenset(b"0\x007")
_EXTENDED = frozenset(b"LKxXg")
_WITHOUT_DATA = {
    ord("1"): "a hard link",
    ord("2"): "a symbolic link",
    ord("3"): "a character device",
    ord("4"): "a block device",
    ord("6"): "a fifo",
}
_WITH_DATA = {
    _SPARSE: "a sparse file",
    ord("D"): "a folder listing of GNU tar",
    ord("M"): "the rest of a file from another volume",
    ord("N"): "a name list of old GNU tar",
}


class Member(NamedTuple):
    """One member: a tuple, since tens of thousands are made per tar.

    ``file`` and ``version`` say which object holds the ``size`` bytes from ``offset`` on; ``head``
    are the first of them, at most ``HEAD``. ``fault`` tells why a member cannot be used; its
    ``size`` is then what is there.
    """

    name: str
    file: str
    version: str
    offset: int
    size: int
    head: bytes
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a byte ``offset`` of a source.

    ``read_on`` tells whether the source was read on behind it.
    """

    offset: int
    problem: Problem
    detail: str
    read_on: bool = False


@dataclass(slots=True, kw_only=True)
class Walk:
    """What a walk has found.

    Attributes:
        members: All files, links and other things with a name, in tar order; about 500 bytes of
            memory each.
        faults: Why the walk ended before the end of the file, if it did; an archive that is cut
            inside its last member has the fault there.
        notes: What is odd about an archive that could be read to its end.
        ignored: Folders, global headers and volume labels.
        read_to: The offset up to which everything is accounted for.
    """

    members: list[Member] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignored: int = 0
    read_to: int = 0


class _DamagedError(Exception):
    """A header does not hold what it must."""


@dataclass(slots=True)
class _Extended:
    """What extended headers say of the next member: the first of them, as in ``tarfile``."""

    count: int = 0
    path: str | None = None
    size: int | None = None
    sparse: bool = False


def walk_on(reader: Reader, *, file: str, version: str) -> Walk:
    """Find all members of a tar, also behind damage: from each next header that is whole.

    Such a header is found wherever it lies, so that bytes may be missing as well. The arguments are
    those of :func:`walk`.
    """
    end = reader.info.size
    found = walk(reader, file=file, version=version)
    while found.faults and not found.faults[-1].read_on:
        fault = found.faults[-1]
        onward = _next_header(reader, fault.offset + 1, end)
        if onward is None:
            break
        detail = f"{fault.detail}; read on at byte {onward}"
        found.faults[-1] = Fault(fault.offset, fault.problem, detail, read_on=True)
        more = walk(reader, file=file, version=version, begin=onward)
        found.members += more.members
        found.faults += more.faults
        found.notes += more.notes
        found.ignored += more.ignored
        found.read_to = more.read_to
    return found


def walk(reader: Reader, *, file: str, version: str, begin: int = 0) -> Walk:
    """Find all members of a tar.

    Archives that follow each other in one file are read on. Linear in the number of headers and
    zero blocks; memory for the result and two buffers of at most 1 MiB.

    Args:
        reader: The tar.
        file: Written into each member.
        version: Likewise.
        begin: Where to start.

    Raises:
        SourceChangedError: the tar became shorter meanwhile.
        StorageError: it cannot be read.
    """
    found = Walk()
    end = reader.info.size
    position = start = begin
    window = b""
    extended: _Extended | None = None
    closed = False  # the last thing seen was a zero block
    cut = False  # inside the last member
    joints = 0

    def fail(problem: Problem, detail: str) -> None:
        offset = min(position, end)
        found.faults.append(
            Fault(offset, problem, f"{detail}; {end - offset} bytes cannot be read")
        )

    while position < end:
        at = position - start
        if at + BLOCK + HEAD > len(window) and start + len(window) < end:
            start, at = position, 0
            window = reader.read(position, min(_WINDOW, end - position))
        header = window[at : at + BLOCK]

        if len(header) < BLOCK or not _checksum_holds(header):
            if not header.strip(b"\0"):
                if extended:
                    fail(Problem.SOURCE_DAMAGED, "an extended header has no member after it")
                    break
                closed = closed or len(header) == BLOCK
                position = _skip_zeros(reader, position, end)
                continue
            if closed:
                fail(Problem.SOURCE_DAMAGED, "unknown data after the end of the archive")
            elif position == 0:
                fail(Problem.SOURCE_DAMAGED, _not_a_tar(header))
            elif len(header) < BLOCK:
                fail(Problem.SOURCE_TRUNCATED, "the archive ends inside a header")
            else:
                fail(Problem.SOURCE_DAMAGED, "the checksum of a header is wrong")
            break
        joints += closed
        closed = False

        data = position + BLOCK
        kind = header[156]
        name = header[:100].partition(b"\0")[0]
        try:
            size = _number(header[124:136])
            if kind == _SPARSE:
                data = _skip_sparse_map(reader, position, header, end)
            if extended and extended.size is not None and kind not in _EXTENDED:
                size = extended.size
            if kind in _EXTENDED:
                if size > MAX_EXTENDED_SIZE:
                    fail(
                        Problem.SOURCE_DAMAGED,
                        f"an extended header of {size} bytes (at most {MAX_EXTENDED_SIZE})",
                    )
                    break
                if data + size > end:
                    fail(Problem.SOURCE_TRUNCATED, "the archive ends inside an extended header")
                    break
                extended = _extend(extended, kind, reader.read(data, size))
                found.ignored += kind == _GLOBAL_PAX
                position = data + _padded(size)
                continue
        except _DamagedError as error:
            fail(Problem.SOURCE_DAMAGED, str(error))
            break

        # A file of old tars whose name ends in a slash is a folder. Links, devices and folders have
        # no data, whatever their size field says (so do tarfile and libarchive; if not, the next
        # header is damaged).
        folder = kind == _FOLDER or (kind == _OLD_FILE and name.endswith(b"/"))
        if folder or kind in _WITHOUT_DATA:
            size = 0
        if folder or kind == _VOLUME_LABEL:
            found.ignored += 1
            if data + size > end:
                fail(Problem.SOURCE_TRUNCATED, "the archive ends inside a volume label")
                break
        else:
            text = _full_name(header, name, extended)
            fault = None
            if kind not in _FILES or (extended and extended.sparse):
                odd = _what_is_odd(_SPARSE if kind in _FILES else kind)
                fault = Fault(position, Problem.UNSAFE_MEMBER, f"{text!r} is {odd}")
            there = size
            if data + size > end:
                cut = True
                there = max(0, end - data)
                detail = f"the archive ends inside {text!r}, after {there} of {size} bytes"
                fault = Fault(position, Problem.SOURCE_TRUNCATED, detail)
            head = window[at + BLOCK : at + BLOCK + min(there, HEAD)]
            found.members.append(Member(text, file, version, data, there, head, fault))
        extended = None
        position = data + _padded(size)
    else:
        if extended:
            fail(Problem.SOURCE_TRUNCATED, "the archive ends after an extended header")
        elif not (closed or cut) and (position > end or not end):
            # The last member's padding is missing, or everything: no writer ends so.
            fail(
                Problem.SOURCE_TRUNCATED,
                f"the archive ends after {end} bytes, without an end mark and within a block",
            )
        elif not (closed or cut):
            found.notes.append(
                "the archive has no end mark; if it was cut between two members, nothing shows it"
            )

    if joints:
        found.notes.append(f"read on after {joints} end marks: several archives in one file")
    found.read_to = min(position, end)
    return found


def _next_header(reader: Reader, offset: int, end: int) -> int | None:
    """Return where the next ustar header that is whole starts, at or behind ``offset``."""
    position, length = offset, _WINDOW  # it is mostly near
    while position + BLOCK <= end:
        piece = reader.read(position, min(length, end - position))
        length = min(2 * length, MAX_EXTENDED_SIZE)
        at = piece.find(b"ustar", _MAGIC)
        while at >= 0:
            header = piece[at - _MAGIC : at - _MAGIC + BLOCK]
            if len(header) == BLOCK and _checksum_holds(header):
                return position + at - _MAGIC
            at = piece.find(b"ustar", at + 1)
        if position + len(piece) >= end:
            return None
        position += len(piece) - BLOCK  # a header may lie across
    return None


def is_tar(first: bytes) -> bool:
    """Tell whether a file whose first block this is starts like a tar."""
    return len(first) >= BLOCK and _checksum_holds(first[:BLOCK])


def _checksum_holds(header: bytes) -> bool:
    """Compare the checksum field with the sum of all other bytes plus eight spaces.

    adler32 has the sum of its input plus one, modulo 65521, in its low half: exact for up to 256
    bytes, and by far the fastest sum of bytes at hand.
    """
    checksum = header[148:156]
    try:
        stored = _number(checksum)
    except _DamagedError:
        return False
    total = (
        (adler32(header[:256]) & 0xFFFF)
        + (adler32(header[256:]) & 0xFFFF)
        - 2
        - sum(checksum)
        + 256
    )
    if stored == total:
        return True
    # Some old tars summed signed bytes; GNU tar takes these too.
    return stored == total - 256 * sum(byte >> 7 for byte in header[:148] + header[156:])


def _number(digits: bytes) -> int:
    """Return a number field's value, octal or GNU's base-256; blank is 0."""
    text = digits.rstrip(b" \0")
    if not text.isdigit():
        text = text.lstrip(b" ")
        if not text:
            return 0
        if digits[0] == 0x80:  # noqa: PLR2004 - the mark of a positive base-256 number
            return int.from_bytes(digits[1:], "big")
        text = text.partition(b"\0")[0].rstrip(b" ")
    try:
        if text.isdigit():
            return int(text, 8)
    except ValueError:  # a digit 8 or 9
        pass
    msg = f"a header has {digits!r} where a number was expected"
    raise _DamagedError(msg)


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def _full_name(header: bytes, name: bytes, extended: _Extended | None) -> str:
    if extended and extended.path is not None:
        return extended.path
    if header[345] and header[257:263] == b"ustar\0":
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "backslashreplace")


def _what_is_odd(kind: int) -> str:
    known = _WITHOUT_DATA.get(kind) or _WITH_DATA.get(kind)
    return known or f"of unknown kind {chr(kind)!r}"


def _extend(extended: _Extended | None, kind: int, data: bytes) -> _Extended | None:
    """Add what an extended header says."""
    if kind == _GLOBAL_PAX:
        for keyword in _pax_records(data):
            if keyword in ("path", "size") or keyword.startswith("GNU.sparse."):
                msg = f"a global header sets {keyword!r} of all members"
                raise _DamagedError(msg)
        return extended
    extended = extended or _Extended()
    extended.count += 1
    if extended.count > MAX_EXTENDED:
        msg = f"more than {MAX_EXTENDED} extended headers in a row"
        raise _DamagedError(msg)
    if kind == _LONG_NAME:
        if extended.path is None:
            extended.path = data.partition(b"\0")[0].decode("utf-8", "backslashreplace")
    elif kind != _LONG_LINK:
        records = _pax_records(data)
        path = records.get("GNU.sparse.name") or records.get("path")
        if path and extended.path is None:
            extended.path = path.decode("utf-8", "backslashreplace")
        if "size" in records and extended.size is None:
            size = records["size"]
            if not size.isdigit() or len(size) > _MAX_DIGITS:
                msg = f"an extended header has the size {size[:_MAX_DIGITS]!r}"
                raise _DamagedError(msg)
            extended.size = int(size)
        extended.sparse = extended.sparse or any(key.startswith("GNU.sparse.") for key in records)
    return extended


def _pax_records(data: bytes) -> dict[str, bytes]:
    """Return pax records: length, blank, keyword, equals sign, value, line feed.

    Names are decoded leniently whatever the record ``hdrcharset`` says: they are data, never paths.
    """
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data) and data[position]:
        digits, space, _ = data[position : position + 8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = data[position : position + length]
        keyword, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not (space and keyword and equals and record.endswith(b"\n") and length == len(record)):
            msg = f"a pax record that cannot be understood: {data[position : position + 40]!r}"
            raise _DamagedError(msg)
        records[keyword.decode("utf-8", "backslashreplace")] = value
        position += length
    if data[position:].strip(b"\0"):
        msg = f"unknown data after the pax records: {data[position : position + 40]!r}"
        raise _DamagedError(msg)
    return records


def _skip_sparse_map(reader: Reader, position: int, header: bytes, end: int) -> int:
    """Return where the data of an old GNU sparse member starts: after the rest of its map."""
    data = position + BLOCK
    more = header[482]
    while more and data + BLOCK <= end:
        if data - position > MAX_EXTENDED_SIZE:
            msg = f"a sparse map of more than {MAX_EXTENDED_SIZE} bytes"
            raise _DamagedError(msg)
        more = reader.read(data, BLOCK)[504]
        data += BLOCK
    return data


def _skip_zeros(reader: Reader, position: int, end: int) -> int:
    """Return the offset of the next block that is not all zero, or ``end``."""
    while position < end:
        piece = reader.read(position, min(_ZEROS, end - position))
        rest = piece.lstrip(b"\0")
        if rest:
            return position + (len(piece) - len(rest)) // BLOCK * BLOCK
        position += len(piece)
    return end


def _not_a_tar(header: bytes) -> str:
    if header[257:262] == b"ustar":
        return "the checksum of the first header is wrong"
    for magic, name in ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"PK", "zip")):
        if header.startswith(magic):
            return (
                f"not a tar but {name} data, which is not read: make it a plain, gzip or zstd tar"
            )
    return "not a tar"
