"""Smaller networks that compute the same: without inputs and units that do nothing.

Masks leave a kernel as large as it was. But a channel whose weights to the next layer are all pruned is
not heard, and one whose weights from the layer before are all pruned is a constant, which the next bias can
take in.
"""

import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import flavour, graph, prunable
from tf_lottery.keras_api.graph import Call
from tf_lottery.keras_api.needed import Needed


class Compacted(NamedTuple):
    """What `compact` returns.

    Attributes:
        model: the smaller model.
        kept: path of a kernel -> the indices of its inputs (axis -2) and of its units (axis -1) that are
            left, two arrays of integers.
    """

    model: Any
    kept: dict[str, tuple[np.ndarray, np.ndarray]]


def compact(model: Any) -> Compacted:
    """Returns a smaller model that predicts the same: without the inputs and units that do nothing.

    A unit goes where no weight of the next layer hears it, or where it is a constant that the next bias
    can take in: no weight comes in to it, or from constants only. So it is through `Dense` layers and
    convolutions (`Conv1D`, `Conv2D`, `Conv3D`, not grouped, channels last), and what lies between them:
    activations, BatchNorm, pooling, dropout, `Flatten`, `Concatenate`; and `Add` and its like, or `x + y`,
    where all sides agree. Every other layer stays as it is, a model within the model too, and so
    do the units that it sees and those of the output. In front of a convolution that pads
    with zeros a constant that is not 0 stays: at the edges it is none.

    Args:
        model: a built Sequential or functional model of either flavour, masked or not, which stays as it is.
            Weights that are 0 count, masked or not.

    Returns:
        A plain model with the names of `model`'s layers, not compiled; its outputs differ from those of
        `model` by rounding alone, in inference (BatchNorm with the statistics that it has gathered). Zeros
        that are left in it are not held when it is trained: `apply_mask` holds them. And what is kept of
        the kernel of each of these dense layers and convolutions. TF-MOT's wrappers are gone.

    Raises:
        TypeError: another model, whose computation is code; or a layer in it that cannot be made again from
            its config, or that keeps a vocabulary.
        ValueError: it is not built.

    Example:
        >>> import tf_lottery
        >>> ticket = tf_lottery.find_ticket(model, x, y, epochs=1, levels=8, verbose=0)
        >>> small, kept = compact(model)
        >>> np.allclose(model.predict(x, verbose=0), small.predict(x, verbose=0), atol=1e-5)
        True
        >>> small.count_params() < model.count_params()
        True
    """
    prunable.check_built(model)
    if prunable.has_wrappers(model):
        from tf_lottery.keras_api import tfmot_wrappers

        model = tfmot_wrappers.unwrap(model)
    return _Maker(model).made()


