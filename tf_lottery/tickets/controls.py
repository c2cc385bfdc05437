"""Controls: what a ticket is held against, as functions of the ticket.

A control takes one `FoundTicket` and returns the mask, the state and the step to train from; a
fourth value, True, freezes pruned weights at their value in the state instead of 0. To add one,
write such a function and pass it, or name it in `CONTROLS`.

Below, w_0 are weights at initialization, w_k those that the ticket starts from, w_T those of the
trained dense network.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tf_lottery import names
from tf_lottery.tickets.masks import SEARCH, TICKET, Arrays, Mask


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
        initial: path -> array, every variable at initialization.
        trained: path -> array, the dense network's own variables after its training.
        scores: takes no arguments; returns path -> the criterion's scores of the
            trained dense network.
    """

    mask: Mask
    rewound: Arrays
    step: int
    redraw: Callable[[], Arrays]
    rng: np.random.Generator
    initial: Arrays
    trained: Arrays
    scores: Callable[[], Arrays]


Beginning = tuple[Mask, Arrays, int] | tuple[Mask, Arrays, int, bool]
Control = Callable[[FoundTicket], Beginning]


def reinit(ticket: FoundTicket) -> Beginning:
    """The ticket's mask on freshly drawn weights, trained from step 0 (1803.03635, section 2)."""
    return ticket.mask, ticket.redraw(), 0


def same_sign(ticket: FoundTicket) -> Beginning:
    """Freshly drawn weights with the ticket's signs: |w_new| sign(w_k) (1905.01067, section 4)."""
    fresh = ticket.redraw()
    state = _with_kernels(ticket, fresh, lambda path: np.copysign(fresh[path], ticket.rewound[path]))
    return ticket.mask, state, 0


def permuted(ticket: FoundTicket) -> Beginning:
    """All of a layer's w_0 in another order, trained from step 0: 1905.01067's "reinit"."""
    state = _with_kernels(ticket, ticket.initial, lambda path: _shuffled(ticket.initial[path], ticket.rng))
    return ticket.mask, state, 0


def signed_constant(ticket: FoundTicket) -> Beginning:
    """The ticket's signs at one magnitude per layer: sign(w_k) std(w_0) (1905.01067, section 4)."""
    state = _with_kernels(
        ticket, ticket.rewound, lambda path: np.sign(ticket.rewound[path]) * _deviation(ticket, path)
    )
    return ticket.mask, state, ticket.step


def resampled(ticket: FoundTicket) -> Beginning:
    """Weights drawn, with replacement, from the layer's survivors (1803.03635, app. F.3)."""

    def drawn(path: str) -> np.ndarray:
        weights, kept = ticket.rewound[path], ticket.mask[path]
        return ticket.rng.choice(weights[kept], kept.shape) if kept.any() else weights

    return ticket.mask, _with_kernels(ticket, ticket.rewound, drawn), ticket.step


def noise(ticket: FoundTicket, deviations: float = 1.0) -> Beginning:
    """The ticket's weights with noise: w_k + s std(w_0) N(0, 1) (1803.03635, app. F.7).

    `"noise"` is s = 1; for another s write `"noise:0.5"`.
    """

    def noisy(path: str) -> np.ndarray:
        weights = ticket.rewound[path]
        return weights + deviations * _deviation(ticket, path) * ticket.rng.normal(size=weights.shape)

    return ticket.mask, _with_kernels(ticket, ticket.rewound, noisy), ticket.step


def shuffle(ticket: FoundTicket) -> Beginning:
    """A random mask with as many weights in each layer, on the ticket's weights (1803.03635, app. E)."""
    return _shuffled_mask(ticket), ticket.rewound, ticket.step


def random(ticket: FoundTicket) -> Beginning:
    """A random mask with as many weights in the whole network, on the ticket's weights."""
    flat = _shuffled(np.concatenate([array.ravel() for array in ticket.mask.values()]), ticket.rng)
    parts = np.split(flat, np.cumsum([array.size for array in ticket.mask.values()])[:-1])
    mask = {path: part.reshape(array.shape) for (path, array), part in zip(ticket.mask.items(), parts)}
    return mask, ticket.rewound, ticket.step


def random_ticket(ticket: FoundTicket) -> Beginning:
    """A random mask with as many weights in each layer, on freshly drawn weights, from step 0."""
    return _shuffled_mask(ticket), ticket.redraw(), 0


def inverted(ticket: FoundTicket) -> Beginning:
    """As many weights in each layer, those of the lowest scores in the dense network (2009.08576)."""
    mask, scores = {}, ticket.scores()
    for path, kept in ticket.mask.items():
        mask[path] = np.zeros(kept.shape, bool)
        lowest = np.argsort(scores[path], axis=None, kind="stable")[: np.count_nonzero(kept)]
        mask[path].flat[lowest] = True
    return mask, ticket.rewound, ticket.step


