"""Hidden units in another order, which is the same network: masks matched up to that symmetry."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from tf_lottery.analysis import graphs
from tf_lottery.tickets.masks import Arrays, Mask

Kernels = list[np.ndarray]  # of the shape (places, units before, units)

_GAIN = 1e-3  # a sweep that adds a smaller share of what is in common is the last one


def has_order(mask: Arrays) -> bool:
    """Whether hidden units can be put in another order: kernels in a chain, none of them depthwise.

    The units of a depthwise kernel belong to its inputs, and go where these go.
    """
    return graphs.is_chain(mask) and not any(path.endswith("depthwise_kernel") for path in mask)


def match(mask: Arrays, like: Arrays) -> Mask:
    """Returns `mask` with its hidden units in the order in which it keeps most weights that `like` keeps.

    Coordinate descent over the layers, as weight matching in Git Re-Basin (2209.04836), but on
    masks: the order of one layer's units, given that of all others, is a linear assignment, solved
    exactly. It starts from the units as they are, or matched layer by layer by what comes in,
    whichever has more in common, and so never ends with less than there is without matching. It
    ends in a local optimum, draws nothing at random, and finds much in common in noise as well:
    hold it against matched random masks.

    Args:
        mask: path -> bool array of the kernel's shape, in the network's order.
        like: a mask of the same shapes.

    Raises:
        ValueError: the kernels are no chain, as in a ResNet.

    Example:
        >>> like = {"fc": np.array([[True, False], [True, False]]), "output": np.array([[False], [True]])}
        >>> mask = {"fc": np.array([[False, True], [False, True]]), "output": np.array([[True], [False]])}
        >>> all(np.array_equal(array, like[path]) for path, array in match(mask, like).items())
        True
    """
    if not has_order(mask):
        shapes = ", ".join(f"{path} {np.shape(array)}" for path, array in mask.items())
        raise ValueError(
            f"Hidden units are matched where each kernel takes those of the last. Received: {shapes}."
        )
    here, there = _folded(mask), _folded(like)
    best = max(here, _swept(here, there, ahead=False), key=lambda kernels: _shared(kernels, there))
    before, shared = -1, _shared(best, there)
    while shared > (1 + _GAIN) * before:
        best = _swept(best, there, ahead=True)
        before, shared = shared, _shared(best, there)
    return {path: (array > 0).reshape(np.shape(mask[path])) for path, array in zip(mask, best, strict=True)}


def _folded(mask: Arrays) -> Kernels:
    """Returns kernels of three axes. After a flatten, channels repeat at every place."""
    arrays = list(mask.values())
    units = [arrays[0].shape[-2], *(array.shape[-1] for array in arrays)]
    # Numbers, for products of floats are quick; counts below 2**24 are exact.
    return [array.reshape(-1, n, array.shape[-1]).astype(np.float32) for array, n in zip(arrays, units)]


def _swept(kernels: Sequence[np.ndarray], like: Kernels, ahead: bool) -> Kernels:
    """Returns kernels with units in their best order, by what comes in and, if `ahead`, goes out."""
    kernels = list(kernels)
    for i in range(len(kernels) - 1):
        common = _common(like[i], kernels[i], axis=2)
        if ahead:
            common += _common(like[i + 1], kernels[i + 1], axis=1)
        order = linear_sum_assignment(common, maximize=True)[1]
        kernels[i], kernels[i + 1] = kernels[i][:, :, order], kernels[i + 1][:, order]
    return kernels


def _common(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    """Returns for each unit of `a` and each of `b` how many weights both keep."""
    a, b = (np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in (a, b))
    return a @ b.T


def _shared(a: Kernels, b: Kernels) -> int:
    return sum(int(np.count_nonzero((x > 0) & (y > 0))) for x, y in zip(a, b, strict=True))
