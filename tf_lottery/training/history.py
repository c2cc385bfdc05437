"""What training a network leaves behind: its curves, and the numbers read off them."""

import dataclasses
import math
import numbers
import re
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_lottery.tickets.masks import SEARCH, TICKET

__all__ = ["SEARCH", "TICKET", "Failure", "History", "Logs", "Result"]

Logs = dict[str, float]  # metrics by name


@dataclasses.dataclass
class History:
    """Metrics on the evaluation grid of one trained network.

    Attributes:
        steps: the steps at which the network was evaluated, ascending. The first is
            where training started, before any update.
        curves: `"<data>/<metric>"` -> one float for each of `steps`, where data is
            `train` (over the steps since the last evaluation; NaN at the first),
            `validation` or `test`.
        classes_predicted: how many different classes the network predicts after its last step; 0
            where that was not looked at, or its output is not one of classes.
    """

    steps: list[int] = dataclasses.field(default_factory=list)
    curves: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    classes_predicted: int = 0

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


def _is_count(value: Any) -> bool:
    return _is_number(value, numbers.Integral) and 0 <= value <= 2**53


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_measure(value: Any) -> bool:
    return _is_number(value, numbers.Real) and (value != value or abs(value) <= _MOST)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


_MOST = 1e100  # means and squares of such losses are numbers still
_FITS = {int: _is_count, float: _is_measure, str: _is_name}


@dataclasses.dataclass(frozen=True)
class Result:
    """One row of results.csv: one trained network in numbers.

    Accuracies and densities are fractions in [0, 1]. An accuracy is NaN where the
    model has no such metric or there is no such data. `search_steps` are the training
    steps that were spent to find the mask, `empty_layers` the kernels that it empties.
    The training accuracy is that over the steps since the evaluation before the last.
    `classes_predicted` are the different classes that the trained network predicts for up to 1,000
    validation examples; 0 where the model has no accuracy, or no output of classes.
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
    classes_predicted: int = 0

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> "Result":
        """Returns the result that has these entries, as JSON keeps them: None for NaN.

        Raises:
            ValueError: one is missing, unknown, of another type or out of range.
        """
        if wrong := [name for name in entries if name not in cls.__dataclass_fields__]:
            raise ValueError(f"A result has no {reprlib.repr(wrong[0])}.")
        given = {}
        for field in dataclasses.fields(cls):
            if field.name not in entries and field.default is not dataclasses.MISSING:
                continue
            value = entries.get(field.name, "")
            value = math.nan if value is None and field.type is float else value
            if not _FITS[field.type](value) or (field.name == "density" and not 0 <= value <= 1):
                raise ValueError(f"A result cannot have the {field.name} {reprlib.repr(value)}.")
            given[field.name] = field.type(value)
        return cls(**given)

    @property
    def is_dense(self) -> bool:
        """Whether this is the network that nothing was pruned of."""
        return self.level == 0 and self.arm == TICKET

    @property
    def early_stop_reached(self) -> bool:
        """False where validation loss was still falling at the last evaluation."""
        return self.early_stop_step < self.last_step


@dataclasses.dataclass(frozen=True)
class Failure:
    """A network that was given up, as its loss or its weights were no finite numbers any more.

    Attributes:
        level: how often its mask was pruned.
        arm: as of `Result`.
        step: at which it was seen.
        reason: what was seen, such as `"The loss is nan"`.
        last_good: the step of the last evaluation with finite numbers; None where there was none.
        replicate: 1-based.
    """

    level: int
    arm: str
    step: int
    reason: str
    last_good: int | None
    replicate: int = 1

    @classmethod
    def of(cls, entries: Mapping[str, Any]) -> "Failure":
        """Returns the failure that has these entries, as JSON keeps them.

        Raises:
            ValueError: one is missing, unknown, of another type or out of range.
        """
        fits = {
            "arm": _is_name,
            "reason": _is_name,
            "last_good": lambda value: value is None or _is_count(value),
        }
        names = [field.name for field in dataclasses.fields(cls)]
        if sorted(entries) != sorted(names):
            raise ValueError(f"A failure has the entries {', '.join(names)}.")
        for name, value in entries.items():
            if not fits.get(name, _is_count)(value):
                raise ValueError(f"A failure cannot have the {name} {reprlib.repr(value)}.")
        return cls(**entries)

    def __str__(self) -> str:
        return f"{self.reason} at step {self.step} of level {self.level}, arm {self.arm!r}; {self._good}"

    @property
    def seen(self) -> str:
        """Returns what was seen, of a network that is named already."""
        return f"{self.reason[0].lower()}{self.reason[1:]} at step {self.step}; {self._good}"

    @property
    def _good(self) -> str:
        if self.last_good is None:
            return "no evaluation was good"
        return f"the last good evaluation was at step {self.last_good}"
