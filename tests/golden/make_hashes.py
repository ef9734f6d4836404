"""Hashes of the reference libraries, for ``hashes.json``; run by hand, in its own environment.

pip install imagehash==4.3.2 pdqhash==0.2.8 scipy numpy pillow && python make_hashes.py
"""

import json
from pathlib import Path

import imagehash
import numpy as np
import pdqhash
from hash_images import images
from PIL import Image

found = {}
for name, pixels in images().items():
    picture = Image.fromarray(pixels)
    bits, quality = pdqhash.compute(pixels)
    found[name] = {
        "phash": str(imagehash.phash(picture)),
        "dhash": str(imagehash.dhash(picture)),
        "pdq": np.packbits(bits).tobytes().hex(),
        "pdq_quality": int(quality),
    }
Path(__file__).with_name("hashes.json").write_text(json.dumps(found, indent=1) + "\n")
