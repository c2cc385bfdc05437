"""Controls: what a ticket is held against, as functions of the ticket.

A control takes one `FoundTicket` and returns the mask, the state and the step to train from. To add
one, write such a function and pass it, or name it in `CONTROLS`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tf_lottery import names
from tf_lottery.tickets.masks import TICKET, Arrays, Mask


@dataclasses.dataclass(frozen=True)
class FoundTicket:
    """A ticket at one level, and what a control may make of it.

    Attributes:
        mask: the ticket's mask.
        rewound: path -> array, every variable at the step that the ticket starts from.
        step: that step; 0 is initialization.
        redraw: takes no arguments; returns path -> array, every variable of the
            network freshly drawn from its initializers, the same at each call.
        rng: a generator of its own for controls that draw.
    """

    mask: Mask
    rewound: Arrays
    step: int
    redraw: Callable[[], Arrays]
    rng: np.random.Generator


Control = Callable[[FoundTicket], tuple[Mask, Arrays, int]]


def reinit(ticket: FoundTicket) -> tuple[Mask, Arrays, int]:
    """The ticket's mask on freshly drawn weights, trained from step 0 (1803.03635, section 2)."""
    return ticket.mask, ticket.redraw(), 0


def shuffle(ticket: FoundTicket) -> tuple[Mask, Arrays, int]:
    """A random mask with as many weights in each layer, on the ticket's weights (1803.03635, app. E)."""
    mask = {path: _shuffled(array, ticket.rng) for path, array in ticket.mask.items()}
    return mask, ticket.rewound, ticket.step


def random(ticket: FoundTicket) -> tuple[Mask, Arrays, int]:
    """A random mask with as many weights in the whole network, on the ticket's weights."""
    flat = _shuffled(np.concatenate([array.ravel() for array in ticket.mask.values()]), ticket.rng)
    parts = np.split(flat, np.cumsum([array.size for array in ticket.mask.values()])[:-1])
    mask = {path: part.reshape(array.shape) for (path, array), part in zip(ticket.mask.items(), parts)}
    return mask, ticket.rewound, ticket.step


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
        if name == TICKET:
            raise ValueError(f"A control cannot be called {name!r}, as what it is held against is.")
    return found


def _shuffled(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(mask.ravel()).reshape(mask.shape)
