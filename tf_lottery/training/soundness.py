"""What can be wrong with a network that trains: weights that are no numbers, and a single class for all."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.training.data import Examples, count
from tf_lottery.training.replicas import Replicas
from tf_lottery.training.streams import Stream

_EXAMPLES, _BYTES = 1000, 2**26


class Soundness:
    """Looks at a model between two steps.

    Args:
        model: a compiled, built Keras model of either flavour.
        replicas: what it is trained on.
        data: examples, of which up to 1,000 are looked at, from all over them; of a stream its first batch.
    """

    def __init__(self, model: Any, replicas: Replicas, data: Examples | Stream):
        self._model = model
        self._replicas = replicas
        self._data = data
        self._weights = [weight for weight in model.weights if tf.as_dtype(weight.dtype).is_floating]
        self._all_finite = _traced(self._all_finite)
        if not getattr(model, "run_eagerly", False):
            self._predict = _traced(self._predict)

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return bool(self._all_finite())

    def classes_predicted(self) -> int:
        """Returns how many different classes the model predicts; 0 where that says nothing.

        So it is where its output is not one of classes, or the examples that are looked at are all of one.
        An output of one column has two classes, or one where it is on one side both of 0, which
        divides logits, and of 1/2, which divides probabilities.
        """
        inputs, targets = _some_of(self._data)[:2]
        if len(np.unique(tf.nest.flatten(targets)[0], axis=0)) < 2:
            return 0
        try:
            outputs = self._predict(self._replicas.place(lambda _: inputs))
        except Exception:  # a model with a train_step of its own may be trained without ever being called
            return 0
        if not isinstance(outputs, tf.Tensor) or outputs.shape.rank is None or outputs.shape.rank < 2:
            return 0
        outputs = outputs.numpy()
        if outputs.shape[-1] == 1:
            return 1 if all(len(np.unique(outputs > between)) == 1 for between in (0, 0.5)) else 2
        return len(np.unique(outputs.argmax(-1)))

    def _all_finite(self) -> tf.Tensor:
        finite = [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(weight))) for weight in self._weights]
        return tf.reduce_all(tf.stack(finite))

    def _predict(self, inputs: Any) -> Any:
        outputs = self._replicas.run(lambda x: self._model(x, training=False), inputs)
        return tf.nest.map_structure(self._of_one, outputs)

    def _of_one(self, value: Any) -> tf.Tensor:
        return self._replicas.strategy.experimental_local_results(value)[0]


def _traced(function: Callable[..., Any]) -> Callable[..., Any]:
    traced = tf.function(function, autograph=False)
    # It is traced once; TensorFlow counts the traces for all models together.
    traced._omit_frequent_tracing_warning = True
    return traced


def _some_of(data: Examples | Stream) -> Examples:
    data = data.first if isinstance(data, Stream) else data
    example = sum(array.nbytes for array in tf.nest.flatten(data)) // max(1, count(data))
    most = max(1, min(_EXAMPLES, _BYTES // max(1, example)))
    every = max(1, -(-count(data) // most))
    return tf.nest.map_structure(lambda array: array[::every], data)
