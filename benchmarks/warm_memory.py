"""Keeps the machine's free memory from being handed back to its host under a case.

A virtual machine may report free memory to its host in blocks of 2 MiB, and pays for each block
when it is used again: a copy of 1 GB then took 1.6 s of CPU instead of 0.3 s, depending on how long
ago the pages had been freed. Here a process takes memory and gives back all but one page in each
block: no free block is whole, to be reported, and the kernel takes pages from broken blocks first.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = mmap.PAGESIZE
_BLOCK = 1 << 20  # half of what is reported: pages of one block need not lie side by side


@contextmanager
def kept(size: int) -> Iterator[None]:
    """Keep ``size`` bytes of free memory warm; holds 1/256 of it."""
    command = [sys.executable, __file__, str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        if holder.stdout is None or not holder.stdout.readline():
            raise SystemExit("the process that keeps the memory warm did not start")
        try:
            yield
        finally:
            holder.terminate()


def _hold(size: int) -> None:
    size -= size % _BLOCK
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, size, _PAGE):
            memory[page] = 1
        for block in range(0, size, _BLOCK):
            memory.madvise(mmap.MADV_DONTNEED, block + _PAGE, _BLOCK - _PAGE)
        print("ready", flush=True)
        sys.stdin.read()  # until the other process ends, however it ends


if __name__ == "__main__":
    _hold(int(sys.argv[1]))
