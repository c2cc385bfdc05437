"""What a layer tells about its inputs X and about their labels Y: mutual information, estimated, in bits.

T is the output of the whole layer, one vector for each of n equally likely inputs, and a deterministic
function of the input. A continuous T tells all about X; what is finite is the information of T in bins, or of
T in noise. Binning is that of Shwartz-Ziv and Tishby (1703.00810), noise that of Saxe et al. (ICLR 2018).
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

SATURATION = 0.1  # bits
NOISE_VARIANCE = 0.1  # as Saxe et al. have it for MNIST
_ROWS = 1000  # of a matrix of distances at a time


class Information(NamedTuple):
    """I(X;T) and I(T;Y) in bits: 0 <= I(T;Y) <= min(H(Y), I(X;T)) and I(X;T) <= log2(n)."""

    i_xt: float
    i_ty: float


def cells(t: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """Puts a layer's outputs into cells: a tuple of bins, one for each unit.

    Args:
        t: outputs, `(n, units)`.
        low: where the first bin begins.
        high: where the last bin ends, which belongs to it. What lies outside goes to the bin next to it.
        bins: how many equal bins there are between the two.

    Returns:
        `(n,)` integers, equal where the tuples are.

    Example:
        >>> cells(np.array([[-1, 0.9], [-0.8, 1], [0.1, 0.9]]), -1, 1, bins=4).tolist()
        [0, 0, 1]
    """
    width = (high - low) / bins or 1.0
    index = np.clip(np.floor((np.asarray(t, np.float64) - low) / width), 0, bins - 1)
    return np.unique(index.astype(np.int32), axis=0, return_inverse=True)[1].ravel()


def of_cells(cell: np.ndarray, labels: np.ndarray) -> Information:
    """Returns the plug-in estimate: I(X;T) = H(T), and I(T;Y) = H(T) + H(Y) - H(T, Y).

    Args:
        cell: `(n,)`, the cell of each input, as `cells` returns them.
        labels: `(n,)`, its class.

    Example:
        >>> of_cells(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1]))
        Information(i_xt=2.0, i_ty=1.0)
    """
    h_t, h_y = entropy(cell), entropy(labels)
    h_both = entropy(np.stack([cell, labels], axis=1))
    return Information(h_t, _within(h_t + h_y - h_both, min(h_t, h_y)))


def of_noisy(
    t: np.ndarray, labels: np.ndarray, variance: float = NOISE_VARIANCE, *, lower: bool = False
) -> Information:
    """Returns the estimate by kernel density, for T with Gaussian noise on each unit.

    T is a mixture of n Gaussians, whose entropy has bounds by their distances (Kolchinsky and Tracey,
    1706.02419): less the entropy of the noise, `-mean_i log2 mean_j exp(-|t_i - t_j|^2 / (2 variance))`
    from above, and the same with `8 variance` from below. That is a bound of I(X;T). I(T;Y) is the
    difference of two: that of all inputs, less the mean of those of the classes; an estimate, no bound.
    Each layer has noise of its own, so a later one may seem to tell more than the one that feeds it.

    Args:
        t: outputs, `(n, units)`. Time and memory grow with n squared and with n.
        labels: `(n,)`, the classes.
        variance: of the noise, above 0.
        lower: by the bounds from below instead of those from above.

    Example:
        >>> of_noisy(np.array([[0.0], [0.0], [100.0], [100.0]]), np.array([0, 0, 1, 1]))
        Information(i_xt=1.0, i_ty=1.0)
    """
    t = np.asarray(t, np.float64)
    _, label, counts = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.eye(len(counts))[label]
    squares, scale = np.square(t).sum(axis=1), (8 if lower else 2) * variance
    closeness = []  # of each input to each class, summed over the class
    for rows in np.split(np.arange(len(t)), range(_ROWS, len(t), _ROWS)):
        # Minus the squared distances, then the kernel; in place, for the matrix is large.
        kernel = (2 * t[rows]) @ t.T
        kernel -= squares[rows, None]
        kernel -= squares
        np.minimum(kernel, 0, out=kernel)
        kernel[np.arange(len(rows)), rows] = 0
        kernel /= scale
        np.exp(kernel, out=kernel)
        closeness.append(kernel @ members)
    closeness = np.concatenate(closeness)
    i_xt = -np.log2(closeness.sum(axis=1) / len(t)).mean()
    in_class = -np.log2(closeness[np.arange(len(t)), label] / counts[label]).mean()
    i_xt = _within(i_xt, np.log2(len(t)))
    return Information(i_xt, _within(i_xt - in_class, min(i_xt, entropy(labels))))


def entropy(values: np.ndarray) -> float:
    """Returns the entropy of the values' frequencies, or of the rows of a matrix, in bits."""
    counts = np.unique(values, axis=0, return_counts=True)[1]
    return _within(stats.entropy(counts, base=2), np.log2(len(values)))


def is_saturated(i_xt: float, n: int) -> bool:
    """Whether an estimate is at its ceiling of `log2(n)`, and says nothing but how many inputs there are.

    It is where less than 0.1 bits are missing. In bins, at most about one input in ten then shares its cell
    with another, and I(T;Y) is near its own ceiling H(Y) whatever the layer has learned.
    """
    return bool(i_xt > np.log2(n) - SATURATION)


def _within(value: float, ceiling: float) -> float:
    """Takes off what rounding has put beyond the bounds."""
    return float(min(max(value, 0.0), ceiling))