def trained(ticket: FoundTicket) -> Beginning:
    """The ticket's mask on w_T, trained from step 0: training state instead of initialization."""
    return ticket.mask, ticket.trained, 0


def freeze_initial(ticket: FoundTicket) -> Beginning:
    """Pruned weights frozen at w_0 instead of 0, from step 0 (1905.01067, section 5)."""
    return ticket.mask, ticket.initial, 0, True


def freeze_by_movement(ticket: FoundTicket) -> Beginning:
    """Pruned weights frozen at 0 where |w_T| < |w_0|, else at w_0; from step 0 (1905.01067, section 5)."""
    state = _with_kernels(
        ticket,
        ticket.initial,
        lambda path: np.where(ticket.mask[path], ticket.initial[path], _zero_if_moved_there(ticket, path)),
    )
    return ticket.mask, state, 0, True


def freeze_by_movement_all(ticket: FoundTicket) -> Beginning:
    """`freeze_by_movement`, where weights that are kept start at 0 by the same rule (1905.01067)."""
    state = _with_kernels(ticket, ticket.initial, functools.partial(_zero_if_moved_there, ticket))
    return ticket.mask, state, 0, True


CONTROLS: Mapping[str, Control] = {
    control.__name__: control
    for control in (
        reinit,
        shuffle,
        random,
        same_sign,
        signed_constant,
        permuted,
        resampled,
        noise,
        random_ticket,
        inverted,
        trained,
        freeze_initial,
        freeze_by_movement,
        freeze_by_movement_all,
    )
}
ARGUMENTS: Mapping[str, str] = {"noise": "deviations"}  # the parameter that a number after a colon is for


def resolve(controls: Iterable[str | Control]) -> dict[str, Control]:
    """Returns name -> control; a function goes by its own name.

    A name may have an argument, `"noise:0.5"`, and a number from 2 on, `"reinit_2"`,
    `"noise:0.5_3"`: the same control, trained once more with other draws.

    Raises:
        TypeError: one string where several controls belong, or a callable that has no name.
        ValueError: an unknown name, a wrong argument or number, or a name that two
            functions or the ticket go by.

    Example:
        >>> list(resolve(["reinit", "reinit_2", "noise:0.5"]))
        ['reinit', 'reinit_2', 'noise:0.5']
    """
    if isinstance(controls, str):
        raise TypeError(f"Controls are a list. Received {controls!r}: write [{controls!r}].")
    found: dict[str, Control] = {}
    for control in controls:
        name = names.name_of(control, "control") if callable(control) else control
        function = control if callable(control) else _named(control)
        if found.setdefault(name, function) is not function:
            raise ValueError(f"Two controls are called {name!r}: rename one of the functions.")
        if name in (TICKET, SEARCH):
            raise ValueError(f"A control cannot be called {name!r}: another arm is.")
    return found


_NAME = re.compile(r"(?P<name>.+?)(:(?P<argument>.*?))?(_(?P<number>[0-9]+))?")
_bound = functools.cache(functools.partial)  # the same argument makes the same control


def _named(name: str) -> Control:
    parts = _NAME.fullmatch(name) if isinstance(name, str) else None
    base, argument, number = parts.group("name", "argument", "number") if parts else (name, None, None)
    control = names.find(base, CONTROLS, "control")
    if number is not None and not re.fullmatch("[2-9]|[1-9][0-9]{1,5}", number):
        first = name.rpartition("_")[0]
        raise ValueError(
            f"Controls of one kind are numbered from 2: write {first!r} for the first and "
            f"'{first}_2' for the next. Received {name!r}."
        )
    if argument is None:
        return control
    if base not in ARGUMENTS:
        raise ValueError(f"Control {base!r} takes no argument: write {base!r}. Received {name!r}.")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", argument) or not 0 < float(argument) < math.inf:
        raise ValueError(
            f"Control {base!r} takes a number above 0, its {ARGUMENTS[base]}: write such as '{base}:0.5'. "
            f"Received {name!r}."
        )
    return _bound(control, **{ARGUMENTS[base]: float(argument)})


def _with_kernels(ticket: FoundTicket, state: Arrays, kernel: Callable[[str], np.ndarray]) -> Arrays:
    """Returns `state` with `kernel(path)` for each kernel, in its own dtype."""
    return {**state, **{path: kernel(path).astype(state[path].dtype) for path in ticket.mask}}


def _zero_if_moved_there(ticket: FoundTicket, path: str) -> np.ndarray:
    initial = ticket.initial[path]
    return np.where(np.abs(ticket.trained[path]) < np.abs(initial), 0, initial)


def _deviation(ticket: FoundTicket, path: str) -> float:
    return float(np.std(ticket.initial[path], dtype=np.float64))


def _shuffled_mask(ticket: FoundTicket) -> Mask:
    return {path: _shuffled(kept, ticket.rng) for path, kept in ticket.mask.items()}


def _shuffled(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(array.ravel()).reshape(array.shape)
