"""Gradients of a model's loss by its prunable weights, of first and second order.

The loss is what the model's `compute_loss` gives, regularizers included. The gradient is
taken where the weights are, so pruned weights, which are 0, have one too.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import prunable
from tf_lottery.keras_api.masked_model import Arrays, MaskedModel
from tf_lottery.tickets import seeds
from tf_lottery.training import data
from tf_lottery.training.data import Examples
from tf_lottery.training.inputs import Source
from tf_lottery.training.replicas import on_device
from tf_lottery.training.steps import is_of_keras
from tf_lottery.training.streams import Stream

_BATCH = 1000
_ZERO = tf.UnconnectedGradients.ZERO


def draw(train: Source, examples: int, *key: int | str) -> list[Examples]:
    """Returns training examples in batches, on the device.

    Args:
        train: arrays, of which they are drawn without replacement; or a stream, whose first they are.
        examples: how many; where there are fewer, all.
        *key: what the draw depends on. A larger draw begins with the examples of a smaller one.

    Raises:
        ValueError: less than one is asked for.
    """
    if examples < 1:
        raise ValueError(f"A gradient needs one example at least. Received examples={examples}.")
    if isinstance(train, Stream):
        return [on_device(batch) for batch in train.take(examples)]
    rows = seeds.generator(*key, "examples").permutation(data.count(train))[:examples]
    parts = np.array_split(rows, -(-len(rows) // _BATCH))
    return [on_device(data.take(train, part)) for part in parts]


def check_loss(model: Any) -> None:
    """Refuses models whose loss cannot be asked for.

    Raises:
        ValueError: not compiled, or a `train_step` of its own that alone knows the loss.
    """
    if getattr(model, "optimizer", None) is None:
        raise ValueError(f"The model {model.name!r} is not compiled: compile it with its loss.")
    if not model.loss and is_of_keras(model, "compute_loss") and not is_of_keras(model, "train_step"):
        raise ValueError(
            f"The loss of {model.name!r} is inside its own train_step, where no criterion can ask for it. "
            "Override compute_loss(x, y, y_pred, sample_weight) too, or compile the model with a loss."
        )


def loss(model: Any, batch: Examples, training: bool) -> tf.Tensor:
    """Returns the loss of a batch, a scalar; also on a replica, where Keras divides it by their number."""
    x, y, sample_weight = (*batch, None, None)[:3]
    # A subclassed model of Keras 3 need not take the argument.
    mode = {"training": training} if getattr(model, "_call_has_training_arg", True) else {}
    value = model.compute_loss(x, y, model(x, **mode), sample_weight)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return value if replicas == 1 else value * replicas


def gradient(masked: MaskedModel, batches: Sequence[Examples]) -> Arrays:
    """Returns path -> mean gradient, in training mode: with the statistics of each batch, and dropout."""
    return _mean_gradient(masked, batches, lambda batch: loss(masked.model, batch, training=True))


def hessian_product(
    masked: MaskedModel, batches: Sequence[Examples], direction: Mapping[str, np.ndarray]
) -> Arrays:
    """Returns path -> H v, the derivative of `gradient` in the direction v, by double backprop."""
    kernels = kernels_of(masked)

    def slope(batch: Examples) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(masked.model, batch, training=True)
        found = [tf.convert_to_tensor(g) for g in tape.gradient(value, kernels, unconnected_gradients=_ZERO)]
        along = [tf.constant(direction[path], g.dtype) for path, g in zip(masked.shapes, found)]
        return tf.add_n([tf.reduce_sum(g * v) for g, v in zip(found, along)])

    return _mean_gradient(masked, batches, slope)


class SquaredGradient:
    """The mean of the squared gradients of single examples, in inference mode, by one trace.

    A single example has no batch statistics: BatchNorm uses those that it has learned.
    """

    def __init__(self, masked: MaskedModel):
        self._masked = masked
        compiled = getattr(masked.model, "run_eagerly", False) is False
        self._squares = masked.on_replica(tf.function(self._sum) if compiled else self._sum)

    def __call__(self, batches: Sequence[Examples]) -> Arrays:
        """Returns path -> mean over all examples."""
        masked = self._masked
        # Keras makes some of its metrics' variables at the first call, and a compiled loop may make none.
        masked.on_replica(lambda: loss(masked.model, _single(batches[0], 0), training=False))()
        sums = [np.sum(parts, axis=0, dtype=np.float64) for parts in zip(*map(self._squares, batches))]
        total = sum(map(data.count, batches))
        return {path: array / total for path, array in zip(masked.shapes, sums)}

    def _sum(self, batch: Examples) -> list[tf.Tensor]:
        kernels = kernels_of(self._masked)
        sums = [tf.zeros(kernel.shape, kernel.dtype) for kernel in kernels]
        for i in tf.range(len(tf.nest.flatten(batch)[0])):
            with tf.GradientTape() as tape:
                value = loss(self._masked.model, _single(batch, i), training=False)
            found = tape.gradient(value, kernels, unconnected_gradients=_ZERO)
            sums = [total + tf.square(tf.convert_to_tensor(g)) for total, g in zip(sums, found)]
        return sums


def kernels_of(masked: MaskedModel) -> list[Any]:
    """Returns the variables of the prunable weights, in the order of `masked.shapes`."""
    slots = prunable.slots(masked.model)
    return [slots[path].variable for path in masked.shapes]


def _mean_gradient(
    masked: MaskedModel, batches: Sequence[Examples], value: Callable[[Examples], tf.Tensor]
) -> Arrays:
    total = sum(map(data.count, batches))
    mean = {path: np.zeros(shape) for path, shape in masked.shapes.items()}
    for batch in batches:
        share = data.count(batch) / total
        for path, found in masked.gradients(functools.partial(value, batch)).items():
            mean[path] += share * found
    return mean


def _single(batch: Examples, i: int | tf.Tensor) -> Examples:
    return tf.nest.map_structure(lambda leaf: leaf[i][None], batch)
