"""`find_ticket`: from a compiled Keras model and arrays to a winning ticket, in one call."""

import inspect
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from tf_lottery.keras_api import flavour
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.search import at_init
from tf_lottery.search.plan import Plan
from tf_lottery.search.session import REPLICATE, Session
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import controls, pruning, rewinding, scores
from tf_lottery.tickets.controls import Control
from tf_lottery.tickets.rewinding import FINAL, Rewinding
from tf_lottery.tickets.scores import Criterion
from tf_lottery.training import inputs
from tf_lottery.training.callbacks import Callbacks

_DEFAULT_EPOCHS = 10
_DEFAULT_EVALUATIONS = 50
_WITHOUT_DATA = ("model", "x", "levels", "prune_fraction", "target_density", "seed", "verbose")


def find_ticket(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    validation_data: Any = None,
    validation_split: float = 0.1,
    test_data: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    batch_size: int = 32,
    epochs: int | None = None,
    steps: int | None = None,
    levels: int = 10,
    prune_fraction: float = 0.2,
    target_density: float | None = None,
    layer_fractions: Mapping[str, float] | None = None,
    scope: str = "layer",
    structure: str = "unstructured",
    criterion: str | Criterion = "magnitude",
    schedule: str = "iterative",
    rewind_step: int = 0,
    rewinding: str | Rewinding | None = None,
    score_step: int = FINAL,
    controls: Iterable[str | Control] = (),
    eval_every: int | None = None,
    seed: int = 0,
    callbacks: Callbacks | None = None,
    workdir: str | os.PathLike[str] | None = None,
    verbose: str | int = "auto",
) -> Ticket:
    """Finds a winning ticket by iterative pruning with rewinding (1803.03635, 1912.05671).

    The model is trained from its present weights, its lowest-scored weights are
    pruned, the others reset, and so on. It is left as the ticket that is returned:
    masked, reset to the ticket's weights, and it keeps its zeros in its own `fit`.

    Called as `find_ticket(model)`, without data, it prunes at initialization by SynFlow
    (2006.05467) to `target_density`, or to what `levels` prunings leave, and trains nothing.

    Args:
        model: a compiled and built model of either Keras. What it has of masks stays pruned.
        x: training inputs: an array of shape (examples, ...), a tensor, or a dict, list or
            tuple of them; or a batched `tf.data.Dataset`, `keras.utils.PyDataset` or
            `tf_keras.utils.Sequence` of `(x, y)` or `(x, y, sample_weight)`, which each
            network reads from its first batch on.
        y: training targets of the same kinds; None where x has them, or the model needs none.
        validation_data: what early stopping goes by: `(x, y)`, `(x, y, sample_weight)` or a
            data set. None holds `validation_split` of the training examples out at random.
        validation_split: share of the training examples to hold out, in (0, 1).
        test_data: what accuracies are read on, as `validation_data`; None leaves the
            verdict to the validation data.
        sample_weight: weights of the training examples in the loss.
        class_weight: class -> weight of its training examples in the loss.
        batch_size: examples in one step; a data set brings its own.
        epochs: passes over the training data for each network; 10 where neither
            `epochs` nor `steps` is given.
        steps: optimizer updates for each network, instead of `epochs`.
        levels: how often the network is pruned; `levels + 1` networks are trained.
        prune_fraction: share of the remaining weights that a level removes, in [0, 1).
        target_density: prune until at most this share of the weights is left, in
            (0, 1), instead of `levels`.
        layer_fractions: path or layer name -> its own fraction. None halves that of
            the last kernel, as the paper does; `{}` makes all alike. An embedding is
            pruned where it is named here.
        scope: `"layer"` prunes each layer by itself, `"global"` all together; how the others of
            `tf_lottery.SCOPES` share it out is in their docstrings.
        structure: what is pruned as one: `"unstructured"` single weights, `"units"` all that
            leads into a unit or filter, `"block:4x1"` blocks of that size over the last two axes,
            `"2:4"` of each 4 weights along the input axis all but 2.
        criterion: a name in `tf_lottery.CRITERIA`, or a function.
        schedule: `"iterative"` prunes each level by the training of the last; `"one_shot"` all by
            the dense network's (1803.03635); `"early_bird"` by the dense network as soon as its
            mask stays the same, which is looked at once in each epoch (1909.11957).
        rewind_step: the step that survivors are reset to; 0 is initialization.
        rewinding: `"original"`, `"late"`, `"learning_rate"` or `"fine_tuning"` (2003.02389); None is
            the first or the second, by `rewind_step`. `"learning_rate"` keeps the trained weights and
            goes back to `rewind_step` in the optimizer's schedule, `"fine_tuning"` trains them on at
            its end for `steps - rewind_step` steps. A `tf_lottery.Rewinding` makes each choice by itself.
        score_step: the step of each training whose weights are scored, for tickets by short
            training; -1 is the last one.
        controls: names in `tf_lottery.CONTROLS`, or functions, trained at each level.
        eval_every: steps between evaluations; None makes about fifty, or with
            callbacks one each epoch.
        seed: the data order, the held-out examples and the controls depend on it.
        callbacks: Keras callbacks of the model's flavour, which hear of each network as of
            a `fit` of its own; or a function from level and arm to such a list. To them an
            epoch is what lies between two evaluations. A network that was interrupted is
            trained again from its start.
        workdir: a run directory, local or such as `"gs://bucket/run"`: the search goes on
            where it was stopped, and TensorBoard can look at it.
        verbose: 0 prints nothing; 1 or `"auto"` shows progress.

    Returns:
        The sparsest winning ticket; where none wins, the one that is best on the
        validation data. `ticket.verdict` says which.

    Raises:
        TypeError: not a Keras model, or neither arrays nor a data set.
        ValueError: the model is not compiled or not built, the data do not fit, an
            argument is out of range, or the loss became NaN.

    What your own code raises, in a layer, loss, metric, callback, criterion or data set, comes out
    as it was raised. After any error, Ctrl-C too, the model is as it was: all variables, the
    optimizer's too, masks, what it was compiled with and what is trainable; its metrics start
    anew. The same call goes on in a `workdir` from what was done.

    Example:
        >>> ticket = find_ticket(model, x, y, epochs=5, levels=3, verbose=0)
        >>> 0 < ticket.density <= 1
        True
    """
    arguments = dict(locals())
    if x is None:
        return _without_data(arguments)
    masked = MaskedModel(model, asked=layer_fractions or ())
    with masked.undone_on_error():
        _check_compiled(masked)
        sources = inputs.gather(
            x,
            y,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_data=validation_data,
            validation_split=validation_split,
            test_data=test_data,
            seed=seed,
        )
        inputs.check_fits(model, sources)
        an_epoch = inputs.steps_per_epoch(
            sources["training"], batch_size, limit=None if steps is None else max(steps, 1)
        )
        steps = _steps(an_epoch, epochs, steps)
        eval_every = _eval_every(an_epoch, steps, callbacks) if eval_every is None else eval_every
        _check_ranges(steps, eval_every)
        plan = _plan(masked, steps, an_epoch, arguments)
        session = Session(masked, plan, sources, batch_size, steps, eval_every, callbacks)
        return session.run(workdir, verbose)


