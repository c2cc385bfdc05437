"""`find_ticket`: from a compiled Keras model and arrays to a winning ticket, in one call."""

import contextlib
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from tf_lottery.analysis import verdict
from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search.imp import Plan, iterative_pruning, redraw_of
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import controls as controls_module
from tf_lottery.tickets import pruning, scores
from tf_lottery.tickets.controls import Control
from tf_lottery.tickets.scores import Criterion
from tf_lottery.training import data, environment
from tf_lottery.training.arms import Start
from tf_lottery.training.history import Result
from tf_lottery.training.loop import Loop
from tf_lottery.training.runs import ReplicateStore, RunDirectory
from tf_lottery.training.tensorboard import TensorBoard
from tf_lottery.training.terminal import Terminal
from tf_lottery.training.timings import Timings
from tf_lottery.training.trainer import Listener, Trainer

_REPLICATE = 1
_DEFAULT_EPOCHS = 10
_DEFAULT_EVALUATIONS = 50
_EXTENDABLE = ("levels", "controls")  # what only adds networks to a finished search


def find_ticket(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    validation_data: tuple[Any, Any] | None = None,
    validation_split: float = 0.1,
    test_data: tuple[Any, Any] | None = None,
    batch_size: int = 32,
    epochs: int | None = None,
    steps: int | None = None,
    levels: int = 10,
    prune_fraction: float = 0.2,
    target_density: float | None = None,
    layer_fractions: Mapping[str, float] | None = None,
    scope: str = "layer",
    criterion: str | Criterion = "magnitude",
    rewind_step: int = 0,
    controls: Iterable[str | Control] = (),
    eval_every: int | None = None,
    seed: int = 0,
    workdir: str | os.PathLike[str] | None = None,
    verbose: str | int = "auto",
) -> Ticket:
    """Finds a winning ticket by iterative pruning with rewinding (1803.03635, 1912.05671).

    The model is trained from its present weights, its lowest-scored weights are
    pruned, the others reset, and so on. It is left as the ticket that is returned:
    masked, reset to the ticket's weights, and it keeps its zeros in its own `fit`.

    Args:
        model: a compiled and built `keras.Model`, or `tf_keras` Sequential or
            functional model.
        x: training inputs, an array of shape (examples, ...).
        y: training targets, an array of as many examples.
        validation_data: the pair (x, y) that early stopping goes by. None holds
            `validation_split` of the training examples out at random.
        validation_split: share of the training examples to hold out, in (0, 1).
        test_data: the pair (x, y) that accuracies are read on; None leaves the
            verdict to the validation data.
        batch_size: examples in one step.
        epochs: passes over the training data for each network; 10 where neither
            `epochs` nor `steps` is given.
        steps: optimizer updates for each network, instead of `epochs`.
        levels: how often the network is pruned; `levels + 1` networks are trained.
        prune_fraction: share of the remaining weights that a level removes, in [0, 1).
        target_density: prune until at most this share of the weights is left, in
            (0, 1), instead of `levels`.
        layer_fractions: path or layer name -> its own fraction. None halves that of
            the last kernel, as the paper does; `{}` makes all alike.
        scope: `"layer"` prunes each layer by itself, `"global"` all together.
        criterion: a name in `tf_lottery.CRITERIA`, or a function.
        rewind_step: the step that survivors are reset to; 0 is initialization.
        controls: names in `tf_lottery.CONTROLS`, or functions, trained at each level.
        eval_every: steps between evaluations; None makes about fifty.
        seed: the data order, the held-out examples and the controls depend on it.
        workdir: a run directory: the search goes on where it was stopped, and
            TensorBoard can look at it.
        verbose: 0 prints nothing; 1 or `"auto"` shows progress.

    Returns:
        The sparsest winning ticket; where none wins, the one that is best on the
        validation data. `ticket.verdict` says which.

    Raises:
        TypeError: not a Keras model, or not arrays.
        ValueError: the model is not compiled or not built, the data do not fit, an
            argument is out of range, or the loss became NaN. After this or any other
            error, Ctrl-C too, the model's variables are as they were.

    Example:
        >>> ticket = find_ticket(model, x, y, epochs=5, levels=3, verbose=0)
        >>> 0 < ticket.density <= 1
        True
    """
    masked = MaskedModel(model)
    if masked.optimizer is None:
        raise ValueError(
            f"The model {model.name!r} is not compiled. Call "
            "model.compile(optimizer=..., loss=..., metrics=['accuracy']) first."
        )
    train, evaluation = _data(masked, x, y, validation_data, validation_split, test_data, seed)
    steps = _steps(len(train[0]), batch_size, epochs, steps)
    eval_every = math.ceil(steps / _DEFAULT_EVALUATIONS) if eval_every is None else eval_every
    fractions = pruning.layer_fractions(list(masked.shapes), prune_fraction, layer_fractions)
    if target_density is not None:
        levels = pruning.levels_to(target_density, masked.shapes, fractions, scope)
    plan = Plan(
        levels=levels,
        fractions=fractions,
        scope=scope,
        criterion=scores.resolve(criterion),
        rewind_step=rewind_step,
        controls=controls_module.resolve(controls),
        key=(seed, _REPLICATE),
    )
    _check_ranges(steps, eval_every, rewind_step)
    loop = Loop(masked.model, train, evaluation, batch_size=batch_size, chunk=min(eval_every, 100))
    with contextlib.ExitStack() as stack:
        listeners = _terminal(stack, plan, steps, verbose)
        settings = _settings(masked, plan, {"training": train, **evaluation}, batch_size, steps, eval_every)
        store = None if workdir is None else _store(stack, workdir, settings, listeners)
        trainer = Trainer(
            masked,
            loop,
            steps=steps,
            eval_every=eval_every,
            order_key=plan.key,
            snapshot_step=rewind_step,
            store=store,
            listeners=listeners,
        )
        return _search(masked, plan, trainer, store, {"versions": environment.versions(), **settings})


