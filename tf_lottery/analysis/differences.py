"""Tickets minus their controls, replicate by replicate."""

import dataclasses
import statistics
from collections.abc import Sequence

from scipy import special

from tf_lottery.analysis.aggregate import Group, Measure, first_measured, groups
from tf_lottery.training.history import TICKET, Result

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and the interval that it is in with 95 % confidence.

    Attributes:
        mean: of ticket minus control over the replicates that have both.
        low: where Student's interval begins.
        high: where it ends.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, differences: Sequence[float]) -> "Difference":
        """Returns mean and interval of two or more differences, taken as draws of a normal variable.

        Raises:
            ValueError: there are fewer than two, which have no interval.

        Example:
            >>> found = Difference.of([1.0, 2.0, 3.0])
            >>> f"{found.mean:.2f} [{found.low:.2f} {found.high:.2f}]"
            '2.00 [-0.48 4.48]'
        """
        if len(differences) < 2:
            raise ValueError(f"An interval takes two differences or more. Received {len(differences)}.")
        mean = statistics.fmean(differences)
        error = statistics.stdev(differences) / len(differences) ** 0.5
        half = float(special.stdtrit(len(differences) - 1, (1 + CONFIDENCE) / 2)) * error
        return cls(mean, mean - half, mean + half)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Ticket minus control at one level.

    Attributes:
        level: the level.
        density: of the ticket, a fraction in [0, 1].
        pairs: how many replicates have both.
        quality: of the measure: an accuracy, as a fraction, or a loss.
        early_stop: in steps; None where an early stop was not reached, and so is not known.
    """

    level: int
    density: float
    pairs: int
    quality: Difference
    early_stop: Difference | None


def compare(results: Sequence[Result], arm: str = "reinit") -> dict[int, Comparison]:
    """Returns level -> ticket minus control, for levels where two replicates or more have both.

    A replicate's ticket and control have one mask and one data order, so pairs vary less than arms.

    Args:
        results: one for each trained network.
        arm: the control.
    """
    by_arm, measure = groups(results), first_measured(results)
    tickets, controls = by_arm.get(TICKET, {}), by_arm.get(arm, {})
    pairs = {level: (tickets[level].paired_with(controls[level])) for level in tickets.keys() & controls}
    return {level: _comparison(*pairs[level], measure) for level in sorted(pairs) if len(pairs[level][0]) > 1}


def _comparison(ticket: Group, control: Group, measure: Measure) -> Comparison:
    def difference(field: str) -> Difference:
        pairs = zip(ticket.values(field), control.values(field), strict=True)
        return Difference.of([one - other for one, other in pairs])

    reached = ticket.early_stop_reached and control.early_stop_reached
    return Comparison(
        level=ticket.results[0].level,
        density=ticket.mean("density"),
        pairs=len(ticket),
        quality=difference(measure.field),
        early_stop=difference("early_stop_step") if reached else None,
    )
