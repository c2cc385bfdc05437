"""Which ticket won: the one place that says *matching* or *winning*."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from tf_lottery.analysis import differences, tables
from tf_lottery.analysis.aggregate import MEASURES, Group, Measure, first_measured, groups
from tf_lottery.training.history import TICKET, Result

# Less than one example of any test set: what is left is rounding of floats.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a search has found.

    Attributes:
        winning: level of the sparsest winning ticket; None where none wins.
        best: level of the ticket with the highest final validation accuracy (without
            accuracies, the lowest validation loss), the sparsest of equals; 0 where
            nothing was pruned.
        sentence: all this in one sentence for people.
        matching: level of the sparsest matching ticket; None where none matches.
    """

    winning: int | None
    best: int
    sentence: str
    matching: int | None = None

    @property
    def level(self) -> int:
        """The level to use: the winning ticket's, else the best one's."""
        return self.best if self.winning is None else self.winning


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """A ticket beside the dense network."""

    ticket: Group
    dense: Group
    measure: Measure
    tolerance: float

    @property
    def density(self) -> float:
        return self.ticket.mean("density")

    @property
    def sparser(self) -> bool:
        return self.density < self.dense.mean("density")

    @property
    def drop(self) -> float:
        """By how much the ticket is worse; negative where it is better."""
        field, gain = self.measure.field, self.measure.gain
        return gain(self.dense.mean(field)) - gain(self.ticket.mean(field))

    @property
    def later(self) -> bool:
        return self.ticket.mean("early_stop_step") > self.dense.mean("early_stop_step")

    @property
    def unsettled(self) -> bool:
        """Whether longer training could change the answer; not where the ticket is late already."""
        return not self.dense.early_stop_reached or not (self.ticket.early_stop_reached or self.later)

    @property
    def matching(self) -> bool:
        return self.sparser and self.drop <= (0 if self.measure.is_loss else self.tolerance) + _ROUNDING

    @property
    def winning(self) -> bool:
        return self.sparser and self.drop <= _ROUNDING and not self.later and not self.unsettled


def judge(results: Sequence[Result], *, tolerance: float = 0.002) -> Verdict:
    """Says which tickets match the dense network, and which win.

    A ticket is *matching* (1912.05671) if its accuracy is not below the dense network's
    by more than `tolerance`, at lower density. It is *winning* (1803.03635) if, at lower
    density, its accuracy is not below the dense network's at all, and its early-stop
    step is not later.

    Accuracy is test accuracy at the early-stop step; without test data, the final
    validation accuracy; without accuracies, the lowest validation loss, with no tolerance.
    Means over replicates are compared; at each level those of the replicates that have come to it,
    for the dense network too. The sentence gives the lowest and the highest beside each mean, and
    the paired differences ticket minus reinit with their 95 % interval (`differences.compare`).
    Where validation loss was still falling when training ended, the early stop is not
    known: such a ticket does not win, and none wins against such a dense network;
    matching compares what was reached.

    Args:
        results: one for each trained network, the dense one (arm `"ticket"`, level 0)
            among them.
        tolerance: by how much a matching ticket's accuracy may be lower, a fraction in
            [0, 1]; the default, 0.2 percentage points, is that of 1912.05671.

    Raises:
        ValueError: there are no results, or none of the dense network; or the tolerance
            is out of range.

    Example:
        >>> def row(level, density, step, accuracy):
        ...     return Result(1, level, "ticket", density, step, accuracy, 0.1, accuracy, accuracy, 1000)
        >>> verdict = judge([row(0, 1.0, 700, 0.967), row(9, 0.134, 450, 0.972)])
        >>> verdict.level
        9
        >>> print(verdict.sentence)  # doctest: +NORMALIZE_WHITESPACE
        A winning ticket: level 9 keeps 13.4 % of the weights and reaches 97.20 % test accuracy,
        early stop at step 450 (dense: 96.70 %, step 700).
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance is a fraction in [0, 1], such as 0.002. Received: {tolerance}.")
    by_arm = groups(results)
    tickets = by_arm.get(TICKET, {})
    if 0 not in tickets:
        raise ValueError(
            f"Expected a result of the dense network, arm {TICKET!r} at level 0, to compare tickets with. "
            f"Received: arms {list(by_arm)}, {TICKET!r} at levels {list(tickets)}."
        )
    dense, measure = tickets.pop(0), first_measured(results)
    if not tickets:
        reached = _reached(dense, measure, measure.name)
        clauses = [f"No ticket is trained yet: the dense network reaches {reached}", *_dead_ends({0: dense})]
        return Verdict(None, 0, "; ".join(clauses) + ".")
    pairs = {level: ticket.paired_with(dense) for level, ticket in tickets.items()}
    compared = {
        level: _Comparison(*pair, measure, tolerance) for level, pair in pairs.items() if len(pair[0])
    }
    if not compared:
        raise ValueError("Expected replicates with a dense network and a ticket. Received: none with both.")
    winning = _sparsest({level: c for level, c in compared.items() if c.winning})
    matching = _sparsest({level: c for level, c in compared.items() if c.matching})
    best = _best(compared, first_measured(results, MEASURES[1:]))
    verdict = Verdict(winning, best, "", matching)
    reinit = by_arm.get("reinit", {}).get(verdict.level)
    difference = differences.compare(results).get(verdict.level)
    return dataclasses.replace(verdict, sentence=_sentence(verdict, compared, reinit, difference))


def _sparsest(compared: dict[int, _Comparison]) -> int | None:
    return min(compared, key=lambda level: compared[level].density, default=None)


def _best(compared: dict[int, _Comparison], measure: Measure) -> int:
    def quality(level: int) -> tuple[float, float]:
        gain = measure.gain(compared[level].ticket.mean(measure.field))
        return -math.inf if math.isnan(gain) else gain, -compared[level].density

    return max(compared, key=quality)


def _sentence(
    verdict: Verdict,
    compared: dict[int, _Comparison],
    reinit: Group | None,
    difference: differences.Comparison | None,
) -> str:
    level, shown = verdict.level, compared[verdict.level]
    if verdict.winning is not None:
        start = f"A winning ticket: level {level}"
    elif shown.dense.early_stop_reached:
        start = f"No winning ticket: the best is level {level}, which"
    else:
        start = (
            "No ticket can be called winning, as the dense network's validation loss was still falling when "
            f"its training ended: the best is level {level}, which"
        )
    dense = _reached(shown.dense, shown.measure)
    replicates = len(shown.ticket)
    means = f"; means over {replicates} replicates, [lowest highest]" if replicates > 1 else ""
    clauses = [
        f"{start} keeps {100 * shown.density:.3g} % of the weights and reaches "
        f"{_reached(shown.ticket, shown.measure, shown.measure.name)} (dense: {dense}{means})"
    ]
    if reinit:
        clauses.append(f"re-initialized at random it reaches {_reached(reinit, shown.measure)}")
    if difference:
        clauses.append(f"ticket minus reinit {_difference(difference, shown.measure)}")
    if shown.dense.early_stop_reached:
        clauses += _reservations(verdict, compared)
    clauses += _dead_ends({0: shown.dense, **{level: c.ticket for level, c in compared.items()}})
    return "; ".join(clauses) + "."


def _dead_ends(tickets: Mapping[int, Group]) -> list[str]:
    """Returns which levels' tickets have an empty layer, and which know but one class."""
    ends = {
        "layer collapse, a layer without any weight left": lambda ticket: any(ticket.values("empty_layers")),
        "one class predicted for all examples": lambda ticket: 1 in ticket.values("classes_predicted"),
    }
    found = {end: [str(n) for n, ticket in tickets.items() if met(ticket)] for end, met in ends.items()}
    return [f"{end}: level {', '.join(levels)}" for end, levels in found.items() if levels]


