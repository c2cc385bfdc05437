"""The layers of a functional model as the steps of its computation, the same for both Kerases."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)  # symbolic tensors are not compared
class Call:
    """One call of a layer in a model.

    Attributes:
        layer: what was called; in Keras 3 it may be an operation such as `keras.ops.add`.
        inputs: ids of the symbolic tensors that it was called with.
        outputs: the symbolic tensors that came of it.
    """

    layer: Any
    inputs: tuple[int, ...]
    outputs: tuple[Any, ...]
    _node: Any

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


def calls(model: Any) -> Iterator[Call]:
    """Yields what a model computes, each call after those that it needs; its inputs are left out.

    Args:
        model: a built Sequential or functional model of either flavour.

    Raises:
        TypeError: another model, whose computation is code.
    """
    graph = getattr(model, "_functional", None) or model  # Keras 3 keeps a Sequential's there
    if not model.built or not hasattr(graph, "_nodes_by_depth"):
        raise TypeError(
            f"Expected a built Sequential or functional model. Received {model.name!r} of the class "
            f"{type(model).__name__}: what it computes stands in its code alone."
        )
    for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            layer = node.operation if hasattr(node, "operation") else node.layer
            if not node.is_input:
                inputs = node.keras_inputs if hasattr(node, "keras_inputs") else node.input_tensors
                ids = tuple(id(tensor) for tensor in inputs)
                yield Call(layer, ids, tuple(tf.nest.flatten(node.output_tensors)), node)