class _Maker:
    """Makes a functional model again, with what is needed of it."""

    def __init__(self, model: Any):
        self._model = model
        self._keras = flavour.keras_module(flavour.flavour_of(model))
        self._graph = graph.functional(model)
        self._needed = Needed(self._keras, self._graph)

    def made(self) -> Compacted:
        """Returns the smaller model."""
        tensors = {id(t): self._input(t) for t in self._graph.inputs}
        paths = {id(slot.variable): path for path, slot in prunable.slots(self._model).items()}
        copies: dict[int, Any] = {}
        kept = {}
        for call in self._needed.calls:
            if call in self._needed.weights:
                made, kept[paths[id(call.layer.kernel)]] = self._weigh(call, tensors)
            else:
                if id(call.layer) not in copies:
                    copies[id(call.layer)] = self._copy(call.layer)
                made = call.again(copies[id(call.layer)], tensors)
                self._fill(copies[id(call.layer)], call)
            tensors.update(zip(map(id, call.outputs), made, strict=True))
        ends = (self._graph.input, self._graph.output)
        inputs, outputs = tf.nest.map_structure(lambda t: tensors[id(t)], ends)
        return Compacted(self._keras.Model(inputs, outputs, name=self._model.name), kept)

    def _input(self, tensor: Any) -> Any:
        batch_size, *shape = tensor.shape
        name = tensor._keras_history[0].name
        return self._keras.Input(shape, batch_size=batch_size, dtype=tensor.dtype, name=name)

    def _weigh(
        self, call: Call, tensors: Mapping[int, Any]
    ) -> tuple[list[Any], tuple[np.ndarray, np.ndarray]]:
        """Makes a layer with the inputs and units that are left; returns its output, and which they are."""
        source, weights = call.inputs[0], self._needed.weights[call]
        there, units = np.flatnonzero(self._needed.kept[source]), np.flatnonzero(self._needed.kept_of(call))
        heard = self._needed.heard(call)
        inputs = np.flatnonzero(heard) if heard.any() else there[:1]  # a layer without inputs there is not
        given = tensors[source]
        if graph.is_masked(given):  # which nothing can be taken from with its mask: zeros weigh the rest
            inputs = there
        elif len(inputs) < len(there):
            given = self._take(given, np.searchsorted(there, inputs).tolist())
        bias = weights.bias(self._needed.constants[source], heard)[units]
        size = {"units" if hasattr(call.layer, "units") else "filters": len(units)}
        zeros = {"kernel_initializer": "zeros", "bias_initializer": "zeros"}  # which draw nothing
        layer = self._copy(call.layer, use_bias=bool(call.layer.use_bias or bias.any()), **size, **zeros)
        made = call.again(layer, {source: given})
        self._hand_on_activations(call.layer, layer)
        kernel = (weights.kernel * heard[:, None])[..., inputs[:, None], units]
        layer.set_weights([kernel, bias][: 1 + layer.use_bias])
        return made, (inputs, units)

    def _take(self, tensor: Any, indices: list[int]) -> Any:
        take = self._keras.ops.take if hasattr(self._keras, "ops") else tf.gather
        return take(tensor, indices, axis=-1)

    def _fill(self, copy: Any, call: Call) -> None:
        """Gives a layer the weights of the one that it is a copy of."""
        if hasattr(copy, "get_weights"):
            kept = self._needed.kept_of(call) if self._needed.carried[call] else ...
            copy.set_weights([weight[kept] for weight in call.layer.get_weights()])
            self._hand_on_activations(call.layer, copy)
            for layer in copy._flatten_layers():
                # What `adapt` found lies in weights, and is used from elsewhere.
                if hasattr(layer, "finalize_state") and layer.weights:
                    layer.finalize_state()

    def _copy(self, layer: Any, **changed: Any) -> Any:
        """Returns a layer of the same config, but for what is changed; an operation as it is."""
        if not hasattr(layer, "get_weights"):
            return layer
        if any(hasattr(each, "get_vocabulary") for each in layer._flatten_layers()):
            raise TypeError(f"The layer {layer.name!r} keeps a vocabulary: compact the model behind it.")
        own = {name for found in self._own_activations(layer) for name in found}
        try:
            config = layer.get_config()
            # Until they are handed on: what a config says of them does not lead back to them.
            linear = dict.fromkeys(own & config.keys(), "linear")
            return type(layer).from_config({**config, **linear, **changed})
        except Exception as error:  # whatever one's own class raises
            raise TypeError(
                f"The layer {layer.name!r} of the class {type(layer).__name__} cannot be made again from its "
                f"config: {error}"
            ) from error

    def _own_activations(self, layer: Any) -> list[dict[str, Any]]:
        """Returns for each layer in a layer the attributes that are activations, and not of Keras."""
        return [
            {
                name: function
                for name in ("activation", "recurrent_activation")
                if isinstance(function := vars(each).get(name), types.FunctionType)
                and function is not getattr(self._keras.activations, function.__name__, None)
            }
            for each in layer._flatten_layers()
        ]

    def _hand_on_activations(self, layer: Any, copy: Any) -> None:
        for each, own in zip(copy._flatten_layers(), self._own_activations(layer), strict=True):
            for name, function in own.items():
                setattr(each, name, function)
