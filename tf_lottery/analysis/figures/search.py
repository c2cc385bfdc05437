"""Figure: a search, early-stop step and accuracies against density (fig. 4 of 1803.03635)."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, StrMethodFormatter

from tf_lottery.analysis.aggregate import Group, first_measured, groups
from tf_lottery.analysis.figures.style import (
    BLACK,
    COLORS,
    MARKERS,
    draw_ranges,
    new_figure,
    plain,
    replicates,
)
from tf_lottery.training.history import TICKET, Result

_HOLLOW = "_hollow"  # which no legend shows
_TITLES = {
    "test_accuracy_at_early_stop": "Test accuracy at early stop",
    "final_validation_accuracy": "Validation accuracy at the end",
    "min_validation_loss": "Validation loss at early stop",
}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What stands on a vertical axis: a field of `Result`, times `scale`."""

    field: str
    scale: int
    title: str
    label: str

    def of(self, group: Group) -> list[float]:
        """Returns one number for each replicate."""
        return [self.scale * value for value in group.values(self.field)]

    def mean(self, group: Group) -> float:
        return self.scale * group.mean(self.field)


EARLY_STOP = Quantity("early_stop_step", 1, "Early stop", "early-stop step")
_AT_THE_END = (
    Quantity("final_test_accuracy", 100, "Test accuracy at the end", "test accuracy (%)"),
    Quantity("final_training_accuracy", 100, "Training accuracy at the end", "training accuracy (%)"),
)


def quality(results: Sequence[Result]) -> Quantity:
    """Returns the accuracy that the results have, in percent, or the loss."""
    measure = first_measured(results)
    scale, unit = (1, "") if measure.is_loss else (100, " (%)")
    return Quantity(measure.field, scale, _TITLES[measure.field], measure.name + unit)


def plot_search(results: Sequence[Result]) -> Figure:
    """Draws early-stop step and accuracies against density; dense is at the left.

    The panels: early-stop step; test accuracy there; test accuracy after the last step; training accuracy
    in the last steps. Without test data the second is the final validation accuracy; without accuracies,
    the lowest validation loss. What no network has is left out.

    Tickets are a solid line, controls dashed ones, the dense network a black diamond
    with a dotted line at its height. Lines join means over replicates, bars span the
    replicates from the lowest to the highest. An early stop that was not reached has a
    hollow marker. With replicates, controls stand a little to the right of their density, so that bars
    do not hide each other.

    Args:
        results: one for each trained network, in any order.

    Returns:
        A figure 10 inches wide that pyplot does not know of, so nobody has to close it.

    Raises:
        ValueError: there are no results.
    """
    quantities = [EARLY_STOP, quality(results), *filter(_measured_in(results), _AT_THE_END)]
    rows = len(quantities) // 2 if len(quantities) != 3 else 1
    with new_figure(1.2 + 3.5 * rows) as figure:
        figure.suptitle(f"Lottery-ticket search{replicates(results)}", fontsize=14)
        draw_search(figure, results, quantities, rows)
    return figure


