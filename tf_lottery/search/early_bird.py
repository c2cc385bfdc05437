"""Early-bird tickets: when the mask of a network in training stays the same (1909.11957)."""

import collections
from collections.abc import Callable

import numpy as np

from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays, Mask

WINDOW, THRESHOLD = 5, 0.1


def distance(one: Mask, other: Mask) -> float:
    """Returns the share of the weights that one mask keeps and the other prunes, in [0, 1].

    Example:
        >>> distance({"fc/kernel": np.array([True, False])}, {"fc/kernel": np.array([True, True])})
        0.5
    """
    different = sum(int(np.count_nonzero(one[path] != other[path])) for path in one)
    return different / sum(array.size for array in one.values())


def threshold(density: float) -> float:
    """Returns the distance up to which two masks of that density are alike.

    Two masks drawn independently of each other differ in 2 d (1 - d) of the weights. At
    d = 0.05 that is 0.1 already, the paper's threshold, so where it is below twice that, half
    of it is taken instead.

    Example:
        >>> [round(threshold(density), 3) for density in (0.5, 0.3, 0.05)]
        [0.1, 0.1, 0.048]
    """
    return min(THRESHOLD, density * (1 - density))


class StableMask:
    """Tells when the newest of five masks in a row is alike to the four before it.

    Args:
        mask_of: the mask that a network's weights, path -> array, would be pruned to.

    Example:
        >>> is_stable = StableMask(lambda weights: {"fc/kernel": weights["fc/kernel"] > 0})
        >>> [is_stable({"fc/kernel": np.array([1.0, -1.0])}) for _ in range(5)]
        [False, False, False, False, True]
    """

    def __init__(self, mask_of: Callable[[Arrays], Mask]):
        self._mask_of = mask_of
        self._seen: collections.deque[Mask] = collections.deque(maxlen=WINDOW)

    def __call__(self, weights: Arrays) -> bool:
        """Takes the weights as they are now; returns whether their mask has become stable."""
        newest = self._mask_of(weights)
        before = list(self._seen)[-(WINDOW - 1) :]
        self._seen.append(newest)
        limit = threshold(masks.density(newest))
        return len(before) == WINDOW - 1 and all(distance(newest, mask) <= limit for mask in before)
