"""Figure: what tickets and their controls look like, against density."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from tf_lottery.analysis.aggregate import Group, groups
from tf_lottery.analysis.figures.search import Quantity, add_legend, draw_arms, label_axes, quality
from tf_lottery.analysis.figures.style import new_figure, replicates
from tf_lottery.analysis.structure_table import Compared
from tf_lottery.training.history import TICKET

_COLUMNS = 3
_RANDOM = "variance / random masks'"
_PANELS = (
    Quantity("dead_units", 1, "Dead units", "units on no path"),
    Quantity("paths_times_random", 1, "Paths from input to output", "number / random masks'"),
    Quantity("in_degree_times_random", 1, "Weights into each unit", _RANDOM),
    Quantity("out_degree_times_random", 1, "Weights out of each input", _RANDOM),
    Quantity("spectral_gap", 1, "Spectral gap", "gap (mean over layers)"),
    Quantity("effective_rank_end", 1, "Effective rank after training", "rank (mean over layers)"),
    Quantity("sign_agreement", 100, "Signs kept through training", "kept weights (%)"),
    Quantity("gradient_norm", 1, "Gradient before training", "norm over kept weights"),
)


def plot_structure(networks: Sequence[Compared]) -> Figure:
    """Draws accuracy, and a panel for each quantity that the networks have, against density.

    Lines, colors and marks are those of `search.plot_search`. Where an arm is as the ticket at every level,
    as those with its masks are in what masks alone tell, the ticket's line stands for both.

    Args:
        networks: of all levels and arms, in any order.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        ValueError: there are no networks.
    """
    by_arm = groups(networks)
    points = [group for levels in by_arm.values() for group in levels.values()]
    there = [q for q in _PANELS if any(math.isfinite(v) for g in points for v in q.of(g))]
    panels = [quality(networks), *there]
    rows = math.ceil(len(panels) / _COLUMNS)
    with new_figure(1 + 2.5 * rows) as figure:
        figure.suptitle(f"Structure of tickets and controls{replicates(networks)}", fontsize=14)
        grid = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        for index, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
            apart = _apart(by_arm, panel)
            draw_arms(axes, apart, panel, list(by_arm))
            if len(apart) < len(by_arm):
                axes.plot([], [], linestyle="", label="without a line: as the ticket")
            label_axes(axes, points, panel, ticks=5)
            axes.set_title(panel.title, fontsize=11)
            if index + _COLUMNS < len(panels):
                axes.set_xlabel("")
                axes.tick_params(labelbottom=False)
        for axes in grid[len(panels) :]:
            axes.remove()
        add_legend(figure, figure.axes, ncols=4)
    return figure


def _apart(by_arm: Mapping[str, Mapping[int, Group]], panel: Quantity) -> dict[str, Mapping[int, Group]]:
    """Returns the ticket, and the arms that are not the same as it at every level."""
    tickets = by_arm.get(TICKET, {})

    def same(levels: Mapping[int, Group]) -> bool:
        return all(n in tickets and panel.of(group) == panel.of(tickets[n]) for n, group in levels.items())

    return {arm: levels for arm, levels in by_arm.items() if arm == TICKET or not same(levels)}
