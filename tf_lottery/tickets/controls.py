"""Controls: what a ticket is held against, as functions of the ticket.

A control takes one `Found` and returns the mask and the weights to train. To add
one, write such a function and pass it, or name it in `CONTROLS`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tf_lottery import names
from tf_lottery.tickets.masks import Arrays, Mask


@dataclasses.dataclass(frozen=True)
class Found:
    """A ticket at one level, and what a control may make of it.

    Attributes:
        mask: the ticket's mask.
        initial: path -> the network's initial weights, biases and statistics too.
        redraw: takes no arguments; returns path -> a fresh draw of the trainable
            weights from each layer's own initializer, the same at each call.
        rng: a generator of its own for controls that draw.
    """

    mask: Mask
    initial: Arrays
    redraw: Callable[[], Arrays]
    rng: np.random.Generator


Control = Callable[[Found], tuple[Mask, Arrays]]


def reinit(found: Found) -> tuple[Mask, Arrays]:
    """The ticket's mask on freshly drawn weights (1803.03635, section 2)."""
    return found.mask, {**found.initial, **found.redraw()}


def shuffle(found: Found) -> tuple[Mask, Arrays]:
    """A random mask with as many weights in each layer, on the initial weights (1803.03635, app. E)."""
    return {path: _shuffled(mask, found.rng) for path, mask in found.mask.items()}, found.initial


def random(found: Found) -> tuple[Mask, Arrays]:
    """A random mask with as many weights in the whole network, on the initial weights."""
    flat = np.concatenate([mask.ravel() for mask in found.mask.values()])
    parts = np.split(_shuffled(flat, found.rng), np.cumsum([mask.size for mask in found.mask.values()])[:-1])
    return {
        path: part.reshape(mask.shape) for (path, mask), part in zip(found.mask.items(), parts)
    }, found.initial


_TICKET = "ticket"
CONTROLS: Mapping[str, Control] = {"reinit": reinit, "shuffle": shuffle, "random": random}


def resolve(controls: Iterable[str | Control]) -> dict[str, Control]:
    """Returns name -> control; a function goes by its own name.

    Raises:
        TypeError: one string where several controls belong, or a callable that has no name.
        ValueError: an unknown name, or one that two functions or the ticket go by.
    """
    if isinstance(controls, str):
        raise TypeError(f"Controls are a list. Received {controls!r}: write [{controls!r}].")
    found: dict[str, Control] = {}
    for control in controls:
        name = names.name_of(control, "control") if callable(control) else control
        function = control if callable(control) else names.find(control, CONTROLS, "control")
        if found.setdefault(name, function) is not function:
            raise ValueError(f"Two controls are called {name!r}: rename one of the functions.")
        if name == _TICKET:
            raise ValueError(f"A control cannot be called {name!r}, as what it is held against is.")
    return found


def _shuffled(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(mask.ravel()).reshape(mask.shape)
