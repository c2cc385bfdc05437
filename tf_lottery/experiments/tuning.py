"""`tf-lottery tune`: its flags, what it searches by default, and what it says in the end."""

import dataclasses
import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from tf_lottery import names
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import flags
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.training import strategies

if TYPE_CHECKING:
    import keras_tuner

    from tf_lottery.experiments.experiment_tuner import ExperimentTuner, Space

HELP = """\
  tf-lottery tune [--config=FILE] [--config.ENTRY=VALUE ...] [--workdir=DIR] [--FLAG=VALUE ...]

Search an experiment's entries with KerasTuner. Each trial is a run without controls in a folder of
the workdir, for 'tf-lottery report', 'plot' and TensorBoard. Stop it at any time: the same command
goes on. What is searched is said by a function in the config file,

  def tune(config, hp):
      config.train.learning_rate = hp.Float("train.learning_rate", 1e-4, 1e-2, sampling="log")
      config.train.batch_size = hp.Choice("train.batch_size", [32, 64, 128])

and without one by tf_lottery.experiments.tuning.default_space(config, hp), which it may call:
learning rate, initializer, prune fraction, rewind step, criterion and scope.

  --oracle=random          or bayesian, hyperband: what is tried next. Hyperband's trials train
                           for a ninth, a third or all of config.train.steps
  --objective=density      the lowest density that still matches the config's own dense network, on
                           validation data; or accuracy, that on validation data at the target
  --target_density=0.05    what each trial prunes to, instead of config.prune.levels
  --trials=25              at most; more may be asked for later
  --workdir=DIR            runs/tune_... by default

With KerasTuner's KERASTUNER_TUNER_ID, _ORACLE_IP and _ORACLE_PORT in the environment, the same command
is the chief (id chief) or one of its workers (any other id). Config entries: tf-lottery run --help.
"""


_ORACLES = ("random", "bayesian", "hyperband")
_OBJECTIVES = {
    "density": "the lowest density that matches, down to {:.3g} %",
    "accuracy": "the best validation accuracy at {:.3g} % density",
}


@dataclasses.dataclass(frozen=True)
class Request:
    """What a `tf-lottery tune` asks for."""

    config: ExperimentConfig
    space: "Space"
    workdir: str
    oracle: str
    objective: str
    target_density: float
    trials: int

    def tuner(self) -> "ExperimentTuner":
        """Returns the tuner; imports TensorFlow and KerasTuner."""
        from tf_lottery.experiments.experiment_tuner import ExperimentTuner

        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return ExperimentTuner(**options)


def parse(words: Sequence[str]) -> Request:
    """Reads the words after `tune`.

    Raises:
        UsageError: an unknown flag or a value out of range, a config file that cannot be used, or one
            that holds a study.
    """
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string("oracle", "random", "", flag_values=values)
    absl_flags.DEFINE_string("objective", "density", "", flag_values=values)
    absl_flags.DEFINE_float("target_density", 0.05, "", flag_values=values)
    absl_flags.DEFINE_integer("trials", 25, "", flag_values=values)
    study, workdir = flags.parse(list(words), values, "tune_")
    if "" not in study:
        raise flags.UsageError(f"tune takes one experiment, and the file has several: {', '.join(study)}.")
    _check_strategy(study[""].strategy)
    space = flags.function_of(words, "tune") or default_space
    names.find(values.oracle, dict.fromkeys(_ORACLES), "oracle")
    names.find(values.objective, _OBJECTIVES, "objective")
    if not 0 < values.target_density < 1:
        raise flags.UsageError(f"--target_density must be in (0, 1). Received {values.target_density}.")
    if values.trials < 1:
        raise flags.UsageError(f"--trials must be 1 or more. Received {values.trials}.")
    chosen = (values.oracle, values.objective, values.target_density, values.trials)
    return Request(study[""], space, workdir, *chosen)


