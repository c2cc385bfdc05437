"""Iterative pruning with rewinding, and its controls (1803.03635, 1912.05671)."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_lottery import names
from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search.network import KerasNetwork
from tf_lottery.search.plan import Plan
from tf_lottery.search.schedules import SCHEDULES, Found, Search
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import pruning, scores, seeds
from tf_lottery.tickets.controls import FoundTicket
from tf_lottery.tickets.masks import Mask
from tf_lottery.tickets.rewinding import FINAL, Rewinding
from tf_lottery.tickets.scores import Criterion, Network
from tf_lottery.training import environment, inputs
from tf_lottery.training.arms import TICKET, Arrays, Start, Trained
from tf_lottery.training.history import History

Train = Callable[[Start], Trained | None]
Redraw = Callable[[int], Arrays]


def redraw_of(model: MaskedModel) -> Redraw:
    """Returns the function from a seed to every variable of `model` drawn anew."""
    return lambda seed: model.draw_initial(lambda path: seeds.seed(seed, path))


def iterative_pruning(
    plan: Plan,
    train: Train,
    initial: Arrays,
    mask: Mask,
    redraw: Redraw | None = None,
    network: Network | None = None,
) -> Iterator[Trained]:
    """Trains, prunes, rewinds, and again.

    Args:
        plan: levels, criterion, controls and so on.
        train: trains one arm; what it returns has the snapshots that `Start` asks for. None says that the
            arm was given up: the search goes on without it, and ends where it is the ticket.
        initial: path -> array, every variable at initialization.
        mask: path -> bool array, what is there to prune: all, for a dense network.
        redraw: takes a seed; returns every variable of a freshly drawn network.
            Only controls need it.
        network: what criteria may compute gradients on.

    Yields:
        Every network once it is trained: the ticket of each level, then its controls.
    """
    plan.check(mask)
    find_mask = names.find(plan.schedule, SCHEDULES, "schedule")
    search, start = None, Start(0, TICKET, mask, initial, snapshots=plan.snapshots(0))
    for level in range(plan.levels + 1):
        ticket = train(start)
        if ticket:
            search = search or Search(plan, train, ticket, network)
            yield ticket
        if search:
            yield from _train_controls(search, start, redraw)
        found = find_mask(search, ticket) if ticket and level < plan.levels else None
        if not found:
            return
        start = _rewound(search, level + 1, found)


def _rewound(search: Search, level: int, found: Found) -> Start:
    """Returns where the ticket of that level starts from."""
    rewinding = search.plan.rewinding
    source = found.pruned if rewinding.restore == FINAL else search.dense
    restored = source.last_step if rewinding.restore == FINAL else rewinding.restore
    stays = rewinding.restart == FINAL
    step = search.dense.last_step if stays else rewinding.restart
    return Start(
        level,
        TICKET,
        found.mask,
        source.snapshots[rewinding.restore],
        step,
        resets_step=step != restored,
        until=step + rewinding.steps if stays else None,
        snapshots=search.plan.snapshots(level),
        search_steps=found.steps,
    )


def _train_controls(search: Search, ticket: Start, redraw: Redraw | None) -> Iterator[Trained]:
    plan, dense = search.plan, search.dense
    for name, control in plan.controls.items() if plan.has_controls(ticket.level) else ():
        key = (*plan.key, name, ticket.level)
        found = FoundTicket(
            mask=ticket.mask,
            rewound=_unpruned(ticket, dense) if plan.rewinding.restore == FINAL else ticket.state,
            step=ticket.step,
            redraw=functools.partial(redraw, seeds.seed(*key)),
            rng=seeds.generator(*key),
            initial=dense.start.state,
            trained=dense.final,
            scores=lambda: search.dense_scores,
        )
        start = Start(ticket.level, name, *control(found))
        if start.step == ticket.step:
            start = dataclasses.replace(start, resets_step=ticket.resets_step, until=ticket.until)
        if trained := search.train(start):
            yield trained


def _unpruned(ticket: Start, dense: Trained) -> Arrays:
    """Returns trained weights, with those of the dense network where earlier levels have zeros."""
    kernels = {p: np.where(mask, ticket.state[p], dense.final[p]) for p, mask in ticket.mask.items()}
    return {**ticket.state, **kernels}


def iterative_magnitude_pruning(
    model: Any,
    train: Callable[[Any], Any],
    *,
    levels: int = 10,
    prune_fraction: float = 0.2,
    layer_fractions: Mapping[str, float] | None = None,
    scope: str = "layer",
    structure: str = "unstructured",
    criterion: str | Criterion = "magnitude",
    schedule: str = "iterative",
    rewinding: str = "original",
    data: Any = None,
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
            is compiled with starts anew for each ticket, unless `rewinding` says otherwise.
        levels: how often the network is pruned.
        prune_fraction: share of the remaining weights that a level removes, in [0, 1).
        layer_fractions: path or layer name -> its own share. None halves the share
            of the last kernel; `{}` makes all alike.
        scope: `"layer"`, `"global"` or another of the README's table.
        structure: what is pruned as one: `"unstructured"`, `"units"`, `"block:4x1"`, `"2:4"`.
        criterion: a name in `tf_lottery.CRITERIA`, or a function.
        schedule: `"iterative"`, or `"one_shot"`: every level by the weights of the dense network.
        rewinding: `"original"` goes back to the weights that the model is given with; `"late"` to
            its optimizer's state too, for a model that was trained for some steps before (1912.05671);
            `"learning_rate"` keeps the trained weights and starts the optimizer's schedule anew,
            `"fine_tuning"` goes on with both (2003.02389).
        data: `(x, y)` or a data set, for criteria that look at training data, such as `"snip"`;
            those that learn gates do so in 5,000 steps of 32 examples.
        seed: what criteria that draw at random depend on.

    Yields:
        `Ticket` of level 0, 1, ... `levels`.

    Raises:
        TypeError: not a Keras model.
        ValueError: the model is not built, or an argument is out of range. Raised with the
            first ticket, as of any generator.

    What `train` or a criterion raises comes out as it was raised, and the model is as it was before
    the first ticket: all variables, the optimizer's too, masks, what it was compiled with and what is
    trainable; its metrics start anew.

    Example:
        >>> tickets = iterative_magnitude_pruning(model, lambda m: m.fit(x, y, verbose=0), levels=2)
        >>> [f"{ticket.density:.2f}" for ticket in tickets]
        ['1.00', '0.81', '0.66']
    """
    names.find(schedule, dict.fromkeys(("iterative", "one_shot")), "schedule for your own training")
    how = names.find(rewinding, _OWN_REWINDINGS, "rewinding for your own training")
    masked = MaskedModel(model, asked=layer_fractions or ())
    with masked.undone_on_error():
        fractions = pruning.layer_fractions(list(masked.shapes), prune_fraction, layer_fractions, structure)
        criterion = scores.resolve(criterion)
        plan = Plan(levels, fractions, scope, structure, criterion, schedule, how, key=(seed,))
        provenance = {"versions": environment.versions(), "flavour": masked.flavour, **plan.settings}
        if data is None and scores.needs(plan.criterion).data:
            raise ValueError(
                f"The criterion {plan.criterion.__name__!r} looks at training data: pass data=(x, y)."
            )
        initial = masked.state() if rewinding == "late" else network_weights(masked.state())
        before = masked.step if rewinding == "late" else 0
        network = KerasNetwork(masked, _examples(data), key=plan.key, **_LEARNING)

        def run(start: Start) -> Trained:
            masked.restore(start.masked_state)
            masked.set_mask(start.mask)
            if start.resets_step:
                masked.set_step(start.step)
            train(model)
            snapshots = {0: start.state, FINAL: masked.state()}
            return Trained(
                start, network_weights(snapshots[FINAL]), History([masked.step - before]), snapshots
            )

        for trained in iterative_pruning(plan, run, initial, masked.mask(), network=network):
            masked.restore(trained.start.masked_state)
            if trained.start.resets_step:
                masked.set_step(trained.start.step)
            yield Ticket(
                trained.start.mask,
                {path: array.copy() for path, array in network_weights(trained.start.state).items()},
                trained.start.level,
                rewind_step=trained.start.step + before,
                method=plan.method,
                provenance=provenance,
            )


def _examples(data: Any) -> inputs.Source | None:
    if data is None:
        return None
    return inputs.training_data(*data) if isinstance(data, tuple) else inputs.training_data(data)


_LEARNING = {"steps": 5000, "batch_size": 32}  # of gates, where a criterion learns them
_OWN_REWINDINGS = {
    "original": Rewinding(),
    "late": Rewinding(),  # from the state that the model is given in
    "learning_rate": Rewinding(restore=FINAL),
    "fine_tuning": Rewinding(restore=FINAL, restart=FINAL, steps=1),  # for as long as `train` goes on
}