def _plan(masked: MaskedModel, steps: int, an_epoch: float, given: Mapping[str, Any]) -> Plan:
    """Returns the plan that the arguments of `find_ticket` ask for."""
    structure, levels = given["structure"], given["levels"]
    paths, scope = list(masked.shapes), given["scope"]
    fractions = pruning.layer_fractions(paths, given["prune_fraction"], given["layer_fractions"], structure)
    if given["target_density"] is not None:
        levels = pruning.levels_to(given["target_density"], masked.shapes, fractions, scope, structure)
    return Plan(
        levels,
        fractions,
        scope,
        structure,
        scores.resolve(given["criterion"]),
        given["schedule"],
        rewinding.resolve(given["rewinding"], given["rewind_step"], steps, given["score_step"]),
        controls.resolve(given["controls"]),
        key=(given["seed"], REPLICATE),
        epoch=0 if math.isinf(an_epoch) else math.ceil(an_epoch),
    )


def _without_data(arguments: Mapping[str, Any]) -> Ticket:
    defaults = {name: p.default for name, p in inspect.signature(find_ticket).parameters.items()}
    unused = [name for name, value in arguments.items() if name not in _WITHOUT_DATA]
    given = [name for name in unused if not _is_same(arguments[name], defaults[name])]
    if given:
        raise ValueError(
            f"Without training data x there is no training, and nothing to do with {', '.join(given)}: "
            "give x, or leave them out for SynFlow's ticket."
        )
    density = arguments["target_density"]
    if density is None:
        density = (1 - arguments["prune_fraction"]) ** arguments["levels"]
    ticket = at_init.synflow_ticket(arguments["model"], density)
    if arguments["verbose"]:
        print(f"No data, so no training: the ticket is by {ticket.method}; {ticket.density:.2%} kept.")
    return ticket


def _is_same(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, (int, float, str)) and value == default)


def _check_compiled(masked: MaskedModel) -> None:
    if masked.optimizer is None:
        raise ValueError(
            f"The model {masked.model.name!r} is not compiled. Call "
            "model.compile(optimizer=..., loss=..., metrics=['accuracy']) first."
        )
    optimizers = flavour.keras_module(masked.flavour).optimizers
    for name, value in vars(masked.model).items():
        if isinstance(value, optimizers.Optimizer) and value is not masked.optimizer:
            raise ValueError(
                f"The model {masked.model.name!r} trains with an optimizer of its own, {name!r}, which a "
                "search could not rewind: compile it with that one alone, or search with "
                "iterative_magnitude_pruning(model, train), where train makes its optimizers anew."
            )


def _steps(an_epoch: float, epochs: int | None, steps: int | None) -> int:
    if epochs is not None and steps is not None:
        raise ValueError(f"Give epochs or steps, not both. Received epochs={epochs} and steps={steps}.")
    if steps is not None:
        return steps
    if math.isinf(an_epoch):
        raise ValueError("The training data set never ends: give steps, the length of each training.")
    return math.ceil((_DEFAULT_EPOCHS if epochs is None else epochs) * an_epoch)


def _eval_every(an_epoch: float, steps: int, callbacks: Callbacks | None) -> int:
    """Returns an epoch where callbacks count epochs, else what makes about fifty evaluations."""
    if callbacks and not math.isinf(an_epoch):
        return min(math.ceil(an_epoch), steps)
    return math.ceil(steps / _DEFAULT_EVALUATIONS)


def _check_ranges(steps: int, eval_every: int) -> None:
    for name, value in {"steps": steps, "eval_every": eval_every}.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more. Received {value}.")