def default_space(config: ExperimentConfig, hp: "keras_tuner.HyperParameters") -> None:
    """Sets learning rate, initializer, prune fraction, rewind step, criterion and scope by `hp`.

    Around what the config has: a tenth to ten times the learning rate, 0.1 to 0.5 of the weights a level,
    back to step 0, or to 1 % or 5 % of the training. Scope and rewind step are left as they are where
    `prune.structure` or `prune.rewinding` say something of them.

    Example:
        >>> import keras_tuner
        >>> config, hp = ExperimentConfig(), keras_tuner.HyperParameters()
        >>> default_space(config, hp)
        >>> list(hp.values)[:3]
        ['train.learning_rate', 'network.initializer', 'prune.fraction']
        >>> config == ExperimentConfig()
        True
    """
    train, prune, network = config.train, config.prune, config.network
    rate = train.learning_rate
    train.learning_rate = hp.Float("train.learning_rate", rate / 10, rate * 10, sampling="log", default=rate)
    usual = ["glorot_normal", "he_normal", "orthogonal"]
    network.initializer = _choice(hp, "network.initializer", usual, network.initializer)
    prune.fraction = _choice(hp, "prune.fraction", [0.1, 0.2, 0.3, 0.4, 0.5], prune.fraction)
    if not prune.rewinding:
        steps = [0, train.steps // 100, train.steps // 20]
        prune.rewind_step = _choice(hp, "prune.rewind_step", steps, prune.rewind_step)
    criteria = ["magnitude", "magnitude_increase", "movement"]
    prune.criterion = _choice(hp, "prune.criterion", criteria, prune.criterion)
    if prune.structure == "unstructured":
        prune.scope = _choice(hp, "prune.scope", ["layer", "global"], prune.scope)
        if prune.scope != "layer" and prune.output_fraction:
            # Weights of all layers compete; and it is known when the target density is reached.
            prune.output_fraction = prune.fraction


def announcement(request: Request) -> str:
    """Returns what is about to be done."""
    config = request.config
    return (
        f"{config.network.name} on {config.data.name}, up to {request.trials} trials ({request.oracle}) for "
        f"{_OBJECTIVES[request.objective].format(100 * request.target_density)}.\n"
        f"They go to {request.workdir}.\n"
    )


def summary(request: Request, tuner: "ExperimentTuner", words: Sequence[str]) -> str:
    """Returns the table of the trials, and the command that runs the best config with its controls.

    Args:
        request: what was asked for.
        tuner: which has ended.
        words: that the request was read from.
    """
    from tf_lottery.analysis import trials

    ended = tuner.ended_trials()
    parts = ["" if not ended else trials.table(ended)]
    for hp in tuner.get_best_hyperparameters():
        best = tuner.pruned_to_target(tuner.config_of(hp))
        given = [word for word in words if word.lstrip("-").startswith("config")]
        changed = [
            f"--config.{entry}={_typed(config_module.get(best, entry))}"
            for entry in config_module.fields()
            if config_module.get(best, entry) != config_module.get(request.config, entry)
        ]
        workdir = f"--workdir={os.path.normpath(request.workdir)}_best"
        command = " ".join(map(shlex.quote, [*given, *changed, workdir]))
        parts.append(
            f"The best one whole, with its controls and test accuracy:\n\n  tf-lottery run {command}"
        )
    return "\n\n".join(filter(None, parts)) or "No trial has ended."


def _check_strategy(name: str) -> None:
    if name == "tpu":
        raise flags.UsageError("tune trains on CPUs and GPUs: leave --config.strategy=tpu out.")
    if strategies.is_of_workers(name):
        raise flags.UsageError(
            "TF_CONFIG is for workers that train each network together, and those of tune share trials out: "
            "unset it. What they need instead is told by tf-lottery tune --help."
        )


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _choice(hp: "keras_tuner.HyperParameters", name: str, usual: Sequence[Any], own: Any) -> Any:
    """Asks for one of the usual values or the config's own, which is the default."""
    values = list(dict.fromkeys([*usual, own]))
    numbers = not isinstance(own, str)
    return hp.Choice(name, sorted(values) if numbers else values, default=own)
