"""Figure of one ticket: the search that found it, its layers, its weights, its connections."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D

from tf_lottery.analysis import connections
from tf_lottery.analysis.figures import levels, search
from tf_lottery.analysis.figures.connections import draw_counts
from tf_lottery.analysis.figures.layers import draw_layers
from tf_lottery.analysis.figures.style import BLACK, COLORS, new_figure
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training.history import Result

_LAYERS = 4  # whose weights and units are shown
_WEIGHTS = {
    "all weights at the start": {"color": BLACK, "linestyle": ":"},
    "those that are kept": {"color": COLORS[0], "linestyle": "-"},
}
_COUNTS = {
    "kept weights into a unit": {"color": COLORS[0], "linestyle": "-"},
    "kept weights out of an input": {"color": COLORS[1], "linestyle": "--"},
}


def plot_ticket(mask: Arrays, weights: Arrays, results: Sequence[Result], title: str) -> Figure:
    """Draws the search, if any; the density of each layer; the weights that are kept; units' connections.

    A bar is a layer, as long as its density. Below, for at most four layers, evenly spread, stand the
    distribution of the weights that are kept beside that of all, and how many of them go into a unit and out
    of an input.

    Args:
        mask: path -> bool array, True where a weight is kept.
        weights: path -> array, with at least the paths of `mask`: what training starts from.
        results: as `search.plot_search` takes them, or none.
        title: what stands above all.

    Returns:
        A figure 10 inches wide that pyplot does not know of.
    """
    paths = levels.spread([path for path, array in mask.items() if np.size(array)], _LAYERS)
    matrices = [path for path in paths if np.ndim(mask[path]) > 1]
    heights = {"search": 4.4 if results else 0, "layers": 1.2 + min(0.24 * len(mask), 8.8)}
    heights |= {"weights": 2.2, "units": 2.2 if matrices else 0}
    heights = {part: height for part, height in heights.items() if height}
    with new_figure(sum(heights.values()) + 0.5) as figure:
        figure.suptitle(title, fontsize=11)
        column = figure.subfigures(len(heights), 1, height_ratios=list(heights.values()), squeeze=False)[:, 0]
        parts = dict(zip(heights, column, strict=True))
        if results:
            quantities = (search.EARLY_STOP, search.quality(results))
            search.draw_search(parts["search"], results, quantities, percent=100 * masks.density(mask))
        draw_layers(parts["layers"].subplots(), mask)
        _draw_weights(parts["weights"], mask, weights, paths)
        if matrices:
            _draw_units(parts["units"], mask, matrices)
    return figure


def _draw_weights(figure: FigureBase, mask: Arrays, weights: Arrays, paths: Sequence[str]) -> None:
    for axes, path in zip(figure.subplots(1, len(paths), squeeze=False)[0], paths, strict=True):
        samples = (weights[path], np.asarray(weights[path])[mask[path]])
        for sample, look in zip(samples, _WEIGHTS.values(), strict=True):
            levels.draw_histogram(axes, sample, **look)
        levels.label_row([axes], "")
        axes.set_title(levels.short(path), fontsize=10)
    _explain(figure, _WEIGHTS)


def _draw_units(figure: FigureBase, mask: Arrays, paths: Sequence[str]) -> None:
    panels = figure.subplots(1, len(paths), squeeze=False)[0]
    for axes, path in zip(panels, paths, strict=True):
        into, out = connections.incoming(path, mask[path]), connections.outgoing(mask[path])
        draw_counts(axes, dict(zip(_COUNTS, (into, out), strict=True)), _COUNTS)
        axes.set_title(levels.short(path), fontsize=10)
    panels[0].set_ylabel("units or inputs (%)")
    _explain(figure, _COUNTS)


def _explain(figure: FigureBase, looks: dict[str, dict[str, str]]) -> None:
    levels.add_legend(figure, [Line2D([], [], label=name, **look) for name, look in looks.items()])
