"""Decodes every image and encodes it anew, as a tool that hands pixels from step to step must.

This is what NeMo Curator's image reader and ``ImageWriterStage`` do to a JPEG, in short: it decodes
with Pillow (Curator: DALI), one image at a time (Curator: a batch, with fresh memory for each),
encodes at quality 92, and writes with tarfile and pyarrow. Captions and json stay behind, as there.

Arguments: folder of tars, output folder, images per tar.
"""

from __future__ import annotations

import io
import itertools
import json
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import stopwatch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def main(source: Path, target: Path, images_per_tar: int) -> None:
    """Write ``target/images-000000.tar`` with its Parquet file, and so on."""
    target.mkdir()
    pa.table({"warm": [0]})  # the first table of a process imports for a while
    with stopwatch.seconds() as figures:
        images = _reencoded(source)
        for index in itertools.count():
            members = list(itertools.islice(images, images_per_tar))
            if not members:
                break
            _write(target / f"images-{index:06d}.tar", members)
    print(json.dumps(figures))


def _reencoded(source: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(source.iterdir()):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(".jpg"):
                    yield member.name, _encode(np.asarray(Image.open(file).convert("RGB")))


def _encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()


def _write(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    rows = [
        {"image_id": name, "tar_file": str(path), "member_name": name, "metadata": "{}"}
        for name, _ in members
    ]
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
