"""The same as run_resize.py by img2dataset's own Resizer, in an environment of its own.

It leaves alone what is not larger, as pixsieve does (``resize_only_if_bigger``,
``skip_reencode``), and shrinks by OpenCV's INTER_AREA, its default.

Arguments: folder of JPEG, resize_mode, size, and maybe a folder for the results.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path

import stopwatch

warnings.simplefilter("ignore")
from img2dataset.resizer import Resizer  # noqa: E402

folder, mode, size, *target = sys.argv[1:]
resizer = Resizer(
    int(size), mode, resize_only_if_bigger=True, encode_quality=95, skip_reencode=True
)
paths = sorted(Path(folder).iterdir())
files = [path.read_bytes() for path in paths]
resizer(io.BytesIO(files[0]))
with stopwatch.seconds() as figures:
    made = [resizer(io.BytesIO(data)) for data in files]
faults = [error for *_, error in made if error]
if faults:
    raise SystemExit(f"{len(faults)} images failed: {faults[0]}")
for path, (data, *_) in zip(paths, made, strict=True):
    if target:
        (Path(target[0]) / f"{path.stem}.jpg").write_bytes(data)
unchanged = sum(data == found[0] for data, found in zip(files, made, strict=True))
print(json.dumps(figures | {"images": len(made), "unchanged": unchanged}))
