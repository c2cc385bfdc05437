"""What flows through a network of absolute weights (SynFlow, 2006.05467)."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api.masked_model import Arrays, MaskedModel

_INSTEAD = "Give training data instead: find_ticket(model, x, y)."


def absolute(weights: Mapping[str, np.ndarray]) -> Arrays:
    """Returns the network's variables without their signs, statistics of BatchNorm among them."""
    return {path: array if array.dtype.kind in "biu" else np.abs(array) for path, array in weights.items()}


def by_weights(masked: MaskedModel) -> Arrays:
    """Returns path -> dR/dw, where R is the sum of the outputs for an input of ones.

    Activations are linear: with nothing negative ReLU is so anyway, and a softmax at the end would
    hold R at 1. As the authors do, batch normalization is that of inference.

    Args:
        masked: a network that has `absolute` weights now.

    Raises:
        ValueError: the model does not say the shape of its inputs, has layers that the method is
            not made for (attention, recurrent ones, normalization other than
            BatchNormalization), or what flows is 0 or not finite.
    """
    model = masked.model
    _refuse_what_does_not_flow(model)
    inputs = _ones(model)

    def total() -> tf.Tensor:
        outputs = tf.nest.flatten(model(inputs, training=False))
        return tf.add_n([tf.reduce_sum(tf.cast(output, tf.float32)) for output in outputs])

    with _linear(model):
        found = masked.gradients(total)
    weights = masked.kernels()
    with np.errstate(over="ignore", invalid="ignore"):  # looked for here
        highest = max(float(np.max(found[path] * weights[path])) for path in found)
    if not np.isfinite(highest) or highest == 0:
        raise ValueError(
            f"SynFlow's scores of {model.name!r} are {'all 0' if highest == 0 else 'not finite'}: the "
            f"network is too deep for its numbers, or its output does not depend on its weights. {_INSTEAD}"
        )
    return found


@contextlib.contextmanager
def _linear(model: Any) -> Iterator[None]:
    layers = [layer for layer in model._flatten_layers() if callable(getattr(layer, "activation", None))]
    activations = [layer.activation for layer in layers]
    try:
        for layer in layers:
            layer.activation = tf.identity
        yield
    finally:
        for layer, activation in zip(layers, activations):
            layer.activation = activation


def _refuse_what_does_not_flow(model: Any) -> None:
    """Refuses layers that do not pass on what flows in, whatever their weights.

    An input of ones makes all tokens equal, so attention has no use for its queries and keys;
    these normalizations hold the flow at one size; gates multiply it with itself.
    """
    for layer in model._flatten_layers():
        kind = type(layer).__name__
        normalizes = kind.endswith("Normalization") and "BatchNormalization" not in kind
        gated = hasattr(layer, "recurrent_activation")
        if normalizes or gated or "Attention" in kind or kind == "Softmax":
            raise ValueError(
                f"SynFlow cannot score {model.name!r}: nothing flows through {kind} as through a linear "
                f"layer. {_INSTEAD}"
            )


def _ones(model: Any) -> Any:
    inputs = getattr(model, "inputs", None)
    if not inputs or any(None in tuple(tensor.shape)[1:] for tensor in inputs):
        raise ValueError(
            f"Without data the inputs' shapes must be known, and the model {model.name!r} does not say them. "
            "Build it with Input layers of fixed shapes, or give training data: find_ticket(model, x, y)."
        )
    ones = [tf.ones((1, *tuple(tensor.shape)[1:]), tensor.dtype) for tensor in inputs]
    return tf.nest.pack_sequence_as(model.input, ones) if len(ones) > 1 else ones[0]
