"""Many training steps in one compiled call, round the model's own `train_step`.

The user's optimizer, loss, metrics, regularizers and schedules are those of the model,
and so is the `tf.distribute` strategy that it was made under. Arrays lie on the device
and a step gathers its batch by index; batches of a stream, and of arrays too large for
that, come stacked. One trace serves every level, arm and replicate: masks, weights and
data are inputs.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import optimizers
from tf_lottery.training.data import DataOrder, Examples, count
from tf_lottery.training.history import Logs
from tf_lottery.training.replicas import Replicas
from tf_lottery.training.soundness import Soundness
from tf_lottery.training.steps import is_of_keras, repeated
from tf_lottery.training.streams import HostArrays, Stream, StreamOrder, stacked

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

    Attributes:
        soundness: name of evaluation data -> what looks at the model with examples of them.

    Raises:
        ValueError: the batch size is out of range, or no multiple of the number of replicas.
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
        self.replicas = Replicas(model.distribute_strategy)
        self.batch_size = batch_size
        self.traces = 0
        self.evaluation_names = tuple(evaluation)
        # Replicas exchange gradients within a step, which XLA does not compile. On TPUs it compiles anyway.
        alone = self.replicas.count == 1 and not self.replicas.equal
        self.jit = alone and (prefers_xla(model) if jit is None else jit)
        if not isinstance(train, Stream):
            self._examples = _check_batch_size(batch_size, count(train))
            self.replicas.check(batch_size)
        train = self._streamed_if_large(train)
        self._stream = train if isinstance(train, Stream) else None
        self.chunk = _chunk_within_memory(train, chunk)
        # Whole on each replica: which examples a batch takes is known only then.
        self._train_data = self.replicas.place(lambda _: train) if self._stream is None else ()
        self._evaluation_data = {name: self._shared_out(name, data) for name, data in evaluation.items()}
        self._build(train)
        self._compile()
        self.soundness = {name: Soundness(model, self.replicas, data) for name, data in evaluation.items()}

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
        share = (0, 1) if self._stream is None else self._stream.share
        for part in parts:
            self.replicas.check(tf.nest.flatten(part)[0].shape[1] * share[1])
            logs = self._call("_train", self._train_data, *self._chunk_of(part, self.chunk, share))
        return _floats(logs)

    def reset_metrics(self) -> None:
        """Starts the model's metrics anew."""
        self.model.reset_metrics()

    @property
    def pauses(self) -> bool:
        """Whether training can go on later between two evaluations: all that was gathered since is known."""
        return self.replicas.count == 1 and is_of_keras(self.model, "train_step")

    def metrics_state(self) -> list[np.ndarray]:
        """Returns what the model's metrics have gathered, one array for each of their variables."""
        return [np.array(variable) for variable in self._metrics_variables()]

    def restore_metrics(self, state: Sequence[np.ndarray]) -> None:
        """Sets the model's metrics to what `metrics_state` returned."""
        for variable, value in zip(self._metrics_variables(), state, strict=True):
            variable.assign(value)

    def _metrics_variables(self) -> list[Any]:
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def evaluate(self, name: str) -> Logs:
        """Returns the model's metrics over the evaluation data called `name`."""
        data = self._evaluation_data[name]
        if not isinstance(data, Stream):
            return _floats(self._call("_evaluate", *data))
        self.model.reset_metrics()
        logs, batches, chunk = None, iter(data), _chunk_within_memory(data, self.chunk)
        while parts := stacked(itertools.islice(batches, chunk)):
            for part in parts:
                if self.replicas.shared(tf.nest.flatten(part)[0].shape[1]):
                    logs = self._call("_test", *self._chunk_of(part, chunk))
        if logs is None:
            raise ValueError(
                f"The {name} data set gave no batch in this pass: it has to start anew for each."
            )
        return _floats(logs)

    def _streamed_if_large(self, data: Examples | Stream) -> Examples | Stream:
        if isinstance(data, Stream) or self.replicas.fit(data):
            return data
        return HostArrays(data, self.batch_size)

    def _shared_out(self, name: str, data: Examples | Stream) -> Stream | tuple[Any, int]:
        """Returns evaluation data: on each replica its part, and how many examples all have together."""
        data = self._streamed_if_large(data)
        if isinstance(data, Stream):
            return data
        if not self.replicas.shared(count(data)):
            raise ValueError(
                f"{self.replicas.count} replicas share out the {name} data equally, and need "
                f"{self.replicas.count} examples at least. Received {count(data)}."
            )
        return self.replicas.share_out(data), count(data)

    def _chunk_of(self, part: Any, chunk: int, share: tuple[int, int] = (0, 1)) -> tuple[Any, tf.Tensor]:
        """Returns up to `chunk` batches as a whole chunk, shared out, and how many of them count."""
        steps = len(tf.nest.flatten(part)[0])

        def pad(leaf: np.ndarray) -> np.ndarray:
            padded = np.zeros((chunk, *leaf.shape[1:]), leaf.dtype)
            padded[:steps] = leaf
            return padded

        padded = tf.nest.map_structure(pad, part)
        return self.replicas.share_out(padded, axis=1, share=share), tf.constant(steps, tf.int32)

    def _build(self, train: Examples | Stream) -> None:
        # Keras makes optimizer and metric variables at the first step, which XLA does not allow.
        if self._stream is None:
            first = tf.nest.map_structure(lambda array: array[: self.batch_size], train)
        else:
            first = train.first
        one_replica = self.replicas.count == 1 or getattr(self.model, "run_eagerly", False)
        run = self.replicas.run if one_replica else tf.function(self.replicas.run)
        with self.replicas.strategy.scope():
            optimizers.build(self.model)
            run(self.model.test_step, self.replicas.share_out(first))
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

    def _train_chunk(self, data: Any, chunk: Any, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        self.traces += 1
        if self._stream is not None:
            return self._repeated("train_step", _at, steps, chunk)
        return self._repeated("train_step", lambda i, x, rows: _gathered(x, rows[i]), steps, data, chunk)

    def _test_chunk(self, chunk: Any, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        self.traces += 1
        return self._repeated("test_step", _at, steps, chunk)

    def _evaluate_all(self, data: Any, examples: int) -> dict[str, tf.Tensor]:
        self.traces += 1
        self.model.reset_metrics()
        replicas = self.replicas
        most = min(_EVALUATION_BATCH, _BYTES // replicas.bytes_per_example(data))
        batch = max(self.batch_size // replicas.count, most)
        # Replicas take as many steps, and then what is left over, which on some may be one more.
        full, rows = examples // replicas.count // batch, tf.range(batch)
        if full:
            steps = tf.constant(full)
            logs = self._repeated("test_step", lambda i, x: _gathered(x, i * batch + rows), steps, data)
        if full * batch * replicas.count < replicas.shared(examples):
            logs = self._repeated("test_step", lambda i, x: _after(x, full * batch), tf.constant(1), data)
        return logs

    def _repeated(
        self, step: str, batch_of: Callable[..., Examples], steps: tf.Tensor, *data: Any
    ) -> dict[str, tf.Tensor]:
        return repeated(self.model, self.replicas, step, batch_of, steps, *data)


def prefers_xla(model: Any) -> bool:
    """Whether XLA can be had and pays: on GPU and TPU, and on CPU where it slows no layer down.

    On CPU, XLA compiles to naive code, several times slower than TensorFlow's own kernels, the
    gradients of convolutions, the random numbers that layers of Keras 3 draw (one for an image is drawn
    again for each pixel that it is used for), and LSTM and GRU of tf_keras. Where a layer of Keras 3 says
    that it cannot be compiled, the model goes without.
    """
    layers = list(model._flatten_layers())
    if not all(getattr(layer, "supports_jit", True) for layer in layers):
        return False
    if tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
        return True
    return not any(_is_slow_in_xla(layer) for layer in layers)


def _is_slow_in_xla(layer: Any) -> bool:
    convolves = any("Conv" in kind.__name__ for kind in type(layer).__mro__)
    # Cells always have a generator, for the dropout that they may have.
    rates = [getattr(layer, name) for name in ("dropout", "recurrent_dropout") if hasattr(layer, name)]
    draws = bool(getattr(layer, "_seed_generators", [])) and (not rates or any(rates))
    # A gradient through the function that cuDNN could stand in for, which lists of tensors go in and out of.
    return convolves or draws or getattr(layer, "_could_use_gpu_kernel", False)


def _check_batch_size(batch_size: int, examples: int) -> int:
    if not 1 <= batch_size <= examples:
        raise ValueError(f"batch_size must be 1 to {examples}, the training examples. Received {batch_size}.")
    return examples


def _chunk_within_memory(data: Examples | Stream, chunk: int) -> int:
    """Returns how many batches of a stream are held at once."""
    if not isinstance(data, Stream):
        return chunk
    batch = sum(array.nbytes for array in tf.nest.flatten(data.first))
    return max(1, min(chunk, _BYTES // max(batch, 1)))


def _gathered(data: Any, rows: tf.Tensor) -> Any:
    return tf.nest.map_structure(lambda t: tf.gather(t, rows), data)


def _at(i: tf.Tensor, chunk: Any) -> Any:
    return tf.nest.map_structure(lambda t: t[i], chunk)


def _after(data: Any, start: int) -> Any:
    return tf.nest.map_structure(lambda t: t[start:], data)


def _floats(logs: Mapping[str, Any]) -> Logs:
    return {name: float(value) for name, value in logs.items()}
