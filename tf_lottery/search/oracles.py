"""KerasTuner's oracles, which say what is tried next, kept on the disk so that a search can go on."""

import os
import reprlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner import oracles
from sklearn.exceptions import ConvergenceWarning

from tf_lottery import files, names, paths
from tf_lottery.training import recorded

_CLASSES = ("Boolean", "Choice", "Fixed", "Float", "Int", "Parent")  # the last one is a condition
_FILTERS = threading.Lock()  # Python has one set of them for all threads
_SHORTEST = 9  # Hyperband's trainings are 1/9, 1/3 and the whole of what the others' are


class _Kept:
    """What KerasTuner's oracles lack to go on as if they had never been stopped."""

    def save(self) -> None:
        # KerasTuner writes over the file, and a process that is killed leaves half of it.
        files.write_json(self._get_oracle_fname(), self.get_state())

    def reload(self) -> None:
        """Goes on from the files.

        Raises:
            RunDirectoryError: one is damaged, or is not what an oracle of this kind writes.
        """
        with recorded.explaining("Choose another workdir."):
            for path in paths.path(self._project_dir).glob("trial_*/trial.json"):
                if f"trial_{_checked(path)['trial_id']}" != path.parent.name:
                    raise ValueError(f"{str(path)!r} is of another trial.")
            _checked(self._get_oracle_fname())
            self._reload()

    def _reload(self) -> None:
        try:
            super().reload()
        except (RuntimeError, ArithmeticError, LookupError) as error:  # as KerasTuner comes upon it
            raise ValueError(f"{self._get_oracle_fname()!r} is not of this oracle.") from error
        # In the order in which they began; one that the oracle had not yet written down did not.
        self.trials = {name: self.trials[name] for name in self.start_order}

    def _save_trial(self, trial: Any) -> None:
        files.write_json(os.path.join(self._get_trial_dir(trial.trial_id), "trial.json"), trial.get_state())


class _Random(_Kept, oracles.RandomSearchOracle):
    pass


class _Bayesian(_Kept, oracles.BayesianOptimizationOracle):
    def __init__(self, max_trials: int, **options: Any):
        # KerasTuner's three random trials for each hyperparameter may be all that there are; and what it
        # makes of fewer than five is as good as random.
        super().__init__(max_trials=max_trials, num_initial_points=max(5, max_trials // 3), **options)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        # KerasTuner starts its draws anew when it goes on.
        self._random_state = np.random.RandomState(self.seed + len(self.trials))
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of lengths at their bounds
            return super().populate_space(trial_id)


class _Hyperband(_Kept, oracles.HyperbandOracle):
    def __init__(self, max_trials: int, **options: Any):
        super().__init__(max_epochs=_SHORTEST, factor=3, **options)
        self.max_trials = max_trials


ORACLES = {"random": _Random, "bayesian": _Bayesian, "hyperband": _Hyperband}


def _checked(path: str | paths.Path) -> dict[str, Any]:
    """Reads a file of an oracle. KerasTuner would make of it whatever class is registered with Keras."""
    entries = files.read_json(path)
    if others := [name for name in _classes(entries) if name not in _CLASSES]:
        raise ValueError(f"{str(path)!r} asks for {reprlib.repr(others[0])}, which is no hyperparameter.")
    return entries


def _classes(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from (value[key] for key in value if key == "class_name")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _classes(part)


def make(
    oracle: "str | keras_tuner.Oracle", objective: keras_tuner.Objective, trials: int, seed: int
) -> keras_tuner.Oracle:
    """Returns the oracle of that name; or the one given, if it has this objective.

    Raises:
        ValueError: an unknown name, fewer than one trial, or an oracle with another objective.
    """
    if isinstance(oracle, keras_tuner.Oracle):
        if str(oracle.objective) != str(objective):
            raise ValueError(
                f"The oracle's objective is {oracle.objective}. Give it objective=keras_tuner.Objective("
                f"{objective.name!r}, {objective.direction!r}), or another objective to the tuner."
            )
        return oracle
    if trials < 1:
        raise ValueError(f"trials must be 1 or more. Received {trials}.")
    # A failure is an outcome, and no reason to stop; to KerasTuner a seed of 0 is none.
    options = {"objective": objective, "seed": seed + 1, "max_consecutive_failed_trials": None}
    return names.find(oracle, ORACLES, "oracle")(max_trials=trials, **options)
