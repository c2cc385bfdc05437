"""What training a network leaves behind: its curves, and the numbers read off them."""

import dataclasses
import math
import re

import numpy as np

from tf_lottery.tickets.masks import SEARCH, TICKET

__all__ = ["SEARCH", "TICKET", "History", "Result"]


@dataclasses.dataclass
class History:
    """Metrics on the evaluation grid of one trained network.

    Attributes:
        steps: the steps at which the network was evaluated, ascending. The first is
            where training started, before any update.
        curves: `"<data>/<metric>"` -> one float for each of `steps`, where data is
            `train` (over the steps since the last evaluation; NaN at the first),
            `validation` or `test`.
    """

    steps: list[int] = dataclasses.field(default_factory=list)
    curves: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Appends one evaluation; a curve that has no value yet starts with NaN."""
        for name in [*self.curves, *values]:
            curve = self.curves.setdefault(name, [math.nan] * len(self.steps))
            if len(curve) == len(self.steps):
                curve.append(values.get(name, math.nan))
        self.steps.append(step)

    @property
    def early_stop_index(self) -> int:
        """Index into `steps` of the lowest validation loss, the first of equals."""
        return int(np.nanargmin(self.curves["validation/loss"]))

    @property
    def early_stop_step(self) -> int:
        return self.steps[self.early_stop_index]

    @property
    def accuracy(self) -> str:
        """The name of the model's accuracy metric; `"accuracy"` where it has none."""
        metrics = (curve.partition("/")[2] for curve in self.curves)
        return next((metric for metric in metrics if re.search(r"accuracy$|(^|_)acc$", metric)), "accuracy")

    def at_early_stop(self, curve: str) -> float:
        """Returns the curve's value at the early-stop step, NaN where there is no such curve."""
        return self.curves[curve][self.early_stop_index] if curve in self.curves else math.nan

    def first(self, curve: str) -> float:
        """Returns the curve's value before any update, NaN where there is no such curve."""
        return self.curves[curve][0] if curve in self.curves else math.nan

    def final(self, curve: str) -> float:
        """Returns the curve's last value, NaN where there is no such curve."""
        return self.curves[curve][-1] if curve in self.curves else math.nan


@dataclasses.dataclass(frozen=True)
class Result:
    """One row of results.csv: one trained network in numbers.

    Accuracies and densities are fractions in [0, 1]. An accuracy is NaN where the
    model has no such metric or there is no such data. `search_steps` are the training
    steps that were spent to find the mask, `empty_layers` the kernels that it empties.
    The training accuracy is that over the steps since the evaluation before the last.
    """

    replicate: int
    level: int
    arm: str
    density: float
    early_stop_step: int
    test_accuracy_at_early_stop: float
    min_validation_loss: float
    final_test_accuracy: float
    final_validation_accuracy: float
    last_step: int
    test_accuracy_before_training: float = math.nan
    search_steps: int = 0
    empty_layers: int = 0
    final_training_accuracy: float = math.nan

    @property
    def is_dense(self) -> bool:
        """Whether this is the network that nothing was pruned of."""
        return self.level == 0 and self.arm == TICKET

    @property
    def early_stop_reached(self) -> bool:
        """False where validation loss was still falling at the last evaluation."""
        return self.early_stop_step < self.last_step
