"""Studies: several experiments side by side, as a table and two figures."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

from tf_lottery.analysis import plots, tables, verdict
from tf_lottery.analysis.aggregate import Group, first_measured, groups
from tf_lottery.analysis.plots import BLACK, COLORS, EARLY_STOP, Quantity
from tf_lottery.training.history import TICKET, Result

Study = Mapping[str, Sequence[Result]]
Found = dict[str, dict[str, dict[int, Group]]]  # name -> arm -> level -> replicates

_WIDEST = 5  # experiments in a row
_MARKERS = ("o", "s", "^", "v", "P", "X", "D", "*", "<", ">", "p", "h")
_LINES = ("-", "--", ":")  # the next one where the colors begin anew
# Percent, on an axis of errors: for a wide one and a narrower one.
_WIDE = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)
_NARROW = (0, 30, 50, 70, 80, 85, 90, 93, 95, 97, 98, 98.5, 99, 99.3, 99.5, 99.7, 99.8, 99.9)


def table(study: Study) -> str:
    """Returns a table with a row for each experiment.

    Its columns are the dense network's early-stop step and test accuracy; how many of the
    weights the sparsest winning and the sparsest matching ticket keep; and at the sparsest
    level that all experiments have, the ticket's early-stop step and test accuracy, each
    control's test accuracy, and the training steps that were spent to find the mask.
    Accuracies and replicates are as in `tables.table`.

    Args:
        study: name -> results, among them those of the dense network.

    Raises:
        ValueError: there is no experiment, or one without a dense network.

    Example:
        >>> def row(level, arm, density, step, accuracy, cost=0):
        ...     accuracies = (accuracy, 0.1, accuracy, accuracy)
        ...     return Result(1, level, arm, density, step, *accuracies, 1000, search_steps=cost)
        >>> dense = row(0, "ticket", 1.0, 700, 0.967)
        >>> iterative = [dense, row(1, "ticket", 0.8, 450, 0.972, 1000), row(1, "reinit", 0.8, 900, 0.951)]
        >>> print(table({"iterative": iterative, "random": [dense, row(1, "ticket", 0.8, 800, 0.966)]}))
                           dense            sparsest, kept %      level 1, 80.00 % of the weights kept
                   early stop  test acc %  winning  matching  early stop  test acc %  reinit  search steps
        iterative         700       96.70    80.00     80.00         450       97.20   95.10         1,000
        random            700       96.70        -     80.00         800       96.60       -             0
    """
    found = _gathered(study)
    level, measure = _shared_level(found), first_measured(_all(study))
    controls = [arm for arm in _arms(found) if arm != TICKET]
    reached = ["early stop", measure.column]
    rows = [["", *reached, "winning", "matching", *reached, *controls, "search steps"]]
    for name, by_arm in found.items():
        tickets, judged = by_arm[TICKET], verdict.judge(study[name])
        sparsest = [_percent(tickets[n]) if n else "-" for n in (judged.winning, judged.matching)]
        there = [*tables.cells(tickets[level], measure)]
        there += [tables.cells(by_arm.get(arm, {}).get(level), measure)[1] for arm in controls]
        there.append(f"{tickets[level].mean('search_steps'):,.0f}")
        rows.append([name, *tables.cells(tickets[0], measure), *sparsest, *there])
    heads = [("", 1), ("dense", 2), ("sparsest, kept %", 2), (_kept(found, level), 3 + len(controls))]
    return "\n".join([*_aligned(heads, rows), *tables.notes(_groups(found))])


def plot_side_by_side(study: Study) -> Figure:
    """Draws each experiment by itself: accuracy, and below it early-stop step, against density.

    A column is an experiment; from the sixth on they go on below. All panels have the same
    axes, and lines and marks are those of `plots.plot_search`. The axis of accuracies is
    logarithmic in the error, so that 98 and 99 % are told apart beside 20 %.

    Args:
        study: name -> results, among them those of the dense network.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        ValueError: there is no experiment, or one without a dense network.
    """
    found = _gathered(study)
    quantities = (plots.quality(_all(study)), EARLY_STOP)
    bands = math.ceil(len(found) / _WIDEST)
    columns = math.ceil(len(found) / bands)
    with plots.new_figure(1 + 3.8 * bands) as figure:
        figure.suptitle(f"Lottery-ticket searches{_replicates(study)}", fontsize=14)
        grid = figure.subplots(2 * bands, columns, sharex=True, squeeze=False)
        # An experiment's two panels stand in one column.
        pairs = grid.reshape(bands, 2, columns).swapaxes(1, 2).reshape(-1, 2)
        _spread_accuracies(pairs[0, 0], quantities[0], _groups(found))
        for index, (pair, name) in enumerate(zip(pairs, found, strict=False)):
            for axes, first, quantity in zip(pair, pairs[0], quantities, strict=True):
                if axes is not first:
                    axes.sharey(first)
                plots.draw_arms(axes, found[name], quantity, _arms(found))
                plots.label_axes(axes, _groups(found), quantity, ticks=4)
                axes.tick_params(labelbottom=quantity is EARLY_STOP, labelleft=index % columns == 0)
            pair[0].set_title(name, fontsize=10)
            pair[0].set_xlabel("")
            if index % columns:
                pair[0].set_ylabel("")
                pair[1].set_ylabel("")
        for axes in pairs[len(found) :].flat:
            axes.remove()
        plots.add_legend(figure, figure.axes, ncols=7)
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
    found = {name: {TICKET: by_arm[TICKET]} for name, by_arm in _gathered(study).items()}
    quality, level = plots.quality(_all(study)), _shared_level(found)
    costs = {by_arm[TICKET][level].mean("search_steps") for by_arm in found.values()}
    panels = 3 if len(costs) > 1 else 2
    with plots.new_figure(0.5 + 3.4 * panels) as figure:
        figure.suptitle(f"Tickets of all experiments{_replicates(study)}", fontsize=14)
        steps, accuracies, *rest = figure.subplots(panels)
        _draw_tickets(steps, found, EARLY_STOP)
        _draw_tickets(accuracies, found, quality)
        for axes in rest:
            _draw_costs(axes, found, level, quality)
            axes.set_title(f"{quality.title}: {_kept(found, level)}")
        plots.add_legend(figure, figure.axes, ncols=5)
    return figure


def _draw_tickets(axes: Axes, found: Found, quantity: Quantity) -> None:
    """Draws a line for each experiment, each a little to the right where there are bars to be seen."""
    _spread_accuracies(axes, quantity, _groups(found))
    plots.label_axes(axes, _groups(found), quantity)
    axes.set_title(quantity.title)
    bars = any(len(group.results) > 1 for group in _groups(found))
    # Not beyond the axis, which ends soon after its last level.
    room = min(0.6 / max(len(by_arm[TICKET]) for by_arm in found.values()), 0.06) if bars else 0
    for index, (name, by_arm) in enumerate(found.items()):
        points = list(by_arm[TICKET].values())
        aside = room * ((index + 0.5) / len(found) - 0.5)
        places = _moved(axes, list(map(plots.percent_kept, points)), aside)
        plots.draw_curve(axes, places, points, quantity, label=name, **_look(index))


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
        plots.draw_curve(axes, place, [points[name]], quality, label=name, **look)
    dense = {quality.mean(by_arm[TICKET][0]) for by_arm in found.values()}
    if len(dense) == 1:
        axes.axhline(*dense, color=BLACK, linestyle=":", linewidth=1, label="dense")
    axes.set(xlabel="training steps spent to find the mask", ylabel=quality.label)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    plots.plain(axes)


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


def _gathered(study: Study) -> Found:
    if not study:
        raise ValueError("Expected at least one experiment. Received: none.")
    found = {name: groups(results) for name, results in study.items()}
    for name, by_arm in found.items():
        if 0 not in by_arm.get(TICKET, {}):
            raise ValueError(f"Expected a result of the dense network in each experiment. {name!r} has none.")
    return found


def _all(study: Study) -> list[Result]:
    return [result for results in study.values() for result in results]


def _groups(found: Found) -> list[Group]:
    return [group for by_arm in found.values() for levels in by_arm.values() for group in levels.values()]


def _arms(found: Found) -> list[str]:
    return list(dict.fromkeys(arm for by_arm in found.values() for arm in by_arm))


def _shared_level(found: Found) -> int:
    """Returns the sparsest level that all experiments have."""
    return max(set.intersection(*(set(by_arm[TICKET]) for by_arm in found.values())))


def _replicates(study: Study) -> str:
    replicates = len({result.replicate for result in _all(study)})
    return f": mean and range of {replicates} replicates" if replicates > 1 else ""


def _percent(group: Group) -> str:
    return f"{plots.percent_kept(group):.2f}"


def _kept(found: Found, level: int) -> str:
    """Returns `level 11, 8.59 % of the weights kept`."""
    percents = sorted({_percent(by_arm[TICKET][level]) for by_arm in found.values()}, key=float)
    return f"level {level}, {' to '.join(dict.fromkeys([percents[0], percents[-1]]))} % of the weights kept"


def _aligned(heads: Sequence[tuple[str, int]], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns lines in columns, the first to the left; above, heads that span so many of them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    above, start = [], 0
    for text, count in heads:
        width = sum(widths[start : start + count]) + len(tables.GAP) * (count - 1)
        widths[start] += max(0, len(text) - width)
        above.append(text.center(max(width, len(text))))
        start += count
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return [tables.GAP.join(line).rstrip() for line in [above, *lines]]
