"""What a case in Python says of its own work: CPU and wall seconds, without start and imports.

``cp`` and ``tar`` have next to no start, and a real run is longer than the benchmark's.
"""

from __future__ import annotations

import json
import resource
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def work() -> Iterator[dict[str, float]]:
    """Time the block and print ``cpu`` and ``wall`` as a line of JSON, with what the block adds.

    CPU is that of this process and of those that it started and waited for.
    """
    report: dict[str, float] = {}
    cpu, wall = _cpu(), time.perf_counter()
    yield report
    report |= {"cpu": _cpu() - cpu, "wall": time.perf_counter() - wall}
    print(json.dumps(report))


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)
