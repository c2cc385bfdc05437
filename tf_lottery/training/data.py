"""Arrays to train on, and the order in which a run sees them."""

import hashlib
from typing import Any

import numpy as np

from tf_lottery.tickets import seeds

Pair = tuple[np.ndarray, np.ndarray]


class DataOrder:
    """Which examples each step sees, as a function of the step and the key alone.

    Every epoch is a permutation of all examples, drawn from the key and the epoch's
    number. Batches are cut from the epochs laid end to end, so each holds exactly
    `batch_size` examples and none is left out.

    Args:
        examples: number of training examples.
        batch_size: examples in one step.
        *key: what the order depends on: seed, replicate and level.
    """

    def __init__(self, examples: int, batch_size: int, *key: int | str):
        self.examples = examples
        self.batch_size = batch_size
        self._key = key
        self._epochs: dict[int, np.ndarray] = {}

    def batches(self, step: int, count: int) -> np.ndarray:
        """Returns the example indices of `count` steps from `step` on, int32 (count, batch_size)."""
        first, last = step * self.batch_size, (step + count) * self.batch_size
        epochs = range(first // self.examples, (last - 1) // self.examples + 1)
        self._epochs = {epoch: self._permutation(epoch) for epoch in epochs}
        stream = np.concatenate([self._epochs[epoch] for epoch in epochs])
        start = first - epochs[0] * self.examples
        return stream[start : start + last - first].reshape(count, self.batch_size)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch in self._epochs:
            return self._epochs[epoch]
        rng = seeds.generator(*self._key, "data order", epoch)
        return rng.permutation(self.examples).astype(np.int32)


def as_pair(x: Any, y: Any, what: str) -> Pair:
    """Returns x and y as arrays with as many examples each.

    Raises:
        TypeError: not arrays.
        ValueError: no examples, or not as many labels as inputs.
    """
    if x is None or y is None:
        raise TypeError(f"The {what} data need both x and y as arrays. Received: x={type(x)}, y={type(y)}.")
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype == object or y.dtype == object or x.ndim == 0 or y.ndim == 0:
        raise TypeError(f"The {what} data must be arrays of numbers, the first axis being the examples.")
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"The {what} data need as many labels as inputs. Received {len(y)} and {len(x)}.")
    return x, y


def split(x: np.ndarray, y: np.ndarray, validation_split: float, *key: int | str) -> tuple[Pair, Pair]:
    """Holds a share of the examples out at random: (training pair, validation pair).

    Raises:
        ValueError: the share is not in (0, 1), or leaves one side empty.
    """
    held_out = round(len(x) * validation_split)
    if not 0 < validation_split < 1 or not 0 < held_out < len(x):
        raise ValueError(
            f"validation_split must be in (0, 1) and leave examples on both sides of {len(x)}. "
            f"Received {validation_split}."
        )
    order = seeds.generator(*key, "validation split").permutation(len(x))
    validation, train = np.sort(order[:held_out]), np.sort(order[held_out:])
    return (x[train], y[train]), (x[validation], y[validation])


def check_fits(model: Any, x: np.ndarray, y: np.ndarray, what: str) -> None:
    """Refuses inputs of another shape than the model's, and labels it has no output for.

    Raises:
        ValueError: says what the model takes and what it was given.
    """
    expected = getattr(model, "input_shape", None)
    if isinstance(expected, tuple) and not _shapes_match(expected[1:], x.shape[1:]):
        raise ValueError(
            f"The model takes inputs of shape {expected[1:]}. The {what} x has {x.shape[1:]} per example."
        )
    loss = getattr(model.loss, "name", getattr(model.loss, "__name__", model.loss))
    classes = getattr(model, "output_shape", (None,))[-1]
    if "sparse" not in str(loss).lower() or not isinstance(classes, int):
        return
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(
            f"The model has {classes} outputs, for labels 0 to {classes - 1}. "
            f"The {what} y has labels {y.min()} to {y.max()}."
        )


def digest(pair: Pair) -> str:
    """Returns a hash of the data, types and shapes included."""
    found = hashlib.sha256()
    for array in pair:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _shapes_match(expected: tuple, shape: tuple) -> bool:
    return len(expected) == len(shape) and all(e in (None, n) for e, n in zip(expected, shape))
