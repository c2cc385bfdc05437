"""How a mask is held while a model trains, the same for both Kerases.

The mask rides on its kernel as the variable's constraint, which every Keras
optimizer applies after each update. That alone keeps pruned weights at zero,
but clipping by norm, and optimizers that mix entries, would still see their
gradients. So the optimizer masks the gradients too, before anything else: the
surviving weights then evolve as those of a network with `w * m` in its forward
pass. The moving averages that some optimizers put in the place of the weights are
masked as well: no constraint is applied to them.

Pruned weights may be frozen instead, each at a value of its own: the others evolve as
those of a network with `w * m + c` in its forward pass.
"""

import functools
import types
from typing import Any

import numpy as np
import tensorflow as tf


class MaskConstraint:
    """Holds pruned weights in place, after the user's own constraint where there is one.

    Args:
        mask: variable of the kernel's shape, nonzero where a weight is kept.
        pruned: variable of what pruned weights are held at: one 0 for all, or an array
            of the kernel's shape.
        inner: the constraint that the variable had before, or None.
    """

    def __init__(self, mask: tf.Variable, pruned: tf.Variable, inner: Any = None):
        self.mask = mask
        self.pruned = pruned
        self.inner = inner

    def __call__(self, weights: Any) -> tf.Tensor:
        if self.inner is not None:
            weights = self.inner(weights)
        return self.held(tf.convert_to_tensor(weights))

    def held(self, weights: tf.Tensor) -> tf.Tensor:
        """Returns weights, or averages of them, with the pruned ones where they are held."""
        held = tf.where(self._kept(), weights, self.pruned)
        held.set_shape(weights.shape)  # that of `pruned` is not known to a graph
        return held

    def masked(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns a gradient with 0 for what is pruned."""
        return tf.where(self._kept(), gradient, tf.zeros_like(gradient))

    def _kept(self) -> tf.Tensor:
        return tf.cast(self.mask, tf.bool)


def constraint_of(variable: Any) -> MaskConstraint | None:
    """Returns the mask constraint that rides on a Keras or TensorFlow variable."""
    constraint = getattr(variable, "constraint", None)
    return constraint if isinstance(constraint, MaskConstraint) else None


def attach(variable: Any, mask: tf.Variable | None = None) -> MaskConstraint:
    """Puts `mask`, or a new one of ones, on `variable`, round the constraint that it has."""
    if mask is None:
        mask = tf.Variable(tf.ones(variable.shape, tf.bool), trainable=False, name="mask")
    # While a layer of mixed precision is built in a wrapper, its variables pass for what it computes in.
    dtype = getattr(variable, "true_dtype", variable.dtype)
    # Its shape is left open: one trace serves a 0 for all and a value for each.
    pruned = tf.Variable(tf.zeros((), dtype), trainable=False, name="pruned", shape=tf.TensorShape(None))
    constraint = MaskConstraint(mask, pruned, variable.constraint)
    set_constraint(variable, constraint)
    return constraint


def set_mask(variable: Any, mask: np.ndarray, frozen: bool = False) -> None:
    """Puts the values of `mask`, bools of the variable's shape, on `variable`; sets no weight.

    From the next step on pruned weights are 0, or with `frozen` what they are now.
    """
    held = constraint_of(variable) or attach(variable)
    held.mask.assign(tf.cast(mask, held.mask.dtype))
    held.pruned.assign(tf.convert_to_tensor(variable) if frozen else tf.zeros((), held.pruned.dtype))


def detach(variable: Any) -> None:
    """Takes the mask off `variable`, which keeps its zeros until it is trained."""
    constraint = constraint_of(variable)
    if constraint is not None:
        set_constraint(variable, constraint.inner)


def masked_gradients(gradients: Any, variables: Any) -> list[Any]:
    """Zeroes the gradients of pruned weights; passes the others through."""
    return [_masked_gradient(g, constraint_of(v)) for g, v in zip(gradients, variables)]


def set_constraint(variable: Any, constraint: Any) -> None:
    """Has a Keras or TensorFlow variable constrained so after each update, None for not at all."""
    if isinstance(variable, tf.Variable):
        # tf.Variable has no public setter; mixed precision and mirroring put another round it.
        variable = getattr(variable, "_variable", variable)
        getattr(variable, "_primary", variable)._constraint = constraint
    else:
        variable.constraint = constraint


def _masked_gradient(gradient: Any, constraint: MaskConstraint | None) -> Any:
    if gradient is None or constraint is None:
        return gradient
    return constraint.masked(tf.convert_to_tensor(gradient))


def parts(optimizer: Any) -> list[Any]:
    """Returns an optimizer and those that it wraps: for loss scaling, or one for each layer."""
    inner = getattr(optimizer, "inner_optimizer", None)
    wrapped = getattr(optimizer, "optimizers", []) if inner is None else [inner]
    return [optimizer, *(part for each in wrapped for part in parts(each))]


def mask_optimizer(optimizer: Any) -> None:
    """Makes this one optimizer mask gradients before it clips or applies them.

    The object stays what it was, `isinstance`, `__class__` and all its settings included,
    so Keras writes it into files as what it was; only its type becomes a subclass.
    """
    if not isinstance(optimizer, _MasksGradients):
        optimizer.__class__ = _masking_subclass(type(optimizer))


class _MasksGradients:
    """Marks the optimizers that `mask_optimizer` has been at."""


def _mask_averages(optimizer: Any) -> None:
    """Masks the moving averages of Keras 3, which `SwapEMAWeights` swaps with the weights."""
    for part in parts(optimizer):
        # Their place is that of their weight; where there is none, the list has None.
        averages = getattr(part, "_model_variables_moving_average", [])
        for variable, average in zip(part._trainable_variables, averages):
            if average is not None:
                _mask_values(average, constraint_of(variable))


def _mask_values(variable: Any, constraint: MaskConstraint | None) -> None:
    if constraint is not None:
        variable.assign(constraint.held(tf.convert_to_tensor(variable)))


@functools.cache
def _masking_subclass(cls: type) -> type:
    if hasattr(cls, "apply"):  # Keras 3, where apply_gradients calls apply

        def apply(self: Any, grads: Any, trainable_variables: Any = None) -> None:
            if trainable_variables is not None:
                trainable_variables = list(trainable_variables)
            grads = masked_gradients(grads, trainable_variables or self._trainable_variables)
            cls.apply(self, grads, trainable_variables)
            _mask_averages(self)

        method = apply
    else:

        def apply_gradients(self: Any, grads_and_vars: Any, *args: Any, **kwargs: Any) -> Any:
            pairs = list(grads_and_vars)
            grads = masked_gradients([g for g, _ in pairs], [v for _, v in pairs])
            pairs = list(zip(grads, [v for _, v in pairs]))
            return cls.apply_gradients(self, pairs, *args, **kwargs)

        method = apply_gradients

    def finalize_variable_values(self: Any, var_list: Any) -> None:
        var_list = list(var_list)
        cls.finalize_variable_values(self, var_list)
        for variable in var_list:
            _mask_values(variable, constraint_of(variable))

    namespace = {
        method.__name__: method,
        "finalize_variable_values": finalize_variable_values,
        "__class__": property(lambda self: cls),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
    }
    bases = (_MasksGradients, cls)
    return types.new_class(cls.__name__, bases, exec_body=lambda body: body.update(namespace))
