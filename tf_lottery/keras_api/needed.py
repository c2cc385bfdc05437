"""Which channels of a model are needed: constants go forward through its graph, what is heard backward."""

import collections
import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import channels, graph
from tf_lottery.keras_api.graph import Call


class Weights:
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


class Needed:
    """What each call in a functional model needs of the channels of every tensor.

    Args:
        keras: the module that the model is of.
        model: as `graph.functional` returns it.

    Attributes:
        calls: all of them, in order.
        weights: call -> the arrays of its layer, of those that weigh.
        carried: call -> where the channels of its output come from; None of the other calls.
        constants: id of a tensor -> the value of each channel that is always the same; NaN of the others.
        kept: id of a tensor -> bool array, which channels are left.
    """

    def __init__(self, keras: ModuleType, model: Any):
        self._keras = keras
        self.calls = list(graph.calls(model))
        tensors = [*model.inputs, *(tensor for call in self.calls for tensor in call.outputs)]
        self._shapes = {id(tensor): tuple(tensor.shape) for tensor in tensors}
        times = collections.Counter(id(call.layer) for call in self.calls)
        self._shared = {i for i, count in times.items() if count > 1}  # ids of layers with several calls
        self.weights = {
            call: Weights(call.layer)
            for call in self.calls
            if id(call.layer) not in self._shared and channels.weighs(keras, call.layer)
        }
        self.carried = {call: self._carries(call) for call in self.calls}
        counts = {i: (shape[-1] or 1) if shape else 1 for i, shape in self._shapes.items()}
        self.constants = {i: np.full(count, np.nan) for i, count in counts.items()}
        self._hears: dict[Call, np.ndarray] = {}  # as `Weights.heard` returns it
        for call in self.calls:
            self._find_constants(call)
        self.kept = {i: np.zeros(count, bool) for i, count in counts.items()}
        self._unheard: set[Call] = set()  # layers of which no unit is needed
        self._find_kept([*model.inputs, *model.outputs])

    def heard(self, call: Call) -> np.ndarray:
        """Returns which inputs a layer that weighs needs, as bools."""
        return self._hears[call][:, self.kept_of(call) & (call not in self._unheard)].any(axis=1)

    def kept_of(self, call: Call) -> np.ndarray:
        """Returns which channels are left of a call's output, the first one."""
        return self.kept[id(call.outputs[0])]

    def _carries(self, call: Call) -> channels.Carried | None:
        # What is cut for one call of a layer with weights is cut for all.
        is_shared = id(call.layer) in self._shared and getattr(call.layer, "weights", [])
        if call in self.weights or is_shared or len(call.outputs) != 1:
            return None
        return channels.carried(self._keras, call, [self._shapes[i] for i in call.inputs])

    def _is_free(self, call: Call) -> bool:
        """Whether units of a layer that weighs can go: its activation sees each by itself."""
        return call in self.weights and channels.is_elementwise(self._keras, call.layer.activation)

    def _find_constants(self, call: Call) -> None:
        given = [self.constants[i] for i in call.inputs]
        ranks = [len(self._shapes[i]) for i in call.inputs]
        carried, output = self.carried[call], id(call.outputs[0])
        if call in self.weights:
            self._hears[call] = self.weights[call].heard(given[0])
        if self._is_free(call):
            sums = self.weights[call].bias(given[0], heard=np.zeros(len(given[0]), bool))
            sums[self._hears[call].any(axis=0)] = np.nan
            self.constants[output] = _through(call.layer.activation, [sums], ranks)
        elif carried and carried.computes:

            def layer(*tensors: tf.Tensor) -> tf.Tensor:
                return call.again(call.layer, dict(zip(call.inputs, tensors)))[0]

            self.constants[output] = _through(layer, given, ranks)
        elif carried:
            parts = carried.forward(given, np.nan)
            self.constants[output] = functools.reduce(lambda a, b: np.where(np.isnan(a), b, a), parts)

    def _find_kept(self, ends: list[Any]) -> None:
        """Finds the fewest channels that each call can do with; all of the model's ends."""
        asked = set(map(id, ends))
        for call in self.calls:
            if not self._is_free(call) and not self.carried[call]:
                asked.update(map(id, call.outputs))
                asked.update(() if call in self.weights else call.inputs)
        for i in asked:
            self.kept[i][:] = True
        self._ask_all()
        # A layer without units there is not: one is kept, which nobody hears.
        self._unheard = {call for call in self.weights if not self.kept_of(call).any()}
        for call in self._unheard:
            self.kept_of(call)[0] = True
        self._ask_all()

    def _ask_all(self) -> None:
        before, now = -1, 0
        while now > before:
            for call in reversed(self.calls):
                self._ask(call)
            before, now = now, sum(map(np.count_nonzero, self.kept.values()))

    def _ask(self, call: Call) -> None:
        output, carried = self.kept_of(call), self.carried[call]
        if call in self.weights:
            self.kept[call.inputs[0]] |= self.heard(call)
        elif carried:
            for i, chosen in zip(call.inputs, carried.backward(output)):
                self.kept[i][chosen] = True
            for of_input in carried.forward([self.kept[i] for i in call.inputs], False):
                output |= of_input


def _through(function: Callable[..., Any], values: Sequence[np.ndarray], ranks: Sequence[int]) -> np.ndarray:
    """Returns what becomes of constants, one for each channel; NaN where one of them is NaN."""
    tensors = [
        tf.reshape(tf.constant(np.nan_to_num(channels), tf.float32), [1] * (rank - 1) + [-1])
        for channels, rank in zip(values, ranks, strict=True)
    ]
    found = np.ravel(np.asarray(function(*tensors), np.float64))
    return np.where(np.isnan(sum(values)), np.nan, found)
