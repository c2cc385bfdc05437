"""A Keras model of either flavour as named arrays, with a mask that holds."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import flavour, masking, prunable

Arrays = dict[str, np.ndarray]
OPTIMIZER = "optimizer/"


class MaskedModel:
    """Reads, writes and masks the variables of one compiled, built Keras model.

    A tf_keras model is trained inside TF-MOT wrappers that share its layers; a
    Keras 3 model is trained as it is. Either way the model that was given holds
    the masks and weights that are set here, and keeps them in its own `fit`.

    Args:
        model: a compiled and built `keras.Model`, or `tf_keras` Sequential or
            functional model.

    Raises:
        TypeError: not a Keras model.
        ValueError: not compiled, not built, nothing to prune, or a subclassed
            tf_keras model.
    """

    def __init__(self, model: Any):
        self.flavour = flavour.flavour_of(model)
        if getattr(model, "optimizer", None) is None:
            raise ValueError(
                f"The model {model.name!r} is not compiled. Call "
                "model.compile(optimizer=..., loss=..., metrics=['accuracy']) first."
            )
        if not hasattr(model.optimizer, "build"):
            raise ValueError(
                f"{type(model.optimizer).__module__}.{type(model.optimizer).__name__} is a legacy optimizer. "
                f"Compile the model with {self.flavour}.optimizers.{type(model.optimizer).__name__}."
            )
        kernels = prunable.prunable_slots(model)
        self.given = model
        self.trained = _wrapped(model) if self.flavour == "tf_keras" else model
        self.trained.optimizer.build(self.trained.trainable_variables)
        self._slots = prunable.slots(self.trained)
        self.shapes = {path: tuple(slot.variable.shape) for path, slot in kernels.items()}
        self._masks = {path: self._mask_variable(path) for path in self.shapes}
        self._hold_masks()
        self.fresh_state = self.state()

    def mask(self) -> Arrays:
        """Returns path -> bool array of the kernel's shape, True where a weight is kept."""
        return {path: mask.numpy().astype(bool) for path, mask in self._masks.items()}

    def set_mask(self, mask: Mapping[str, np.ndarray]) -> None:
        """Sets the mask and zeroes what it prunes.

        Raises:
            ValueError: paths or shapes are not those of the model's kernels.
        """
        check_fits({path: np.shape(array) for path, array in mask.items()}, self.shapes)
        for path, variable in self._masks.items():
            variable.assign(tf.cast(np.asarray(mask[path]), variable.dtype))
            kernel = self._slots[path].variable
            kernel.assign(masking.constraint_of(kernel).masked(tf.convert_to_tensor(kernel)))

    def kernels(self) -> Arrays:
        """Returns copies of the prunable weights by path."""
        return {path: np.array(self._slots[path].variable.numpy()) for path in self.shapes}

    def state(self) -> Arrays:
        """Returns a copy of every variable, the optimizer's under `"optimizer/"`."""
        return {path: np.array(variable.numpy()) for path, variable in self._state_variables().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets every variable to what `state` returned, bit for bit.

        Raises:
            ValueError: a variable is missing, unknown, or of another shape.
        """
        variables = self._state_variables()
        check_fits(
            {path: np.shape(array) for path, array in state.items()},
            {path: tuple(variable.shape) for path, variable in variables.items()},
        )
        for path, variable in variables.items():
            variable.assign(state[path])

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Sets the network's own variables, by path; the optimizer's are left alone.

        States of seed generators are no weights: only Keras 3 has them.

        Raises:
            ValueError: a variable is missing, unknown, or of another shape.
        """
        weights = {path: array for path, array in weights.items() if _is_weight(path)}
        variables = {path: slot.variable for path, slot in self._slots.items() if _is_weight(path)}
        check_fits(
            {path: np.shape(array) for path, array in weights.items()},
            {path: tuple(variable.shape) for path, variable in variables.items()},
        )
        for path, variable in variables.items():
            variable.assign(weights[path])

    def draw_initial(self, seed_of: Callable[[str], int]) -> Arrays:
        """Draws a whole network anew; sets its variables, and returns every one as `state` does.

        Trainable variables come from the layers' own initializers; the others, and
        biases without an initializer, are those that the model came with. The
        optimizer is as new.

        Args:
            seed_of: function from a variable's path to the seed of its draw.

        Raises:
            ValueError: a kernel's layer does not say how it is initialized.
        """
        self.restore({**self.fresh_state, **prunable.draw_initial(self.trained, seed_of)})
        self.reset_optimizer()
        return self.state()

    def reset_optimizer(self) -> None:
        """Gives the optimizer the state that it has before the first step on these weights.

        Raises:
            ValueError: the optimizer cannot be made anew from its own config.
        """
        optimizer = self.trained.optimizer
        try:
            fresh = type(optimizer).from_config(optimizer.get_config())
        except Exception as error:
            raise ValueError(
                f"The optimizer {type(optimizer).__name__} cannot be made anew from its get_config(), "
                f"as a fresh start needs: {error}"
            ) from error
        # Some optimizers keep a copy of the weights: it is made here, of those that are set now.
        fresh.build(self.trained.trainable_variables)
        for variable, value in zip(_variables_of(optimizer), _variables_of(fresh)):
            variable.assign(value)

    def _state_variables(self) -> dict[str, Any]:
        variables = {path: slot.variable for path, slot in self._slots.items()}
        # Names repeat in tf_keras and change with the model's; the order is fixed by the build.
        optimizer = enumerate(_variables_of(self.trained.optimizer))
        return variables | {f"{OPTIMIZER}{i:03d}": variable for i, variable in optimizer}

    def _mask_variable(self, path: str) -> tf.Variable:
        kernel = self._slots[path].variable
        held = masking.constraint_of(kernel)
        if held is not None:
            return held.mask
        mask = self._wrapper_masks().get(id(kernel))
        if mask is None:
            mask = tf.Variable(tf.ones(kernel.shape, tf.bool), trainable=False, name="mask")
        masking.attach(kernel, mask)
        return mask

    def _wrapper_masks(self) -> dict[int, tf.Variable]:
        if self.flavour == "keras":
            return {}
        from tf_lottery.keras_api import tfmot_wrappers

        return tfmot_wrappers.mask_variable_of(self.trained)

    def _hold_masks(self) -> None:
        masking.mask_optimizer(self.trained.optimizer)
        for model in (self.given, self.trained):
            # A train function that was traced before knows nothing of the masks.
            model.train_function = None


def apply_mask(model: Any, mask: Mapping[str, np.ndarray]) -> Any:
    """Masks a compiled Keras model of either flavour; it keeps its zeros while it trains.

    Args:
        model: a compiled and built model.
        mask: path -> bool array of the kernel's shape, True where a weight is kept.

    Returns:
        `model`.

    Raises:
        ValueError: paths or shapes are not those of the model's kernels.

    Example:
        >>> mask = {path: np.abs(w) > 0.1 for path, w in MaskedModel(model).kernels().items()}
        >>> apply_mask(model, mask) is model
        True
    """
    MaskedModel(model).set_mask(mask)
    return model


def check_fits(given: Mapping[str, tuple], expected: Mapping[str, tuple]) -> None:
    """Compares shapes by path.

    Raises:
        ValueError: names every path that is missing, unknown or of another shape.
    """
    differences = [
        f"  {path}: {_shape(given, path)}, the model has {_shape(expected, path)}"
        for path in dict.fromkeys([*expected, *given])
        if given.get(path) != expected.get(path)
    ]
    if differences:
        raise ValueError("These arrays do not fit the model:\n" + "\n".join(differences))


def _shape(shapes: Mapping[str, tuple], path: str) -> str:
    return f"shape {tuple(shapes[path])}" if path in shapes else "nothing"


def network_weights(state: Mapping[str, np.ndarray]) -> Arrays:
    """Returns what `state` holds of the network, without the optimizer's variables."""
    return {path: array for path, array in state.items() if not path.startswith(OPTIMIZER)}


def _variables_of(optimizer: Any) -> list[Any]:
    variables = optimizer.variables
    if not callable(variables):
        return list(variables)
    # tf_keras leaves the learning rate out, and callbacks change it.
    rate = getattr(optimizer, "_learning_rate", None)
    return [*variables(), *([rate] if isinstance(rate, tf.Variable) else [])]


def _is_weight(path: str) -> bool:
    return not path.startswith(OPTIMIZER) and not path.endswith("seed_generator_state")


def _wrapped(model: Any) -> Any:
    from tf_lottery.keras_api import tfmot_wrappers

    trained = tfmot_wrappers.wrap(model)
    trained.compile(**model._get_compile_args())
    return trained
