"""The variables of a model by path, and which of them can be pruned.

A path is made of layer names and the variable's own name, `"encoder/dense/kernel"`.
The model's name is left out, and so are TF-MOT's wrappers: a network has the same
paths in both Kerases, wrapped or not.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from tf_lottery.keras_api import flavour
from tf_lottery.tickets import seeds

SEED = "seed_generator_state"


@dataclasses.dataclass(frozen=True)
class Slot:
    """One variable and the layer that owns it."""

    variable: Any
    layer: Any
    name: str


def slots(model: Any) -> dict[str, Slot]:
    """Returns every variable of a built model by path, in the order of its layers.

    Trainable or not: kernels, biases, normalization statistics, the states of
    seed generators. What TF-MOT's wrappers add is not the network's and left out.
    """
    found: dict[str, Slot] = {}
    for path, slot in _walk(model, "", set(), set()):
        unique, n = path, 1
        while unique in found:
            unique, n = f"{path}_{n}", n + 1
        found[unique] = slot
    return found


def prunable_slots(model: Any, asked: Iterable[str] = ()) -> dict[str, Slot]:
    """Returns the kernels: trainable, rank 2 or more, no bias, no normalization, no embedding.

    Args:
        model: a model of either flavour.
        asked: paths or layer names; embeddings among them count as kernels.

    Raises:
        ValueError: the model is not built, or has nothing to prune.
    """
    check_built(model)
    kernels = {
        path: slot
        for path, slot in slots(model).items()
        if _is_kernel(slot) or (_is_embedding(slot) and any(is_of(path, name) for name in asked))
    }
    if not kernels:
        raise ValueError(
            f"The model {model.name!r} has nothing to prune: no trainable kernel of rank 2 or more."
        )
    return kernels


def check_built(model: Any) -> None:
    """Refuses what has no variables yet.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it is not built.
    """
    flavour.flavour_of(model)
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} has no weights yet. Build it first: give it an Input layer, "
            "or call it on a batch."
        )


def expose_seeds(model: Any) -> None:
    """Makes the random states of tf_keras layers variables, as those of Keras 3 are.

    Unless it is told otherwise, tf_keras keeps them inside ops, where nothing can read them
    or set them back. A layer without a seed is given one, always the same: to draw it would change the
    random state of the user's program, and make what is trained depend on it.
    """
    for number, layer in enumerate(model._flatten_layers()):
        random = getattr(layer, "_random_generator", None)
        if getattr(random, "_rng_type", None) == "legacy_stateful":
            if random._seed is None:
                random._seed = seeds.seed("random states", number)
            random._rng_type, random._built = random.RNG_STATEFUL, False
            random._maybe_init()


def is_of(path: str, name: str) -> bool:
    """Whether a variable's path is `name`, or lies in the layer of that name or path."""
    return path == name or path.startswith(f"{name}/")


def is_pruning_wrapper(layer: Any) -> bool:
    """Whether a layer is TF-MOT's `PruneLowMagnitude` or ours; imports nothing."""
    return any(cls.__name__ == "PruneLowMagnitude" for cls in type(layer).__mro__)


def has_wrappers(model: Any) -> bool:
    """Whether there are pruning wrappers of TF-MOT in a model."""
    return any(is_pruning_wrapper(layer) for layer in model._flatten_layers())


def sublayers(layer: Any) -> list[Any]:
    """Returns the layers directly inside `layer`."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def draw_initial(model: Any, seed_of: Callable[[str], int]) -> dict[str, np.ndarray]:
    """Draws new initial values from the layers' own initializers.

    Args:
        model: a built model of either flavour.
        seed_of: function from a variable's path to the integer seed of its draw.

    Returns:
        Path -> array, for every trainable variable whose layer names an
        initializer. Frozen layers are left out, and so are vectors and scalars
        without one; kernels without one are refused.

    Raises:
        ValueError: a trainable kernel's layer has no `<name>_initializer`.
    """
    initializers = flavour.keras_module(flavour.flavour_of(model)).initializers
    draws = {}
    for path, slot in slots(model).items():
        if not _is_trained(slot):
            continue
        initializer = _initializer_of(slot)
        if initializer is not None:
            seeded = _with_seed(initializers.get(initializer), seed_of(path))
            draws[path] = np.array(seeded(tuple(slot.variable.shape), dtype=slot.variable.dtype))
            _open_forget_gate(slot, draws[path])
        elif _is_kernel(slot):
            raise ValueError(
                f"Cannot draw {path!r} anew: its layer {type(slot.layer).__name__} has no attribute "
                f"{slot.name}_initializer. Set one to the initializer that add_weight was given."
            )
    return draws


def _walk(layer: Any, prefix: str, layers: set[int], variables: set[int]) -> Iterator[tuple[str, Slot]]:
    if id(layer) in layers:
        return
    layers.add(id(layer))
    children = sublayers(layer)
    inner = {id(v) for child in children for v in _variables(child)}
    for variable in _variables(layer):
        if id(variable) in inner or id(variable) in variables or is_pruning_wrapper(layer):
            continue
        variables.add(id(variable))
        name = variable.name.split("/")[-1].split(":")[0]
        if name == "kernel" and type(layer).__name__.startswith("Depthwise"):
            name = "depthwise_kernel"  # as tf_keras has it, and as its initializer goes by
        yield prefix + name, Slot(variable, layer, name)
    if (seed := _seed_of(layer)) is not None:
        yield prefix + SEED, Slot(seed, layer, SEED)
    for child in children:
        below = prefix if is_pruning_wrapper(child) else f"{prefix}{child.name}/"
        yield from _walk(child, below, layers, variables)


def _variables(layer: Any) -> list[Any]:
    # Keras 3 keeps the states of seed generators in `variables` only.
    return layer.variables


def _seed_of(layer: Any) -> Any:
    random = getattr(layer, "_random_generator", None)
    return getattr(getattr(random, "_generator", None), "state", None)


def _is_trained(slot: Slot) -> bool:
    # In tf_keras the variables of a frozen layer stay trainable.
    return slot.variable.trainable and slot.layer.trainable


def _is_kernel(slot: Slot) -> bool:
    return _is_matrix(slot) and "embeddings" not in slot.name


def _is_embedding(slot: Slot) -> bool:
    return _is_matrix(slot) and "embeddings" in slot.name


def _is_matrix(slot: Slot) -> bool:
    kind = type(slot.layer).__name__
    return (
        _is_trained(slot)
        and len(slot.variable.shape) >= 2
        and "bias" not in slot.name
        and not kind.endswith("Normalization")
        and kind != "PReLU"  # a slope for each unit
    )


def _initializer_of(slot: Slot) -> Any:
    for name in (slot.name, slot.name.removesuffix("_kernel")):
        initializer = getattr(slot.layer, f"{name}_initializer", None)
        if initializer is not None:
            return initializer
    return None


def _open_forget_gate(slot: Slot, bias: np.ndarray) -> None:
    # An LSTM writes these ones itself, past its bias_initializer.
    if slot.name == "bias" and getattr(slot.layer, "unit_forget_bias", False):
        gates = bias.reshape(4, -1)  # input, forget, cell, output
        gates[1] = 1


def _with_seed(initializer: Any, seed: int) -> Any:
    if "seed" not in inspect.signature(type(initializer).__init__).parameters:
        return initializer
    return type(initializer).from_config({**initializer.get_config(), "seed": seed})
