"""Reading a tar with the standard library, and noticing what the standard library lets pass.

Python's ``tarfile`` takes a tar that was cut at a member's border for a whole one, ends in silence
at a damaged header, and trusts the sizes that a header states. So every raw header is looked at
before ``tarfile`` may read it, and the end of the tar after it.
"""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
RECORD = 20 * BLOCK
_ZERO = bytes(BLOCK)
_EXTENDED = frozenset({b"x", b"g", b"X", b"L", b"K"})
_MAX_EXTENDED_BYTES = 1 << 20
_MAX_EXTENDED_HEADERS = 8
_POSITIVE, _NEGATIVE = 0x80, 0xFF  # first byte of a number in base 256
_MODE = 0o644
_CHUNK = 1 << 20

Report = Callable[[str, str, str | None], None]
"""Takes a rule, a message and the member that it is about, if it is about one."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in a tar: its name, and where its data lies, in bytes from the tar's start.

    ``header`` is where its first header block starts, an extended one if it has some.
    """

    name: str
    offset: int
    size: int
    header: int


@dataclass(frozen=True, slots=True)
class _Header:
    """The raw header block of a member, with the extended headers before it counted."""

    block: bytes
    extended: int


class _BadTarError(Exception):
    """The tar cannot be read beyond this point: a rule and a message."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message


def members(
    file: BinaryIO,
    size: int,
    *,
    strict: bool,
    report: Report,
    at_end: Callable[[int], None] = lambda _: None,
) -> Iterator[Member]:
    """Yield the regular files of a tar in order.

    Args:
        file: The tar, seekable. It may be moved between two members.
        size: Its size in bytes.
        strict: Whether headers and padding must be exactly what pixsieve writes.
        report: Called with (rule, message, member) for each fault; reading ends at the first one
            that leaves no way on.
        at_end: Called with the place where the blocks start that end the tar, if it can be read so
            far.
    """
    position = 0
    try:
        header = _header(file, position, size)
        if header is not None:
            file.seek(0)  # tarfile counts from where the file stands
            with _named_faults(position):  # it reads the first header at once
                opened = tarfile.TarFile(fileobj=file, errorlevel=2)
            with opened as tar:
                while header is not None:
                    info = _next(tar, position, size)
                    if strict:
                        _check_strict(header, info, report)
                    if info.isreg() and not info.issparse():
                        yield Member(info.name, info.offset_data, info.size, position)
                    elif strict or not info.isdir():
                        report(
                            "member-kind",
                            f"is of tar type {info.type!r}, not a regular file",
                            info.name,
                        )
                    position = tar.offset
                    tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every member
                    header = _header(file, position, size)
        at_end(position)
        _check_end(file, position, size, strict=strict, report=report)
    except _BadTarError as error:
        report(error.rule, error.message, None)


def _header(file: BinaryIO, position: int, size: int) -> _Header | None:
    """Return the next member's raw header; None at the end of the archive or of the file."""
    for extended in range(_MAX_EXTENDED_HEADERS + 1):
        file.seek(position)
        block = file.read(BLOCK)
        if not extended and (not block or block == _ZERO):
            return None
        if len(block) < BLOCK:
            raise _BadTarError("tar-cut", f"the tar ends inside the header at byte {position:,}")
        checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
        stated = _number(block[148:156])
        if checksum != stated:
            raise _BadTarError(
                "tar-damaged",
                f"the header at byte {position:,} has the checksum {stated}, not {checksum}",
            )
        length = _number(block[124:136])
        if length is None or length < 0:
            raise _BadTarError(
                "tar-damaged", f"the header at byte {position:,} states the size {block[124:136]!r}"
            )
        if block[156:157] not in _EXTENDED:
            return _Header(block, extended)
        if length > _MAX_EXTENDED_BYTES:
            raise _BadTarError(
                "tar-damaged",
                f"the extended header at byte {position:,} states {length:,} bytes; at most "
                f"{_MAX_EXTENDED_BYTES:,} are read",
            )
        position += BLOCK + -(-length // BLOCK) * BLOCK
        if position > size:
            raise _BadTarError("tar-cut", "the tar ends inside an extended header")
    raise _BadTarError(
        "tar-damaged",
        f"more than {_MAX_EXTENDED_HEADERS} extended headers in a row before byte {position:,}",
    )


def _number(field: bytes) -> int | None:
    """Return the number in a header field, octal or base 256; None if it is neither."""
    if field[0] in (_POSITIVE, _NEGATIVE):
        below = 256 ** (len(field) - 1) if field[0] == _NEGATIVE else 0
        return int.from_bytes(field[1:], "big") - below
    try:
        return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        return None


def _next(tar: tarfile.TarFile, position: int, size: int) -> tarfile.TarInfo:
    """Return the member at ``position``; raise unless it lies in the file and we get on."""
    with _named_faults(position):
        info = tar.next()
    if info is None:
        raise _BadTarError("tar-damaged", f"tarfile reads no member at byte {position:,}")
    if info.size < 0 or tar.offset <= position:
        raise _BadTarError(
            "tar-damaged", f"the member at byte {position:,} states {info.size} bytes"
        )
    if info.offset_data + info.size > size and (info.isreg() or tar.offset > size + BLOCK):
        raise _BadTarError(
            "tar-cut",
            f"the member {info.name!r} at byte {position:,} states {info.size:,} bytes, "
            f"{max(0, size - info.offset_data):,} are left",
        )
    return info


@contextlib.contextmanager
def _named_faults(position: int) -> Iterator[None]:
    """Turn what tarfile raises on the header at ``position`` into a fault of the tar."""
    try:
        yield
    except (tarfile.TarError, ValueError, OverflowError) as error:
        rule = "tar-cut" if "unexpected end" in str(error) else "tar-damaged"
        raise _BadTarError(rule, f"at byte {position:,}: {error}") from error


def _check_strict(header: _Header, info: tarfile.TarInfo, report: Report) -> None:
    if header.extended:
        report(
            "tar-extended-header",
            "has an extended header (PAX or GNU); expected plain ustar",
            info.name,
        )
        return
    block = header.block
    wrong = [
        f"{name} is {block[start:end].rstrip(bytes(1))!r}, expected {expected!r}"
        for name, start, end, expected, same in (
            ("magic", 257, 265, b"ustar\x0000", block[257:265] == b"ustar\x0000"),
            ("type", 156, 157, b"0", block[156:157] == b"0"),
            ("mode", 100, 108, b"0000644", _number(block[100:108]) == _MODE),
            ("uid", 108, 116, b"0000000", _number(block[108:116]) == 0),
            ("gid", 116, 124, b"0000000", _number(block[116:124]) == 0),
            ("mtime", 136, 148, b"00000000000", _number(block[136:148]) == 0),
            ("linkname", 157, 257, b"", not block[157]),
            ("uname", 265, 297, b"", not block[265]),
            ("gname", 297, 329, b"", not block[297]),
            ("prefix", 345, 500, b"", not block[345]),
        )
        if not same
    ]
    if wrong:
        report("tar-header", "; ".join(wrong), info.name)


def _check_end(file: BinaryIO, position: int, size: int, *, strict: bool, report: Report) -> None:
    """Look at everything behind the last member: at least two blocks, all zero, padded."""
    file.seek(position)
    rest = size - position
    while chunk := file.read(_CHUNK):
        if chunk.count(0) != len(chunk):
            at = file.tell() - len(chunk) + len(chunk) - len(chunk.lstrip(b"\0"))
            report("tar-trailing-data", f"data at byte {at:,}, behind the end of the archive", None)
            return
    if rest < 2 * BLOCK:
        report(
            "tar-no-end",
            f"{max(0, rest):,} bytes follow the last member, expected two zero blocks",
            None,
        )
    if strict and size % RECORD:
        report(
            "tar-padding", f"the tar has {size:,} bytes, expected a multiple of {RECORD:,}", None
        )
