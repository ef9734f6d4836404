"""Turn the BRISQUE model of a wheel into ``brisque.npz``, and score golden images with it.

Run by hand, in an environment of its own, from the root of the repository::

    pip install numpy==2.2.6 scipy==1.15.3 opencv-python-headless==5.0.0.93 pillow==13.0.0
    pip download --no-deps brisque==0.2.0
    python tests/golden/make_brisque.py brisque-0.2.0-py3-none-any.whl

The wheel (Apache-2.0) has the support vectors as libsvm writes them, and the features' ranges as a
pickled dict of lists, which is read without loading any class. It writes
``src/pixsieve/scorers/brisque.npz`` and ``tests/golden/brisque.json``: the scores of the images of
``brisque_images.py`` by a straight rendering of the definition in float64, with SciPy's
convolution and OpenCV's cubic interpolation.
"""

import hashlib
import io
import json
import pickle
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
from brisque_images import images
from scipy.ndimage import correlate
from scipy.special import gamma

WHEEL = "56f1839e5179a294d0598d63b2ee488fcbedeac7cee3e32c7c8d06c30a6269e1"
HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "src" / "pixsieve" / "scorers" / "brisque.npz"


class PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> None:
        raise pickle.UnpicklingError(f"{module}.{name} in what should be plain lists")


def model(wheel: Path) -> dict[str, np.ndarray]:
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == WHEEL, "another wheel"
    with zipfile.ZipFile(wheel) as files:
        ranges = PlainUnpickler(io.BytesIO(files.read("brisque/models/normalize.pickle"))).load()
        header, table = files.read("brisque/models/svm.txt").decode().split("SV\n")
    settings = dict(line.split(" ", 1) for line in header.splitlines())
    rows = [line.split() for line in table.splitlines()]
    vectors = np.zeros((len(rows), 36), np.float32)
    for row, words in enumerate(rows):
        for word in words[1:]:
            column, value = word.split(":")
            vectors[row, int(column) - 1] = float(value)
    return {
        "vectors": vectors,
        "weights": np.array([float(words[0]) for words in rows], np.float32),
        "low": np.array(ranges["min_"]),
        "high": np.array(ranges["max_"]),
        "gamma": np.float64(settings["gamma"]),
        "rho": np.float64(settings["rho"]),
    }


SHAPES = np.arange(0.2, 10.0005, 0.001)
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))


def fit(x: np.ndarray) -> tuple[float, float, float]:
    # What is flat is 0, whatever rounding makes of it, and lies on neither side.
    left, right = np.mean(x[x < -1e-10] ** 2), np.mean(x[x > 1e-10] ** 2)
    skew = np.sqrt(left) / np.sqrt(right)
    ratio = np.mean(np.abs(x)) ** 2 / np.mean(x**2)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    return SHAPES[np.argmin(np.abs(RATIOS - ratio))], left, right


def features(image: np.ndarray) -> list[float]:
    y, x = np.indices((7, 7)) - 3
    kernel = np.exp(-(x**2 + y**2) / (2 * (7 / 6) ** 2))
    kernel /= kernel.sum()
    mean = correlate(image, kernel, mode="nearest")
    deviation = np.sqrt(np.abs(correlate(image**2, kernel, mode="nearest") - mean**2))
    m = (image - mean) / (deviation + 1)
    shape, left, right = fit(m)
    found = [shape, (left + right) / 2]
    neighbours = (
        m[:, :-1] * m[:, 1:], m[:-1] * m[1:], m[:-1, :-1] * m[1:, 1:], m[1:, :-1] * m[:-1, 1:],
    )  # fmt: skip
    for products in neighbours:
        shape, left, right = fit(products)
        scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape)) * gamma(2 / shape) / gamma(1 / shape)
        found += [shape, (np.sqrt(right) - np.sqrt(left)) * scale, left, right]
    return found


def score(image: np.ndarray, data: dict[str, np.ndarray]) -> float:
    gray = image.astype(np.float64)
    half = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    scaled = np.array(features(gray) + features(half))
    scaled = -1 + 2 * (scaled - data["low"]) / (data["high"] - data["low"])
    distances = ((data["vectors"] - scaled) ** 2).sum(axis=1)
    return float(data["weights"] @ np.exp(-data["gamma"] * distances) - data["rho"])


if __name__ == "__main__":
    data = model(Path(sys.argv[1]))
    np.savez_compressed(MODEL, **data)
    scores = {name: round(score(image, data), 4) for name, image in images().items()}
    (HERE / "brisque.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
