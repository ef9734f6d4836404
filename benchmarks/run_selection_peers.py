"""Runs faiss or imagededup over the same hashes and vectors, in an environment of their own.

Arguments: a file of hashes or vectors (.npy), a file with each row's original, and a case. Prints
``cpu``, ``wall`` and ``recall``.
"""

import contextlib
import io
import json
import os
import sys
from unittest.mock import MagicMock

# imagededup imports networks that its hashes do not use, and that need not fit each other.
for name in ("", ".models", ".models.vision_transformer", ".transforms"):
    sys.modules[f"torchvision{name}"] = MagicMock()

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import stopwatch  # noqa: E402
from imagededup.handlers.search.retrieval import HashEval  # noqa: E402

BITS, COSINE, CLUSTERS, ITERATIONS = 4, 0.95, 1000, 10


def _flat(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare all with all, bit by bit."""
    index = faiss.IndexBinaryFlat(64)
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
    index.add(octets)
    limits, _, found = index.range_search(octets, BITS + 1)
    return np.repeat(np.arange(len(values)), np.diff(limits).astype(int)), found


def _imagededup(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare all with all, as imagededup's own search does."""
    table = {str(at): f"{value:016x}" for at, value in enumerate(values.tolist())}
    with contextlib.redirect_stdout(io.StringIO()):
        answer = HashEval(
            test=table, queries=table, distance_function=_hamming, verbose=False,
            threshold=BITS, search_method="brute_force_cython",
            num_dist_workers=0,
        ).retrieve_results()  # fmt: skip
    pairs = [(int(at), int(other)) for at, others in answer.items() for other in others]
    first, second = np.array(pairs).T
    return first, second


def _hamming(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def _clusters(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faiss's k-means, then all pairs within each cluster."""
    values = values.astype(np.float32)
    means = faiss.Kmeans(values.shape[1], CLUSTERS, niter=ITERATIONS, spherical=True, seed=1)
    means.train(values)
    _, cluster = means.index.search(values, 1)
    order = np.argsort(cluster[:, 0], kind="stable")
    borders = np.searchsorted(cluster[order, 0], np.arange(CLUSTERS + 1))
    first, second = [], []
    for start, stop in zip(borders, borders[1:]):  # noqa: B905, RUF007
        rows = order[start:stop]
        near = np.triu(values[rows] @ values[rows].T >= COSINE, 1)
        left, right = np.nonzero(near)
        first.append(rows[left])
        second.append(rows[right])
    return np.concatenate(first), np.concatenate(second)


def main() -> None:
    """Run a case."""
    faiss.omp_set_num_threads(1)
    values, originals = np.load(sys.argv[1]), np.load(sys.argv[2])
    case = {"faiss_flat": _flat, "imagededup": _imagededup, "faiss_clusters": _clusters}
    before = os.times()
    with stopwatch.seconds() as figures:
        first, second = case[sys.argv[3]](values)
    after = os.times()  # imagededup has processes of its own
    figures["cpu"] += after.children_user - before.children_user
    figures["cpu"] += after.children_system - before.children_system
    low, high = np.minimum(first, second), np.maximum(first, second)
    copies = np.flatnonzero(originals >= 0)
    near, far = np.minimum(originals[copies], copies), np.maximum(originals[copies], copies)
    scale = np.int64(len(originals))
    recall = np.isin(near * scale + far, low.astype(np.int64) * scale + high).mean()
    print(json.dumps({**figures, "recall": float(recall)}))


if __name__ == "__main__":
    main()
