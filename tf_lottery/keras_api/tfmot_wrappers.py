"""TF-MOT's pruning wrapper with a snapshot, a rewind and masks that stay as set.

Importing this module imports TF-MOT. The environment, the filters of warnings and the
meaning of `tf.keras` are left as they were.
"""

import inspect
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import flavour, masking, prunable

with flavour.keras_environment_kept(), warnings.catch_warnings():
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.sparsity.keras import (
        prune_registry,
        pruning_wrapper,
    )

import tf_keras

_sparsity = tfmot.sparsity.keras


class NeverPrune(_sparsity.PruningSchedule):
    """A schedule that never fires: masks change when they are set, and only then."""

    def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.constant(False), tf.constant(0.0)

    def get_config(self) -> dict[str, Any]:
        return {"class_name": type(self).__name__, "config": {}}


@tf_keras.saving.register_keras_serializable("tf_lottery")
class RewindablePruning(pruning_wrapper.PruneLowMagnitude):
    """TF-MOT's pruning wrapper round a layer, for lottery tickets (1803.03635).

    It takes a snapshot of the wrapped layer's weights when it is built, rewinds
    the layer to it, and holds the masks that it is given. Training needs none of
    TF-MOT's callbacks; its `strip_pruning` works on it.

    Args:
        layer: a tf_keras layer that TF-MOT can prune.
        **kwargs: passed on to the Keras wrapper layer.

    Example:
        >>> import tf_keras
        >>> layer = RewindablePruning(tf_keras.layers.Dense(2))
        >>> layer.build((None, 3))
        >>> layer.layer.set_weights([w + 1 for w in layer.layer.get_weights()])
        >>> layer.rewind()
        >>> float(layer.layer.bias[0])
        0.0
    """

    def __init__(self, layer: tf_keras.layers.Layer, **kwargs: Any):
        kwargs.pop("pruning_schedule", None)
        super().__init__(layer, pruning_schedule=NeverPrune(), **kwargs)
        self.supports_masking = layer.supports_masking
        self._snapshot: list[np.ndarray] = []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RewindablePruning":
        config = dict(config)
        layer = tf_keras.layers.deserialize(config.pop("layer"))
        return cls(layer, **config)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self._hold_masks()
        self.snapshot()

    def snapshot(self) -> None:
        """Copies the wrapped layer's weights, biases and statistics too."""
        self._snapshot = self.layer.get_weights()

    def rewind(self) -> None:
        """Puts the snapshot back, with pruned weights at zero."""
        self.layer.set_weights(self._snapshot)
        for weight, mask, _ in self.pruning_vars:
            weight.assign(tf.where(tf.cast(mask, tf.bool), weight, tf.zeros_like(weight)))

    def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        # The constraint on the kernel holds the mask. TF-MOT's forward pass would also count
        # steps, and refuse to train without its callback.
        kwargs["training"] = training
        takes = inspect.signature(self.layer.call).parameters
        return self.layer.call(inputs, **{name: value for name, value in kwargs.items() if name in takes})

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return self.layer.compute_mask(inputs, mask)

    def _hold_masks(self) -> None:
        """Puts the wrapper's masks on its weights, with what these are masked by already."""
        for weight, mask, _ in self.pruning_vars:
            held = masking.constraint_of(weight)
            if held is None or held.mask is not mask:
                if held is not None:
                    mask.assign(tf.cast(held.mask, mask.dtype))
                    masking.detach(weight)
                masking.attach(weight, mask)


def wrap(model: tf_keras.Model) -> tf_keras.Model:
    """Returns `model` with every prunable layer in a `RewindablePruning` wrapper.

    The layers, and so the weights, are shared with `model`; the result is not
    compiled. Layers that TF-MOT does not know stay as they are (their masks are
    held all the same).

    Raises:
        TypeError: `model` is no tf_keras model.
        ValueError: `model` is subclassed: TF-MOT clones Sequential and functional
            models only.
    """
    if flavour.flavour_of(model) == "keras":
        raise TypeError(
            f"{model.name!r} is a Keras 3 model, and TF-MOT wraps tf_keras models. It needs no wrappers: "
            "find_ticket, apply_mask and Ticket.apply take it as it is."
        )
    if not (isinstance(model, tf_keras.Sequential) or model._is_graph_network):
        raise ValueError(
            f"TF-MOT wraps Sequential and functional models; {model.name!r} is a subclassed "
            f"{type(model).__name__}. Build it as one of these, or with Keras 3 (import keras), "
            "where any model can be pruned."
        )
    kernels = {id(slot.variable) for slot in prunable.prunable_slots(model).values()}

    def wrapped(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        if isinstance(layer, tf_keras.Model):
            return tf_keras.models.clone_model(layer, clone_function=wrapped)
        if isinstance(layer, RewindablePruning) or not _can_wrap(layer):
            return layer
        if isinstance(layer, pruning_wrapper.PruneLowMagnitude):
            layer = layer.layer
        if kernels.isdisjoint(id(w) for w in layer.trainable_weights):
            return layer
        return RewindablePruning(layer)

    return wrapped(model)


def unwrap(model: tf_keras.Model) -> tf_keras.Model:
    """Returns `model` without wrappers, its weights shared (TF-MOT's `strip_pruning`)."""
    return _sparsity.strip_pruning(model)


def hold_masks(model: tf_keras.Model) -> None:
    """Makes the wrappers in `model` keep their present masks: TF-MOT's own become ours.

    TF-MOT's own would compute new masks from the weights, by a schedule.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, pruning_wrapper.PruneLowMagnitude):
            if not isinstance(layer, RewindablePruning):
                layer.pruning_schedule = NeverPrune()
                layer.__class__ = RewindablePruning
                layer.snapshot()
            layer._hold_masks()


def _can_wrap(layer: tf_keras.layers.Layer) -> bool:
    known = (
        isinstance(layer, pruning_wrapper.PruneLowMagnitude)
        or isinstance(layer, _sparsity.PrunableLayer)
        or hasattr(layer, "get_prunable_weights")
        or prune_registry.PruneRegistry.supports(layer)
    )
    # A wrapper is called with one thing, and attention takes two.
    inputs = inspect.signature(layer.call).parameters.values()
    needed = [p for p in inputs if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return known and len(needed) == 1
