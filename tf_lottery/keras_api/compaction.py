"""Smaller networks that compute the same: without inputs and units that do nothing.

Masks leave a kernel as large as it was. But a channel whose weights to the next layer are all pruned is
not heard, and one whose weights from the layer before are all pruned is a constant, which the next bias can
take in.
"""

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import channels, flavour, graph, prunable
from tf_lottery.keras_api.graph import Call


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
    convolutions, and what lies between them: activations, BatchNorm, pooling, dropout, `Flatten`,
    `Concatenate`; and `Add` and its like where all sides agree. Every other layer stays as it is, and so
    do the units that it sees and those of the output. In front of a convolution that pads
    with zeros a constant that is not 0 stays: at the edges it is none.

    Args:
        model: a built Sequential or functional model of either flavour, masked or not, which stays as it is.
            Weights that are 0 count, masked or not.

    Returns:
        A plain model with the names of `model`'s layers, not compiled; its outputs differ from those of
        `model` by rounding alone, in inference (BatchNorm with the statistics that it has gathered). Zeros
        that are left in it are not held when it is trained: `apply_mask` holds them. And what is kept of
        each kernel. TF-MOT's wrappers are gone.

    Raises:
        TypeError: another model, whose computation is code.

    Example:
        >>> import tf_lottery
        >>> ticket = tf_lottery.find_ticket(model, x, y, epochs=1, levels=8, verbose=0)
        >>> small, kept = compact(model)
        >>> np.abs(model.predict(x, verbose=0) - small.predict(x, verbose=0)).max() < 1e-5
        True
        >>> small.count_params() < model.count_params()
        True
    """
    if prunable.has_wrappers(model):
        from tf_lottery.keras_api import tfmot_wrappers

        model = tfmot_wrappers.unwrap(model)
    return _Compaction(model).made()


class _Weights:
    """The arrays of a layer that weighs its inputs. Constants are NaN where an input is none."""

    def __init__(self, layer: Any):
        self.kernel = np.asarray(layer.kernel)
        self._bias = np.asarray(layer.bias) if layer.use_bias else np.zeros(self.kernel.shape[-1:])
        window = tuple(range(self.kernel.ndim - 2))
        self._sums = self.kernel.astype(np.float64).sum(window)
        self._hears = (self.kernel != 0).any(window)
        self._pads = getattr(layer, "padding", "valid") != "valid"

    def heard(self, constants: np.ndarray) -> np.ndarray:
        """Returns for each input and unit whether it hears what its bias cannot take in."""
        varies = ~np.isfinite(constants) | (self._pads & (constants != 0))
        return varies[:, None] & self._hears

    def bias(self, constants: np.ndarray, heard: np.ndarray) -> np.ndarray:
        """Returns the bias that has taken in the inputs that are not in `heard`."""
        return self._bias + np.where(heard | ~np.isfinite(constants), 0, constants) @ self._sums


class _Compaction:
    """Finds which channels of every tensor in a model are needed, and makes it again with these alone."""

    def __init__(self, model: Any):
        self._model = model
        self._keras = flavour.keras_module(flavour.flavour_of(model))
        self._calls = list(graph.calls(model))
        tensors = [*model.inputs, *(t for call in self._calls for t in call.outputs)]
        self._shapes = {id(t): tuple(t.shape) for t in tensors}
        times = collections.Counter(id(call.layer) for call in self._calls)
        self._weights = {
            call: _Weights(call.layer)
            for call in self._calls
            if times[id(call.layer)] == 1 and channels.weighs(self._keras, call.layer)
        }
        self._carried = {call: self._carries(call) for call in self._calls}
        # Of the channels of each tensor; NaN where one is no constant.
        self._constants = {i: np.full(_channels(shape), np.nan) for i, shape in self._shapes.items()}
        self._kept = {i: np.zeros(_channels(shape), bool) for i, shape in self._shapes.items()}

    def made(self) -> Compacted:
        """Returns the smaller model."""
        for call in self._calls:
            self._find_constants(call)
        self._find_kept()
        return self._make()

    def _carries(self, call: Call) -> channels.Carried | None:
        if call in self._weights or len(call.outputs) != 1:
            return None
        return channels.carried(self._keras, call, [self._shapes[i] for i in call.inputs])

    def _is_free(self, call: Call) -> bool:
        """Whether units of a layer that weighs can go: its activation sees each by itself."""
        return call in self._weights and channels.is_elementwise(self._keras, call.layer.activation)

    def _find_constants(self, call: Call) -> None:
        given = [self._constants[i] for i in call.inputs]
        ranks = [len(self._shapes[i]) for i in call.inputs]
        carried, output = self._carried[call], id(call.outputs[0])
        if self._is_free(call):
            weights = self._weights[call]
            sums = weights.bias(given[0], heard=np.zeros(len(given[0]), bool))
            sums[weights.heard(given[0]).any(axis=0)] = np.nan
            self._constants[output] = _through(call.layer.activation, [sums], ranks)
        elif carried and carried.computes:

            def layer(*tensors: tf.Tensor) -> tf.Tensor:
                return call.again(call.layer, dict(zip(call.inputs, tensors)))[0]

            self._constants[output] = _through(layer, given, ranks)
        elif carried:
            parts = carried.forward(given, np.nan)
            self._constants[output] = functools.reduce(lambda a, b: np.where(np.isnan(a), b, a), parts)

    def _find_kept(self) -> None:
        """Finds the fewest channels that each call can do with."""
        asked = {id(tensor) for tensor in (*self._model.inputs, *self._model.outputs)}
        for call in self._calls:
            if not self._is_free(call) and not self._carried[call]:
                asked.update(map(id, call.outputs))
                asked.update(() if call in self._weights else call.inputs)
        for i in asked:
            self._kept[i][:] = True
        before, now = -1, 0
        while now > before:
            for call in reversed(self._calls):
                self._ask(call)
            before, now = now, sum(map(np.count_nonzero, self._kept.values()))

    def _ask(self, call: Call) -> None:
        output, carried = self._kept[id(call.outputs[0])], self._carried[call]
        if call in self._weights:
            output[0] |= not output.any()  # a layer without units there is not
            self._kept[call.inputs[0]] |= self._heard(call)
        elif carried:
            for i, chosen in zip(call.inputs, carried.backward(output)):
                self._kept[i][chosen] = True
            for of_input in carried.forward([self._kept[i] for i in call.inputs], False):
                output |= of_input

    def _heard(self, call: Call) -> np.ndarray:
        """Returns which inputs a layer that weighs needs."""
        heard = self._weights[call].heard(self._constants[call.inputs[0]])
        return heard[:, self._kept[id(call.outputs[0])]].any(axis=1)

    def _make(self) -> Compacted:
        tensors = {id(t): self._input(t) for t in self._model.inputs}
        paths = {id(slot.variable): path for path, slot in prunable.slots(self._model).items()}
        copies: dict[int, Any] = {}
        kept = {}
        for call in self._calls:
            if call in self._weights:
                made, kept[paths[id(call.layer.kernel)]] = self._weigh(call, tensors)
            else:
                copy = copies.setdefault(id(call.layer), _copy(call.layer))
                made = call.again(copy, tensors)
                self._fill(copy, call)
            tensors.update(zip(map(id, call.outputs), made, strict=True))
        ends = (self._model.input, self._model.output)
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
        source, weights = call.inputs[0], self._weights[call]
        there, units = np.flatnonzero(self._kept[source]), np.flatnonzero(self._kept[id(call.outputs[0])])
        heard = self._heard(call)
        inputs = np.flatnonzero(heard) if heard.any() else there[:1]  # a layer without inputs there is not
        given = tensors[source]
        if len(inputs) < len(there):
            given = self._take(given, np.searchsorted(there, inputs).tolist())
        bias = weights.bias(self._constants[source], heard)[units]
        size = "units" if "units" in call.layer.get_config() else "filters"
        zeros = {"kernel_initializer": "zeros", "bias_initializer": "zeros"}  # which draw nothing
        layer = _copy(call.layer, **zeros, **{size: len(units), "use_bias": bool(call.layer.use_bias or bias.any())})
        made = call.again(layer, {source: given})
        kernel = (weights.kernel * heard[:, None])[..., inputs[:, None], units]
        layer.set_weights([kernel, bias][: 1 + layer.use_bias])
        return made, (inputs, units)

    def _take(self, tensor: Any, indices: list[int]) -> Any:
        take = self._keras.ops.take if hasattr(self._keras, "ops") else tf.gather
        return take(tensor, indices, axis=-1)

    def _fill(self, copy: Any, call: Call) -> None:
        """Gives a layer the weights of the one that it is a copy of."""
        if hasattr(copy, "get_weights"):
            kept = self._kept[id(call.outputs[0])]
            given = call.layer.get_weights()
            copy.set_weights([w[kept] for w in given] if self._carried[call] else given)


def _channels(shape: tuple[int | None, ...]) -> int:
    return (shape[-1] or 1) if shape else 1


def _through(
    function: Callable[..., Any], values: Sequence[np.ndarray], ranks: Sequence[int]
) -> np.ndarray:
    """Returns what becomes of constants, one for each channel; NaN where one of them is NaN."""
    tensors = [
        tf.reshape(tf.constant(np.nan_to_num(channels), tf.float32), [1] * (rank - 1) + [-1])
        for channels, rank in zip(values, ranks, strict=True)
    ]
    found = np.ravel(np.asarray(function(*tensors), np.float64))
    return np.where(np.isnan(sum(values)), np.nan, found)


def _copy(layer: Any, **changed: Any) -> Any:
    """Returns a layer of the same config, but for what is changed; an operation, which has no weights, itself."""
    if not hasattr(layer, "get_weights"):
        return layer
    return type(layer).from_config({**layer.get_config(), **changed})
