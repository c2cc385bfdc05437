"""Figures of a study: its experiments side by side, and their tickets together."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

from tf_lottery.analysis import studies
from tf_lottery.analysis.aggregate import Group
from tf_lottery.analysis.figures import search
from tf_lottery.analysis.figures.search import EARLY_STOP, Quantity
from tf_lottery.analysis.figures.style import BLACK, COLORS, new_figure, plain, replicates
from tf_lottery.analysis.studies import Found, Study
from tf_lottery.training.history import TICKET

_WIDEST = 5  # experiments in a row
_MARKERS = ("o", "s", "^", "v", "P", "X", "D", "*", "<", ">", "p", "h")
_LINES = ("-", "--", ":")  # the next one where the colors begin anew
# Percent, on an axis of errors: for a wide one and a narrower one.
_WIDE = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)
_NARROW = (0, 30, 50, 70, 80, 85, 90, 93, 95, 97, 98, 98.5, 99, 99.3, 99.5, 99.7, 99.8, 99.9)


def plot_side_by_side(study: Study) -> Figure:
    """Draws each experiment by itself: accuracy, and below it early-stop step, against density.

    A column is an experiment; from the sixth on they go on below. All panels have the same
    axes, and lines and marks are those of `search.plot_search`. The axis of accuracies is
    logarithmic in the error, so that 98 and 99 % are told apart beside 20 %.

    Args:
        study: name -> results, among them those of the dense network.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        ValueError: there is no experiment, or one without a dense network.
    """
    found = studies.gathered(study)
    quantities = (search.quality(studies.all_results(study)), EARLY_STOP)
    bands = math.ceil(len(found) / _WIDEST)
    columns = math.ceil(len(found) / bands)
    with new_figure(1 + 3.8 * bands) as figure:
        figure.suptitle(f"Lottery-ticket searches{replicates(studies.all_results(study))}", fontsize=14)
        grid = figure.subplots(2 * bands, columns, sharex=True, squeeze=False)
        # An experiment's two panels stand in one column.
        pairs = grid.reshape(bands, 2, columns).swapaxes(1, 2).reshape(-1, 2)
        _spread_accuracies(pairs[0, 0], quantities[0], studies.all_groups(found))
        for index, (pair, name) in enumerate(zip(pairs, found, strict=False)):
            for axes, first, quantity in zip(pair, pairs[0], quantities, strict=True):
                if axes is not first:
                    axes.sharey(first)
                search.draw_arms(axes, found[name], quantity, studies.all_arms(found))
                search.label_axes(axes, studies.all_groups(found), quantity, ticks=4)
                axes.tick_params(labelbottom=quantity is EARLY_STOP, labelleft=index % columns == 0)
            pair[0].set_title(name, fontsize=10)
            pair[0].set_xlabel("")
            if index % columns:
                pair[0].set_ylabel("")
                pair[1].set_ylabel("")
        for axes in pairs[len(found) :].flat:
            axes.remove()
        search.add_legend(figure, figure.axes, ncols=7)
    return figure


def plot_together(study: Study) -> Figure:
    """Draws the tickets of all experiments: early-stop step and accuracy against density, and against cost.

    An experiment has a color, a marker and a line of its own; with replicates, points are
    moved a little sideways, so that their bars stand beside each other. The last panel has
    the sparsest level that all experiments have: accuracy against the training steps that
    were spent to find the mask. It is left out where these are the same for all.

    Args:
        study: name -> results, among them those of the dense network.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        ValueError: there is no experiment, or one without a dense network.
    """
    found = {name: {TICKET: by_arm[TICKET]} for name, by_arm in studies.gathered(study).items()}
    quality, level = search.quality(studies.all_results(study)), studies.shared_level(found)
    costs = {by_arm[TICKET][level].mean("search_steps") for by_arm in found.values()}
    panels = 3 if len(costs) > 1 else 2
    with new_figure(0.5 + 3.4 * panels) as figure:
        figure.suptitle(f"Tickets of all experiments{replicates(studies.all_results(study))}", fontsize=14)
        steps, accuracies, *rest = figure.subplots(panels)
        _draw_tickets(steps, found, EARLY_STOP)
        _draw_tickets(accuracies, found, quality)
        for axes in rest:
            _draw_costs(axes, found, level, quality)
            axes.set_title(f"{quality.title}: {studies.kept(found, level)}")
        search.add_legend(figure, figure.axes, ncols=5)
    return figure


def _draw_tickets(axes: Axes, found: Found, quantity: Quantity) -> None:
    """Draws a line for each experiment, each a little to the right where there are bars to be seen."""
    _spread_accuracies(axes, quantity, studies.all_groups(found))
    search.label_axes(axes, studies.all_groups(found), quantity)
    axes.set_title(quantity.title)
    bars = any(len(group.results) > 1 for group in studies.all_groups(found))
    # Not beyond the axis, which ends soon after its last level.
    room = min(0.6 / max(len(by_arm[TICKET]) for by_arm in found.values()), 0.06) if bars else 0
    for index, (name, by_arm) in enumerate(found.items()):
        points = list(by_arm[TICKET].values())
        aside = room * ((index + 0.5) / len(found) - 0.5)
        places = _moved(axes, list(map(search.percent_kept, points)), aside)
        search.draw_curve(axes, places, points, quantity, label=name, **_look(index))


def _draw_costs(axes: Axes, found: Found, level: int, quality: Quantity) -> None:
    """Draws a point for each experiment, beside each other where the cost is the same."""
    points = {name: by_arm[TICKET][level] for name, by_arm in found.items()}
    costs = {name: group.mean("search_steps") for name, group in points.items()}
    _spread_accuracies(axes, quality, list(points.values()))
    axes.set_xscale("symlog", linthresh=10 ** math.floor(math.log10(min(filter(None, costs.values())))))
    axes.set_xlim(-0.5 * axes.xaxis.get_transform().linthresh, 1.6 * max(costs.values()))
    alike, before = Counter(costs.values()), Counter()
    for index, (name, cost) in enumerate(costs.items()):
        place = _moved(axes, [cost], 0.025 * (before[cost] - (alike[cost] - 1) / 2))
        before[cost] += 1
        look = {**_look(index), "linestyle": "", "markersize": 7}
        search.draw_curve(axes, place, [points[name]], quality, label=name, **look)
    dense = {quality.mean(by_arm[TICKET][0]) for by_arm in found.values()}
    if len(dense) == 1:
        axes.axhline(*dense, color=BLACK, linestyle=":", linewidth=1, label="dense")
    axes.set(xlabel="training steps spent to find the mask", ylabel=quality.label)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    plain(axes)


def _spread_accuracies(axes: Axes, quality: Quantity, points: Sequence[Group]) -> None:
    """Makes an axis of accuracies in percent logarithmic in the error; leaves one of losses."""
    if quality.scale == 1:
        return
    # The tenth of a percent gives 100 % a place.
    axes.set_yscale(
        "function",
        functions=(lambda y: -np.log10(np.maximum(100.1 - y, 1e-9)), lambda y: 100.1 - 10.0**-y),
    )
    values = [value for group in points for value in quality.of(group)]
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for ticks in (_NARROW, _WIDE):
        if sum(min(values) <= tick <= max(values) for tick in ticks) > 2:
            axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))


def _moved(axes: Axes, places: Sequence[float], share: float) -> np.ndarray:
    """Returns the places moved to the right by a share of the axis's width."""
    transform = axes.xaxis.get_transform()
    left, right = transform.transform(axes.get_xlim())
    return transform.inverted().transform(transform.transform(np.array(places)) + share * (right - left))


def _look(index: int) -> dict[str, str]:
    return {
        "color": COLORS[index % len(COLORS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _LINES[index // len(COLORS) % len(_LINES)],
    }
