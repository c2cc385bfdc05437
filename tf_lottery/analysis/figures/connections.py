"""Figure: which connections are kept, of inputs and of units (app. F.6 of 1803.03635)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter, SymmetricalLogLocator

from tf_lottery.analysis import connections
from tf_lottery.analysis.figures import levels
from tf_lottery.analysis.figures.style import COLORS, new_figure, plain
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training.recorded import Recorded

_LAYERS = 4  # that are shown
_BINS = 20


def plot_connections(networks: Sequence[Recorded]) -> Figure:
    """Draws how many weights are kept at each input, and into and out of each unit.

    Above are the weights of the first layer by the place of the input that they come from, a panel for each
    density: an image where there are as many inputs as in a square one (see `connections.by_position`), else
    bars; of a convolution, by the place in its filters. Of replicates that is the mean. Below is, for at most
    four layers, the share of units into which so many weights are kept, and that of inputs out of which so
    many are, a color for each density, replicates taken together. At most five densities are shown, evenly
    spread; not the dense network, whose units all have the same.

    Args:
        networks: the trained networks of a run, in any order.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        NothingToDraw: no pruned network is trained yet, or no layer has inputs and units.
    """
    tickets = levels.pruned(networks)
    shown = levels.spread(list(tickets)[1:], levels.SHOWN)
    masks = {level: [network.mask() for network in tickets[level]] for level in shown}
    percents = {level: levels.percent_kept(tickets[level]) for level in shown}
    first = masks[shown[0]][0]
    matrices = [path for path, mask in first.items() if mask.ndim > 1 and mask.size]
    if not matrices:
        raise levels.NothingToDraw("no kernel has inputs and units")
    with new_figure(8.4) as figure:
        heading = "Connections that are kept"
        figure.suptitle(heading + levels.replicates(networks, "those of"), fontsize=14)
        above, below = figure.subfigures(2, 1, height_ratios=(3, 5))
        where = "filter" if first[matrices[0]].ndim > 2 else "input"
        above.suptitle(f"Weights of {levels.short(matrices[0])} that are kept at each place of the {where}")
        for axes, level in zip(above.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            counts = [connections.by_position(mask[matrices[0]]) for mask in masks[level]]
            _draw_places(above, axes, np.mean(counts, axis=0))
            axes.set_title(f"{levels.percent(percents[level])} kept", fontsize=10)
        _draw_units(below, masks, levels.spread(matrices, _LAYERS))
        levels.add_legend(figure, levels.legend(percents))
    return figure


def draw_counts(
    axes: Axes, samples: Mapping[Any, np.ndarray], looks: Mapping[Any, Mapping[str, str]]
) -> None:
    """Draws which share of units has so many connections, in percent; bins grow with the counts.

    Args:
        axes: an empty panel; its lower axis becomes linear from 0 to 1 and logarithmic beyond.
        samples: name -> the connections of each unit.
        looks: name -> color, linestyle and the like.
    """
    counts = np.concatenate(list(samples.values()))
    least, most = (int(counts.min()), int(counts.max())) if counts.size else (0, 0)
    firsts = np.ceil(np.geomspace(max(least, 1), most + 1, _BINS)).astype(int)
    edges = np.unique([least, *firsts]) - 0.5
    for name, sample in samples.items():
        shares = np.histogram(sample, edges)[0] / max(sample.size, 1)
        axes.stairs(100 * shares, edges, linewidth=1.4, **looks[name])
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xlim(edges[0], edges[-1])
    # As many numbers as there is room for.
    decades = math.log10((most + 1) / max(least, 1))
    numbers = (1, 2, 5) if decades < 2 else (1,)
    locator = SymmetricalLogLocator(base=10, linthresh=1, subs=numbers)
    axes.xaxis.set_major_locator(locator if decades > 1 else MaxNLocator(5, integer=True))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    plain(axes)


def _draw_places(figure: FigureBase, axes: Axes, counts: np.ndarray) -> None:
    """Draws an image with a scale of its own below; or bars."""
    if counts.ndim == 2:
        image = axes.imshow(counts, cmap="cividis", vmin=0, interpolation="nearest")
        axes.set_axis_off()
        scale = figure.colorbar(image, ax=axes, orientation="horizontal", aspect=15, pad=0.03)
        scale.locator = MaxNLocator(4, integer=True)
        scale.outline.set_visible(False)
    else:
        axes.bar(range(len(counts)), counts, width=0.8, color=COLORS[0])
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        plain(axes)


def _draw_units(figure: FigureBase, by_level: Mapping[int, Sequence[Arrays]], paths: Sequence[str]) -> None:
    """Draws a column for each layer: above what comes into units, below what goes out of inputs."""
    looks = {level: {"color": color} for level, color in levels.shades(by_level).items()}
    panels = figure.subplots(2, len(paths), squeeze=False)
    for path, column in zip(paths, panels.T, strict=True):
        into = {
            level: np.concatenate([connections.incoming(path, mask[path]) for mask in masks])
            for level, masks in by_level.items()
        }
        out = {
            level: np.concatenate([connections.outgoing(mask[path]) for mask in masks])
            for level, masks in by_level.items()
        }
        for axes, counts in zip(column, (into, out), strict=True):
            draw_counts(axes, counts, looks)
        column[0].set(title=levels.short(path), xlabel="kept weights into a unit")
        column[1].set(xlabel="kept weights out of an input")
    panels[0, 0].set_ylabel("units (%)")
    panels[1, 0].set_ylabel("inputs (%)")
