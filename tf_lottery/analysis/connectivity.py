"""Linear mode connectivity: the error on the straight line between two networks (1912.05671).

Two copies of a network are trained from the same weights W_k, on batches in two orders, and end at
W_1 and W_2. The network is *stable* to the noise of SGD at step k if on the line between the two the
error hardly rises.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping

import numpy as np

from tf_lottery.tickets.masks import Arrays

STABLE = 0.02  # instability below it, a fraction in [0, 1] (1912.05671)


@dataclasses.dataclass(frozen=True)
class Path:
    """What is measured on the straight line between two networks.

    Attributes:
        alphas: float (points,), evenly spaced from 0, at the second network, to 1, at the first.
        curves: name -> float (points,), such as `"test_error"`, a fraction in [0, 1].
    """

    alphas: np.ndarray
    curves: Mapping[str, np.ndarray]

    def ends(self, name: str) -> float:
        """Returns the mean of the two ends."""
        return float(self.curves[name][[0, -1]].mean())

    def barrier(self, name: str) -> float:
        """Returns sup_a E(a W_1 + (1 - a) W_2) - (E(W_1) + E(W_2)) / 2, of the curve's unit.

        The ends are part of the line: it is 0 or more. Of errors, this is the *instability* of
        1912.05671.
        """
        return float(self.curves[name].max()) - self.ends(name)


def path(
    first: Arrays, second: Arrays, evaluate: Callable[[Arrays], Mapping[str, float]], points: int = 30
) -> Path:
    """Evaluates a W_1 + (1 - a) W_2 at evenly spaced a, from 0 to 1.

    What is 0 in both networks, as pruned weights are, is 0 all the way. Batch statistics are
    interpolated like weights; it is for `evaluate` to estimate them anew.

    Args:
        first: path -> array, the weights W_1. Integers, the states of seed generators, are not
            interpolated: those of `first` stand for both.
        second: path -> array of the same shape, the weights W_2.
        evaluate: takes weights; returns name -> number, such as `"error"` and `"loss"`.
        points: how many, the two ends among them.

    Raises:
        ValueError: the networks do not have the same arrays, or there are no points between the ends.

    Example:
        >>> ends = {"w": np.array([1.0])}, {"w": np.array([-1.0])}
        >>> line = path(*ends, lambda weights: {"loss": 3 - weights["w"][0] ** 2}, points=5)
        >>> line.curves["loss"].tolist(), line.barrier("loss")
        ([2.0, 2.75, 3.0, 2.75, 2.0], 1.0)
    """
    if points < 3:
        raise ValueError(f"points must be 3 or more: the two ends, and what is between. Received {points}.")
    for name in first.keys() | second.keys():
        shapes = [np.shape(weights[name]) if name in weights else None for weights in (first, second)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Both ends of a line must be weights of one network. Received {name!r} of shapes "
                f"{shapes[0]} and {shapes[1]}."
            )
    alphas = np.linspace(0, 1, points)
    found = [evaluate(_between(first, second, float(alpha))) for alpha in alphas]
    return Path(alphas, {name: np.array([values[name] for values in found]) for name in found[0]})


def relative_distance(start: Arrays, first: Arrays, second: Arrays) -> float:
    """Returns how far apart two networks have ended, of the way they have gone from their start.

    ||W_1 - W_2|| / mean(||W_1 - W_k||, ||W_2 - W_k||), L2 norms over all arrays of `start`. It is 0
    where both came to the same place, about sqrt(2) where they went in unrelated directions, and
    NaN where neither moved.

    Example:
        >>> relative_distance({"w": np.zeros(2)}, {"w": np.array([3.0, 4.0])}, {"w": np.array([3.0, -4.0])})
        1.6
    """
    travelled = statistics.fmean([_distance(start, first), _distance(start, second)])
    apart = _distance({name: first[name] for name in start}, second)
    return apart / travelled if travelled else float("nan")


def _between(first: Arrays, second: Arrays, alpha: float) -> dict[str, np.ndarray]:
    return {
        name: alpha * array + (1 - alpha) * second[name] if np.issubdtype(array.dtype, np.floating) else array
        for name, array in first.items()
    }


def _distance(first: Arrays, second: Arrays) -> float:
    squares = (np.square(array - second[name], dtype=float).sum() for name, array in first.items())
    return float(np.sqrt(sum(squares)))
