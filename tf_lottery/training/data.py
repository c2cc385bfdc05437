"""Examples in memory, and the order in which a run sees them.

Examples are a tuple as Keras has it: `(x,)`, `(x, y)` or `(x, y, sample_weight)`. Each part is
an array whose first axis is the examples, or a dict, list or tuple of such arrays.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.tickets import seeds

Examples = tuple[Any, ...]


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


def as_examples(what: str, x: Any, y: Any = None, sample_weight: Any = None) -> Examples:
    """Returns the parts that there are, their arrays as NumPy has them.

    Args:
        what: the word for these data in errors, such as `"training"`.
        x: an array, or a dict, list or tuple of arrays.
        y: the same, or None where the model has no use for it.
        sample_weight: the same, or None.

    Raises:
        TypeError: a part is not made of arrays.
        ValueError: there are no examples, or not as many in each array.
    """
    if y is None and sample_weight is not None:
        raise ValueError(f"The {what} data have sample weights, and no y that they weigh.")
    parts = [part for part in (x, y, sample_weight) if part is not None]
    examples = tuple(tf.nest.map_structure(lambda leaf: as_array(leaf, what), part) for part in parts)
    counts = [len(leaf) for leaf in tf.nest.flatten(examples)]
    if not counts or min(counts) == 0 or min(counts) != max(counts):
        raise ValueError(
            f"The {what} data need as many labels, and weights, as inputs, and more than none. "
            f"Received arrays of {', '.join(map(str, counts))} examples."
        )
    return examples


def as_array(leaf: Any, what: str) -> np.ndarray:
    """Returns a leaf of the `what` data as NumPy has it.

    Raises:
        TypeError: it is no dense array of numbers.
    """
    if isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor)):
        raise TypeError(f"The {what} data hold a {type(leaf).__name__}, and must be dense: pad them.")
    array = np.asarray(leaf)
    if array.dtype.kind not in "biufcV" or array.ndim == 0:
        raise TypeError(
            f"The {what} data must be arrays of numbers, the first axis being the examples. Received: "
            f"{type(leaf).__name__}{f' of {array.dtype}' if array.ndim else ', a single value'}. "
            "Make a list of numbers an array: np.asarray(numbers)."
        )
    return array


def count(examples: Examples) -> int:
    """Returns the number of examples."""
    return len(tf.nest.flatten(examples)[0])


def take(examples: Examples, rows: np.ndarray | slice) -> Examples:
    """Returns the examples of these indices, in arrays of their shape."""
    return tf.nest.map_structure(lambda leaf: leaf[rows], examples)


def split(examples: Examples, validation_split: float, *key: int | str) -> tuple[Examples, Examples]:
    """Holds a share of the examples out at random: (training, validation).

    Raises:
        ValueError: the share is not in (0, 1), or leaves one side empty.
    """
    total = count(examples)
    held_out = round(total * validation_split)
    if not 0 < validation_split < 1 or not 0 < held_out < total:
        raise ValueError(
            f"validation_split must be in (0, 1) and leave examples on both sides of {total}. "
            f"Received {validation_split}."
        )
    order = seeds.generator(*key, "validation split").permutation(total)
    validation, train = np.sort(order[:held_out]), np.sort(order[held_out:])
    return take(examples, train), take(examples, validation)


def weigh_classes(examples: Examples, class_weight: Mapping[int, float]) -> Examples:
    """Returns examples with a sample weight from their class; 1 for a class that has none.

    Raises:
        ValueError: y is not one array of class numbers or of one-hot rows, or there are
            sample weights already.
    """
    if len(examples) != 2 or tf.nest.is_nested(examples[1]):
        raise ValueError(
            "class_weight needs one array y of labels, and no sample weights beside it. "
            "Multiply the two, and give the product as sample_weight."
        )
    x, y = examples
    unknown = [key for key in class_weight if not isinstance(key, (int, np.integer))]
    if unknown:
        raise ValueError(
            f"class_weight maps classes, integers, to weights. Received {unknown[0]!r} for a class."
        )
    labels = np.asarray(y)
    labels = labels.argmax(axis=-1) if labels.ndim > 1 and labels.shape[-1] > 1 else labels.reshape(-1)
    weights = np.array([class_weight.get(int(label), 1.0) for label in labels], np.float32)
    if len(weights) != len(y):
        raise ValueError(f"class_weight needs one label for each example. Received y of shape {np.shape(y)}.")
    return x, y, weights


def check_fits(model: Any, examples: Examples, what: str) -> None:
    """Refuses inputs of another shape than the model's, and labels it has no output for.

    Looks at what models of one input, or one output, have; Keras says the rest.

    Raises:
        ValueError: says what the model takes and what it was given.
    """
    x, y = examples[0], (examples[1] if len(examples) > 1 else None)
    if y is None and model.loss is not None and not isinstance(model.loss, (list, dict)):
        raise ValueError(f"The model was compiled with a loss, and the {what} data have no y for it.")
    expected = getattr(model, "input_shape", None)
    if isinstance(expected, tuple) and isinstance(x, np.ndarray):
        if not _shapes_match(expected[1:], x.shape[1:]):
            single = _shapes_match(expected[1:], x.shape)
            raise ValueError(
                f"The model takes inputs of shape {expected[1:]}. The {what} x has {x.shape[1:]} per example."
                + (" It looks like one example, not in a batch: dataset.batch(32)." if single else "")
            )
    loss = getattr(model.loss, "name", getattr(model.loss, "__name__", model.loss))
    output = getattr(model, "output_shape", None)
    classes = output[-1] if isinstance(output, tuple) and output else None
    if "sparse" not in str(loss).lower() or not isinstance(classes, int) or not isinstance(y, np.ndarray):
        return
    y = y[y != getattr(model.loss, "ignore_class", None)]
    if y.size and (y.min() < 0 or y.max() >= classes):
        raise ValueError(
            f"The model has {classes} outputs, for labels 0 to {classes - 1}. "
            f"The {what} y has labels {y.min()} to {y.max()}."
        )


def digest(examples: Examples) -> str:
    """Returns a hash of the data, types and shapes included."""
    found = hashlib.sha256()
    for array in tf.nest.flatten(examples):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _shapes_match(expected: tuple, shape: tuple) -> bool:
    # Keras adds a last axis of 1, or takes it off.
    forms = [shape, (*shape, 1)] + ([shape[:-1]] if shape[-1:] == (1,) else [])
    return any(
        len(expected) == len(form) and all(e in (None, n) for e, n in zip(expected, form)) for form in forms
    )
