"""Tar bytes as a pure function of the members: ustar headers without time, owner or machine.

Source of the format: POSIX.1-1988, "ustar Interchange Format".
"""

from __future__ import annotations

import zlib

from pixsieve.errors import RunError

BLOCK = 512
RECORD = 10_240
"""Tars are zero padded to a multiple of it, as tar programs do."""
MAX_NAME = 100
MAX_SIZE = 8**11 - 1

_MODE_OWNER = b"0000644\0" + b"0000000\0" * 2
_TIME = b"00000000000\0"
_TYPE_TO_END = (
    b"0" + b"\0" * 100 + b"ustar\x0000" + b"\0" * 64 + b"0000000\0" * 2 + b"\0" * 167
)  # regular file, no link name, magic, no owner names, device 0, no prefix
_FIXED_SUM = sum(_MODE_OWNER) + sum(_TIME) + 8 * ord(" ") + sum(_TYPE_TO_END)


def header(name: str, size: int) -> bytes:
    """Return the 512-byte header of a regular file.

    Args:
        name: ASCII, at most 100 bytes.
        size: Of the file, at most 8 GiB less one byte.

    Raises:
        RunError: the member does not fit the format; plans do not make such.
    """
    encoded = name.encode("ascii")
    if len(encoded) > MAX_NAME or not 0 <= size <= MAX_SIZE:
        msg = f"member {name!r} of {size} bytes does not fit a ustar header (100 bytes, 8 GiB)"
        raise RunError(msg)
    length = b"%011o\0" % size
    # The lower half of Adler-32 is 1 and the sum of the bytes, as long as that is below 65,521.
    total = _FIXED_SUM + (zlib.adler32(encoded + length) & 0xFFFF) - 1
    checksum = b"%06o\0 " % total
    return b"".join(
        (encoded.ljust(MAX_NAME, b"\0"), _MODE_OWNER, length, _TIME, checksum, _TYPE_TO_END)
    )


def padding(size: int) -> int:
    """Return how many zero bytes follow ``size`` bytes of data."""
    return -size % BLOCK


def member_bytes(size: int) -> int:
    """Return what a member of ``size`` bytes takes in a tar: header, data and padding."""
    return BLOCK + size + padding(size)


def trailer(length: int) -> int:
    """Return how many zero bytes end a tar with ``length`` bytes of members."""
    return 2 * BLOCK + -(length + 2 * BLOCK) % RECORD
