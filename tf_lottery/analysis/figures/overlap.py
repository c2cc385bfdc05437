"""Figures of overlap: against density, and of several runs with each other."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from tf_lottery.analysis.figures.search import percent_axis
from tf_lottery.analysis.figures.style import BLACK, COLORS, MARKERS, draw_ranges, new_figure
from tf_lottery.analysis.overlap import ALL, Overlap, Pair, grouped, mean

_MOST_PANELS = 9  # a network of more layers has the one of all together
_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
_KINDS = {"as they are": "-", "hidden units matched": "--", "by chance": ":", "by chance, matched": "-."}


def plot_overlap(pairs: Sequence[Pair]) -> Figure:
    """Draws Jaccard indices against density: of all layers together, and of each if they are at most eight.

    Groups differ in color and marker. Lines join the means over a group's pairs: solid, with bars
    from the lowest to the highest, for masks as they are; dashed, with hollow markers, after
    matching. What there would be by chance is dotted, and dash-dotted after matching: in black
    where it is the same for all groups.

    Args:
        pairs: at least one.

    Returns:
        A figure 10 inches wide that pyplot does not know of.
    """
    layers = [ALL, *(one.layer for one in pairs[0].layers[:-1])]
    one_network = all([one.layer for one in pair.layers[:-1]] == layers[1:] for pair in pairs)
    layers = layers if one_network and 2 < len(layers) <= _MOST_PANELS else [ALL]
    columns = {1: 1, 2: 2, 3: 3, 4: 2}.get(len(layers), 3)
    rows = math.ceil(len(layers) / columns)
    with new_figure(1.8 + 3.1 * rows) as figure:
        figure.suptitle(
            "Overlap of masks: weights that both keep, as a share of those that either keeps", fontsize=14
        )
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, layer in zip(panels.flat, layers):
            _draw(axes, pairs, layer)
            axes.set_title(layer)
        _label(panels, pairs)
        for axes in panels.flat[len(layers) :]:
            axes.remove()
        _explain(figure, pairs)
    return figure


def plot_between(names: Sequence[str], pairs: Mapping[tuple[str, str], Sequence[Pair]], title: str) -> Figure:
    """Draws the overlap of each run with each other as a square: in percent, and below it what chance gives.

    Args:
        names: of the runs, in the order of rows and columns.
        pairs: two names -> pairs of masks, of all layers together and of one density; a square that
            has none stays empty.
        title: what stands above all.

    Returns:
        A figure that pyplot does not know of.
    """
    size = len(names)
    table = np.full((size, size), np.nan)
    with new_figure(1.5 + 0.75 * size) as figure:
        axes = figure.subplots()
        for (a, b), found in pairs.items():
            one = mean(found)
            for row, column in ((names.index(a), names.index(b)), (names.index(b), names.index(a))):
                table[row, column] = 100 * one.jaccard
                text = f"{100 * one.jaccard:.1f}\n({100 * one.expected:.1f})"
                light = one.jaccard < 0.5
                axes.text(
                    column, row, text, ha="center", va="center", color="white" if light else BLACK, fontsize=9
                )
        image = axes.imshow(table, cmap="cividis", vmin=0, vmax=100)
        axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(title)
        figure.colorbar(
            image, ax=axes, label="overlap (Jaccard index, %); in parentheses: by chance", shrink=0.9
        )
    return figure


def _draw(axes: Axes, pairs: Sequence[Pair], layer: str) -> None:
    groups = list(grouped(pairs).values())
    for index, levels in enumerate(groups):
        look = {**_look(index), "linewidth": 1.6, "markersize": 5}
        places, means = _curve(levels, layer, lambda one: one.jaccard)
        values = [
            [one.jaccard for pair in of for one in pair.layers if one.layer == layer]
            for of in levels.values()
        ]
        if any(len(set(found)) > 1 for found in values):
            draw_ranges(axes, places, means, values, look["color"])
        axes.plot(places, means, _KINDS["as they are"], **look)
        matched = _KINDS["hidden units matched"]
        axes.plot(*_curve(levels, layer, lambda one: one.matched), matched, **look, markerfacecolor="white")
    for kind, value in (("by chance", _expected), ("by chance, matched", _matched_expected)):
        curves = [_curve(levels, layer, value) for levels in groups]
        alike = len({tuple(np.round(curve, 3).ravel()) for curve in curves}) == 1
        for index, curve in enumerate(curves[:1] if alike else curves):
            axes.plot(*curve, _KINDS[kind], color=BLACK if alike else _look(index)["color"], linewidth=1.6)


def _expected(one: Overlap) -> float:
    return one.expected


def _matched_expected(one: Overlap) -> float:
    return one.matched_expected


def _curve(
    levels: Mapping[int, Sequence[Pair]], layer: str, value: Callable[[Overlap], float]
) -> tuple[list[float], list[float]]:
    """Returns percent kept of all layers, and the value's mean over pairs."""
    return (
        [100 * statistics.fmean(mean(of).densities) for of in levels.values()],
        [value(mean(of, layer)) for of in levels.values()],
    )


def _look(index: int) -> dict[str, Any]:
    # From the seventh on, a color comes again with another marker.
    marker = MARKERS[(index + index // len(COLORS)) % len(MARKERS)]
    return {"color": COLORS[index % len(COLORS)], "marker": marker}


def _label(panels: np.ndarray, pairs: Sequence[Pair]) -> None:
    """Labels the axes that all panels share."""
    percents = [100 * statistics.fmean(pair.together.densities) for pair in pairs]
    found = [v for pair in pairs for one in pair.layers for v in (one.jaccard, one.expected) if v > 0]
    for axes in panels.flat:
        percent_axis(axes, percents, ticks=18 // panels.shape[1])
    axes.set_yscale("log")
    axes.set_ylim(min(found) / 1.3, 1.15)
    axes.yaxis.set_major_locator(FixedLocator(_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for axes in panels[:, 0]:
        axes.set_ylabel("overlap (Jaccard index)")
    for axes in panels[:-1].flat:
        axes.set_xlabel("")


def _explain(figure: Figure, pairs: Sequence[Pair]) -> None:
    """Says below the figure which group has which color, and what the kinds of line are."""
    handles = {group: Line2D([], [], linewidth=1.6, **_look(i)) for i, group in enumerate(grouped(pairs))}
    matched = any(not math.isnan(pair.together.matched) for pair in pairs)
    for kind, line in list(_KINDS.items()) if matched else list(_KINDS.items())[::2]:
        handles[kind] = Line2D([], [], color=BLACK, linestyle=line, linewidth=1.6)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False)
