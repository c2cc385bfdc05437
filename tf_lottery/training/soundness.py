"""What can be wrong with a network that trains: weights that are no numbers, and a single class for all."""

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
        data: examples, of which up to 1,000 are looked at.
    """

    def __init__(self, model: Any, replicas: Replicas, data: Examples | Stream):
        self._model = model
        self._replicas = replicas
        self._data = data
        self._weights = [weight for weight in model.weights if tf.as_dtype(weight.dtype).is_floating]
        self._all_finite = tf.function(self._all_finite, autograph=False)
        self._predict = tf.function(self._predict, autograph=False)
        # Each is traced once; TensorFlow counts the traces for all models together.
        self._all_finite._omit_frequent_tracing_warning = True
        self._predict._omit_frequent_tracing_warning = True

    def is_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return bool(self._all_finite())

    def classes_predicted(self) -> int:
        """Returns how many different classes the model predicts; 0 where its output is not one of classes.

        An output of one column has two classes, or one where it is the same for all examples.
        """
        inputs = _first_of(self._data)[0]
        outputs = self._predict(self._replicas.place(lambda _: inputs))
        if not isinstance(outputs, tf.Tensor) or outputs.shape.rank is None or outputs.shape.rank < 2:
            return 0
        outputs = outputs.numpy()
        if outputs.shape[-1] == 1:
            return min(2, len(np.unique(outputs)))
        return len(np.unique(outputs.argmax(-1)))

    def _all_finite(self) -> tf.Tensor:
        finite = [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(weight))) for weight in self._weights]
        return tf.reduce_all(tf.stack(finite))

    def _predict(self, inputs: Any) -> Any:
        outputs = self._replicas.run(lambda x: self._model(x, training=False), inputs)
        return tf.nest.map_structure(self._of_one, outputs)

    def _of_one(self, value: Any) -> tf.Tensor:
        return self._replicas.strategy.experimental_local_results(value)[0]


def _first_of(data: Examples | Stream) -> Examples:
    data = data.first if isinstance(data, Stream) else data
    example = sum(array.nbytes for array in tf.nest.flatten(data)) // max(1, count(data))
    most = max(1, min(_EXAMPLES, _BYTES // max(1, example)))
    return tf.nest.map_structure(lambda array: array[:most], data)
