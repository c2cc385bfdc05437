"""An arm in the middle of its training, and the same as tensors, for files and for other workers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.tickets.masks import Arrays
from tf_lottery.training.history import History

_STATE, _SNAPSHOT, _CURVE, _METRIC = "state/", "snapshot/", "curve/", "metric/"


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a checkpoint holds.

    Attributes:
        state: path -> array, every variable of the model and its optimizer.
        history: its metrics so far.
        snapshots: step -> state, of what was asked for and came by.
        since: steps trained since the last evaluation.
        metrics: what the model's metrics have gathered in these, one array for each of their variables.
    """

    state: Arrays
    history: History
    snapshots: Mapping[int, Arrays] = dataclasses.field(default_factory=dict)
    since: int = 0
    metrics: Sequence[np.ndarray] = ()

    @property
    def step(self) -> int:
        """The step that training goes on from."""
        return self.history.steps[-1] + self.since

    def tensors(self) -> tuple[Arrays, dict[str, Any]]:
        """Returns all of it as tensors by name, and what is to be known beside them, as JSON can hold it."""
        curves = self.history.curves
        tensors = {_STATE + name: array for name, array in self.state.items()}
        tensors |= {_SNAPSHOT + name: array for name, array in by_step(self.snapshots).items()}
        tensors |= {_CURVE + name: np.array(curve) for name, curve in curves.items()}
        # The tensors may come back in another order, and curves.npz has the curves in theirs.
        tensors |= {f"{_METRIC}{i:03d}": array for i, array in enumerate(self.metrics)}
        numbers = {"steps": self.history.steps, "classes_predicted": self.history.classes_predicted}
        return tensors, {**numbers, "since": self.since, "curves": list(curves)}

    @classmethod
    def of(cls, tensors: Arrays, described: Mapping[str, Any], like: Arrays) -> "Progress":
        """Returns what `tensors()` took apart.

        Args:
            tensors: its tensors.
            described: what it said beside them.
            like: path -> array in the network's order, which a snapshot is given.
        """
        curves = {name: tensors[_CURVE + name].tolist() for name in described["curves"]}
        history = History(described["steps"], curves, described["classes_predicted"])
        snapshots = snapshots_of(under(_SNAPSHOT, tensors), like)
        metrics = [array for _, array in sorted(under(_METRIC, tensors).items())]
        return cls(under(_STATE, tensors), history, snapshots, described["since"], metrics)


def under(prefix: str, tensors: Arrays) -> Arrays:
    """Returns the tensors whose names start with the prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def by_step(snapshots: Mapping[int, Arrays]) -> Arrays:
    """Returns the tensors of all snapshots, named `<step>/<path>`."""
    return {f"{step}/{path}": a for step, state in snapshots.items() for path, a in state.items()}


def snapshots_of(tensors: Arrays, like: Arrays) -> dict[int, Arrays]:
    """Returns step -> state of what `by_step` put together."""
    steps = {int(name.partition("/")[0]) for name in tensors}
    return {step: in_order(under(f"{step}/", tensors), like) for step in sorted(steps)}


def in_order(tensors: Arrays, like: Arrays) -> Arrays:
    """Returns tensors in the network's order, which a file has not: tickets are written in it."""
    return {**{path: tensors[path] for path in like if path in tensors}, **tensors}
