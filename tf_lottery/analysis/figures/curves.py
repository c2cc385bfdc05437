"""Figure: how tickets train, beside their controls (fig. 3 of 1803.03635)."""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from tf_lottery.analysis.figures import levels
from tf_lottery.analysis.figures.style import BLACK, new_figure, plain
from tf_lottery.training.history import SEARCH, TICKET, History
from tf_lottery.training.recorded import Recorded

_DENSITIES = 4  # that are shown beside the dense network
_LOSS = "validation/loss"
_DASHES = (0, (4, 1.5))


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric of the replicates of one arm at one level, where it was measured in all of them.

    Attributes:
        steps: shape (points,).
        values: shape (replicates, points).
        has_gaps: whether there are evaluations at which it was not measured.
    """

    steps: np.ndarray
    values: np.ndarray
    has_gaps: bool

    @classmethod
    def of(cls, histories: Sequence[History], name: str, scale: float = 1) -> "Curve":
        """Returns what all histories have of a metric, such as `"test/accuracy"`, times `scale`."""
        steps = sorted(set.intersection(*(set(history.steps) for history in histories)))
        rows = []
        for history in histories:
            values = dict(zip(history.steps, history.curves.get(name, itertools.repeat(math.nan))))
            rows.append([values[step] for step in steps])
        rows = np.array(rows, float).reshape(len(histories), len(steps))
        there = np.isfinite(rows).all(0)
        # A metric of training has no value before the first step, and that is no gap.
        return cls(np.array(steps)[there], scale * rows[:, there], not there[1:].all())


def plot_curves(networks: Sequence[Recorded]) -> Figure:
    """Draws test accuracy and validation loss against the training step, a color for each density.

    Tickets are solid, a control is dashed; each control has a row of its own. The dense network is black;
    of the others about four densities are shown, evenly spread, of those that have controls. Lines are
    means over replicates, in a band from the lowest to the highest. The axes leave out the first steps,
    what is far worse than most curves, and how a control goes on that is trained for longer than tickets.
    An accuracy that was not measured at every evaluation has dots where it was. Without test data it is
    that of validation; without accuracies only the loss is drawn.

    Args:
        networks: the trained networks of a run, in any order.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        NothingToDraw: no ticket is trained yet.
    """
    tickets = levels.tickets(networks)
    arms = sorted({network.result.arm for network in networks} - {TICKET, SEARCH})
    controls = {arm: levels.by_level(networks, arm) for arm in arms}
    shown = _shown(list(tickets), [level for by_level in controls.values() for level in by_level])
    accuracy = _accuracy(tickets[shown[0]][0].history())
    names = [name for name in (accuracy, _LOSS) if name]
    rows = list(controls) or [""]
    with new_figure(1.2 + (2.4 if len(rows) > 1 else 3.6) * len(rows)) as figure:
        heading = f"Training of tickets{' and controls' * bool(controls)}"
        figure.suptitle(heading + levels.replicates(networks), fontsize=14)
        panels = figure.subplots(len(rows), len(names), sharex=True, sharey="col", squeeze=False)
        for column, name in zip(panels.T, names, strict=True):
            solid = _curves(tickets, shown, name)
            dashed = {arm: _curves(controls[arm], shown, name) for arm in controls}
            for axes, arm in zip(column, rows, strict=True):
                _draw(axes, dashed.get(arm, {}), shown, name, linestyle=_DASHES)
                _draw(axes, solid, shown, name)
                axes.set_title(_words(name).capitalize() + (f": ticket and {arm}" if arm else ""))
            _zoom(column[0], list(solid.values()), [c for by in dashed.values() for c in by.values()], name)
            column[-1].set_xlabel("training step")
        entries = levels.legend({level: levels.percent_kept(tickets[level]) for level in shown})
        if controls:
            entries.append(Line2D([], [], color=BLACK, label="ticket"))
            entries.append(Line2D([], [], color=BLACK, linestyle=_DASHES, label="control"))
        levels.add_legend(figure, entries)
    return figure


def _accuracy(history: History) -> str | None:
    """Returns the name of the test accuracy, else of the validation accuracy, None where there is neither."""
    names = (f"{data}/{history.accuracy}" for data in ("test", "validation"))
    return next((name for name in names if not np.isnan(history.curves.get(name, math.nan)).all()), None)


def _shown(with_ticket: list[int], with_control: list[int]) -> list[int]:
    """Returns the levels to show: the first, and others spread over those that have a control."""
    both = sorted(set(with_ticket[1:]) & set(with_control))
    shown = {with_ticket[0], *levels.spread(both, _DENSITIES)}
    if len(shown) < 4:
        shown |= set(levels.spread(with_ticket, _DENSITIES + 1))
    return sorted(shown)


def _curves(by_level: Mapping[int, Sequence[Recorded]], shown: Sequence[int], name: str) -> dict[int, Curve]:
    """Returns level -> curve, in percent where it is an accuracy."""
    scale = 1 if name == _LOSS else 100
    return {
        level: Curve.of([network.history() for network in by_level[level]], name, scale)
        for level in shown
        if level in by_level
    }


def _draw(axes: Axes, curves: Mapping[int, Curve], shown: Sequence[int], name: str, **look: Any) -> None:
    """Draws a line for each level, the dense network above the others."""
    shades = levels.shades(shown)
    for level, curve in curves.items():
        line = {"color": shades[level], "linewidth": 1.3, "zorder": 2 + (level == 0), **look}
        line |= {"marker": ".", "markersize": 4} if curve.has_gaps else {}
        axes.plot(curve.steps, curve.values.mean(0), **line)
        if len(curve.values) > 1:
            low, high = curve.values.min(0), curve.values.max(0)
            axes.fill_between(curve.steps, low, high, color=shades[level], alpha=0.12, linewidth=0)
    axes.set_ylabel(_words(name) + " (%)" * (name != _LOSS))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    plain(axes)


def _zoom(axes: Axes, tickets: Sequence[Curve], controls: Sequence[Curve], name: str) -> None:
    """Sets the limits of both axes."""
    last = max((curve.steps[-1] for curve in tickets if curve.steps.size), default=0)
    if not last:
        return
    axes.set_xlim(-0.03 * last, 1.03 * last)
    sign = -1 if name == _LOSS else 1
    drawn = (curve.values.mean(0)[curve.steps <= last] for curve in (*tickets, *controls))
    axes.set_ylim(sorted(sign * limit for limit in _view([sign * mean for mean in drawn if mean.size])))


def _view(means: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the limits of an axis on which higher is better.

    The median curve is in view from a tenth of its way on, and so are the ends of all curves, unless that
    would make the axis more than four times as long.
    """
    high = max(map(np.max, means))
    low = float(np.median([mean[min(max(1, len(mean) // 10), len(mean) - 1)] for mean in means]))
    length = high - low or abs(high) or 1.0
    low = min(low, max(high - 4 * length, min(mean[-1] for mean in means)))
    margin = 0.04 * (high - low or length)
    return low - margin, high + margin


def _words(name: str) -> str:
    return re.sub("[/_]", " ", name)
