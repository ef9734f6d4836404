"""Pillow keeps quiet."""

from __future__ import annotations

import struct
import subprocess
import sys

from pixsieve.schema import Problem
from pixsieve.testing import images
from pixsieve.testing.image_kinds import problem


def test_what_pillow_logs_of_a_hostile_file_is_not_printed():
    data = bytearray(images.photo(format="TIFF"))
    at = data.index(struct.pack("<HHI", 277, 3, 1))  # samples per pixel
    data[at + 8 : at + 10] = b"\xff\xff"
    assert problem(bytes(data)) == Problem.BAD_HEADER
    # In a process of its own: pytest sets up logging, and only without it does Python print.
    script = (
        "import sys; from pixsieve import image\n"
        "try: image.probe(sys.stdin.buffer.read())\n"
        "except image.ImageProblemError as error: print(error.problem)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=bytes(data), capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"bad_header\n", b"")
