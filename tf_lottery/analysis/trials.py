"""The trials of a tuning: what each comes to, which is best, and how they are shown.

Accuracies and losses are those of the validation data: to tune on test data is to have none left.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tf_lottery import files, paths
from tf_lottery.analysis import aggregate, dashboard, tables, verdict
from tf_lottery.training.history import TICKET, Result

OBJECTIVES = {"density": "min", "accuracy": "max"}
_METRICS = ("density", "accuracy", "validation_loss", "early_stop_step", "level")
COLUMNS = ("trial", *_METRICS, "share", "failure")  # of trials.csv; those of hyperparameters follow
_SHOWN = 4  # significant digits of a hyperparameter


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Attributes:
        name: of its run directory.
        values: name -> value of its hyperparameters.
        metrics: what it came to, as `outcome` has it; empty where it failed.
        failure: why it failed; empty where it did not.
        share: how long its trainings were, as a share of those of the others: Hyperband begins short.
    """

    name: str
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    failure: str = ""
    share: float = 1.0


def outcome(
    reference: Sequence[Result], results: Sequence[Result], objective: str, target_density: float
) -> dict[str, float]:
    """Returns what a trial comes to, of the one ticket that its objective looks at.

    For `"density"` this is the sparsest ticket that matches the reference's dense network: a trial's own
    may be so bad that anything matches it. Where none does it is the trial's dense network, of density 1.
    For `"accuracy"` it is the densest ticket of at most the target density.

    Args:
        reference: results of the dense network that tickets are to match.
        results: of the trial's networks.
        objective: a key of `OBJECTIVES`.
        target_density: in (0, 1).

    Returns:
        `level`, `density`, `early_stop_step`, `validation_loss` (the lowest), and of models with an
        accuracy `accuracy` (the final one), as means over replicates.

    Raises:
        ValueError: no ticket is as sparse as the target density.

    Example:
        >>> def row(level, density, accuracy):
        ...     return Result(1, level, "ticket", density, 40, math.nan, 0.2, math.nan, accuracy, 50)
        >>> trial = [row(0, 1.0, 0.95), row(1, 0.5, 0.968), row(2, 0.25, 0.96)]
        >>> outcome([row(0, 1.0, 0.969)], trial, "density", 0.1)["density"]
        0.5
        >>> outcome([row(0, 1.0, 0.969)], trial, "accuracy", 0.3)["accuracy"]
        0.96
    """
    dense = _on_validation([result for result in reference if result.is_dense])
    tickets = aggregate.groups(_on_validation(results))[TICKET]
    if objective == "density":
        pruned = [result for level, group in tickets.items() if level for result in group.results]
        level = verdict.judge([*dense, *pruned]).matching or 0
    else:
        sparse = [level for level, group in tickets.items() if group.mean("density") <= target_density]
        if not sparse:
            raise ValueError(f"No ticket is as sparse as target_density={target_density}.")
        level = min(sparse)
    group = tickets[level]
    found = {
        "level": level,
        "density": group.mean("density"),
        "accuracy": group.mean("final_validation_accuracy"),
        "validation_loss": group.mean("min_validation_loss"),
        "early_stop_step": group.mean("early_stop_step"),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def ranked(trials: Iterable[Trial], objective: str) -> list[Trial]:
    """Returns the trials, best first: of those with the longest trainings; the more accurate of equals.

    Trials that failed come last.
    """
    sign = 1 if OBJECTIVES[objective] == "min" else -1

    def place(trial: Trial) -> tuple[Any, ...]:
        metrics = trial.metrics
        worse = metrics.get("validation_loss", math.inf)
        return (
            bool(trial.failure),
            -trial.share,
            sign * metrics.get(objective, 0),
            -metrics.get("accuracy", -worse),
        )

    return sorted(trials, key=place)


def table(trials: Sequence[Trial]) -> str:
    """Returns a table with a row for each trial, in the order given, and why trials failed.

    Example:
        >>> metrics = {"level": 3, "density": 0.5, "accuracy": 0.968, "early_stop_step": 40}
        >>> failed = Trial("trial_1", {"rate": 9.5}, {}, "The loss became nan.")
        >>> print(table([Trial("trial_0", {"rate": 0.0012345}, metrics), failed]))
        trial    density %  val acc %  early stop  level      rate
        trial_0      50.00      96.80          40      3  0.001234
        trial_1          -          -           -      -       9.5
        trial_1 failed: The loss became nan.
    """
    columns: dict[str, Callable[[Trial], str]] = {"density %": _measured("density", _percent)}
    if any("accuracy" in trial.metrics for trial in trials):
        columns["val acc %"] = _measured("accuracy", _percent)
    else:
        columns["min val loss"] = _measured("validation_loss", shown)
    columns |= {"early stop": _measured("early_stop_step", round), "level": _measured("level", round)}
    if any(trial.share != 1 for trial in trials):
        columns["steps %"] = lambda trial: _percent(trial.share)
    for name in dict.fromkeys(name for trial in trials for name in trial.values):
        columns[name] = lambda trial, name=name: shown(trial.values.get(name, "-"))
    names = tables.in_columns([[text] for text in ("trial", *(trial.name for trial in trials))], left=1)
    cells = [tables.in_columns([[head], *([cell(t)] for t in trials)]) for head, cell in columns.items()]
    failures = [line(trial) for trial in trials if trial.failure]
    return "\n".join([tables.in_bands([names, *cells]), *failures])


def _measured(name: str, text: Callable[[float], Any]) -> Callable[[Trial], str]:
    return lambda trial: str(text(trial.metrics[name])) if name in trial.metrics else "-"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def shown(value: Any) -> str:
    """Returns a hyperparameter's value for people."""
    return f"{value:.{_SHOWN}g}" if isinstance(value, float) else str(value)


def line(trial: Trial) -> str:
    """Returns what a trial came to in a few words.

    Example:
        >>> line(Trial("trial_0", {}, {"density": 0.5, "accuracy": 0.968}))
        'trial_0 keeps 50.00 %, validation accuracy 96.80 %'
    """
    if trial.failure:
        return f"{trial.name} failed: {trial.failure}"
    accuracy = trial.metrics.get("accuracy")
    loss = trial.metrics.get("validation_loss")
    quality = f"loss {loss:.4g}" if accuracy is None else f"accuracy {100 * accuracy:.2f} %"
    return f"{trial.name} keeps {100 * trial.metrics['density']:.2f} %, validation {quality}"


def write(workdir: paths.Path, trials: Sequence[Trial], last: Trial) -> None:
    """Writes trials.csv, a row for each trial in the order given, and the last to end as a row of HParams."""
    from tf_lottery.training.events import Events

    rows = [
        {"trial": t.name, **t.metrics, "share": t.share, "failure": t.failure, **t.values} for t in trials
    ]
    columns = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
    files.write_csv(workdir / "trials.csv", columns, rows)
    with contextlib.closing(Events(workdir / "tensorboard" / last.name)) as events:
        events.raw(dashboard.trial_row(last.values))
        events.scalars({f"trial/{name}": value for name, value in last.metrics.items()}, 0)


def write_columns(workdir: paths.Path, values: Mapping[str, Any], objective: str) -> None:
    """Tells HParams which columns the trials have.

    Args:
        workdir: of the tuning.
        values: name -> any value of each hyperparameter.
        objective: stands first.
    """
    from tf_lottery.training.events import Events

    with contextlib.closing(Events(workdir / "tensorboard" / "layout")) as events:
        events.raw(dashboard.trial_columns(values, dict.fromkeys([objective, *_METRICS])))


def _on_validation(results: Sequence[Result]) -> list[Result]:
    unknown = {"test_accuracy_at_early_stop": math.nan, "final_test_accuracy": math.nan}
    return [dataclasses.replace(result, **unknown) for result in results]
