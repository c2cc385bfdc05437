"""Results gathered by arm and level, and the quantity they are compared by."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Collection, Sequence

from tf_lottery.training.history import SEARCH, TICKET, Result


@dataclasses.dataclass(frozen=True)
class Measure:
    """How good a trained network is.

    Attributes:
        field: the field of `Result` that holds it.
        name: what it is called in sentences and on axes.
        column: what it is called in tables.
        is_loss: True where lower is better; False for an accuracy, a fraction in [0, 1].
    """

    field: str
    name: str
    column: str
    is_loss: bool = False

    def gain(self, value: float) -> float:
        """Returns the value with the sign that makes higher better."""
        return -value if self.is_loss else value

    def text(self, value: float) -> str:
        """Returns the value for people: an accuracy in percent, without the sign, or a loss.

        Example:
            >>> MEASURES[0].text(0.97204)
            '97.20'
        """
        return f"{value:.4g}" if self.is_loss else f"{100 * value:.2f}"

    def difference(self, value: float) -> str:
        """Returns a difference for people, with its sign: of accuracies in points.

        Example:
            >>> MEASURES[0].difference(0.0128)
            '+1.28'
        """
        return f"{value:+.4g}" if self.is_loss else f"{100 * value:+.2f}"


MEASURES = (
    Measure("test_accuracy_at_early_stop", "test accuracy", "test acc %"),
    Measure("final_validation_accuracy", "final validation accuracy", "final val acc %"),
    Measure("min_validation_loss", "validation loss", "min val loss", is_loss=True),
)


def first_measured(results: Sequence[Result], measures: Sequence[Measure] = MEASURES) -> Measure:
    """Returns the first of the measures that is not NaN in all results, else the last one."""
    for measure in measures:
        if not all(math.isnan(getattr(result, measure.field)) for result in results):
            return measure
    return measures[-1]


@dataclasses.dataclass(frozen=True)
class Group:
    """The replicates of one arm at one level."""

    results: tuple[Result, ...]

    def values(self, field: str) -> list[float]:
        """Returns one number for each replicate."""
        return [getattr(result, field) for result in self.results]

    def mean(self, field: str) -> float:
        return statistics.fmean(self.values(field))

    def range(self, field: str) -> tuple[float, float]:
        """Returns the lowest and the highest of the replicates."""
        return min(self.values(field)), max(self.values(field))

    def paired_with(self, other: "Group") -> tuple["Group", "Group"]:
        """Returns of both groups the replicates that the other has too, in the same order."""
        shared = {r.replicate for r in self.results} & {r.replicate for r in other.results}
        return self._only(shared), other._only(shared)

    def _only(self, replicates: Collection[int]) -> "Group":
        return Group(tuple(r for r in self.results if r.replicate in replicates))

    def __len__(self) -> int:
        return len(self.results)

    @property
    def early_stop_reached(self) -> bool:
        """False where one replicate's was not: the mean step is then too low."""
        return all(result.early_stop_reached for result in self.results)


def groups(results: Sequence[Result]) -> dict[str, dict[int, Group]]:
    """Returns arm -> level -> its replicates.

    The tickets come first, then the controls by name; levels ascend. Networks that were
    trained to find a mask are left out.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError("Expected the results of at least one trained network. Received: none.")
    found: dict[str, dict[int, Group]] = {}
    compared = [result for result in results if result.arm != SEARCH]
    ordered = sorted(compared, key=lambda r: (r.arm != TICKET, r.arm, r.level, r.replicate))
    for (arm, level), rows in itertools.groupby(ordered, key=lambda r: (r.arm, r.level)):
        found.setdefault(arm, {})[level] = Group(tuple(rows))
    return found
