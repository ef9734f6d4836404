"""Keeps the machine's free memory from being handed back to its host while cases run.

A virtual machine may report free memory to its host in blocks of 2 MiB, and pays for each block
when it is used again: a copy of 1 GB then took 1.6 s of CPU instead of 0.3 s, depending on how long
ago the pages had been freed. Here a process takes memory and gives back all but one page in each
block: no free block is whole, to be reported, and the kernel takes pages from broken blocks first.
Half of the memory, since whatever else runs on the machine uses the warm pages up as well.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = mmap.PAGESIZE
_BLOCK = 1 << 20  # half of what is reported: pages of one block need not lie side by side


@contextmanager
def kept() -> Iterator[None]:
    """Keep half of the available memory warm; holds 1/256 of that half."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if holder.stdout is None or not holder.stdout.readline():
            raise SystemExit("the process that keeps the memory warm did not start")
        try:
            yield
        finally:
            holder.terminate()


def _hold() -> None:
    size = _available() // 2 // _BLOCK * _BLOCK
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, size, _PAGE):
            memory[page] = 1
        for block in range(0, size, _BLOCK):
            memory.madvise(mmap.MADV_DONTNEED, block + _PAGE, _BLOCK - _PAGE)
        print("ready", flush=True)
        sys.stdin.read()  # until the other process ends, however it ends


def _available() -> int:
    """Bytes that processes could still take."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    _hold()
