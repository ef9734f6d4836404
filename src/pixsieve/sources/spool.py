"""Compressed tars have no byte ranges: they are unpacked once, into the working state.

Formats: gzip (RFC 1952, any number of members) and Zstandard (RFC 8878, any number of frames,
windows up to 128 MiB). Which one, if any, is told by the first bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import zstandard

from pixsieve.fingerprint import fingerprint
from pixsieve.schema import Problem
from pixsieve.sources.tar import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pixsieve.storage.base import Reader, Storage

MAX_RATIO = 200
"""A source that unpacks to more than so many times its size is refused: images hardly shrink."""
FREE_SIZE = 256 * 1024 * 1024
"""Bytes that any source may unpack to, whatever the ratio."""

_MARK = "unpacked:"
_READ = 1024 * 1024


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compression:
    """``step`` bounds memory: bytes that are decoded at once, for never more than 32 MiB."""

    name: str
    magics: tuple[bytes, ...]
    step: int
    decoder: Callable[[], _Decoder]
    padding: bytes = b""


_COMPRESSIONS = (
    # deflate packs at most 1032 to 1
    _Compression(
        name="gzip",
        magics=(b"\x1f\x8b",),
        step=16 * 1024,
        decoder=lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16),
        padding=b"\0",
    ),
    # a block of 4 bytes gives up to 128 KiB
    _Compression(
        name="zstd",
        magics=(b"\x28\xb5\x2f\xfd", *(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))),
        step=1024,
        decoder=lambda: zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj(),
    ),
)


def is_compressed(first: bytes) -> bool:
    """Tell whether a source that starts so must be unpacked."""
    return _compression(first) is not None


def unpacked_version(version: str, size: int) -> str:
    """Return the version that an index gives to what was unpacked from a file of ``version``.

    ``size`` is that of what was unpacked, so that a spool that was cut is noticed.
    """
    return f"{_MARK}{size}:{version}"


def packed_version(version: str) -> tuple[str, int] | None:
    """Return the compressed file's version, and the size that it unpacks to.

    ``None`` if ``version`` is not an unpacked one.
    """
    if not version.startswith(_MARK):
        return None
    size, _, packed = version.removeprefix(_MARK).partition(":")
    return packed, int(size)


def spool_path(spool_dir: str, file: str, version: str) -> str:
    """Return where the compressed ``file``, in that ``version``, is unpacked to."""
    return str(Path(spool_dir) / f"{fingerprint(file, version)}.bin")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Whether there is a file, its size, and what is wrong with the source.

    Offsets are in the file. ``packed`` are the bytes of the source that it was made of.
    """

    kept: bool
    size: int
    packed: int
    fault: Fault | None


def unpack(reader: Reader, storage: Storage, path: str) -> Unpacked:
    """Unpack a compressed source to ``path``.

    What comes before damage is kept, but for what is decoded in one step with it: 16 KiB of gzip
    data, a block of zstd. A source that unpacks to more than ``MAX_RATIO`` times its size (and more
    than ``FREE_SIZE`` bytes) gives no file.

    Raises:
        SourceChangedError: the source became shorter meanwhile.
        StorageError: it cannot be read, or there is no room for the file.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    limit = max(FREE_SIZE, MAX_RATIO * reader.info.size)
    written, packed = 0, reader.info.size
    fault = None
    try:
        with storage.create(path, durable=False) as sink:
            try:
                for piece in _pieces(reader):
                    written += len(piece)
                    if written > limit:
                        raise _BombError
                    sink.write(piece)
            except _DamagedError as error:
                fault = Fault(written, error.problem, str(error))
                packed = error.packed
    except _BombError:
        detail = (
            f"refused: {reader.info.size} bytes unpack to more than {limit}; "
            "unpack it yourself if it is what it should be"
        )
        fault = Fault(0, Problem.SOURCE_DAMAGED, detail)
        return Unpacked(kept=False, size=0, packed=0, fault=fault)
    return Unpacked(kept=True, size=written, packed=packed, fault=fault)


class _BombError(Exception):
    pass


class _DamagedError(Exception):
    def __init__(self, problem: Problem, detail: str, packed: int) -> None:
        super().__init__(detail)
        self.problem = problem
        self.packed = packed


def _compression(first: bytes) -> _Compression | None:
    return next((c for c in _COMPRESSIONS if first.startswith(c.magics)), None)


def _pieces(reader: Reader) -> Iterator[bytes]:
    compression = _compression(reader.read(0, min(4, reader.info.size)))
    if compression is None:
        msg = "only compressed sources are unpacked"
        raise AssertionError(msg)
    decoder = compression.decoder()
    position = 0
    while position < reader.info.size:
        block = memoryview(reader.read(position, min(_READ, reader.info.size - position)))
        for start in range(0, len(block), compression.step):
            rest = bytes(block[start : start + compression.step])
            while rest:
                if decoder.eof:
                    rest = rest.lstrip(compression.padding) if compression.padding else rest
                    if not rest:
                        break
                    decoder = compression.decoder()
                try:
                    yield decoder.decompress(rest)
                except (zlib.error, zstandard.ZstdError) as error:
                    at = position + start
                    msg = (
                        f"the {compression.name} data is damaged near byte {at} ({error}); "
                        "what was unpacked before may be wrong too"
                    )
                    raise _DamagedError(Problem.SOURCE_DAMAGED, msg, at) from error
                rest = decoder.unused_data if decoder.eof else b""
        position += len(block)
    if not decoder.eof:
        msg = f"the {compression.name} data ends too early, after {position} bytes"
        raise _DamagedError(Problem.SOURCE_TRUNCATED, msg, position)
