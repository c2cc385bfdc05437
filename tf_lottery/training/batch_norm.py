"""The moving statistics of BatchNormalization, estimated anew for weights that were not trained into them."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import prunable
from tf_lottery.training.replicas import on_device

_STATISTICS = ("moving_mean", "moving_variance")


class BatchStatistics:
    """Estimates the statistics of a model's BatchNormalization layers for the weights that it has.

    Each becomes the mean over the batches of what its layer computes from one batch in training,
    whatever it was before and whatever the layer's momentum is. Weights stay as they are, and so do
    the statistics of frozen layers.

    Args:
        model: a built model of either flavour.
        x: inputs, the first axis being the examples, in mixed order: they are cut into batches.
        batch_size: examples in a batch, as in training. What is left over is left out.
    """

    def __init__(self, model: Any, x: Any, batch_size: int):
        found = [s for s in prunable.slots(model).values() if s.name in _STATISTICS and s.layer.trainable]
        self._model = model
        self._variables = [slot.variable for slot in found]
        self._momenta = [slot.layer.momentum for slot in found]
        self._batch_size = batch_size
        self._x = on_device(x)
        self._of_batch = tf.function(self._of_batch)

    def estimate(self) -> None:
        """Sets the statistics. Does nothing where the model has none."""
        if not self._variables:
            return
        batches = tf.nest.flatten(self._x)[0].shape[0] // self._batch_size
        statistics = [self._of_batch(tf.constant(i)) for i in range(batches)]
        for variable, values in zip(self._variables, zip(*statistics, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0, dtype=np.float64))

    def _of_batch(self, i: tf.Tensor) -> list[tf.Tensor]:
        """Returns the statistics of one batch: of zeros, training leaves (1 - momentum) times those."""
        for variable in self._variables:
            variable.assign(tf.zeros_like(tf.convert_to_tensor(variable)))
        rows = i * self._batch_size + tf.range(self._batch_size)
        self._model(tf.nest.map_structure(lambda t: tf.gather(t, rows), self._x), training=True)
        pairs = zip(self._variables, self._momenta, strict=True)
        return [tf.convert_to_tensor(variable) / (1 - momentum) for variable, momentum in pairs]
