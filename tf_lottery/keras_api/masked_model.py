"""A Keras model of either flavour as named arrays, with a mask that holds."""

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import flavour, holding, masking, matching, optimizers, own_errors, prunable
from tf_lottery.keras_api.as_found import AsFound
from tf_lottery.tickets import masks

Arrays = dict[str, np.ndarray]
OPTIMIZER = "/optimizer/"  # no layer's path starts like this


class MaskedModel:
    """Reads, writes and masks the variables of one built Keras model.

    From here on the model holds its masks, in its own `fit` and through a later
    `compile` too. TF-MOT's pruning wrappers in it keep the masks that are set here.

    Args:
        model: a built `keras.Model` or `tf_keras.Model`. Where it is compiled, the
            optimizer's variables are part of its state.
        asked: paths or layer names of embeddings that are to be pruned too. Those that are
            masked already are kernels in any case.

    Raises:
        TypeError: not a Keras model.
        ValueError: not built, nothing to prune, or an optimizer that cannot be masked.
    """

    def __init__(self, model: Any, asked: Iterable[str] = ()):
        self.flavour = flavour.flavour_of(model)
        self.model = model
        prunable.check_built(model)
        self._found = AsFound(model)
        with own_errors.undoing(self._found.put_back):
            self._hold(asked)

    def _hold(self, asked: Iterable[str]) -> None:
        model = self.model
        held = [p for p, slot in prunable.slots(model).items() if masking.constraint_of(slot.variable)]
        kernels = prunable.prunable_slots(model, [*asked, *held])
        _check_strategy(model)
        with model.distribute_strategy.scope():
            if self.optimizer is not None:
                optimizers.refuse_legacy(self.optimizer, self.flavour)
                optimizers.build(model)
            if prunable.has_wrappers(model):
                from tf_lottery.keras_api import tfmot_wrappers

                tfmot_wrappers.hold_masks(model)
            prunable.expose_seeds(model)
            self._slots = prunable.slots(model)
            self.shapes = {path: tuple(slot.variable.shape) for path, slot in kernels.items()}
            for slot in kernels.values():
                if masking.constraint_of(slot.variable) is None:
                    masking.attach(slot.variable)
                    holding.forget_traces(model)
        holding.hold(model)
        self.fresh_state = self.state()
        self._mask_before = self.mask()
        # A callback may change the learning rate, and the config tells what it is at the time.
        self._compiled = self.optimizer, optimizers.config_of(self.optimizer)

    def undone_on_error(self) -> contextlib.AbstractContextManager[None]:
        """Gives the model back as it was found where the block raises, and raises what the user's code did.

        See `AsFound` and `own_errors`; the variables, the optimizer's too, have the values that they had.
        """
        return own_errors.undoing(self._undo)

    def _undo(self) -> None:
        for path, mask in self._mask_before.items():
            masking.set_mask(self._slots[path].variable, mask)
        self._found.put_back()
        self.restore(self.fresh_state)
        self.model.reset_metrics()

    @property
    def optimizer(self) -> Any:
        """The optimizer that the model is compiled with; None where it is not compiled."""
        return getattr(self.model, "optimizer", None)

    def mask(self) -> Arrays:
        """Returns path -> bool array of the kernel's shape, True where a weight is kept."""
        held = {path: masking.constraint_of(self._slots[path].variable).mask for path in self.shapes}
        return {path: mask.numpy().astype(bool) for path, mask in held.items()}

    def set_mask(self, mask: Mapping[str, np.ndarray], frozen: bool = False) -> None:
        """Sets the mask and zeroes what it prunes.

        Args:
            mask: path -> bool array, True where a weight is kept.
            frozen: pruned weights stay as they are instead, bit for bit, under every
                optimizer. A model's file in Keras's own format does not tell that they do.

        Raises:
            TypeError: an array is not of bools.
            ValueError: paths or shapes are not those of the model's kernels, or its
                optimizer cannot train what is left.
        """
        matching.check_fits({path: np.shape(array) for path, array in mask.items()}, self.shapes)
        masks.check(mask)
        optimizers.refuse_adafactor(self.optimizer, mask)
        for path in self.shapes:
            kernel = self._slots[path].variable
            masking.set_mask(kernel, np.asarray(mask[path]), frozen)
            kernel.assign(masking.constraint_of(kernel).held(tf.convert_to_tensor(kernel)))

    def kernels(self) -> Arrays:
        """Returns copies of the prunable weights by path."""
        return {path: np.array(self._slots[path].variable.numpy()) for path in self.shapes}

    def gradients(self, loss: Callable[[], tf.Tensor]) -> Arrays:
        """Returns path -> gradient by the prunable weights of what `loss` returns, a scalar."""
        variables = [self._slots[path].variable for path in self.shapes]

        def found() -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                value = loss()
            gradients = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return [tf.convert_to_tensor(gradient) for gradient in gradients]

        return {path: gradient.numpy() for path, gradient in zip(self.shapes, self.on_replica(found)())}

    def on_replica(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function as one that calls it on the model's replicas, which all do the same."""
        strategy = self.model.distribute_strategy
        run = strategy.run if strategy.num_replicas_in_sync == 1 else tf.function(strategy.run)

        def on_one(*arguments: Any) -> Any:
            returned = run(function, args=arguments)
            return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], returned)

        return on_one

    def state(self) -> Arrays:
        """Returns a copy of every variable, the optimizer's under `OPTIMIZER`."""
        return {path: np.array(variable.numpy()) for path, variable in self._state_variables().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Sets every variable to what `state` returned, bit for bit.

        Where `state` holds nothing of the optimizer, that starts anew.

        Raises:
            ValueError: a variable is missing, unknown, or of another shape.
        """
        variables = self._state_variables()
        anew = not any(path.startswith(OPTIMIZER) for path in state)
        if anew:
            variables = {path: variables[path] for path in self._slots}
        matching.check_fits(
            {path: np.shape(array) for path, array in state.items()},
            {path: tuple(variable.shape) for path, variable in variables.items()},
        )
        for path, variable in variables.items():
            variable.assign(state[path])
        if anew:
            self.reset_optimizer()

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Sets the network's own variables, by path; the optimizer's are left alone.

        States of seed generators are no weights: they have another form in either Keras.

        Raises:
            ValueError: a variable is missing, unknown, or of another shape.
        """
        weights = {path: array for path, array in weights.items() if is_weight(path)}
        matching.check_fits({p: np.shape(array) for p, array in weights.items()}, weight_shapes(self.model))
        for path, array in weights.items():
            self._slots[path].variable.assign(array)

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
        state = {**network_weights(self.fresh_state), **prunable.draw_initial(self.model, seed_of)}
        self.restore(state)
        return self.state()

    def reset_optimizer(self) -> None:
        """Gives the optimizer the state that it has before the first step on these weights.

        Raises:
            ValueError: the optimizer cannot be made anew from its own config.
        """
        optimizer = self.optimizer
        if optimizer is None:
            return
        given, config = self._compiled
        try:
            config = copy.deepcopy(config) if optimizer is given and config else optimizer.get_config()
            with self.model.distribute_strategy.scope():
                fresh = type(optimizer).from_config(config)
        except Exception as error:
            raise ValueError(
                f"The optimizer {type(optimizer).__name__} cannot be made anew from its get_config(), "
                f"as a fresh start needs: {error}"
            ) from error
        # Some optimizers keep a copy of the weights: it is made here, of those that are set now.
        with self.model.distribute_strategy.scope():
            fresh.build(self.model.trainable_variables)
            optimizers.build(self.model)
        for variable, value in zip(
            optimizers.variables_of(optimizer), optimizers.variables_of(fresh), strict=True
        ):
            variable.assign(value)

    @property
    def step(self) -> int:
        """The optimizer's step counter; 0 where the model is not compiled."""
        return 0 if self.optimizer is None else int(np.asarray(self.optimizer.iterations))

    def set_step(self, step: int) -> None:
        """Sets the optimizer's step counter, which its learning-rate schedule goes by."""
        optimizers.set_step(self.optimizer, step)

    def finalize(self) -> None:
        """Does what `fit` does at its end: some optimizers put averages in the weights' place."""
        self.optimizer.finalize_variable_values(self.model.trainable_variables)

    def _state_variables(self) -> dict[str, Any]:
        variables = {path: slot.variable for path, slot in self._slots.items()}
        # Names repeat in tf_keras and change with the model's; the order is fixed by the build.
        optimizer = enumerate(optimizers.variables_of(self.optimizer) if self.optimizer is not None else [])
        return variables | {f"{OPTIMIZER}{i:03d}": variable for i, variable in optimizer}


def _check_strategy(model: Any) -> None:
    """Refuses a model under a strategy that it was not made under: its replicas would go their own ways."""
    strategy = model.distribute_strategy
    variables = [v if isinstance(v, tf.Variable) else v.value for v in model.trainable_variables]
    made_under = strategy.extended.variable_created_in_scope
    if strategy.num_replicas_in_sync > 1 and not all(map(made_under, variables)):
        raise ValueError(
            f"The model {model.name!r} was not made under the {type(strategy).__name__} that it is to be "
            "trained under: make and compile it inside `with strategy.scope():`."
        )


def apply_mask(model: Any, mask: Mapping[str, np.ndarray]) -> Any:
    """Masks a Keras model of either flavour; it keeps its zeros while it trains.

    Args:
        model: a built model; it may be compiled before or after.
        mask: path -> bool array of the kernel's shape, True where a weight is kept. An
            embedding may be among them.

    Returns:
        `model`.

    Raises:
        ValueError: paths or shapes are not those of the model's kernels.

    Example:
        >>> mask = {path: np.abs(w) > 0.1 for path, w in MaskedModel(model).kernels().items()}
        >>> apply_mask(model, mask) is model
        True
    """
    masked = MaskedModel(model, asked=mask)
    with masked.undone_on_error():
        masked.set_mask(mask)
    return model


def weight_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Returns path -> shape of a built model's own variables, random seeds left out.

    Raises:
        TypeError: not a Keras model.
        ValueError: not built.
    """
    prunable.check_built(model)
    return {p: tuple(slot.variable.shape) for p, slot in prunable.slots(model).items() if is_weight(p)}


def network_weights(state: Mapping[str, np.ndarray]) -> Arrays:
    """Returns what `state` holds of the network, without the optimizer's variables."""
    return {path: array for path, array in state.items() if not path.startswith(OPTIMIZER)}


def is_weight(path: str) -> bool:
    """Whether a path of a state is of a weight, and not the optimizer's or a random seed."""
    return not path.startswith(OPTIMIZER) and not path.endswith(prunable.SEED)
