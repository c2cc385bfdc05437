"""What a model is beside the values of its variables, to leave it as it was found."""

from typing import Any

from tf_lottery.keras_api import flavour, masking, prunable

_CLASS = object.__dict__["__class__"]  # the optimizers that mask gradients have one of their own


class AsFound:
    """Remembers how a model was compiled, what of it is trainable, and what rides on its variables.

    Args:
        model: a built model of either flavour, before anything is done to it.
    """

    def __init__(self, model: Any):
        layers, optimizer = list(model._flatten_layers()), getattr(model, "optimizer", None)
        randoms = [getattr(layer, "_random_generator", None) for layer in layers]
        wrappers = [layer for layer in layers if prunable.is_pruning_wrapper(layer)]
        self._kept = [(part, dict(vars(part))) for part in (model, *randoms, *wrappers) if part is not None]
        self._kinds = [(part, type(part)) for part in (model, optimizer, *wrappers) if part is not None]
        # In tf_keras the variables of a frozen layer stay trainable.
        frozen_too = model.variables if flavour.flavour_of(model) == "keras" else []
        self._trainable = [(part, part._trainable) for part in (*layers, *frozen_too)]
        self._constraints = [(v, getattr(v, "constraint", None)) for v in model.variables]

    def put_back(self) -> None:
        """Makes the model what it was, masks and optimizer too.

        An optimizer that had no variables yet keeps those that it was given.
        """
        for part, attributes in self._kept:
            for name in vars(part).keys() - attributes:
                del vars(part)[name]
            vars(part).update(attributes)
        for part, kind in self._kinds:
            if type(part) is not kind:
                _CLASS.__set__(part, kind)
        for part, trainable in self._trainable:
            if part._trainable != trainable:
                part._trainable = trainable
        for variable, constraint in self._constraints:
            if getattr(variable, "constraint", None) is not constraint:
                masking.set_constraint(variable, constraint)
