"""Masks: path -> bool array of the kernel's shape, True where a weight is kept."""

from collections.abc import Mapping

import numpy as np

TICKET = "ticket"  # the arm that controls are held against
SEARCH = "search"  # the arm of networks that are trained to find a mask
Arrays = Mapping[str, np.ndarray]
Mask = dict[str, np.ndarray]


class LayerCollapse(UserWarning):
    """Pruning has left a layer without a single weight."""


def ones(shapes: Mapping[str, tuple[int, ...]]) -> Mask:
    """Returns the mask that keeps every weight."""
    return {path: np.ones(shape, bool) for path, shape in shapes.items()}


def kept(mask: Arrays) -> int:
    """Returns the number of weights that the mask keeps."""
    return sum(int(np.count_nonzero(array)) for array in mask.values())


def density(mask: Arrays) -> float:
    """Returns kept / prunable, in [0, 1] (the paper's P_m, 1803.03635).

    Raises:
        TypeError: an array is not of bools.
        ValueError: the mask is of no weight at all.

    Example:
        >>> density({"fc/kernel": np.array([[True, False], [False, False]])})
        0.25
    """
    check(mask)
    return kept(mask) / sum(np.size(array) for array in mask.values())


def equal(one: Arrays, other: Arrays) -> bool:
    """Tells whether two masks, or the weights of two networks, are the same under the same paths."""
    return one.keys() == other.keys() and all(np.array_equal(a, other[path]) for path, a in one.items())


def empty_layers(mask: Arrays) -> list[str]:
    """Returns the paths of which the mask keeps no weight.

    Example:
        >>> empty_layers({"fc/kernel": np.array([True, False]), "output/kernel": np.array([False])})
        ['output/kernel']
    """
    return [path for path, array in mask.items() if not np.any(array)]


def apply(mask: Arrays, weights: Arrays) -> dict[str, np.ndarray]:
    """Returns copies of `weights` with what the mask prunes at 0; the others are as they were."""
    return {
        path: np.where(mask[path], array, array.dtype.type(0)) if path in mask else np.array(array)
        for path, array in weights.items()
    }


def check(mask: Arrays) -> None:
    """Refuses what is not a mask.

    Raises:
        TypeError: an array is not of bools.
        ValueError: there is no array, or none with an entry.
    """
    if not any(np.size(array) for array in mask.values()):
        what = "arrays without entries" if mask else "an empty mapping"
        raise ValueError(f"A mask needs at least one weight. Received {what}.")
    for path, array in mask.items():
        if np.asarray(array).dtype != bool:
            raise TypeError(
                f"The mask of {path!r} holds {np.asarray(array).dtype}, and a mask holds bools: "
                "write weights != 0, or array.astype(bool)."
            )
