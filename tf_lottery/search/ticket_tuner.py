"""`TicketTuner`: KerasTuner on `find_ticket`, for models that you build from hyperparameters."""

import dataclasses
import gc
import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner

from tf_lottery import names, paths
from tf_lottery.keras_api import flavour
from tf_lottery.search.find_ticket import find_ticket
from tf_lottery.search.ticket import Ticket
from tf_lottery.search.tuner import RunTuner
from tf_lottery.training import recorded

Options = Callable[[keras_tuner.HyperParameters], Mapping[str, Any]]
_TICKET = "ticket.safetensors"
_OURS = {
    "model": "It is what build(hp) returns.",
    "levels": "Each trial prunes to the tuner's target_density.",
    "target_density": "It is an argument of TicketTuner.",
    "workdir": "Each trial has a folder in that of TicketTuner.",
}


def ticket_options(hp: keras_tuner.HyperParameters) -> dict[str, Any]:
    """Returns arguments of `find_ticket` by hyperparameters: what `TicketTuner` searches by default.

    These are `prune_fraction` (0.1 to 0.5, for all layers alike), `criterion` (`magnitude`,
    `magnitude_increase`, `movement`), `scope` (`layer`, `global`) and `rewind_step` (0, 10).

    Example:
        >>> ticket_options(keras_tuner.HyperParameters())["criterion"]
        'magnitude'
    """
    return {
        "prune_fraction": hp.Choice("prune_fraction", [0.1, 0.2, 0.3, 0.4, 0.5], default=0.2),
        "criterion": hp.Choice("criterion", ["magnitude", "magnitude_increase", "movement"]),
        "scope": hp.Choice("scope", ["layer", "global"]),
        "rewind_step": hp.Choice("rewind_step", [0, 10]),
        "layer_fractions": {},  # else it would not be known when the target density is reached
    }