def _reached(group: Group, measure: Measure, name: str = "") -> str:
    """Returns `97.20 % test accuracy, early stop at step 450`, or without a name `97.20 %, step 450`."""
    step, value = tables.cells(group, measure, ranges=True)
    step = f"step {step.removeprefix('>')}" + ("" if group.early_stop_reached else " or later")
    unit = "" if measure.is_loss else " %"
    return f"{value}{unit} {name}, early stop at {step}" if name else f"{value}{unit}, {step}"


def _difference(difference: differences.Comparison, measure: Measure) -> str:
    """Returns `+1.28 points (95 % interval +0.90 to +1.66), -420 steps (-600 to -240)`."""
    shown, unit = difference.quality, "" if measure.is_loss else " points"
    mean, low, high = map(measure.difference, (shown.mean, shown.low, shown.high))
    steps = difference.early_stop
    return f"{mean}{unit} (95 % interval {low} to {high})" + (
        f", {steps.mean:+.0f} steps ({steps.low:+.0f} to {steps.high:+.0f})" if steps else ""
    )


def _reservations(verdict: Verdict, compared: dict[int, _Comparison]) -> list[str]:
    """Returns why the best one does not win, and which tickets could not be judged."""
    clauses, shown = [], compared[verdict.level]
    if verdict.winning is None and not shown.unsettled:
        worse = "of higher loss" if shown.measure.is_loss else "less accurate"
        faults = {"no sparser": not shown.sparser, worse: not shown.drop <= _ROUNDING, "later": shown.later}
        reasons = " and ".join(fault for fault, found in faults.items() if found)
        within = "" if shown.measure.is_loss else f" within {100 * shown.tolerance:.3g} points"
        clauses.append(f"it is {f'matching{within}, but ' if shown.matching else ''}{reasons}")
    if verdict.winning is None and verdict.matching not in (None, verdict.best):
        clauses.append(f"the sparsest matching one is level {verdict.matching}")
    # A denser ticket that might have won as well would change nothing.
    floor = verdict.winning or 0
    rivals = (level for level, c in compared.items() if c.unsettled and level > floor)
    if names := ", ".join(f"level {level}" for level in rivals):
        clauses.append(f"not judged, as validation loss was still falling when training ended: {names}")
    return clauses