def draw_search(
    figure: FigureBase,
    results: Sequence[Result],
    quantities: Sequence[Quantity],
    rows: int = 1,
    percent: float | None = None,
) -> None:
    """Draws a panel for each quantity and their legend; and a band at `percent`, where a ticket is."""
    by_arm = groups(results)
    points = [group for by_level in by_arm.values() for group in by_level.values()]
    aside = _aside(by_arm)
    panels = figure.subplots(rows, len(quantities) // rows, sharex=True, squeeze=False)
    for axes, quantity in zip(panels.flat, quantities, strict=True):
        draw_arms(axes, by_arm, quantity, aside=aside)
        label_axes(axes, points, quantity, ticks=18 // len(panels[0]))
        axes.set_xlim(right=axes.get_xlim()[1] * aside ** len(by_arm))
        axes.set_title(quantity.title)
        low, high = axes.get_ylim()
        if quantity.scale == 100 and high > 100:  # there are no accuracies above
            axes.set_ylim(low, 100 + 0.04 * (100 - low))
        if percent:
            axes.axvline(percent, color=COLORS[4], linewidth=8, alpha=0.3, zorder=0, label="this ticket")
    for axes in panels[:-1].flat:
        axes.set_xlabel("")
    add_legend(figure, panels.flat, ncols=7)


def _aside(by_arm: dict[str, dict[int, Group]]) -> float:
    """Returns what brings the bars of arms beside each other: 1 where there are none."""
    points = [group for by_level in by_arm.values() for group in by_level.values()]
    percents = [percent_kept(point) for point in points if percent_kept(point) > 0]
    if not percents or all(len(point.results) == 1 for point in points):
        return 1.0
    between = math.log(max(percents) / min(percents)) / max(len(set(percents)) - 1, 1)
    return math.exp(-between * min(0.12, 0.5 / len(by_arm)))


def _measured_in(results: Sequence[Result]) -> Callable[[Quantity], bool]:
    return lambda quantity: not all(math.isnan(getattr(result, quantity.field)) for result in results)


def add_legend(figure: FigureBase, panels: Iterable[Axes], ncols: int) -> None:
    """Explains below the figure what is in its panels, each thing once."""
    panels = list(panels)
    entries = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    hollow = (line for axes in panels for line in axes.get_lines() if line.get_label() == _HOLLOW)
    if any(len(line.get_xdata()) for line in hollow):
        look = {"marker": "o", "linestyle": "", "color": BLACK, "markerfacecolor": "white"}
        entries["early stop not reached"] = Line2D([], [], **look)
    ncols = min(len(entries), ncols)
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=ncols, frameon=False)


def draw_arms(
    axes: Axes,
    by_arm: dict[str, dict[int, Group]],
    quantity: Quantity,
    arms: Sequence[str] = (),
    aside: float = 1.0,
) -> None:
    """Draws a quantity against density: the tickets, the controls and the dense network.

    Args:
        axes: an empty panel.
        by_arm: arm -> level -> its replicates.
        quantity: what to draw.
        arms: all arms of a figure of several panels, so that each looks the same in all.
        aside: what the densities of an arm are multiplied by, once more than those of the arm before, so
            that bars stand beside each other.
    """
    for index, arm in enumerate(arms or by_arm):
        look = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
        look |= {"linestyle": "-" if arm == TICKET else "--", "label": arm}
        if arm in by_arm:
            points = list(by_arm[arm].values())
            places = [percent_kept(point) * aside**index for point in points]
            draw_curve(axes, places, points, quantity, **look)
    dense = by_arm.get(TICKET, {}).get(0)
    if dense:
        height = quantity.mean(dense)
        look = {"color": BLACK, "linestyle": ":", "linewidth": 1}
        axes.axhline(height, **look)
        face = BLACK if dense.early_stop_reached else "white"
        look |= {"marker": "D", "markersize": 8, "markerfacecolor": face, "zorder": 5}
        axes.plot([percent_kept(dense)], [height], label="dense", **look)


def draw_curve(
    axes: Axes, places: Sequence[float], points: Sequence[Group], quantity: Quantity, **look: Any
) -> None:
    """Draws means, with bars where there are replicates, and hollow markers where there was no early stop.

    Args:
        axes: where to draw.
        places: how far to the right each of the points stands.
        points: the replicates behind each.
        quantity: what to draw.
        **look: of the line: color, marker, linestyle, label.
    """
    look = {"markersize": 5, "linewidth": 1.6, **look}
    means = [quantity.mean(group) for group in points]
    axes.plot(places, means, **look)
    if any(len(group.results) > 1 for group in points):
        draw_ranges(axes, places, means, list(map(quantity.of, points)), look["color"])
    hollow = [index for index, group in enumerate(points) if not group.early_stop_reached]
    look |= {"linestyle": "", "markerfacecolor": "white", "label": _HOLLOW}
    axes.plot([places[i] for i in hollow], [means[i] for i in hollow], zorder=4, **look)


def percent_kept(group: Group) -> float:
    return 100 * group.mean("density")


def label_axes(axes: Axes, points: Iterable[Group], quantity: Quantity, ticks: int = 9) -> None:
    """Names both axes; the lower one is that of densities."""
    percent_axis(axes, list(map(percent_kept, points)), ticks)
    axes.set(ylabel=quantity.label)
    if quantity == EARLY_STOP:
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def percent_axis(axes: Axes, percents: Sequence[float], ticks: int = 9) -> None:
    """Makes the lower axis logarithmic, from dense to sparse, with the densities that fit."""
    axes.set_xscale("log")
    # Zero has no logarithm.
    percents = sorted((percent for percent in percents if percent > 0), reverse=True) or [100.0]
    span = math.log(percents[0] / percents[-1])
    shown = percents[:1]
    for percent in percents:
        if math.log(shown[-1] / percent) > 0.95 * span / ticks:  # levels are not quite as far apart
            shown.append(percent)
    axes.set_xticks(shown, [f"{percent:.3g}" for percent in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    margin = math.exp(span / 25) if span else 2
    axes.set_xlim(percents[0] * margin, percents[-1] / margin)
    axes.set(xlabel="weights kept (%)")
    plain(axes)