def _search(
    masked: MaskedModel,
    plan: Plan,
    trainer: Trainer,
    store: ReplicateStore | None,
    provenance: Mapping[str, Any],
) -> Ticket:
    mask_before = masked.mask()
    initial = store.initial(masked.fresh_state) if store else masked.fresh_state
    results: list[Result] = []
    starts: dict[int, Start] = {}
    try:
        for trained in iterative_pruning(plan, trainer, initial, mask_before, redraw_of(masked)):
            results.append(trained.result(_REPLICATE))
            if trained.start.is_ticket:
                starts[trained.start.level] = trained.start
    except BaseException:
        masked.set_mask(mask_before)
        masked.restore(masked.fresh_state)
        raise
    judged = verdict.judge(results)
    start = starts[judged.level]
    masked.restore(start.masked_state)
    masked.set_mask(start.mask)
    return Ticket(
        mask=start.mask,
        weights=network_weights(start.state),
        level=start.level,
        rewind_step=start.step,
        method=plan.method,
        verdict=judged.sentence,
        history=tuple(vars(result) for result in results),
        provenance=provenance,
    )


def _data(
    masked: MaskedModel,
    x: Any,
    y: Any,
    validation_data: tuple[Any, Any] | None,
    validation_split: float,
    test_data: tuple[Any, Any] | None,
    seed: int,
) -> tuple[data.Pair, dict[str, data.Pair]]:
    train = data.as_pair(x, y, "training")
    if validation_data is None:
        train, validation = data.split(*train, validation_split, seed)
    else:
        validation = data.as_pair(*validation_data, "validation")
    evaluation = {"validation": validation}
    if test_data is not None:
        evaluation["test"] = data.as_pair(*test_data, "test")
    for what, pair in {"training": train, **evaluation}.items():
        data.check_fits(masked.model, *pair, what)
    return train, evaluation


def _steps(examples: int, batch_size: int, epochs: int | None, steps: int | None) -> int:
    if epochs is not None and steps is not None:
        raise ValueError(f"Give epochs or steps, not both. Received epochs={epochs} and steps={steps}.")
    if steps is not None:
        return steps
    return math.ceil((_DEFAULT_EPOCHS if epochs is None else epochs) * examples / max(batch_size, 1))


def _check_ranges(steps: int, eval_every: int, rewind_step: int) -> None:
    for name, value in {"steps": steps, "eval_every": eval_every}.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more. Received {value}.")
    if not 0 <= rewind_step < steps:
        raise ValueError(
            f"rewind_step must be in [0, {steps}), the training's steps. Received {rewind_step}."
        )


def _terminal(stack: contextlib.ExitStack, plan: Plan, steps: int, verbose: str | int) -> list[Listener]:
    if verbose not in ("auto", 0, 1):
        raise ValueError(f"verbose must be 0, 1 or 'auto'. Received {verbose!r}.")
    if not verbose:
        return []
    networks = plan.levels * (1 + len(plan.controls)) + 1
    return [stack.enter_context(contextlib.closing(Terminal(networks * steps, plan.controls)))]


def _store(
    stack: contextlib.ExitStack,
    workdir: str | os.PathLike[str],
    settings: Mapping[str, Any],
    listeners: list[Listener],
) -> ReplicateStore:
    run = stack.enter_context(RunDirectory(workdir, settings, extendable=_EXTENDABLE).open())
    stack.callback(run.write_results)
    tensorboard = TensorBoard(run.path / "tensorboard", _REPLICATE)
    listeners.append(stack.enter_context(contextlib.closing(tensorboard)))
    listeners.append(Timings(run.path / "timings.csv", _REPLICATE))
    return run.replicate(_REPLICATE)


def _settings(
    masked: MaskedModel,
    plan: Plan,
    pairs: Mapping[str, data.Pair],
    batch_size: int,
    steps: int,
    eval_every: int,
) -> dict[str, Any]:
    """Returns what determines the results, for a run directory to compare and a ticket to tell."""
    optimizer = masked.model.optimizer
    return {
        "flavour": masked.flavour,
        "shapes": {path: list(shape) for path, shape in masked.shapes.items()},
        "optimizer": type(optimizer).__name__,
        "optimizer_config": {k: repr(v) for k, v in optimizer.get_config().items() if k != "name"},
        "data": {name: data.digest(pair) for name, pair in pairs.items()},
        "batch_size": batch_size,
        "steps": steps,
        "eval_every": eval_every,
        **plan.settings,
    }
