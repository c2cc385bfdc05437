"""Figures of layers: how dense each is, in a run and in one ticket."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from tf_lottery.analysis.figures import levels
from tf_lottery.analysis.figures.search import percent_axis
from tf_lottery.analysis.figures.style import BLACK, COLORS, MARKERS, new_figure
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training.recorded import Recorded

_IN_A_COLUMN = 30  # of the legend


def plot_layers(networks: Sequence[Recorded]) -> Figure:
    """Draws the density of each layer against that of all layers together, both axes logarithmic.

    Layers go from blue, at the input, to orange. Lines are means over replicates, in a band from the lowest
    to the highest; those of the first layers are wider, to be seen where layers have the same density. A
    layer below the dotted diagonal is pruned more than all together. An empty layer ends its line.

    Args:
        networks: the trained networks of a run, in any order.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        NothingToDraw: no pruned network is trained yet.
    """
    tickets = levels.pruned(networks)
    overall = [levels.percent_kept(replicates) for replicates in tickets.values()]
    by_level = [[densities(network.mask()) for network in replicates] for replicates in tickets.values()]
    layers = list(by_level[0][0])
    columns = 1 + (len(layers) - 1) // _IN_A_COLUMN
    with new_figure(max(4.8, 1.2 + 0.2 * len(layers) / columns)) as figure:
        figure.suptitle(f"Density of each layer{levels.replicates(networks)}", fontsize=14)
        axes = figure.subplots()
        for index, (layer, color) in enumerate(zip(layers, levels.ordered(len(layers)), strict=True)):
            percents = [[mask[layer] or np.nan for mask in replicates] for replicates in by_level]  # log(0)
            wide = 1 - index / max(len(layers) - 1, 1)
            look = {"linewidth": 1.2 + 5 * wide, "markersize": 4 + 6 * wide, "color": color}
            look |= {"marker": MARKERS[index % len(MARKERS)], "label": levels.short(layer, 40)}
            axes.plot(overall, list(map(np.mean, percents)), **look)
            low, high = list(map(np.min, percents)), list(map(np.max, percents))
            axes.fill_between(overall, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(overall, overall, color=BLACK, linestyle=":", linewidth=1, label="all layers")
        percent_axis(axes, overall)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        numbers = (1, 2, 5) if axes.get_ylim()[0] < 10 else range(1, 10)
        axes.yaxis.set_major_locator(LogLocator(subs=numbers))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="weights kept in all layers (%)", ylabel="weights kept in the layer (%)")
        figure.legend(loc="outside right center", ncols=columns, frameon=False, fontsize=9)
    return figure


def densities(mask: Arrays) -> dict[str, float]:
    """Returns path -> density of the layer in percent; of one without weights, 0."""
    return {path: 100 * np.count_nonzero(array) / max(np.size(array), 1) for path, array in mask.items()}


def draw_layers(axes: Axes, mask: Arrays) -> None:
    """Draws a bar for each layer, the first on top, and a line at the density of all together."""
    percents = list(densities(mask).values())
    size = min(9, 440 / len(mask))  # letters in points: the names of many layers stand close
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
