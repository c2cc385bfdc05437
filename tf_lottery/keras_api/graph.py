"""The layers of a functional model as the steps of its computation, the same for both Kerases."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)  # symbolic tensors are not compared
class Call:
    """One call of a layer in a model.

    Attributes:
        layer: what was called; in Keras 3 it may be an operation such as `keras.ops.add`.
        inputs: ids of the symbolic tensors that it was called with.
        outputs: the symbolic tensors that came of it.
        is_masked: whether Keras hands a mask on with one of its inputs.
    """

    layer: Any
    inputs: tuple[int, ...]
    outputs: tuple[Any, ...]
    is_masked: bool
    _node: Any

    @property
    def is_training(self) -> bool:
        """Whether the model has it called with `training=True`, in inference too."""
        if hasattr(self._node, "arguments"):  # Keras 3
            given, named = self._node.arguments.args, self._node.arguments.kwargs
        else:
            given, named = self._node.call_args, self._node.call_kwargs
        training = named.get("training")
        is_named = isinstance(training, int | np.bool_) and bool(training)
        return is_named or any(each is True for each in given[1:])

    def again(self, layer: Any, tensors: Mapping[int, Any]) -> list[Any]:
        """Calls a layer in its place, with other tensors; returns what comes of it as `outputs`.

        Args:
            layer: in place of `layer`.
            tensors: id -> what stands for that input.
        """
        if hasattr(self._node, "map_arguments"):  # tf_keras
            given = {str(i): [tensors[i]] * self.inputs.count(i) for i in self.inputs}
            args, kwargs = self._node.map_arguments(given)
        else:
            args, kwargs = self._node.arguments.fill_in({i: tensors[i] for i in self.inputs})
        return tf.nest.flatten(layer(*args, **kwargs))


def is_masked(tensor: Any) -> bool:
    """Whether Keras hands a mask on with a symbolic tensor, as of an `Embedding(mask_zero=True)`."""
    return getattr(tensor, "_keras_mask", None) is not None


def functional(model: Any) -> Any:
    """Returns a model as a functional one, with `input` and `output`: of Keras 3's Sequential, what it keeps.

    Raises:
        TypeError: what it computes is code.
    """
    found = getattr(model, "_functional", None) or model
    if not hasattr(found, "_nodes_by_depth"):
        raise TypeError(
            f"Expected a Sequential or functional model. Received {model.name!r} of the class "
            f"{type(model).__name__}: there is no graph of what it computes."
        )
    return found


def calls(graph: Any) -> Iterator[Call]:
    """Yields what a functional model computes, each call after those that it needs, without its inputs."""
    for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if not node.is_input:
                layer = node.operation if hasattr(node, "operation") else node.layer
                inputs = node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors
                outputs = tf.nest.flatten(node.output_tensors)
                is_masked_one = any(map(is_masked, inputs))
                yield Call(layer, tuple(map(id, inputs)), tuple(outputs), is_masked_one, node)
