"""Many of a model's own steps on all its replicas, inside one graph."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tf_lottery.training.data import Examples
from tf_lottery.training.replicas import Replicas


def repeated(
    model: Any,
    replicas: Replicas,
    step: str,
    batch_of: Callable[..., Examples],
    steps: tf.Tensor,
    *data: Any,
) -> dict[str, tf.Tensor]:
    """Takes a number of a model's steps; returns the logs of the last one.

    Args:
        model: a compiled, built Keras model of either flavour.
        replicas: what it is trained on.
        step: the name of a method of the model, `"train_step"` or `"test_step"`.
        batch_of: returns a replica's part of the batch of step i, of `(i, *data)`. Where
            that is empty, the replica does nothing.
        steps: how many, int32.
        *data: what was placed on the replicas.
    """
    function = getattr(model, step)
    if is_of_keras(model, step):
        _keras_steps(function, replicas, batch_of, steps, data)
        return model.get_metrics_result()
    # What a step of the user's own returns may be in no metric.
    return _logged_steps(function, replicas, batch_of, steps, data)


def _keras_steps(
    function: Callable, replicas: Replicas, batch_of: Callable, steps: tf.Tensor, data: Any
) -> None:
    def one(i: tf.Tensor, *data: Any) -> None:
        batch = batch_of(i, *data)
        if _examples_in(batch):
            function(batch)

    # XLA would compile a loop over `tf.range(steps)` anew for each number of steps.
    i = tf.constant(0)
    while i < steps:
        replicas.run(one, i, *data)
        i += 1


def _logged_steps(
    function: Callable, replicas: Replicas, batch_of: Callable, steps: tf.Tensor, data: Any
) -> dict[str, tf.Tensor]:
    def one(i: tf.Tensor, *data: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        batch = batch_of(i, *data)
        examples = _examples_in(batch)
        if not examples:
            if not names:
                raise ValueError(
                    "In eager mode, a replica that gets no example of a batch knows what its step returns "
                    "from another one in its process. Leave run_eagerly out, or give evaluation data whose "
                    f"last batch has an example for each of the {replicas.count} replicas."
                )
            return dict.fromkeys(names, tf.constant(0.0)), tf.constant(0.0)
        logs = _scalars(function(batch))
        names[:] = logs
        return logs, tf.constant(float(examples))

    names: list[str] = []  # in eager mode known once the first replica, which has most, took its step
    if tf.executing_eagerly():
        for i in range(steps):
            logs = replicas.mean(*replicas.run(one, tf.constant(i), *data))
        return logs
    names += _names_of_result(lambda *data: function(batch_of(tf.constant(0), *data)), replicas, data)
    logs, i = dict.fromkeys(names, tf.constant(0.0)), tf.constant(0)
    while i < steps:
        logs = replicas.mean(*replicas.run(one, i, *data))
        i += 1
    return logs


def is_of_keras(model: Any, method: str) -> bool:
    """Whether a method of the model is Keras's own, not the user's."""
    return getattr(type(model), method).__module__.startswith(("keras.", "tf_keras."))


def _names_of_result(function: Callable, replicas: Replicas, data: Any) -> list[str]:
    specs = tf.nest.map_structure(tf.type_spec_from_value, data)
    return list(tf.function(replicas.run).get_concrete_function(function, *specs).structured_outputs)


def _scalars(logs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    return {name: tf.reduce_mean(tf.cast(value, tf.float32)) for name, value in logs.items()}


def _examples_in(batch: Any) -> int:
    return tf.nest.flatten(batch)[0].shape[0]
