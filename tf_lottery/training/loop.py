"""Many training steps in one compiled call, round the model's own `train_step`.

The user's optimizer, loss, metrics, regularizers and schedules are those of the
model. Data lie on the device and a step gathers its batch by index, so one trace
serves every level, arm and replicate: masks, weights and data order are inputs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

Logs = dict[str, float]
_EVALUATION_BATCH = 1000


class Loop:
    """The compiled training and evaluation of one model on data in memory.

    Args:
        model: a compiled, built Keras model of either flavour.
        train: the pair (x, y) of arrays, first axis the examples.
        evaluation: name -> (x, y), such as `{"validation": (xv, yv)}`.
        batch_size: examples in one training step.
        chunk: most steps in one call. Constant, for XLA compiles anew for each shape.
        jit: whether XLA compiles the loop; None lets `prefers_xla` decide.

    Raises:
        ValueError: the batch size is out of range.
    """

    def __init__(
        self,
        model: Any,
        train: tuple[Any, Any],
        evaluation: Mapping[str, tuple[Any, Any]],
        *,
        batch_size: int,
        chunk: int,
        jit: bool | None = None,
    ):
        if not 1 <= batch_size <= len(train[0]):
            raise ValueError(
                f"batch_size must be 1 to {len(train[0])}, the training examples. Received {batch_size}."
            )
        self.model = model
        self.batch_size = batch_size
        self.chunk = chunk
        self.traces = 0
        self.examples = len(train[0])
        self.evaluation_names = tuple(evaluation)
        self.jit = prefers_xla(model) if jit is None else jit
        self._train_data = _on_device(train)
        self._evaluation_data = {name: _on_device(data) for name, data in evaluation.items()}
        self._build()
        self._train = tf.function(self._train_chunk, jit_compile=self.jit)
        self._evaluate = tf.function(self._evaluate_all, jit_compile=self.jit)

    def train(self, batches: np.ndarray) -> Logs:
        """Takes one step for each row of `batches`, int indices of shape (steps, batch_size).

        Returns:
            The model's metrics since `reset_metrics`, `loss` among them.
        """
        steps = len(batches)
        padded = np.zeros((self.chunk, self.batch_size), np.int32)
        padded[:steps] = batches
        return _floats(self._train(tf.constant(padded), tf.constant(steps, tf.int32)))

    def reset_metrics(self) -> None:
        """Starts the model's metrics anew."""
        _reset_metrics(self.model)

    def evaluate(self, name: str) -> Logs:
        """Returns the model's metrics over the evaluation data called `name`."""
        x, y = self._evaluation_data[name]
        return _floats(self._evaluate(x, y))

    def _build(self) -> None:
        # Keras makes optimizer and metric variables at the first step, which XLA does not allow.
        self.model.optimizer.build(self.model.trainable_variables)
        x, y = self._train_data
        self.model.test_step((x[: self.batch_size], y[: self.batch_size]))
        _reset_metrics(self.model)

    def _train_chunk(self, batches: tf.Tensor, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        self.traces += 1
        x, y = self._train_data
        for i in tf.range(steps):
            self.model.train_step((tf.gather(x, batches[i]), tf.gather(y, batches[i])))
        return self.model.get_metrics_result()

    def _evaluate_all(self, x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
        self.traces += 1
        _reset_metrics(self.model)
        full, rest = divmod(x.shape[0], _EVALUATION_BATCH)
        for i in tf.range(full):
            rows = i * _EVALUATION_BATCH + tf.range(_EVALUATION_BATCH)
            self.model.test_step((tf.gather(x, rows), tf.gather(y, rows)))
        if rest:
            self.model.test_step((x[-rest:], y[-rest:]))
        return self.model.get_metrics_result()


def prefers_xla(model: Any) -> bool:
    """Whether XLA can be had and pays: on GPU and TPU, and on CPU where nothing convolves.

    XLA on CPU compiles the gradients of convolutions to naive code, tens of times
    slower than TensorFlow's own kernels. Where a layer of Keras 3 says that it cannot be
    compiled, the model goes without.
    """
    if not all(getattr(layer, "supports_jit", True) for layer in model._flatten_layers()):
        return False
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return True
    return not any("Conv" in type(layer).__name__ for layer in model._flatten_layers())


def _on_device(data: tuple[Any, Any]) -> tuple[tf.Tensor, tf.Tensor]:
    x, y = (tf.constant(array) for array in data)
    # As `fit` does: a model of float32 makes nothing of the other half.
    x, y = (tf.cast(t, tf.float32) if t.dtype == tf.float64 else t for t in (x, y))
    return x, y


def _reset_metrics(model: Any) -> None:
    for metric in model.metrics:
        metric.reset_state()


def _floats(logs: Mapping[str, tf.Tensor]) -> Logs:
    return {name: float(value) for name, value in logs.items()}
