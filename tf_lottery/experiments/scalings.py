"""What is done to the pixels of images before a network sees them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tf_lottery import names

# From float32 images (..., height, width, channels) to the same.
Scale = Callable[[Any], Any]

# Of ImageNet's red, green and blue, where a pixel is in [0, 1].
_MEANS, _DEVIATIONS = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))


def find(name: str, full_scale: float, train: np.ndarray | None) -> Scale:
    """Returns the scaling of that name.

    Args:
        name: in `SCALINGS`.
        full_scale: the value of a pixel at its brightest.
        train: the images of the training part, `(n, height, width, channels)`; None where images
            come one by one, and are tensors.

    Raises:
        ValueError: an unknown name, or one that these images cannot be scaled by.
    """
    scaling = names.find(name, SCALINGS, "input scaling")
    if train is None and scaling in (_standardize, _l2):
        raise ValueError(
            f"Input scaling {name!r} is for data in memory, and these stream from disk. Use 'unit', 'none', "
            "or 'imagenet', the means and deviations of ImageNet's three channels."
        )
    return scaling(full_scale, train)


def _none(full_scale: float, train: np.ndarray | None) -> Scale:
    return lambda x: x


def _unit(full_scale: float, train: np.ndarray | None) -> Scale:
    return lambda x: x / np.float32(full_scale)


def _imagenet(full_scale: float, train: np.ndarray | None) -> Scale:
    def scale(x: Any) -> Any:
        if x.shape[-1] != 3:
            raise ValueError(
                f"Input scaling 'imagenet' is of red, green and blue, and these images have {x.shape[-1]} "
                "channels; use another input scaling."
            )
        return (x / np.float32(full_scale) - _MEANS) / _DEVIATIONS

    return scale


def _standardize(full_scale: float, train: np.ndarray) -> Scale:
    # Dividing by the full scale first would cancel out.
    mean, deviation = np.mean(train, dtype=np.float64), np.std(train, dtype=np.float64)
    if deviation == 0:
        raise ValueError(f"Cannot standardize: every training pixel is {mean:g}; use another input scaling.")
    return lambda x: (x - np.float32(mean)) / np.float32(deviation)


def _l2(full_scale: float, train: np.ndarray) -> Scale:
    def scale(x: np.ndarray) -> np.ndarray:
        norm = np.sqrt(np.sum(np.square(x), axis=(1, 2, 3), keepdims=True))
        return x / np.where(norm == 0, np.float32(1), norm)

    return scale


# From the full scale and the training part's images to what is done to any images.
SCALINGS: dict[str, Callable[[float, np.ndarray | None], Scale]] = {
    "unit": _unit,
    "standardize": _standardize,
    "imagenet": _imagenet,
    "l2": _l2,
    "none": _none,
}
