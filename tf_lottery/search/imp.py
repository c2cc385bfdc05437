"""Iterative pruning with rewinding, and its controls (1803.03635, 1912.05671)."""

import dataclasses
import functools
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import pruning, scores, seeds
from tf_lottery.tickets.controls import Control, FoundTicket
from tf_lottery.tickets.masks import Mask
from tf_lottery.tickets.scores import Criterion, Evidence
from tf_lottery.training import environment
from tf_lottery.training.arms import TICKET, Arrays, Start, Trained
from tf_lottery.training.history import History

Train = Callable[[Start], Trained]
Redraw = Callable[[int], Arrays]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done between two trainings.

    Attributes:
        levels: how often the network is pruned; `levels + 1` tickets are trained.
        fractions: path -> share of the layer's remaining weights to prune per level.
        scope: `"layer"` or `"global"`.
        criterion: scores the weights after training; the lowest are pruned.
        rewind_step: the step whose state the survivors are reset to.
        controls: name -> control, trained beside the ticket.
        control_levels: the levels at which they are; None for all but level 0,
            where nothing is pruned yet.
        key: what everything drawn at random depends on, such as seed and replicate.
    """

    levels: int
    fractions: Mapping[str, float]
    scope: str = "layer"
    criterion: Criterion = scores.magnitude
    rewind_step: int = 0
    controls: Mapping[str, Control] = dataclasses.field(default_factory=dict)
    control_levels: Container[int] | None = None
    key: tuple[int | str, ...] = (0,)

    def __post_init__(self) -> None:
        if self.levels < 0:
            raise ValueError(f"levels must be 0 or more. Received {self.levels}.")

    @property
    def method(self) -> str:
        """How a ticket of this plan is found, in a few words."""
        return f"iterative pruning by {self.criterion.__name__}, scope {self.scope}"

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the tickets, as JSON can hold it."""
        return {
            "levels": self.levels,
            "fractions": dict(self.fractions),
            "scope": self.scope,
            "criterion": self.criterion.__name__,
            "rewind_step": self.rewind_step,
            "controls": list(self.controls),
            "key": list(self.key),
        }


def redraw_of(model: MaskedModel) -> Redraw:
    """Returns the function from a seed to every variable of `model` drawn anew."""
    return lambda seed: model.draw_initial(lambda path: seeds.seed(seed, path))


def iterative_pruning(
    plan: Plan, train: Train, initial: Arrays, mask: Mask, redraw: Redraw | None = None
) -> Iterator[Trained]:
    """Trains, prunes, rewinds, and again.

    Args:
        plan: levels, criterion, controls and so on.
        train: trains one arm. The `snapshot` it returns for level 0 is the state
            at the rewind step.
        initial: path -> array, every variable at initialization.
        mask: path -> bool array, what is there to prune: all, for a dense network.
        redraw: takes a seed; returns every variable of a freshly drawn network.
            Only controls need it.

    Yields:
        Every network once it is trained: the ticket of each level, then its controls.
    """
    state, step = initial, 0
    for level in range(plan.levels + 1):
        ticket = train(Start(level, TICKET, mask, state, step))
        yield ticket
        yield from _train_controls(plan, train, ticket.start, redraw)
        if level < plan.levels:
            mask = pruning.prune(mask, _scores(plan, ticket), plan.fractions, plan.scope)
            if level == 0:
                state, step = ticket.snapshot, plan.rewind_step


def _scores(plan: Plan, ticket: Trained) -> Arrays:
    rng = seeds.generator(*plan.key, "criterion", ticket.start.level)
    return plan.criterion(Evidence(ticket.start.mask, ticket.start.state, ticket.final, rng))


def _train_controls(plan: Plan, train: Train, ticket: Start, redraw: Redraw | None) -> Iterator[Trained]:
    levels = range(1, plan.levels + 1) if plan.control_levels is None else plan.control_levels
    for name, control in plan.controls.items() if ticket.level in levels else ():
        key = (*plan.key, name, ticket.level)
        fresh = functools.partial(redraw, seeds.seed(*key))
        found = FoundTicket(ticket.mask, ticket.state, ticket.step, fresh, seeds.generator(*key))
        yield train(Start(ticket.level, name, *control(found)))


def iterative_magnitude_pruning(
    model: Any,
    train: Callable[[Any], Any],
    *,
    levels: int = 10,
    prune_fraction: float = 0.2,
    layer_fractions: Mapping[str, float] | None = None,
    scope: str = "layer",
    criterion: str | Criterion = "magnitude",
    seed: int = 0,
) -> Iterator[Ticket]:
    """Finds tickets with your own training loop (1803.03635): one ticket per level.

    A ticket is handed out once its training is done and before the next level
    starts; the model is then that ticket, masked and rewound. Level 0 is the dense
    network. Stop taking tickets, and training stops.

    Args:
        model: a built Keras model of either flavour. It need not be compiled.
        train: called as `train(model)` with the model masked and rewound; trains it
            in place, with any loop that uses a Keras optimizer. That which the model
            is compiled with starts anew for each ticket.
        levels: how often the network is pruned.
        prune_fraction: share of the remaining weights that a level removes, in [0, 1).
        layer_fractions: path or layer name -> its own share. None halves the share
            of the last kernel; `{}` makes all alike.
        scope: `"layer"` or `"global"`.
        criterion: a name in `tf_lottery.CRITERIA`, or a function.
        seed: what criteria that draw at random depend on.

    Yields:
        `Ticket` of level 0, 1, ... `levels`.

    Raises:
        TypeError: not a Keras model.
        ValueError: the model is not built, or an argument is out of range. Raised with the
            first ticket, as of any generator.

    Example:
        >>> tickets = iterative_magnitude_pruning(model, lambda m: m.fit(x, y, verbose=0), levels=2)
        >>> [f"{ticket.density:.2f}" for ticket in tickets]
        ['1.00', '0.81', '0.66']
    """
    masked = MaskedModel(model, asked=layer_fractions or ())
    fractions = pruning.layer_fractions(list(masked.shapes), prune_fraction, layer_fractions)
    plan = Plan(levels, fractions, scope, scores.resolve(criterion), key=(seed,))
    provenance = {"versions": environment.versions(), "flavour": masked.flavour, **plan.settings}

    def run(start: Start) -> Trained:
        masked.restore(start.masked_state)
        masked.set_mask(start.mask)
        train(model)
        return Trained(start, network_weights(masked.state()), History(), snapshot=start.state)

    for trained in iterative_pruning(plan, run, network_weights(masked.state()), masked.mask()):
        masked.restore(trained.start.masked_state)
        yield Ticket(
            trained.start.mask,
            {path: array.copy() for path, array in trained.start.state.items()},
            trained.start.level,
            method=plan.method,
            provenance=provenance,
        )
