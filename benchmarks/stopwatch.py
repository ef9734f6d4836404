"""What a case in Python says of its own work: CPU and wall seconds, without start and imports.

``cp`` and ``tar`` have next to no start, and a real run is longer than the benchmark's.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def seconds() -> Iterator[dict[str, float]]:
    """Time the block; what it is given holds ``cpu`` and ``wall`` once the block has ended."""
    figures: dict[str, float] = {}
    cpu, wall = time.process_time(), time.perf_counter()
    yield figures
    figures |= {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
