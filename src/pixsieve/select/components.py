"""What pairs link together: connected components of millions of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def linked(
    labels: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the labels with more pairs linked: each is the smallest number of its component.

    Roots are hooked to smaller neighbours and paths are halved, in rounds over all pairs at once. A
    root lasts two rounds only if it takes in another, so rounds grow with the logarithm of the
    longest chain. After Shiloach, Vishkin, "An O(log n) parallel connectivity algorithm", Journal
    of Algorithms 3, 1982.

    Args:
        labels: Of each number the smallest of its component so far, (n,); ``arange(n)`` at first.
        one: The one number of each pair, (pairs,).
        other: The other one.
    """
    labels = labels.copy()
    while True:
        one, other = labels[one], labels[other]
        apart = one != other
        one, other = one[apart], other[apart]
        if not len(one):
            return labels
        np.minimum.at(labels, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(labels, above := labels[labels]):
            labels = above
