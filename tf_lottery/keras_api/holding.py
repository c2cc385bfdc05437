"""How a model keeps its masks: through every later `compile`, and in Keras's own files.

Importing this module imports no TensorFlow: Keras is told of it as soon as Keras is
imported, whatever its backend.
"""

import functools
import importlib
import pathlib
import types
from typing import Any

import numpy as np

from tf_lottery import files
from tf_lottery.keras_api import flavour, matching, prunable

_FILE = "tf_lottery_masks.safetensors"
_OWN_CLASS = "tf_lottery_own_class"


class HoldsMasks:
    """What `hold` adds to the class of a model.

    Every optimizer that the model is compiled with masks its gradients. The native Keras
    format keeps the masks as an asset of the model, and `load_model` brings them back.
    """

    _flavour: str  # of the Keras that asks for it

    @property
    def optimizer(self) -> Any:
        try:
            return self.__dict__["optimizer"]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'optimizer'") from None

    @optimizer.setter
    def optimizer(self, optimizer: Any) -> None:
        from tf_lottery.keras_api import masking

        if optimizer is not None:
            masking.mask_optimizer(optimizer)
        self.__dict__["optimizer"] = optimizer

    def get_config(self) -> dict[str, Any]:
        """Returns the config of the model's own class, and which class that is."""
        own, name = _own_class(self), flavour.flavour_of(self)
        described = {
            "flavour": name,
            "module": own.__module__,
            "class_name": own.__name__,
            "registered_name": flavour.keras_module(name).saving.get_registered_name(own),
            "wrapped": prunable.has_wrappers(self),
        }
        return {**super().get_config(), _OWN_CLASS: described}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        config = dict(config)
        try:
            described = dict(config.pop(_OWN_CLASS))
            name, wrapped = described.pop("flavour"), described.pop("wrapped")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("The config of a masked model does not say of which class it is.") from error
        if name != cls._flavour:  # each Keras has its own rules of what a file may ask for
            raise ValueError(f"A masked model of {cls._flavour} cannot be one of {name!r}.")
        saving = flavour.keras_module(name).saving
        if wrapped:
            importlib.import_module("tf_lottery.keras_api.tfmot_wrappers")  # which Keras asks for by name
        return hold(saving.deserialize_keras_object({**described, "config": config}, custom_objects))

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, *arguments = super().__reduce__()
        if getattr(rebuild, "__self__", None) is type(self):
            # A class that is made here is found under no name; the file tells the way back to it.
            rebuild = getattr(_own_class(self), rebuild.__name__)
        return rebuild, *arguments

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Saves as Keras does; in other formats than its native one, a model without masks."""
        if str(filepath).endswith(".keras"):
            return super().save(filepath, *args, **kwargs)
        holding, self.__class__ = type(self), _own_class(self)
        try:
            return self.save(filepath, *args, **kwargs)
        finally:
            self.__class__ = holding

    def save_assets(self, folder: str) -> None:
        if hasattr(super(), "save_assets"):
            super().save_assets(folder)
        masks = {path: mask.numpy().astype(bool) for path, mask in _masks_of(self).items()}
        files.write_tensors(pathlib.Path(folder) / _FILE, masks, _shapes_of(prunable.slots(self)))

    def load_assets(self, folder: str) -> None:
        if hasattr(super(), "load_assets"):
            super().load_assets(folder)
        path = pathlib.Path(folder) / _FILE
        masks, shapes = files.read_tensors(path)
        plain = isinstance(shapes, dict) and all(isinstance(shape, list) for shape in shapes.values())
        if not plain or any(mask.dtype != bool for mask in masks.values()):
            raise ValueError(f"{_FILE} in the model's file holds no masks.")
        _set_masks(self, masks, shapes)


def hold(model: Any) -> Any:
    """Makes `model` keep the masks of its variables, and returns it.

    The object stays what it was, `isinstance` included; only its class becomes a
    subclass of its own class. `let_go` takes that back.
    """
    from tf_lottery.keras_api import masking

    if not isinstance(model, HoldsMasks):
        model.__class__ = _holding_subclass(type(model), flavour.flavour_of(model))
        forget_traces(model)
    if getattr(model, "optimizer", None) is not None:
        masking.mask_optimizer(model.optimizer)
    return model


def forget_traces(model: Any) -> None:
    """Drops a train function that was traced before masks were put on, or taken off."""
    model.train_function = None


def let_go(model: Any) -> None:
    """Takes back what `hold` did. Masks that are on the variables stay there."""
    if isinstance(model, HoldsMasks):
        model.__class__ = _own_class(model)
    forget_traces(model)


def strip(model: Any) -> Any:
    """Takes masks, and TF-MOT's wrappers, off a model: an ordinary Keras model again.

    Its weights stay as they are, zeros among them; in training these are free to move.

    Returns:
        `model`, or where there were wrappers one without them that shares its weights.

    Example:
        >>> import tf_lottery
        >>> ticket = tf_lottery.find_ticket(model, x, y, epochs=1, levels=1, verbose=0)
        >>> strip(model) is model
        True
    """
    from tf_lottery.keras_api import masking

    for slot in prunable.slots(model).values():
        masking.detach(slot.variable)
    let_go(model)
    if not prunable.has_wrappers(model):
        return model
    from tf_lottery.keras_api import tfmot_wrappers

    return tfmot_wrappers.unwrap(model)


def _masks_of(model: Any) -> dict[str, Any]:
    from tf_lottery.keras_api import masking

    held = {path: masking.constraint_of(slot.variable) for path, slot in prunable.slots(model).items()}
    return {path: constraint.mask for path, constraint in held.items() if constraint is not None}


def _shapes_of(slots: dict[str, prunable.Slot]) -> dict[str, list[int]]:
    return {path: list(slot.variable.shape) for path, slot in slots.items()}


def _set_masks(model: Any, masks: dict[str, np.ndarray], shapes: dict[str, list[int]]) -> None:
    """Puts masks on a model; `shapes` are of all variables of the network that they are from."""
    from tf_lottery.keras_api import masking

    slots = prunable.slots(model)
    expected = _shapes_of(slots)
    masks = matching.renamed(masks, shapes, expected)
    matching.check_fits(
        {path: mask.shape for path, mask in masks.items()},
        {path: tuple(expected[path]) for path in masks if path in expected},
    )
    for path, mask in masks.items():
        masking.set_mask(slots[path].variable, mask)


@functools.cache
def _holding_subclass(cls: type, flavour_name: str) -> type:
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "_flavour": flavour_name}
    if getattr(cls.get_config, "_is_default", False):
        # Keras 3 looks at this mark to refuse, when it saves, what it could not make anew.
        names["get_config"] = _get_config
    holding = types.new_class(cls.__name__, (HoldsMasks, cls), exec_body=lambda body: body.update(names))
    # Files ask for it by this name. Whichever class has the name last: `from_config` is the same.
    _register(flavour.keras_module(flavour_name), holding)
    return holding


def _get_config(model: HoldsMasks) -> dict[str, Any]:
    return HoldsMasks.get_config(model)


_get_config._is_default = True


def register(keras: types.ModuleType) -> None:
    """Tells a Keras what class to make of a model that was saved with its masks."""
    _register(keras, type("HoldsMasks", (HoldsMasks,), {"_flavour": keras.__name__}))


def _register(keras: types.ModuleType, cls: type) -> None:
    keras.saving.register_keras_serializable("tf_lottery", "HoldsMasks")(cls)


def _own_class(model: HoldsMasks) -> type:
    return type(model).__bases__[1]
