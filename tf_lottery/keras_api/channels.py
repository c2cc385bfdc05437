"""What the layers of Keras do to channels, the last axis of what goes from layer to layer.

A layer that weighs, such as `Dense`, makes new channels of those that it is given. One that carries hands on
what it is given, channel by channel. Of any other nothing is known.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from tf_lottery.keras_api.graph import Call

_WEIGH = ("Dense", "Conv1D", "Conv2D", "Conv3D")
_MERGE = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
_MERGING_OPERATIONS = ("add", "subtract", "multiply", "maximum", "minimum")
_COMPUTE = ("Activation", "ReLU", "LeakyReLU", "ELU", "BatchNormalization")
_DROP = ("Dropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization")
_POOL = (
    *(f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("SpatialDropout", "UpSampling", "Cropping") for n in (1, 2, 3)),
)
_ELEMENTWISE = (
    *("elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "mish", "relu", "relu6", "selu"),
    *("sigmoid", "silu", "softplus", "softsign", "swish", "tanh"),
)


@dataclasses.dataclass(frozen=True)
class Carried:
    """Where the channels of a layer's output come from.

    Attributes:
        sources: for each input and each channel of the output, the input's channel that it comes from, or
            -1 for none of it.
        computes: whether the values change on the way.
    """

    sources: tuple[np.ndarray, ...]
    computes: bool = False

    def forward(self, values: Sequence[np.ndarray], absent: Any) -> Iterator[np.ndarray]:
        """Yields for each input what the output's channels have of its channels' values, or `absent`."""
        for of_input, source in zip(values, self.sources, strict=True):
            yield np.where(source < 0, absent, of_input[source])

    def backward(self, chosen: np.ndarray) -> Iterator[np.ndarray]:
        """Yields for each input which of its channels the chosen channels of the output come from."""
        for source in self.sources:
            yield source[chosen & (source >= 0)]


def weighs(keras: ModuleType, layer: Any) -> bool:
    """Whether each channel of a layer's output is a weighted sum of all of its input's, and a bias."""
    return (
        _is_one_of(keras, layer, _WEIGH)
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "data_format", None) in (None, "channels_last")
        and not getattr(layer, "lora_enabled", False)
        and not getattr(layer, "quantization_mode", None)
    )


def is_elementwise(keras: ModuleType, activation: Any) -> bool:
    """Whether an activation is known to look at each number by itself, unlike a softmax."""
    return activation in [getattr(keras.activations, name, None) for name in _ELEMENTWISE]


def carried(keras: ModuleType, call: Call, inputs: list[tuple[int | None, ...]]) -> Carried | None:
    """Returns where the output's channels come from; None where that is not known.

    Args:
        keras: the module that the layer is of.
        call: with one output.
        inputs: shapes of what it is called with.
    """
    layer, channels = call.layer, [shape[-1] for shape in inputs]
    if None in channels or getattr(layer, "data_format", None) not in (None, "channels_last"):
        return None
    if call.is_training:  # noise and a batch's own statistics are not the same each time
        return None
    own = tuple(map(np.arange, channels))
    if _merges(keras, layer, len(inputs)) and set(channels) == {call.outputs[0].shape[-1]}:
        # Where one side is masked Keras 3 leaves it out: what comes of constants is none.
        return None if call.is_masked else Carried(own, computes=True)
    if _is_one_of(keras, layer, ("Concatenate",)) and layer.axis in (-1, len(inputs[0]) - 1):
        return Carried(_side_by_side(channels))
    if len(inputs) != 1:
        return None
    if _is_one_of(keras, layer, ("Flatten",)):
        places = inputs[0][1:-1]
        return None if None in places else Carried((np.tile(own[0], math.prod(places)),))
    if _is_one_of(keras, layer, (*_POOL, *_DROP)):
        return Carried(own)
    return Carried(own, computes=True) if _computes(keras, layer, len(inputs[0])) else None


def _merges(keras: ModuleType, layer: Any, inputs: int) -> bool:
    # `x + y` of two tensors; of one and a constant, it may be another at each place.
    return _is_one_of(keras, layer, _MERGE) or (inputs == 2 and _operation(layer) in _MERGING_OPERATIONS)


def _operation(layer: Any) -> str:
    """Returns the name of what is no layer but a function of tensors, such as `"add"` of `x + y`."""
    if type(layer).__name__ == "TFOpLambda":  # tf_keras
        return str(layer.symbol).rpartition(".")[2]
    is_operation = type(layer).__module__.startswith("keras.src.ops.")
    return type(layer).__name__.lower() if is_operation else ""


def _computes(keras: ModuleType, layer: Any, rank: int) -> bool:
    if _operation(layer) in _ELEMENTWISE:
        return True
    if not _is_one_of(keras, layer, _COMPUTE):
        return False
    if type(layer).__name__ == "BatchNormalization":
        return np.ravel(layer.axis).tolist() in ([-1], [rank - 1])
    return is_elementwise(keras, layer.activation) if type(layer).__name__ == "Activation" else True


def _side_by_side(channels: list[int]) -> tuple[np.ndarray, ...]:
    ends = np.cumsum(channels)
    sources = np.full((len(channels), ends[-1]), -1)
    for source, end, n in zip(sources, ends, channels):
        source[end - n : end] = np.arange(n)
    return tuple(sources)


def _is_one_of(keras: ModuleType, layer: Any, names: tuple[str, ...]) -> bool:
    # Of a subclass, which may do anything, nothing is known.
    return type(layer) in [getattr(keras.layers, name, None) for name in names]
