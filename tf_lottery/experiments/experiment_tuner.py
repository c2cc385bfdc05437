"""Tuning an experiment: each trial is a run of the driver."""

import gc
import math
import traceback
from collections.abc import Callable

import keras_tuner

from tf_lottery import paths
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import driver, flags
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.experiments.experiment import Experiment, copy_of
from tf_lottery.search.tuner import RunTuner
from tf_lottery.tickets import pruning

Space = Callable[[ExperimentConfig, keras_tuner.HyperParameters], None]


class ExperimentTuner(RunTuner):
    """Tunes an experiment. The reference that tickets are to match is its dense network, as configured.

    Args:
        config: the experiment; validated.
        space: takes a copy of it and `hp`, and sets what is searched.
        workdir: the folder of all trials.
        oracle: a name in `oracles.ORACLES`.
        objective: `"density"` or `"accuracy"`.
        target_density: what each trial prunes to, instead of `config.prune.levels`.
        trials: at most how many.

    Raises:
        ValueError: as of `RunTuner`, or `space` sets what is out of range.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        space: Space,
        *,
        workdir: str,
        oracle: str,
        objective: str,
        target_density: float,
        trials: int,
    ):
        self._config, self._space, self._target_density = config, space, target_density
        # What is wrong with the data or the model shows here, before the workdir is touched.
        experiment = Experiment(self.config_of(keras_tuner.HyperParameters()))
        self._levels(experiment)
        experiment.loop  # noqa: B018 (made for its errors)
        super().__init__(
            self.config_of,
            workdir=workdir,
            oracle=oracle,
            objective=objective,
            target_density=target_density,
            trials=trials,
            seed=config.seed,
            settings={"config": config_module.entries_of(config)},
        )

    def config_of(self, hp: keras_tuner.HyperParameters) -> ExperimentConfig:
        """Returns the experiment with these hyperparameters."""
        config = copy_of(self._config)
        try:
            self._space(config, hp)
        except keras_tuner.errors.FailedTrialError:
            raise
        except Exception as error:  # the user's program, just below this frame, or not called as it wants
            frames = traceback.extract_tb(error.__traceback__)
            path = frames[1].filename if len(frames) > 1 else "tune(config, hp)"
            raise flags.UsageError(f"{path}: {flags.in_file(error, path)}") from error
        try:
            config_module.validate(config)
        except (TypeError, ValueError) as error:
            raise flags.UsageError(f"{error} The search space comes to that with {hp.values}.") from error
        return config

    def pruned_to_target(self, config: ExperimentConfig) -> ExperimentConfig:
        """Returns an experiment with as many levels as the target density takes.

        Raises:
            ValueError: it is never reached, or that cannot be known beforehand.
        """
        levels = self._levels(Experiment(config))
        config = copy_of(config)
        config.prune.levels = levels
        return config

    def _levels(self, experiment: Experiment) -> int:
        fractions, prune = experiment.plan(1).fractions, experiment.config.prune
        try:
            return pruning.levels_to(
                self._target_density, experiment.model.shapes, fractions, prune.scope, prune.structure
            )
        except ValueError as error:
            raise ValueError(
                f"{error} In a config: prune.output_fraction as prune.fraction, or 0; prune.conv_fraction -1."
            ) from error

    def train(self, hp: keras_tuner.HyperParameters, folder: paths.Path, share: float) -> None:
        config = self.pruned_to_target(_tickets_alone(self.config_of(hp), share))
        driver.run(config, str(folder))
        gc.collect()

    def train_reference(self, folder: paths.Path, share: float) -> None:
        config = _tickets_alone(copy_of(self._config), share)
        config.prune.levels = 0
        driver.run(config, str(folder))


def _tickets_alone(config: ExperimentConfig, share: float) -> ExperimentConfig:
    """Shortens each training to that share, leaves the controls out, and has NaN end the trial."""
    config.train.on_nan = "stop"
    config.train.steps = math.ceil(share * config.train.steps)
    config.controls, config.control_levels = (), ()
    return config
