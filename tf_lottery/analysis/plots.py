"""Figures: a search, early-stop step and accuracy against density; and the layers of a ticket."""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import NullLocator, StrMethodFormatter

from tf_lottery import files
from tf_lottery.analysis.aggregate import Group, first_measured, groups
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training.history import TICKET, Result

# Okabe and Ito's palette, which colour-blind people can tell apart; without its black,
# which is for the dense network, and its yellow, which is too pale on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "v", "P", "X")
_BLACK = "#222222"
_SEARCH_HEIGHT = 4.8  # inches
_TITLES = {
    "test_accuracy_at_early_stop": "Test accuracy at early stop",
    "final_validation_accuracy": "Validation accuracy at the end of training",
    "min_validation_loss": "Validation loss at early stop",
}


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
    with _figure(_SEARCH_HEIGHT) as figure:
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
    with _figure(sum(heights) + 0.5) as figure:
        figure.suptitle(title, fontsize=11)
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        if results:
            _search(parts[0], results, 100 * masks.density(mask))
        _layers(parts[-1].subplots(), mask)
    return figure


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes the figure as a PNG of 150 dots per inch, under another name first.

    Args:
        figure: what to write.
        path: ends in `.png`. A file that is there is replaced at once, so that nobody
            ever reads half of one.

    Raises:
        ValueError: the path does not end in `.png`.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"Expected a path that ends in '.png', to write a PNG to. Received: {str(path)!r}.")
    with files.replacing(path) as file, matplotlib.style.context("default"):
        figure.savefig(file, format="png", dpi=150, bbox_inches="tight", facecolor="white")


@contextlib.contextmanager
def _figure(height: float) -> Iterator[Figure]:
    # The user's own style may be one for dark backgrounds, with white letters.
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(10, height), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(wspace=0.06)
        yield figure


def _search(figure: FigureBase, results: Sequence[Result], percent: float | None = None) -> None:
    """Draws the two panels and their legend; and a band at `percent`, where the ticket is."""
    by_arm, measure = groups(results), first_measured(results)
    steps, quality = figure.subplots(1, 2)
    _panel(steps, by_arm, "early_stop_step", 1)
    steps.set(title="Early stop", ylabel="early-stop step")
    steps.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _panel(quality, by_arm, measure.field, 1 if measure.is_loss else 100)
    quality.set(title=_TITLES[measure.field], ylabel=measure.name + ("" if measure.is_loss else " (%)"))
    if not all(result.early_stop_reached for result in results):
        steps.plot([], [], "o", color=_BLACK, markerfacecolor="white", label="early stop not reached")
    for axes in (steps, quality) if percent else ():
        axes.axvline(percent, color=_COLORS[4], linewidth=8, alpha=0.3, zorder=0, label="this ticket")
    handles, labels = steps.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 7), frameon=False)


def _layers(axes: Axes, mask: Arrays) -> None:
    """Draws a bar for each layer, the first on top, and a line at the density of all together."""
    percents = [100 * np.count_nonzero(array) / max(np.size(array), 1) for array in mask.values()]
    size = min(9, 600 / len(mask))  # letters in points: the names of many layers stand close
    bars = axes.barh(range(len(mask)), percents, height=0.7, color=_COLORS[0])
    # White behind the letters, which the line may cross.
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.bar_label(bars, fmt="{:.2f}", padding=4, fontsize=size, color=_BLACK, bbox=box)
    axes.set_yticks(range(len(mask)), list(mask), fontsize=size)
    axes.set_ylim(len(mask) - 0.4, -0.6)
    together = 100 * masks.density(mask)
    axes.axvline(together, color=_BLACK, linestyle=":", linewidth=1, label=f"all layers: {together:.2f} %")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderpad=0)
    axes.set_xlim(0, 1.18 * (max(percents) or 1))
    axes.set(xlabel="weights kept (%)")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _panel(axes: Axes, by_arm: dict[str, dict[int, Group]], field: str, scale: float) -> None:
    """Draws a field, times scale, against density."""
    for index, (arm, levels) in enumerate(by_arm.items()):
        look = {"color": _COLORS[index % len(_COLORS)], "marker": _MARKERS[index % len(_MARKERS)]}
        look |= {"linestyle": "-" if arm == TICKET else "--", "label": arm}
        _curve(axes, list(levels.values()), field, scale, **look)
    dense = by_arm.get(TICKET, {}).get(0)
    if dense:
        height = scale * dense.mean(field)
        look = {"color": _BLACK, "linestyle": ":", "linewidth": 1}
        axes.axhline(height, **look)
        face = _BLACK if dense.early_stop_reached else "white"
        look |= {"marker": "D", "markersize": 8, "markerfacecolor": face, "zorder": 5}
        axes.plot([_percent(dense)], [height], label="dense", **look)
    _density_axis(axes, sorted({_percent(group) for levels in by_arm.values() for group in levels.values()}))


def _curve(axes: Axes, points: list[Group], field: str, scale: float, **look: str) -> None:
    """Draws means, with bars where there are replicates, and hollow markers where there was no early stop."""
    densities = [_percent(group) for group in points]
    means = [scale * group.mean(field) for group in points]
    axes.plot(densities, means, markersize=5, linewidth=1.6, **look)
    if any(len(group.results) > 1 for group in points):
        below = [mean - scale * min(group.values(field)) for mean, group in zip(means, points, strict=True)]
        above = [scale * max(group.values(field)) - mean for mean, group in zip(means, points, strict=True)]
        # The mean of equal values may be a rounding off them, and a bar must not be negative.
        bars = [[max(0.0, length) for length in lengths] for lengths in (below, above)]
        axes.errorbar(densities, means, yerr=bars, fmt="none", color=look["color"], elinewidth=1, capsize=2.5)
    hollow = [index for index, group in enumerate(points) if not group.early_stop_reached]
    look |= {"linestyle": "", "markerfacecolor": "white", "label": "_hollow"}
    axes.plot([densities[i] for i in hollow], [means[i] for i in hollow], markersize=5, zorder=4, **look)


def _percent(group: Group) -> float:
    return 100 * group.mean("density")


def _density_axis(axes: Axes, percents: list[float]) -> None:
    """Makes the axis logarithmic, from dense to sparse, and labels as many of the percents as fit."""
    axes.set_xscale("log")
    percents = [percent for percent in percents if percent > 0] or [100.0]  # zero has no logarithm
    span = math.log(percents[-1] / percents[0])
    ticks = [percents[-1]]
    for percent in reversed(percents):
        if math.log(ticks[-1] / percent) > span / 9:
            ticks.append(percent)
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    margin = math.exp(span / 25) if span else 2
    axes.set_xlim(percents[-1] * margin, percents[0] / margin)
    axes.set_xlabel("weights kept (%)")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
