"""Resizes photographs and encodes them as JPEG, from memory to memory.

Arguments: folder of JPEG, resize_mode, size, filter, and maybe a folder for the results. Prints
``cpu`` and ``wall`` of the work alone, how many ``images`` there were and how many stayed
``unchanged``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import stopwatch

from pixsieve import image
from pixsieve.stages import ImageTransformStage

folder, mode, size, resample, *target = sys.argv[1:]
stage = ImageTransformStage(
    resize_mode=mode,  # type: ignore[arg-type]
    image_size=int(size),
    resample=resample,  # type: ignore[arg-type]
    strip=False,
    orientation="keep",
)
options, encoding = stage.options, image.EncodeOptions(format="jpeg", quality=95)
paths = sorted(Path(folder).iterdir())
files = [path.read_bytes() for path in paths]
image.transform(files[0], image.probe(files[0]), options, encoding)  # the first is slower
with stopwatch.seconds() as figures:
    made = [image.transform(data, image.probe(data), options, encoding) for data in files]
for path, data, result in zip(paths, files, made, strict=True):
    if target:
        (Path(target[0]) / f"{path.stem}.jpg").write_bytes(result.data if result else data)
print(json.dumps(figures | {"images": len(made), "unchanged": made.count(None)}))
