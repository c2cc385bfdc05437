"""What a mask leaves of the connections of inputs and units (app. F.6 of 1803.03635)."""

import math

import numpy as np

from tf_lottery.analysis import graphs

_CHANNELS = (1, 3)  # of an image: gray, or red, green and blue
_SMALLEST = 8  # pixels along a side, for a row of inputs to be taken for an image


def incoming(path: str, mask: np.ndarray) -> np.ndarray:
    """Returns how many weights are kept into each unit or filter: those of one index on the last axis.

    Args:
        path: the kernel's; one called `depthwise_kernel` has a filter for each index on the last two axes.
        mask: bool, of rank 2 or more.

    Returns:
        Counts of shape (units,).

    Example:
        >>> incoming("fc/kernel", np.array([[True, False], [True, True]]))
        array([2, 1])
    """
    return graphs.matrix(path, mask).sum(0)


def outgoing(mask: np.ndarray) -> np.ndarray:
    """Returns how many weights are kept out of each input or channel: those of one index on axis -2.

    Args:
        mask: bool, of rank 2 or more.

    Returns:
        Counts of shape (inputs,).

    Example:
        >>> outgoing(np.array([[True, False], [True, True]]))
        array([1, 2])
    """
    return np.moveaxis(mask, -2, 0).reshape(mask.shape[-2], -1).sum(1)


def by_position(mask: np.ndarray) -> np.ndarray:
    """Returns how many weights of the first kernel are kept at each place of the input.

    Of a dense layer a place is an input. Inputs that are as many as the pixels of a square image, of 8 pixels
    along a side or more and one or three channels, are laid out as one, summed over channels: 64 are 8 by 8,
    784 are 28 by 28, 3072 are 32 by 32. Of a convolution a place is one in the filter, summed over channels
    and filters.

    Args:
        mask: bool, of rank 2 or more.

    Returns:
        Counts, of shape (height, width) where that is an image, else (places,).

    Example:
        >>> by_position(np.ones((3072, 10), bool)).shape
        (32, 32)
        >>> by_position(np.array([[True, False], [True, True], [False, False]]))
        array([1, 2, 0])
    """
    if mask.ndim > 2:
        counts = mask.sum((-2, -1))
        return counts if counts.ndim == 2 else counts.ravel()
    counts = mask.sum(-1)
    for channels in _CHANNELS:
        side = math.isqrt(counts.size // channels)
        if side >= _SMALLEST and side * side * channels == counts.size:
            return counts.reshape(side, side, channels).sum(-1)
    return counts
