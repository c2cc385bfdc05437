"""Figure: how far training moves weights that are kept, and those that are pruned (app. F of 1803.03635)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tf_lottery.analysis.figures import levels
from tf_lottery.analysis.figures.search import percent_axis
from tf_lottery.analysis.figures.style import COLORS, new_figure
from tf_lottery.training.recorded import Recorded

_DISTANCE = "$|w_T - w_0|$"
_LOOKS = {
    "kept": {"color": COLORS[0], "linestyle": "-"},
    "pruned": {"color": COLORS[1], "linestyle": "--"},
}


def plot_movement(networks: Sequence[Recorded]) -> Figure:
    """Draws |w_T - w_0|, how far weights moved from the start of a training to its end.

    A row is a layer. The left panel has the training of the dense network, of which the weights that the
    sparsest ticket keeps are told from all others. The right one has the training at each density, of which
    those that the next pruning keeps are told from those that it prunes: lines are medians, bands go from
    the first to the third quartile. At most six layers are shown, evenly spread. Weights of all replicates
    are taken together.

    Args:
        networks: the trained networks of a run, in any order.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        NothingToDraw: no pruned network is trained yet.
    """
    tickets = levels.pruned(networks)
    layers = levels.layers(tickets)
    *befores, last = tickets.values()
    percents = list(map(levels.percent_kept, befores))
    with new_figure(1.3 + 1.9 * len(layers)) as figure:
        heading = "How far weights move in training"
        figure.suptitle(heading + levels.replicates(networks, "those of"), fontsize=14)
        panels = figure.subplots(len(layers), 2, squeeze=False)
        first = moves(befores[0], last, layers)
        each = [moves(now, then, layers) for now, then in zip(befores, [*befores[1:], last], strict=True)]
        for path, (left, right) in zip(layers, panels, strict=True):
            for fate, look in _LOOKS.items():
                levels.draw_histogram(left, first[path][fate], **look)
                _draw_quartiles(right, percents, [moved[path][fate] for moved in each], **look)
            levels.label_row([left], path)
            percent_axis(right, percents)
            right.set_ylim(bottom=0)
        dense = "Training of the dense network" if percents[0] == 100 else f"Training at {percents[0]:.3g} %"
        panels[0, 0].set_title(f"{dense}: kept until {levels.percent_kept(last):.3g} %")
        panels[0, 1].set_title("Training at each density: kept by the next pruning")
        for axes in panels[:-1, 1]:
            axes.set_xlabel("")
        panels[-1, 0].set_xlabel(_DISTANCE)
        for axes in panels[:, 1]:
            axes.set_ylabel(_DISTANCE)
        entries = (Line2D([], [], label=f"{fate} afterwards", **look) for fate, look in _LOOKS.items())
        levels.add_legend(figure, list(entries))
    return figure


def moves(
    now: Sequence[Recorded], then: Sequence[Recorded], layers: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Returns how far weights of networks moved that sparser networks of the same replicates keep, and prune.

    Args:
        now: the trained networks, a replicate each.
        then: the sparser ones. Replicates that are not in both are left out.
        layers: the kernels' paths.

    Returns:
        path -> `"kept"` and `"pruned"` -> the distances, of all replicates in one array.
    """
    sparser = {network.result.replicate: network.mask() for network in then}
    moved_by = {path: {"kept": [], "pruned": []} for path in layers}
    for network in now:
        if network.result.replicate in sparser:
            mask, start, end = network.mask(), network.start(), network.end()
            for path in layers:
                moved = np.abs(end[path] - start[path])
                stays = sparser[network.result.replicate][path]
                moved_by[path]["kept"].append(moved[mask[path] & stays])
                moved_by[path]["pruned"].append(moved[mask[path] & ~stays])
    return {
        path: {fate: np.concatenate([np.zeros(0), *found]) for fate, found in fates.items()}
        for path, fates in moved_by.items()
    }


def _draw_quartiles(
    axes: Axes, percents: Sequence[float], samples: Sequence[np.ndarray], **look: str
) -> None:
    quartiles = [np.percentile(s, [25, 50, 75]) if s.size else [np.nan] * 3 for s in samples]
    low, median, high = np.transpose(quartiles)
    axes.plot(percents, median, marker="o", markersize=3.5, linewidth=1.4, **look)
    axes.fill_between(percents, low, high, color=look["color"], alpha=0.15, linewidth=0)
