"""Memory follows what is read at a time, not what there is.

Measured from outside: the highest resident size that the kernel notes for each process of a run.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pixsieve.testing import images
from pixsieve.testing.corpus import make_pipeline
from pixsieve.testing.faults import processes

if TYPE_CHECKING:
    from pixsieve.testing.corpus import Program

MARK = {"PIXSIEVE_TEST_RUN": f"memory-{os.getpid()}"}
MIB = 2**20
MOST = 250 * MIB


def peaks() -> dict[int, int]:
    """The highest resident size so far of each process of the run, in bytes."""
    found = {}
    for pid in processes(*(f"{name}={value}" for name, value in MARK.items())):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{pid}/status").read_text()
            if size := re.search(r"VmHWM:\s+(\d+) kB", status):  # none of one that is ending
                found[pid] = int(size[1]) * 1024
    return found


def highest(program: Program, source: Path, output: Path) -> int:
    """Run, and return the highest resident size of any of its processes."""
    process = program.start(make_pipeline(source, output, images_per_tar=200), environment=MARK)
    most: dict[int, int] = {}
    while process.poll() is None:
        most |= peaks()
        time.sleep(0.02)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert len(most) >= 3  # the run's own, and two workers
    return max(most.values())


def commented(jpeg: bytes, number: int) -> bytes:
    """A JPEG with a comment, which makes it another file of the same picture."""
    text = b"%08d" % number
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


@pytest.mark.slow
def test_memory_is_bounded_and_does_not_grow_with_the_number_of_images(
    tmp_path: Path, program: Program
):
    photos = [images.photo(number, 1280, 960, quality=85) for number in range(8)]
    png = images.photo(8, 1600, 1200, "PNG")
    found = []
    for count in (250, 2000):
        source = tmp_path / f"source{count}"
        source.mkdir()
        for number in range(count):
            if number % 50:
                (source / f"{number:05d}.jpg").write_bytes(commented(photos[number % 8], number))
            else:
                data = images.with_chunk(png, b"tEXt", b"number\0%d" % number)
                (source / f"{number:05d}.png").write_bytes(data)
            (source / f"{number:05d}.txt").write_text(f"caption {number}")
        found.append(highest(program, source, tmp_path / f"out{count}"))
    assert max(found) < MOST
    assert found[1] < found[0] + 30 * MIB
