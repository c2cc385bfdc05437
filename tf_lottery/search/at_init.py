"""Tickets found at initialization, before any training."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import masks, pruning
from tf_lottery.tickets.masks import Mask
from tf_lottery.tickets.scores import Scores
from tf_lottery.training import environment

_ROUNDS = 100


def synflow_ticket(model: Any, density: float) -> Ticket:
    """Finds a ticket with neither data nor training (SynFlow, 2006.05467), and makes `model` it.

    Args:
        model: a built Sequential or functional model of either flavour.
        density: the share of the weights to keep, in (0, 1).

    Raises:
        ValueError: the density is out of range, or the network cannot be scored so.
    """
    masked = MaskedModel(model)
    with masked.undone_on_error():
        mask = synflow(masked, density)
        masked.set_mask(mask)
        masked.reset_optimizer()
    return Ticket(
        mask=mask,
        weights=network_weights(masked.fresh_state),
        level=1,
        method=f"SynFlow (2006.05467) in {_ROUNDS} rounds, without data or training",
        verdict="Found at initialization: how well it trains beside the dense network was not looked at.",
        provenance={"versions": environment.versions(), "flavour": masked.flavour, "target_density": density},
    )


def synflow(model: MaskedModel, density: float, rounds: int = _ROUNDS) -> Mask:
    """Returns the mask of iterative synaptic flow pruning (2006.05467, algorithm 1).

    Each round scores every weight by |w dR/dw|, where R is the sum of the outputs for an
    input of ones through the network of absolute weights, and keeps of all layers
    together the highest, `density ** (round / rounds)` of the weights. As its authors do,
    batch normalization is that of inference, its parameters and statistics absolute too.
    The model is as before when this returns.

    Args:
        model: the network at initialization; what its mask prunes stays pruned.
        density: the share of all prunable weights to keep, in (0, 1).
        rounds: how often the weights are scored.

    Raises:
        ValueError: the density is out of range, the model does not say the shape of its
            inputs, scores are not finite or all 0, or there are layers that the method is not
            made for: attention, recurrent ones, normalization other than BatchNormalization.
    """
    state, mask = model.state(), model.mask()
    total = sum(array.size for array in mask.values())
    if not 0 < density < 1 or round(density * total) < 1:
        raise ValueError(
            f"target_density must be in (0, 1), and leave one of the {total} weights. Received {density}."
        )
    _refuse_what_does_not_flow(model.model)
    with _absolute(model, state):
        for i in range(1, rounds + 1):
            scores = _scores(model, mask)
            left = masks.kept(mask)
            surplus = max(0, left - round(density ** (i / rounds) * total))
            mask = pruning.prune(mask, scores, dict.fromkeys(mask, surplus / left), "global")
            model.set_mask(mask)
    return mask


@contextlib.contextmanager
def _absolute(model: MaskedModel, state: dict[str, np.ndarray]) -> Iterator[None]:
    """Gives the network its absolute weights and, where it has others, linear activations.

    With nothing negative, ReLU is linear anyway; a softmax at the end would hold R at 1.
    """
    before = model.mask()
    linear = [layer for layer in model.model._flatten_layers() if _has_plain_activation(layer)]
    activations = [layer.activation for layer in linear]
    weights = network_weights(state)
    try:
        for layer in linear:
            layer.activation = tf.identity
        floats = {path: array for path, array in weights.items() if array.dtype.kind not in "biu"}
        model.restore({**state, **{path: np.abs(array) for path, array in floats.items()}})
        yield
    finally:
        for layer, activation in zip(linear, activations):
            layer.activation = activation
        model.set_mask(before)
        model.restore(state)


def _has_plain_activation(layer: Any) -> bool:
    return callable(getattr(layer, "activation", None))


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
                "layer. Give training data instead: find_ticket(model, x, y)."
            )


def _scores(model: MaskedModel, mask: Mask) -> Scores:
    inputs = _ones(model.model)

    def flow() -> tf.Tensor:
        outputs = tf.nest.flatten(model.model(inputs, training=False))
        return tf.add_n([tf.reduce_sum(tf.cast(output, tf.float32)) for output in outputs])

    gradients, weights = model.gradients(flow), model.kernels()
    with np.errstate(over="ignore", invalid="ignore"):  # looked for below
        scores = {path: np.abs(gradients[path] * weights[path]) for path in mask}
    highest = max(float(array.max()) for array in scores.values())
    if not np.isfinite(highest) or highest == 0:
        raise ValueError(
            f"SynFlow's scores of {model.model.name!r} are {'all 0' if highest == 0 else 'not finite'}: the "
            "network is too deep for its numbers, or its output does not depend on its weights. Give "
            "training data instead: find_ticket(model, x, y)."
        )
    return scores


def _ones(model: Any) -> Any:
    inputs = getattr(model, "inputs", None)
    if not inputs or any(None in tuple(tensor.shape)[1:] for tensor in inputs):
        raise ValueError(
            f"Without data the inputs' shapes must be known, and the model {model.name!r} does not say them. "
            "Build it with Input layers of fixed shapes, or give training data: find_ticket(model, x, y)."
        )
    ones = [tf.ones((1, *tuple(tensor.shape)[1:]), tensor.dtype) for tensor in inputs]
    return tf.nest.pack_sequence_as(model.input, ones) if len(ones) > 1 else ones[0]
