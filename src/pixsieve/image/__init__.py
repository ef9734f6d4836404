"""Bytes to facts, pixels or a problem: all that pixsieve knows about image formats.

====================  ===========================================================================
:func:`sniff`         which supported format the first bytes are, if any
:func:`describe`      what bytes that are none of them look like, for messages
:func:`probe`         the header's facts, under limits; no pixel is decoded
:func:`check_decode`  the whole bit stream decodes, or a problem
:func:`decode`        upright 8-bit pixels for scorers
:func:`encode`        upright bytes in another format, and a text that says how they were made
:func:`transform`     resized, turned, stripped: by rewriting bytes where that is enough
====================  ===========================================================================

The bytes are hostile until they have been decoded: whatever a decoder raises on them becomes an
:class:`ImageProblemError`. A decoder that hangs or crashes is the caller's to fence, by a time-out
and a process. Only the first frame of an animation or a multi-page file is ever decoded.
"""

from pixsieve.image.check import check_decode
from pixsieve.image.encoding import (
    MAX_SIDE,
    Changes,
    Encoded,
    EncodeOptions,
    check_encodable,
    encode,
)
from pixsieve.image.formats import FORMATS, describe, sniff
from pixsieve.image.header import DEFAULT_LIMITS, ImageHeader, ImageLimits, probe
from pixsieve.image.lossless import is_available as can_turn_losslessly
from pixsieve.image.pixels import decode, scale
from pixsieve.image.problem import ImageProblemError
from pixsieve.image.resize import Filter, ResizeMode
from pixsieve.image.transform import TransformOptions, sides, transform

ENCODED = frozenset(MAX_SIDE)
"""Formats that images can be encoded in."""

__all__ = [
    "DEFAULT_LIMITS",
    "ENCODED",
    "FORMATS",
    "Changes",
    "EncodeOptions",
    "Encoded",
    "Filter",
    "ImageHeader",
    "ImageLimits",
    "ImageProblemError",
    "ResizeMode",
    "TransformOptions",
    "can_turn_losslessly",
    "check_decode",
    "check_encodable",
    "decode",
    "describe",
    "encode",
    "probe",
    "scale",
    "sides",
    "sniff",
    "transform",
]
