"""Runs CleanVision and imagededup's perceptual hash over a folder, in an environment of their own.

Arguments: folder of photographs. Prints ``cpu`` and ``wall`` of the work alone.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

# imagededup imports networks that its hashes do not use, and that need not fit each other.
for name in ("", ".models", ".models.vision_transformer", ".transforms"):
    sys.modules[f"torchvision{name}"] = MagicMock()

import stopwatch  # noqa: E402
from cleanvision import Imagelab  # noqa: E402
from imagededup.methods import PHash  # noqa: E402

folder = sys.argv[1]
with contextlib.redirect_stdout(io.StringIO()), stopwatch.seconds() as figures:
    lab = Imagelab(data_path=folder)
    lab.find_issues(n_jobs=1, verbose=False)
    hasher = PHash(verbose=False)
    for path in sorted(Path(folder).iterdir()):
        hasher.encode_image(image_file=str(path))
print(json.dumps(figures))
