"""All 4,096 patterns of twelve points on a sphere, in two classes that no rotation can change.

Shwartz-Ziv and Tishby (1703.00810, section 3.1) drew their networks on the information plane with data of
this kind. Their rule is known only in outline; this one keeps to the outline, and is whole here.
"""

import itertools

import numpy as np
from scipy import optimize, special

from tf_lottery.tickets import seeds

Pair = tuple[np.ndarray, np.ndarray]
INFORMATION = 0.99  # bits that a pattern tells about its class
_TEST_SIZE = 819  # a fifth


def patterns() -> np.ndarray:
    """Returns all patterns of twelve zeros and ones, `(4096, 12)`, counting up in binary."""
    return np.array(list(itertools.product((0, 1), repeat=12)), np.uint8)


def points() -> np.ndarray:
    """Returns the corners of a regular icosahedron on the unit sphere, `(12, 3)`."""
    golden = (1 + np.sqrt(5)) / 2
    corners = [
        np.roll([0, one, other], shift)
        for shift in range(3)
        for one, other in itertools.product((1, -1), (golden, -golden))
    ]
    return np.array(corners) / np.hypot(1, golden)


def lopsidedness(x: np.ndarray) -> np.ndarray:
    """Returns how far the points of a pattern lie to one side of the sphere.

    It is the squared length of the sum of those points at which the pattern is one, their power spectrum of
    degree 1: every rotation and reflection leaves it as it is.

    Args:
        x: patterns, `(n, 12)`.

    Example:
        >>> lopsidedness(np.eye(12)[:2]).round(6).tolist()
        [1.0, 1.0]
    """
    # What is equal by symmetry is made equal in floats too.
    return np.square(x @ points()).sum(axis=1).round(9)


def probabilities() -> np.ndarray:
    """Returns the probability of class 1 for each of `patterns()`, `(4096,)`.

    It is `sigmoid(gain * (lopsidedness - threshold))`. The threshold lies halfway between the two values
    that come closest to halving the patterns (2,060 lie below it), and the gain is such that a pattern tells
    0.99 bits about its class.
    """
    values, index = np.unique(lopsidedness(patterns()), return_inverse=True)
    below = np.cumsum(np.bincount(index))
    middle = np.argmin(np.abs(below - len(index) / 2))
    distance = values[index] - values[middle : middle + 2].mean()
    gain = optimize.brentq(lambda g: information(special.expit(g * distance)) - INFORMATION, 1, 100)
    return special.expit(gain * distance)


def information(p: np.ndarray) -> float:
    """Returns what equally likely patterns tell about a class of probabilities `p`, in bits."""
    entropies = special.entr([p, 1 - p]).sum(axis=0)
    return float((special.entr([p.mean(), 1 - p.mean()]).sum() - entropies.mean()) / np.log(2))


def load() -> tuple[Pair, Pair]:
    """Returns training and test examples: patterns `(n, 12, 1, 1)` of zeros and ones, and labels.

    Each label is drawn once from its pattern's probabilities, with a seed of the data set's own; and so are
    the 819 test examples.
    """
    x = patterns()[..., np.newaxis, np.newaxis]
    y = (seeds.generator("binary_patterns", "labels").random(len(x)) < probabilities()).astype(np.int64)
    is_test = np.zeros(len(x), bool)
    is_test[seeds.generator("binary_patterns", "test").choice(len(x), _TEST_SIZE, replace=False)] = True
    return (x[~is_test], y[~is_test]), (x[is_test], y[is_test])
