"""Tuning: trials of KerasTuner's, each of which is a run directory."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine import base_tuner
from keras_tuner.src.distribute import utils as distribution

from tf_lottery import files, names, paths
from tf_lottery.analysis import trials as trials_module
from tf_lottery.analysis.trials import OBJECTIVES, Trial
from tf_lottery.search import chief, oracles
from tf_lottery.search.tuning_directory import TuningDirectory, described
from tf_lottery.training import recorded
from tf_lottery.training.history import Result
from tf_lottery.training.runs import InUseError, RunDirectory
from tf_lottery.training.trainer import NonFiniteError

# What a trial's hyperparameters are to blame for; anything else ends the search.
_FAILURES = (
    NonFiniteError,
    keras_tuner.errors.FailedTrialError,
    MemoryError,
    tf.errors.ResourceExhaustedError,
)
_FAILURE = "failure.txt"


class RunTuner(base_tuner.BaseTuner):
    """A KerasTuner whose trials are run directories, in which they go on when they were stopped.

    A trial's tickets are held against the reference, a dense network that is trained once: see
    `analysis.trials.outcome`. Hyperband begins with short trainings; there is a reference of each length.

    Args:
        hypermodel: its `build(hp)` tells what is searched.
        workdir: the folder of all trials.
        oracle: a name in `oracles.ORACLES`, or an oracle.
        objective: `"density"`, the lowest that still matches, or `"accuracy"` at the target density.
        target_density: what each trial prunes to, in (0, 1).
        trials: at most how many.
        seed: what the oracle draws depends on it.
        settings: what else determines the results, as JSON can hold it.

    Raises:
        ValueError: an argument is out of range, there is nothing to search, or the workdir belongs to
            another tuning.
    """

    def __init__(
        self,
        hypermodel: Any,
        *,
        workdir: str | os.PathLike[str],
        oracle: str | keras_tuner.Oracle,
        objective: str,
        target_density: float,
        trials: int,
        seed: int,
        settings: Mapping[str, Any],
    ):
        direction = names.find(objective, OBJECTIVES, "objective")
        if not 0 < target_density < 1:
            raise ValueError(f"target_density must be in (0, 1). Received {target_density}.")
        self._is_chief = _is_chief()
        self._objective, self._target_density = objective, target_density
        # The oracle itself, also where `self.oracle` is a worker's line to that of the chief.
        self._own_oracle = oracles.make(oracle, keras_tuner.Objective(objective, direction), trials, seed)
        self._own_oracle.verbose = 0
        self._directory = TuningDirectory(workdir)
        folder = self._directory.path
        super().__init__(self._own_oracle, hypermodel, directory=str(folder.parent), project_name=folder.name)
        space = described(self._own_oracle.get_space())
        if not space:
            raise ValueError(
                "There is nothing to search: ask hp for a value, such as hp.Float('rate', 0, 1)."
            )
        if clash := [name for name in space if name in trials_module.COLUMNS]:
            raise ValueError(
                f"A column of trials.csv is called {clash[0]!r}: call the hyperparameter otherwise."
            )
        kind = oracle if isinstance(oracle, str) else type(oracle).__name__
        chosen = {"objective": objective, "target_density": target_density, "oracle": kind, "seed": seed}
        self._settings = {**chosen, "trials": trials, "space": space, **settings}
        self._directory.check(self._settings)
        if not self._is_worker() and (self._directory.path / "oracle.json").exists():
            self._own_oracle.reload()
        self._references: dict[float, Sequence[Result]] = {}
        self._arguments: Mapping[str, Any] = {}
        self._beating = contextlib.ExitStack()

    # What a kind of tuner does

    def train(
        self, hp: keras_tuner.HyperParameters, folder: paths.Path, share: float, **arguments: Any
    ) -> Any:
        """Makes the run of a trial: tickets down to the target density.

        Args:
            hp: its hyperparameters.
            folder: the run directory.
            share: how long trainings are, as a share of the whole.
            **arguments: those of `search`.
        """
        raise NotImplementedError

    def train_reference(self, folder: paths.Path, share: float, **arguments: Any) -> None:
        """Makes the run of the dense network that tickets are to match; arguments as of `train`."""
        raise NotImplementedError

    def keep(self, folder: paths.Path, level: int, trained: Any) -> None:
        """Is told the level of the ticket that counts, and what `train` returned."""

    # What users call

    def search(self, **arguments: Any) -> None:
        """Runs trials until there are enough; of several processes the chief hands them to the others."""
        self._arguments, self._references = arguments, {}
        if self._is_worker():
            with chief.explained(), self._beating:
                super().search()
            self._own_oracle.reload()  # what the chief has written
            return
        with self._directory.open(self._settings):
            defaults = {hp.name: hp.default for hp in self._own_oracle.get_space().space}
            trials_module.write_columns(self._directory.path, defaults, self._objective)
            if self._is_chief:
                self.save()
                chief.serve(self._own_oracle, self._ended, self.say)
            else:
                super().search()

    def ended_trials(self) -> list[Trial]:
        """Returns the trials that have ended, best first, and last those that failed."""
        ended = (t for t in self._own_oracle.trials.values() if t.status in ("COMPLETED", "FAILED"))
        return trials_module.ranked(map(self._trial, ended), self._objective)

    def folder(self, trial: Any) -> paths.Path:
        """Returns the run directory of a KerasTuner trial."""
        return self._directory.path / names.of_folder(f"trial_{trial.trial_id}", "trial")

    def get_best_trials(self, num_trials: int = 1) -> list[Any]:
        """Returns KerasTuner's trials, best first: of several lengths, those with the longest trainings."""
        by_name = {self.folder(trial).name: trial for trial in self._own_oracle.trials.values()}
        best = [by_name[trial.name] for trial in self.ended_trials() if not trial.failure]
        return best[:num_trials]

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[keras_tuner.HyperParameters]:
        """Returns the hyperparameters of the best trials, best first."""
        return [trial.hyperparameters for trial in self.get_best_trials(num_trials)]

    def get_best_models(self, num_models: int = 1) -> list[Any]:
        """Returns the models of the best trials, best first."""
        return [self.load_model(trial) for trial in self.get_best_trials(num_models)]

    def results_summary(self, num_trials: int = 10) -> None:
        """Prints a table of the best trials."""
        print(trials_module.table(self.ended_trials()[:num_trials]))

    # What KerasTuner calls

    def run_trial(self, trial: Any) -> dict[str, float]:
        folder, share = self.folder(trial), self._share(trial)
        trained = self._once_free(
            folder, lambda: self.train(trial.hyperparameters, folder, share, **self._arguments)
        )
        reference = self._reference(share)
        found = trials_module.outcome(reference, _results(folder), self._objective, self._target_density)
        self.keep(folder, found["level"], trained)
        if self._is_worker():
            chief.find_chief()
        return found

    def _try_run_and_update_trial(self, trial: Any) -> None:
        # KerasTuner would take a wrong argument or a full disk for a trial that failed, and go on.
        try:
            self._run_and_update_trial(trial)
            trial.status = "COMPLETED"
        except _FAILURES as error:
            trial.status = "FAILED"
            # On the disk, for a worker's line to its chief has no room for it.
            files.write_text(self.folder(trial) / _FAILURE, " ".join(str(error).split()))

    def pre_create_trial(self) -> None:
        if self._is_worker():
            chief.pause()
            chief.find_chief()

    def on_search_begin(self) -> None:
        self.save()

    def on_trial_begin(self, trial: Any) -> None:
        if self._is_worker():
            self._beating.enter_context(chief.beating(self.oracle, trial.trial_id))
        self._reference(self._share(trial))  # at once: what is wrong with it is no fault of the trial
        values = ", ".join(f"{name} {trials_module.shown(v)}" for name, v in _values(trial).items())
        self.say(f"{self.folder(trial).name}: {values}")

    def on_trial_end(self, trial: Any) -> None:
        self.oracle.end_trial(trial)
        self._beating.close()
        if not self._is_worker():
            self._ended(trial.trial_id)

    def save(self) -> None:
        # A worker's oracle is the chief's; and KerasTuner's own file beside the oracle's says nothing.
        if not self._is_worker():
            self._own_oracle.save()

    def _get_tuner_fname(self) -> str:
        # KerasTuner makes the folder to look for it.
        return os.path.join(self.directory, self.project_name, f"{self.tuner_id}.json")

    def _reference(self, share: float) -> Sequence[Result]:
        """Returns the results of the dense network that tickets are to match."""
        if share not in self._references:
            name = "reference" if share == 1 else f"reference_{100 * share:.0f}"
            folder = self._directory.path / name
            with self._directory.one_at_a_time():
                self.say(f"{name}: the dense network")
                self._once_free(folder, lambda: self.train_reference(folder, share, **self._arguments))
            self._references[share] = results = _results(folder)
            if self._objective == "accuracy" and math.isnan(results[0].final_validation_accuracy):
                raise ValueError(
                    "objective='accuracy' needs a model with one: compile it with metrics=['accuracy'], or "
                    "pass objective='density', which goes by the loss where there is none."
                )
        return self._references[share]

    def _once_free(self, folder: paths.Path, train: Callable[[], Any]) -> Any:
        """Trains; where a worker that was given up is still in that folder, once it is through or dead."""
        while True:
            try:
                return train()
            except InUseError as error:
                if not self._is_worker():
                    raise
                self.say(str(error))
            while RunDirectory(folder, {}).replicate(1).holder():
                time.sleep(chief.BEAT)

    def _share(self, trial: Any) -> float:
        epochs = trial.hyperparameters.values.get("tuner/epochs")  # of Hyperband
        return 1.0 if epochs is None else epochs / self._own_oracle.max_epochs

    def _trial(self, trial: Any) -> Trial:
        """Returns a KerasTuner trial that has ended as tables have it."""
        folder, failure, metrics = self.folder(trial), "", {}
        if trial.status == "FAILED":
            failure = (folder / _FAILURE).read_bytes().decode()
        else:
            # Of workers they come in single precision.
            values = {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}
            metrics = {name: float(f"{value:.6g}") for name, value in values.items()}
        return Trial(folder.name, _values(trial), metrics, failure, self._share(trial))

    def _ended(self, trial_id: str) -> None:
        self.save()  # once more: the oracle did while the trial still went on
        name = self.folder(self._own_oracle.trials[trial_id]).name
        ended = self.ended_trials()
        trial = next(trial for trial in ended if trial.name == name)
        trials_module.write(self._directory.path, ended, trial)
        best = "" if trial is ended[0] else f" (best so far: {trials_module.line(ended[0])})"
        self.say(trials_module.line(trial) + best)

    def say(self, text: str) -> None:
        """Prints a line, unless `search` has `verbose=0`."""
        if self._arguments.get("verbose", 1):
            print(text, flush=True)


def _results(folder: paths.Path) -> list[Result]:
    return [network.result for network in recorded.compared(folder)]


def _values(trial: Any) -> dict[str, Any]:
    """Returns name -> value of a trial's hyperparameters, without what Hyperband adds."""
    values = trial.hyperparameters.values
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}


def _is_chief() -> bool:
    try:
        return distribution.is_chief_oracle()
    except RuntimeError as error:
        raise ValueError(str(error)) from error