class TicketTuner(RunTuner):
    """Tunes what a ticket is found by: a KerasTuner whose trials are searches with `find_ticket`.

    A trial builds a model, and prunes it to the target density. What is measured is measured on
    validation data, never on test data:

    * objective `"density"`: the lowest density that is still matching, within 0.2 points of the validation
      accuracy of the reference (without accuracies: not above its loss); 1 where nothing matches. The
      reference is the dense network of the default hyperparameters, trained once: a trial's own dense
      network may be so bad that anything matches it.
    * objective `"accuracy"`: the highest final validation accuracy at the target density, or the next below
      it that the trial comes to.

    A trial is a run directory of `find_ticket`, `WORKDIR/trial_00` and so on: a search that was stopped goes
    on inside a trial when it is called again. `WORKDIR/trials.csv` has them all, best first, and
    TensorBoard's HParams tab a row for each. A trial whose loss becomes NaN, or that has not enough memory,
    has failed, and the search goes on; any other error ends it.

    With KerasTuner's variables `KERASTUNER_TUNER_ID`, `KERASTUNER_ORACLE_IP` and `KERASTUNER_ORACLE_PORT`
    the same program, started once with the id `chief` and several times with others, shares the trials out.
    All need the same workdir. The trial of a worker that is not heard of for a minute goes to another.

    Args:
        build: takes `hp`, KerasTuner's `HyperParameters`, and returns a compiled and built model of either
            Keras; or a `keras_tuner.HyperModel`. Let its defaults be a good model: they make the reference.
            Initial weights are what it draws: give initializers a seed for equal results.
        options: takes `hp` too, and returns arguments of `find_ticket`. Whatever it asks of `hp` is searched.
            None is `ticket_options`: prune_fraction, criterion, scope and rewind_step.
        workdir: the folder for all this.
        oracle: `"random"`; `"bayesian"`, which begins with five random trials or a third; `"hyperband"`,
            whose trials are trained for a ninth, a third or all of `epochs` or `steps`, the best ones of each
            longer: 23 trials are one round, and a `rewind_step` has to lie in the shortest training. Or an
            oracle of KerasTuner's with `objective=keras_tuner.Objective("density", "min")`, or `"accuracy"`
            and `"max"`, which goes on after a stop as far as it keeps what it needs.
        objective: `"density"` or `"accuracy"`.
        target_density: the share of the weights that each trial prunes to, in (0, 1).
        trials: at most how many; more may be asked for later.
        seed: what the oracle draws depends on it.

    Raises:
        ValueError: an argument is out of range, there is nothing to search, or the workdir belongs to
            another tuning: shows the difference.

    Example:
        >>> import keras, tempfile
        >>> def build(hp):
        ...     rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2)
        ...     hidden = keras.layers.Dense(hp.Choice("units", [8, 16]), "relu")
        ...     model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(3)])
        ...     loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ...     model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
        ...     return model
        >>> def options(hp):
        ...     return {"prune_fraction": hp.Float("prune_fraction", 0.3, 0.6, default=0.5)}
        >>> tuner = TicketTuner(build, options, workdir=tempfile.mkdtemp(), trials=2, target_density=0.4)
        >>> tuner.search(x, y, epochs=4, verbose=0)
        >>> sorted(tuner.get_best_hyperparameters()[0].values)
        ['learning_rate', 'prune_fraction', 'units']
        >>> tuner.get_best_tickets()[0].apply(tuner.get_best_models()[0])  # doctest: +ELLIPSIS
        <Sequential name=..., built=True>
    """

    def __init__(
        self,
        build: Callable[[keras_tuner.HyperParameters], Any] | keras_tuner.HyperModel,
        options: Options | None = None,
        *,
        workdir: str | os.PathLike[str],
        oracle: str | keras_tuner.Oracle = "random",
        objective: str = "density",
        target_density: float = 0.1,
        trials: int = 25,
        seed: int = 0,
    ) -> None:
        self._build = build.build if isinstance(build, keras_tuner.HyperModel) else build
        self._options = options or ticket_options
        super().__init__(
            self._explored,
            workdir=workdir,
            oracle=oracle,
            objective=objective,
            target_density=target_density,
            trials=trials,
            seed=seed,
            settings={},
        )

    def search(self, x: Any, y: Any = None, **arguments: Any) -> None:
        """Runs trials until there are enough.

        Args:
            x: training data, as `find_ticket` takes them.
            y: targets.
            **arguments: of `find_ticket`, for all trials: `epochs`, `validation_data`, `batch_size` and so
                on, but what `options` returns, and `model`, `levels`, `target_density` and `workdir`. With
                `verbose=0` nothing is printed.

        Raises:
            TypeError: an argument that `find_ticket` does not have.
            ValueError: what `find_ticket` raises; one that is given twice; or objective `"accuracy"` with a
                model that has none.
        """
        _check(arguments, "search")
        super().search(x=x, y=y, **arguments)

    def get_best_tickets(self, num_tickets: int = 1) -> list[Ticket]:
        """Returns the tickets that the objective is of, those of the best trials, best first."""
        return [Ticket.load(self.folder(trial) / _TICKET) for trial in self.get_best_trials(num_tickets)]

    def load_model(self, trial: Any) -> Any:
        """Returns the model of a trial as its ticket: masked and reset, to be trained."""
        return Ticket.load(self.folder(trial) / _TICKET).apply(self._model(trial.hyperparameters))

    def train(
        self, hp: keras_tuner.HyperParameters, folder: paths.Path, share: float, **arguments: Any
    ) -> Ticket:
        given = self._given(hp, share, arguments)
        gc.collect()  # what the last trial left
        density = {"target_density": self._target_density}
        return find_ticket(self._model(hp), workdir=folder, **density, **given)

    def train_reference(self, folder: paths.Path, share: float, **arguments: Any) -> None:
        hp = keras_tuner.HyperParameters()  # at its defaults
        model = self._model(hp)
        find_ticket(
            model, workdir=folder, **{**self._given(hp, share, arguments), "levels": 0, "controls": ()}
        )

    def keep(self, folder: paths.Path, level: int, trained: Ticket) -> None:
        """Writes down the ticket of that level, which need not be the one that `find_ticket` returns."""
        if level != trained.level:
            networks = recorded.compared(folder)
            [network] = [n for n in networks if n.result.level == level and n.result.arm == "ticket"]
            trained = dataclasses.replace(trained, mask=network.mask(), weights=network.start(), level=level)
        trained.save(folder / _TICKET)

    def _explored(self, hp: keras_tuner.HyperParameters) -> Any:
        model = self._model(hp)
        _check(self._options(hp), "options(hp)")
        return model

    def _model(self, hp: keras_tuner.HyperParameters) -> Any:
        flavour.forget_names()  # as in a process that has built no layer, for a run to go on
        return self._build(hp)

    def _given(
        self, hp: keras_tuner.HyperParameters, share: float, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns the arguments of `find_ticket`, with the length of each training shortened."""
        options = dict(self._options(hp))
        if twice := sorted(options.keys() & arguments.keys()):
            raise ValueError(f"{', '.join(twice)}: given to search, and by options(hp) too. Leave one out.")
        given = {**arguments, **options}
        if share < 1:
            given |= _shortened(given, share)
        return given


def _shortened(given: Mapping[str, Any], share: float) -> dict[str, float]:
    if given.get("steps") is not None:
        return {"steps": math.ceil(share * given["steps"])}
    if given.get("epochs") is not None:
        return {"epochs": share * given["epochs"]}
    raise ValueError("Hyperband's trials begin with short trainings: give search epochs or steps to shorten.")


def _check(arguments: Mapping[str, Any], giver: str) -> None:
    """Refuses what `find_ticket` does not have, or has from the tuner."""
    known = inspect.signature(find_ticket).parameters
    for name in arguments:
        if name in _OURS:
            raise ValueError(f"{giver} gives {name}: leave it out. {_OURS[name]}")
        if name not in known:
            raise TypeError(f"{giver}: {names.unknown(name, known, 'argument of find_ticket')}")
