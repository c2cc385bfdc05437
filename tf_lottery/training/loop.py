"""Many training steps in one compiled call, round the model's own `train_step`.

The user's optimizer, loss, metrics, regularizers and schedules are those of the
model. Arrays lie on the device and a step gathers its batch by index; batches of a
stream come stacked. One trace serves every level, arm and replicate: masks, weights
and data are inputs.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import optimizers
from tf_lottery.training.data import DataOrder, Examples, count
from tf_lottery.training.streams import Stream, StreamOrder, stacked

Logs = dict[str, float]
_EVALUATION_BATCH, _BYTES = 1000, 2**26
_XLA_REFUSES = ("unsupported operations", "compile-time constant")


class Loop:
    """The compiled training and evaluation of one model.

    Args:
        model: a compiled, built Keras model of either flavour.
        train: examples in memory, or a stream.
        evaluation: name -> examples or stream, such as `{"validation": (xv, yv)}`.
        batch_size: examples in one training step; a stream brings its own.
        chunk: most steps in one call. Constant, for XLA compiles anew for each shape;
            lower for a stream whose batches are large.
        jit: whether XLA compiles the loop; None lets `prefers_xla` decide.

    Raises:
        ValueError: the batch size is out of range.
    """

    def __init__(
        self,
        model: Any,
        train: Examples | Stream,
        evaluation: Mapping[str, Examples | Stream],
        *,
        batch_size: int,
        chunk: int,
        jit: bool | None = None,
    ):
        self.model = model
        self.batch_size = batch_size
        self.chunk = _chunk_within_memory(train, chunk)
        self.traces = 0
        self.evaluation_names = tuple(evaluation)
        self.jit = prefers_xla(model) if jit is None else jit
        self._stream = train if isinstance(train, Stream) else None
        if self._stream is None:
            self._examples = count(train)
            if not 1 <= batch_size <= self._examples:
                raise ValueError(
                    f"batch_size must be 1 to {self._examples}, the training examples. Received {batch_size}."
                )
            train = on_device(train)
        self._train_data = train
        self._evaluation_data = {
            name: data if isinstance(data, Stream) else on_device(data) for name, data in evaluation.items()
        }
        self._build()
        self._compile()

    def order(self, *key: int | str) -> DataOrder | StreamOrder:
        """Returns which batches each step takes, to hand to `train`: a function of step and key."""
        if self._stream is not None:
            return self._stream.order(*key)
        return DataOrder(self._examples, self.batch_size, *key)

    def train(self, batches: np.ndarray | list[Examples]) -> Logs:
        """Takes one step for each of `batches`, at most `chunk`, as the order gave them.

        Returns:
            What the model's `train_step` returned last: its metrics since
            `reset_metrics`, `loss` among them.
        """
        parts = [batches] if isinstance(batches, np.ndarray) else batches
        for part in parts:
            logs = self._call("_train", *_padded(part, self.chunk))
        return _floats(logs)

    def reset_metrics(self) -> None:
        """Starts the model's metrics anew."""
        self.model.reset_metrics()

    def evaluate(self, name: str) -> Logs:
        """Returns the model's metrics over the evaluation data called `name`."""
        data = self._evaluation_data[name]
        if not isinstance(data, Stream):
            return _floats(self._call("_evaluate", data))
        self.model.reset_metrics()
        logs, batches, chunk = None, iter(data), _chunk_within_memory(data, self.chunk)
        while parts := stacked(itertools.islice(batches, chunk)):
            for part in parts:
                logs = self._call("_test", *_padded(part, chunk))
        if logs is None:
            raise ValueError(
                f"The {name} data set gave no batch in this pass: it has to start anew for each."
            )
        return _floats(logs)

    def _build(self) -> None:
        # Keras makes optimizer and metric variables at the first step, which XLA does not allow.
        optimizers.build(self.model)
        if self._stream is not None:
            first = on_device(self._stream.first)
        else:
            first = tf.nest.map_structure(lambda t: t[: self.batch_size], self._train_data)
        self.model.test_step(first)
        self.model.reset_metrics()

    def _compile(self) -> None:
        self._train = self._compiled(self._train_chunk)
        self._test = self._compiled(self._test_chunk)
        self._evaluate = self._compiled(self._evaluate_all)

    def _compiled(self, function: Callable) -> Callable:
        if getattr(self.model, "run_eagerly", False):
            return function
        compiled = tf.function(function, jit_compile=self.jit)
        # One trace is all there is for one model; TensorFlow counts those of all models together.
        compiled._omit_frequent_tracing_warning = True
        return compiled

    def _call(self, name: str, *arguments: Any) -> Mapping[str, Any]:
        try:
            return getattr(self, name)(*arguments)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            # XLA refuses what it cannot compile before it runs any of it.
            if not (self.jit and any(reason in str(error) for reason in _XLA_REFUSES)):
                raise
        self.jit = False
        self._compile()
        return getattr(self, name)(*arguments)

    def _train_chunk(self, chunk: Any, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        self.traces += 1
        if self._stream is not None:
            return self._repeat("train_step", lambda i: _at(chunk, i), steps)
        data = self._train_data
        return self._repeat("train_step", lambda i: _gathered(data, chunk[i]), steps)

    def _test_chunk(self, chunk: Any, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        self.traces += 1
        return self._repeat("test_step", lambda i: _at(chunk, i), steps)

    def _evaluate_all(self, data: Any) -> dict[str, tf.Tensor]:
        self.traces += 1
        self.model.reset_metrics()
        batch = max(self.batch_size, min(_EVALUATION_BATCH, _BYTES // _bytes_per_example(data)))
        full, rest = divmod(tf.nest.flatten(data)[0].shape[0], batch)
        if full:
            logs = self._repeat(
                "test_step", lambda i: _gathered(data, i * batch + tf.range(batch)), tf.constant(full)
            )
        if rest:
            logs = _scalars(self.model.test_step(tf.nest.map_structure(lambda t: t[-rest:], data)))
        return logs

    def _repeat(
        self, step: str, batch_of: Callable[[tf.Tensor], Examples], steps: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Takes a number of the model's steps; returns the logs of the last one."""
        # XLA would compile a loop over `tf.range(steps)` anew for each number of steps.
        function, i = getattr(self.model, step), tf.constant(0)
        if is_of_keras(self.model, step):
            while i < steps:
                function(batch_of(i))
                i += 1
            return self.model.get_metrics_result()
        # What a step of the user's own returns may be in no metric.
        if tf.executing_eagerly():
            for i in range(steps):
                logs = function(batch_of(i))
            return _scalars(logs)
        logs = dict.fromkeys(_names_of_result(function, batch_of(tf.constant(0))), tf.constant(0.0))
        while i < steps:
            logs = _scalars(function(batch_of(i)))
            i += 1
        return logs


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


def _chunk_within_memory(data: Examples | Stream, chunk: int) -> int:
    """Returns how many batches of a stream are held at once."""
    if not isinstance(data, Stream):
        return chunk
    batch = sum(array.nbytes for array in tf.nest.flatten(data.first))
    return max(1, min(chunk, _BYTES // max(batch, 1)))


def _padded(part: Any, chunk: int) -> tuple[Any, tf.Tensor]:
    """Returns up to `chunk` batches as a whole chunk, and how many of them count."""
    steps = len(tf.nest.flatten(part)[0])

    def pad(leaf: np.ndarray) -> tf.Tensor:
        padded = np.zeros((chunk, *leaf.shape[1:]), leaf.dtype)
        padded[:steps] = leaf
        return _as_fit_has_it(tf.constant(padded))

    return tf.nest.map_structure(pad, part), tf.constant(steps, tf.int32)


def is_of_keras(model: Any, method: str) -> bool:
    return getattr(type(model), method).__module__.startswith(("keras.", "tf_keras."))


def _names_of_result(function: Callable, batch: Examples) -> list[str]:
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), batch)
    return list(tf.function(function).get_concrete_function(specs).structured_outputs)


def _scalars(logs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    return {name: tf.reduce_mean(tf.cast(value, tf.float32)) for name, value in logs.items()}


def _gathered(data: Any, rows: tf.Tensor) -> Any:
    return tf.nest.map_structure(lambda t: tf.gather(t, rows), data)


def _at(chunk: Any, i: tf.Tensor) -> Any:
    return tf.nest.map_structure(lambda t: t[i], chunk)


def on_device(data: Examples) -> Any:
    return tf.nest.map_structure(lambda array: _as_fit_has_it(tf.constant(array)), data)


def _as_fit_has_it(tensor: tf.Tensor) -> tf.Tensor:
    # A model of float32 makes nothing of the other half.
    return tf.cast(tensor, tf.float32) if tensor.dtype == tf.float64 else tensor


def _bytes_per_example(data: Any) -> int:
    leaves = tf.nest.flatten(data)
    return max(1, sum(int(np.prod(t.shape[1:])) * t.dtype.size for t in leaves))


def _floats(logs: Mapping[str, Any]) -> Logs:
    return {name: float(value) for name, value in logs.items()}
