"""Figures: a search, early-stop step and accuracy against density; and the layers of a ticket."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, StrMethodFormatter

from tf_lottery.analysis.aggregate import Group, first_measured, groups
from tf_lottery.analysis.figures.style import BLACK, COLORS, MARKERS, new_figure, plain
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training.history import TICKET, Result

_HOLLOW = "_hollow"  # which no legend shows
_SEARCH_HEIGHT = 4.8  # inches
_TITLES = {
    "test_accuracy_at_early_stop": "Test accuracy at early stop",
    "final_validation_accuracy": "Validation accuracy at the end of training",
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


def quality(results: Sequence[Result]) -> Quantity:
    """Returns the accuracy that the results have, in percent, or the loss."""
    measure = first_measured(results)
    scale, unit = (1, "") if measure.is_loss else (100, " (%)")
    return Quantity(measure.field, scale, _TITLES[measure.field], measure.name + unit)


def plot_search(results: Sequence[Result]) -> Figure:
    """Draws early-stop step, and test accuracy there, against density; dense is at the left.

    Tickets are a solid line, controls dashed ones, the dense network a black diamond
    with a dotted line at its height. Lines join means over replicates, bars span the
    replicates from the lowest to the highest. An early stop that was not reached has a
    hollow marker. Without test data the right panel shows the final validation
    accuracy; without accuracies, the lowest validation loss.

    Args:
        results: one for each trained network, in any order.

    Returns:
        A figure of 10 by 4.8 inches that pyplot does not know of, so nobody has to close it.

    Raises:
        ValueError: there are no results.
    """
    replicates = len({result.replicate for result in results})
    suffix = f": mean and range of {replicates} replicates" if replicates > 1 else ""
    with new_figure(_SEARCH_HEIGHT) as figure:
        figure.suptitle(f"Lottery-ticket search{suffix}", fontsize=14)
        _search(figure, results)
    return figure


def plot_ticket(mask: Arrays, results: Sequence[Result], title: str) -> Figure:
    """Draws a bar for each layer, as long as its density; above them the search, if any.

    Args:
        mask: path -> bool array, True where a weight is kept.
        results: as `plot_search` takes them, or none.
        title: what stands above all.

    Returns:
        A figure 10 inches wide that pyplot does not know of.
    """
    bars_height = 1.2 + min(0.24 * len(mask), 12)
    heights = [_SEARCH_HEIGHT, bars_height] if results else [bars_height]
    with new_figure(sum(heights) + 0.5) as figure:
        figure.suptitle(title, fontsize=11)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        if results:
            _search(parts[0], results, 100 * masks.density(mask))
        _layers(parts[-1].subplots(), mask)
    return figure


def _search(figure: FigureBase, results: Sequence[Result], percent: float | None = None) -> None:
    """Draws the two panels and their legend; and a band at `percent`, where the ticket is."""
    by_arm = groups(results)
    panels = figure.subplots(1, 2)
    for axes, quantity in zip(panels, (EARLY_STOP, quality(results)), strict=True):
        draw_arms(axes, by_arm, quantity)
        label_axes(axes, (group for levels in by_arm.values() for group in levels.values()), quantity)
        axes.set_title(quantity.title)
        if percent:
            axes.axvline(percent, color=COLORS[4], linewidth=8, alpha=0.3, zorder=0, label="this ticket")
    add_legend(figure, panels, ncols=7)


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


def _layers(axes: Axes, mask: Arrays) -> None:
    """Draws a bar for each layer, the first on top, and a line at the density of all together."""
    percents = [100 * np.count_nonzero(array) / max(np.size(array), 1) for array in mask.values()]
    size = min(9, 600 / len(mask))  # letters in points: the names of many layers stand close
    bars = axes.barh(range(len(mask)), percents, height=0.7, color=COLORS[0])
    # White behind the letters, which the line may cross.
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.bar_label(bars, fmt="{:.2f}", padding=4, fontsize=size, color=BLACK, bbox=box)
    axes.set_yticks(range(len(mask)), list(mask), fontsize=size)
    axes.set_ylim(len(mask) - 0.4, -0.6)
    together = 100 * masks.density(mask)
    axes.axvline(together, color=BLACK, linestyle=":", linewidth=1, label=f"all layers: {together:.2f} %")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderpad=0)
    axes.set_xlim(0, 1.18 * (max(percents) or 1))
    axes.set(xlabel="weights kept (%)")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def draw_arms(
    axes: Axes, by_arm: dict[str, dict[int, Group]], quantity: Quantity, arms: Sequence[str] = ()
) -> None:
    """Draws a quantity against density: the tickets, the controls and the dense network.

    Args:
        axes: an empty panel.
        by_arm: arm -> level -> its replicates.
        quantity: what to draw.
        arms: all arms of a figure of several panels, so that each looks the same in all.
    """
    for index, arm in enumerate(arms or by_arm):
        look = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
        look |= {"linestyle": "-" if arm == TICKET else "--", "label": arm}
        if arm in by_arm:
            points = list(by_arm[arm].values())
            draw_curve(axes, list(map(percent_kept, points)), points, quantity, **look)
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
        below = [mean - min(quantity.of(group)) for mean, group in zip(means, points, strict=True)]
        above = [max(quantity.of(group)) - mean for mean, group in zip(means, points, strict=True)]
        # The mean of equal values may be a rounding off them, and a bar must not be negative.
        bars = [[max(0.0, length) for length in lengths] for lengths in (below, above)]
        axes.errorbar(places, means, yerr=bars, fmt="none", color=look["color"], elinewidth=1, capsize=2.5)
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
        if math.log(shown[-1] / percent) > span / ticks:
            shown.append(percent)
    axes.set_xticks(shown, [f"{percent:.3g}" for percent in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    margin = math.exp(span / 25) if span else 2
    axes.set_xlim(percents[0] * margin, percents[-1] / margin)
    axes.set(xlabel="weights kept (%)")
    plain(axes)
