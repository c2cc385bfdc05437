"""Figure: the weights that are kept, before and after training (app. F.1 and F.2 of 1803.03635)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tf_lottery.analysis.figures import levels
from tf_lottery.analysis.figures.style import new_figure
from tf_lottery.training.recorded import Recorded


def plot_weights(networks: Sequence[Recorded]) -> Figure:
    """Draws how the tickets' weights are distributed before and after training.

    A row is a layer, a color a density; the left panel has the weights that training starts from, at
    initialization or at the rewind step, the right one those at the end; pruned ones are in neither. At
    most six layers and five densities are shown, evenly spread. Weights of all replicates are taken
    together. A line holds the same area whatever the number of weights; see `levels.histogram`.

    Args:
        networks: the trained networks of a run, in any order.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        NothingToDraw: no ticket is trained yet.
    """
    tickets = levels.tickets(networks)
    shown = levels.spread(tickets, levels.SHOWN)
    shades = levels.shades(shown)
    layers = levels.layers(tickets)
    with new_figure(1.3 + 1.7 * len(layers)) as figure:
        figure.suptitle(f"Weights that are kept{levels.replicates(networks, 'those of')}", fontsize=14)
        panels = figure.subplots(len(layers), 2, squeeze=False)
        for level in shown:
            arrays = [(network.mask(), network.start(), network.end()) for network in tickets[level]]
            for path, row in zip(layers, panels, strict=True):
                before = [start[path][mask[path]] for mask, start, _ in arrays]
                after = [end[path][mask[path]] for mask, _, end in arrays]
                for axes, values in zip(row, (before, after), strict=True):
                    levels.draw_histogram(axes, np.concatenate(values), color=shades[level])
        for path, row in zip(layers, panels, strict=True):
            levels.label_row(row, path)
        for axes, time in zip(panels[0], ("before", "after"), strict=True):
            axes.set_title(f"Weights {time} training")
        for axes in panels[-1]:
            axes.set_xlabel("weight")
        levels.add_legend(figure, levels.legend({n: levels.percent_kept(tickets[n]) for n in shown}))
    return figure
